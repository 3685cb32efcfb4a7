"""`run` and `script`: Python in a workflow file, compiled once into a real function.

Its parameters are `state`, `parallel_results` (None outside fan-ins), `config` and `cancel_token`; its globals are
`variables` and `json`. Lines and columns are the file's own, so that a traceback points into the workflow.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from tea.nodes.code import expression_code, function_code
from tea.nodes.context import Context, KeyPath, Updates, updates_of


def python_function(code: str, path: KeyPath, name: str, context: Context) -> Callable[..., Updates]:
    """The node function of a block of Python. Raises SyntaxError."""
    names = _globals(context)
    exec(function_code(code, context.place(path, code)), names)
    body = names.pop("node")
    body.__code__ = body.__code__.replace(co_name=name, co_qualname=name)  # what a traceback shows

    def run(state: Any, parallel_results: Any = None, config: Any = None, cancel_token: Any = None) -> Updates:
        result = body(state, parallel_results, config, cancel_token)
        return result if result.__class__ is dict else updates_of(name, result)

    return run


def expression_function(
    spec: Mapping[str, Any], path: KeyPath, name: str, context: Context
) -> Callable[..., Updates]:
    """The node function of `run: {type: expression, value: ..., output_key: ...}`. Raises SyntaxError."""
    value, key = spec["value"], spec["output_key"]
    compiled = expression_code(value, context.place((*path, "value"), value))

    def run(state: Any, parallel_results: Any = None, config: Any = None) -> Updates:
        names = {**_globals(context), "state": state, "parallel_results": parallel_results, "config": config}
        return {key: eval(compiled, names)}

    return run


def _globals(context: Context) -> dict[str, Any]:
    return {"__name__": "tea_workflow", "json": json, "variables": context.variables}
