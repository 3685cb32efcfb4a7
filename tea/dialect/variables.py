"""Which of a workflow's variables some of its nodes use, as far as that can be told by reading."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from tea import templates
from tea.dialect.code import RISKY_NAMES

_CODE = ("run", "script")
_CONDITIONS = ("when", "if", "condition")


class _Unclear(Exception):
    """Something reads variables in a way that can't be seen."""


def needed(variables: Mapping[str, Any], nodes: Any, edges: Any, imports: bool) -> dict[str, Any]:
    """The variables that nodes and edges use; all of them where reading does not tell for sure."""
    if not variables or imports:  # an imported module may read them from the engine
        return dict(variables)
    try:
        used = {name for part in (nodes, edges) for name in _used(part)}
    except (_Unclear, SyntaxError, ValueError, RecursionError):
        return dict(variables)
    return {name: value for name, value in variables.items() if name in used}


def _used(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for one in value:
            yield from _used(one)
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _used_under(key, one)
    elif templates.is_template(value):
        yield from _in_template(templates.names_in(value))


def _used_under(key: str, value: Any) -> Iterator[str]:
    if key == "uses":
        raise _Unclear  # an action may take the graph, and with it the whole workflow
    if key == "subgraph" and not isinstance(value, str):
        return  # a workflow of its own, with variables of its own
    if key in _CODE and isinstance(value, str):
        yield from _in_python(ast.parse(value))
    elif key in _CODE and isinstance(value, Mapping):
        yield from _in_python(ast.parse(str(value.get("value", "")).strip()))
    elif key in _CONDITIONS and isinstance(value, str):
        yield from _in_template(templates.names_in(value.removeprefix("!"), expression=True))
    elif key == "condition" and isinstance(value, Mapping):
        yield from _used_under("when", value.get("value"))
    else:
        yield from _used(value)


def _in_python(tree: ast.AST) -> Iterator[str]:
    told: set[int] = set()
    for node in ast.walk(tree):
        owner, name = _python_lookup(node)
        if owner is not None:
            told.add(id(owner))
            yield name
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and (
            (node.id == "variables" and id(node) not in told) or node.id in RISKY_NAMES
        ):
            raise _Unclear


def _python_lookup(node: ast.AST) -> tuple[ast.AST | None, str]:
    """`variables["name"]` or `variables.get("name")`: the Name node of `variables`, and the name."""
    if isinstance(node, ast.Subscript):
        owner, key = node.value, node.slice
    elif (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args
    ):
        owner, key = node.func.value, node.args[0]
    else:
        return None, ""
    if isinstance(owner, ast.Name) and owner.id == "variables" and isinstance(key, ast.Constant):
        return owner, str(key.value)
    return None, ""


def _in_template(tree: Any) -> Iterator[str]:
    from jinja2 import nodes

    told: set[int] = set()
    for node in tree.find_all((nodes.Getattr, nodes.Getitem, nodes.Call)):
        owner, name = _template_lookup(node, nodes)
        if owner is not None:
            told.add(id(owner))
            yield name
    for node in tree.find_all(nodes.Name):
        if node.name == "variables" and id(node) not in told:
            raise _Unclear


def _template_lookup(node: Any, nodes: Any) -> tuple[Any, str]:
    """`variables.name`, `variables["name"]` or `variables.get("name")` in a template."""
    name: Any = None
    owner = None
    if isinstance(node, nodes.Getattr) and not hasattr(dict, node.attr):  # `variables.items()` reads them all
        owner, name = node.node, node.attr
    elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        owner, name = node.node, node.arg.value
    elif (
        isinstance(node, nodes.Call)
        and isinstance(node.node, nodes.Getattr)
        and node.node.attr == "get"
        and node.args
    ):
        owner, name = node.node.node, getattr(node.args[0], "value", None)
        if name is None:
            raise _Unclear
    if isinstance(owner, nodes.Name) and owner.name == "variables":
        return owner, str(name)
    return None, ""
