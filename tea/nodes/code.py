"""Python from a workflow file, compiled so that its lines and columns are those of the file.

A traceback then shows `workflow.yaml:LINE` and the line itself. Nothing is run here.
"""

from __future__ import annotations

import ast
import linecache
import zlib
from dataclasses import dataclass
from types import CodeType
from typing import Any

PARAMETERS = ("state", "parallel_results", "config", "cancel_token")
"""What a block of Python may ask for; all but the state may be missing."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a piece of code stands: the file, the line before its first line, and its indentation."""

    file: str
    line_offset: int
    column_offset: int


def loose_place(code: str, name: str) -> Place:
    """A place for code that stands in no file: a made-up file name, under which tracebacks find the code."""
    file = f"<{name} {zlib.crc32(code.encode()):08x}>"
    linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
    return Place(file, 0, 0)


def function_code(code: str, place: Place) -> CodeType:
    """The code of a module that defines one function, `node`, whose body is `code`. Raises SyntaxError."""
    body = ast.parse(code, place.file).body or [ast.Pass(lineno=1, col_offset=0, end_lineno=1, end_col_offset=0)]
    for statement in body:
        _shift(statement, place)
    defaults: list[ast.expr] = [ast.Constant(None) for _ in PARAMETERS[1:]]
    arguments = ast.arguments([], [ast.arg(p) for p in PARAMETERS], None, [], [], None, defaults)
    function = ast.FunctionDef("node", arguments, body, [])
    function.lineno, function.end_lineno = body[0].lineno, body[-1].end_lineno
    function.col_offset, function.end_col_offset = 0, body[-1].end_col_offset
    module = ast.fix_missing_locations(ast.Module([function], []))
    return compile(module, place.file, "exec")


def expression_code(code: str, place: Place) -> CodeType:
    """The code of one expression. Raises SyntaxError."""
    tree = ast.parse(code.strip(), place.file, mode="eval")
    _shift(tree.body, place)
    return compile(tree, place.file, "eval")


def _shift(tree: ast.AST, place: Place) -> None:
    for node in ast.walk(tree):
        at: Any = node
        if hasattr(at, "lineno"):
            at.lineno += place.line_offset
            at.col_offset += place.column_offset
            at.end_lineno = (at.end_lineno or at.lineno) + place.line_offset
            at.end_col_offset = (at.end_col_offset or 0) + place.column_offset
