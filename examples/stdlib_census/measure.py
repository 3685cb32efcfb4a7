"""What the census does: find source files, measure one with `ast`, rank what all of them gave.

Functions of a workflow are plain functions. They know nothing of branches, strategies or job directories, and can be
tried at a prompt:

    >>> measure(__file__)["file"]
    'stdlib_census/measure.py'

Run as a program it prints a census that `tea run ... --output FILE` wrote: `python measure.py FILE`.
"""

from __future__ import annotations

import ast
import json
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
STDLIB = Path(sysconfig.get_path("stdlib")).resolve()

SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
"""Folders that are passed over: other people's packages, and tests, some of which are broken on purpose."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


# -- find -----------------------------------------------------------------------------------------------------------


def sources() -> list[str]:
    """The source files of the running Python's standard library, and those in `broken/`, which do not parse."""
    return [str(path) for path in (*_below(STDLIB), *_below(HERE / "broken"))]


def _below(folder: Path) -> list[Path]:
    found = folder.rglob("*.py")
    return sorted(path for path in found if SKIPPED.isdisjoint(path.relative_to(folder).parts))


def names() -> list[str]:
    """The same files as people know them: for hosts, on which they lie elsewhere."""
    return [shown(path) for path in sources()]


def located(name: str | Path) -> Path:
    """Where a file lies on this machine. A path stays as it is."""
    path = STDLIB / name
    return path if path.exists() else HERE.parent / name


def shown(path: str | Path) -> str:
    """A path as people know it: `json/decoder.py`."""
    path = located(path)
    return str(path.relative_to(STDLIB if path.is_relative_to(STDLIB) else HERE.parent))


# -- measure --------------------------------------------------------------------------------------------------------


def measure(path: str) -> dict[str, Any]:
    """Lines, functions, the longest and the most complex one of a file. Raises SyntaxError for what is no Python."""
    source = located(path).read_bytes()
    functions = [_measured(name, node) for name, node in _functions(ast.parse(source, path))]
    return {
        "file": shown(path),
        "lines": source.count(b"\n"),
        "functions": len(functions),
        "complexity": sum(function["complexity"] for function in functions),
        "longest": max(functions, key=lambda function: function["lines"], default=None),
        "most_complex": max(functions, key=lambda function: function["complexity"], default=None),
    }


def _functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Every function with its qualified name: methods and functions in functions, too."""
    for node in ast.iter_child_nodes(tree):
        name = f"{prefix}{node.name}" if isinstance(node, Function | ast.ClassDef) else ""
        if isinstance(node, Function):
            yield name, node
        yield from _functions(node, f"{name}." if name else prefix)


def _measured(name: str, node: Function) -> dict[str, Any]:
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    return {"name": name, "line": node.lineno, "lines": lines, "complexity": complexity(node)}


def complexity(function: Function) -> int:
    """The cyclomatic complexity of a function: the number of its decision points, plus one.

    After T. J. McCabe, A Complexity Measure, IEEE Transactions on Software Engineering SE-2 (1976), counting each
    operand of `and` and `or` as a decision of its own. Functions and classes inside it count for themselves.
    """
    return 1 + sum(_decisions(node) for node in _own_nodes(function))


def _own_nodes(function: Function) -> Iterator[ast.AST]:
    """The nodes of a function's body, without those of functions and classes that are defined in it."""
    pending: list[ast.AST] = list(function.body)
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, Function | ast.ClassDef):
            pending.extend(ast.iter_child_nodes(node))


def _decisions(node: ast.AST) -> int:
    """How many ways more there are because of this node alone."""
    match node:
        case ast.If() | ast.IfExp() | ast.For() | ast.AsyncFor() | ast.While() | ast.ExceptHandler():
            return 1
        case ast.BoolOp(values=operands):
            return len(operands) - 1
        case ast.comprehension(ifs=conditions):
            return 1 + len(conditions)
        case ast.Match(cases=cases):
            return sum(not _catches_all(case) for case in cases)
    return 0


def _catches_all(case: ast.match_case) -> bool:
    """`case _:` and `case name:` are the way that is left, not a decision."""
    return case.guard is None and isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None


# -- rank -----------------------------------------------------------------------------------------------------------


def rank(parallel_results: Sequence[Any], top: int) -> dict[str, Any]:
    """The census: totals, the `top` functions, and the files that could not be measured with the reason for each.

    There is one result for each file, in the order of the files, whatever became of it.
    """
    measured = [result["measures"] for result in parallel_results if result.success]
    return {
        "totals": {key: sum(one[key] for one in measured) for key in ("lines", "functions", "complexity")},
        "files": len(parallel_results),
        "most_complex": _top(measured, "most_complex", "complexity", top),
        "longest": _top(measured, "longest", "lines", top),
        "failed": [_failure(result) for result in parallel_results if not result.success],
    }


def _top(measured: list[dict[str, Any]], kind: str, by: str, top: int) -> list[dict[str, Any]]:
    """The largest of each file's `kind`, largest first; equals in the order of their files, so always the same."""
    found = [{"file": one["file"], **one[kind]} for one in measured if one[kind]]
    return sorted(found, key=lambda function: -function[by])[:top]


def _failure(result: Any) -> dict[str, str]:
    return {"file": shown(result["path"]), "error_type": result.error_type, "error": result.error}


# -- print ----------------------------------------------------------------------------------------------------------


def report(census: dict[str, Any]) -> str:
    """A census as text."""
    totals = census["totals"]
    lines = [
        f"{census['files']} files: {totals['lines']:,} lines, {totals['functions']:,} functions, "
        f"cyclomatic complexity {totals['complexity']:,}",
        "",
        "complexity  lines  most complex function of a file",
        *map(_row, census["most_complex"]),
        "",
        "complexity  lines  longest function of a file",
        *map(_row, census["longest"]),
        "",
        "not measured:",
        *(f"  {one['file']}: {one['error_type']}: {one['error']}" for one in census["failed"]),
    ]
    return "\n".join(lines)


def _row(function: dict[str, Any]) -> str:
    place = f"{function['file']}:{function['line']}"
    return f"{function['complexity']:10}  {function['lines']:5}  {function['name']}  ({place})"


if __name__ == "__main__":
    print(report(json.loads(Path(sys.argv[1]).read_text())["census"]))
