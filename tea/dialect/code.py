"""Code inside a workflow: where it stands in the file, and whether it can be understood.

Python in `run`, templates and expressions in values are parsed when the workflow is read. Nothing is run here.
"""

from __future__ import annotations

import ast
from typing import Any

from tea import templates
from tea.dialect.kinds import Kind, Report
from tea.dialect.load import Source
from tea.dialect.problems import KeyPath, Problem, path_text
from tea.nodes.code import Place, expression_code, function_code, loose_place


def place_of(source: Source, path: KeyPath, code: str) -> Place:
    """The place of the code at a key path; a made-up file that tracebacks can show, where there is no text."""
    located = source.find(path) if source.root else None
    if located is None or not source.file:
        return loose_place(code, f"{source.file or 'workflow'} {path_text(path)}")
    if located.style in ("|", ">"):
        return Place(source.file, located.line, _indentation(source.text, located.line, code))
    quote = 1 if located.style else 0
    return Place(source.file, located.line - 1, located.column - 1 + quote)


def _indentation(text: str, first: int, code: str) -> int:
    """How far a block scalar is indented: found where the first line of code that isn't blank stands."""
    lines = text.splitlines()
    for number, line in enumerate(code.splitlines()):
        if line.strip() and first + number < len(lines):
            return max(lines[first + number].find(line), 0)
    return 0


# -- kinds that look into code ---------------------------------------------------------------------------------


def _look_at_python(value: str, path: KeyPath, report: Report) -> None:
    _look_at_code(value, path, report, expression=False)


def _look_at_python_expression(value: str, path: KeyPath, report: Report) -> None:
    _look_at_code(value, path, report, expression=True)


def _look_at_code(value: str, path: KeyPath, report: Report, expression: bool) -> None:
    source = report.source
    place = place_of(source, path, value) if source.root else Place("<code>", 0, 0)
    try:
        if expression:
            expression_code(value, place)
        else:
            function_code(value, place)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        report.problems.append(_python_problem(error, value, path, source, place))


def _python_problem(error: Exception, code: str, path: KeyPath, source: Source, place: Place) -> Problem:
    """ast.parse counts lines from the code's start, compile from the file's: the shift tells which one spoke."""
    line, column = source.spot(path)
    message = f"{path_text(path)}: Python does not understand this: {getattr(error, 'msg', None) or error}"
    if isinstance(error, SyntaxError) and error.lineno and source.root:
        parsed = _parses(code)
        line = error.lineno if parsed else error.lineno + place.line_offset
        column = (error.offset or 1) if parsed else (error.offset or 1) + place.column_offset
    elif isinstance(error, SyntaxError) and error.lineno:
        message += f", in line {error.lineno} of the code"
    return Problem(source.file, line, column, message, "", path_text(path))


def _parses(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _look_at_template(value: Any, path: KeyPath, report: Report) -> None:
    """Check every template in a value, however deep."""
    if templates.is_template(value):
        _try_template(templates.compile_template, value, path, report)
    elif isinstance(value, dict):
        for key, one in value.items():
            _look_at_template(one, (*path, key), report)
    elif isinstance(value, list):
        for index, one in enumerate(value):
            _look_at_template(one, (*path, index), report)


def _look_at_condition(value: Any, path: KeyPath, report: Report) -> None:
    if isinstance(value, str):
        _try_template(templates.compile_expression, value.removeprefix("!"), path, report)


def _try_template(compiler: Any, value: str, path: KeyPath, report: Report) -> None:
    try:
        compiler(value)
    except templates.TemplateSyntax as error:
        located = report.source.find(path) if report.source.root else None
        line, column = report.source.spot(path)
        if located is not None and located.style in ("|", ">"):
            line, column = located.line + error.line, 1
        message = f"{path_text(path)}: not a valid template: {error}"
        report.problems.append(Problem(report.source.file, line, column, message, "", path_text(path)))


PYTHON = Kind("text with Python code", lambda value: isinstance(value, str), _look_at_python)
PYTHON_EXPRESSION = Kind(
    "text with one Python expression",
    lambda value: isinstance(value, str) and bool(value.strip()),
    _look_at_python_expression,
)
TEMPLATES = Kind("anything", lambda value: True, _look_at_template)
TEMPLATE_MAPPING = Kind("a mapping", lambda value: isinstance(value, dict), _look_at_template)
TEMPLATE_TEXT = Kind("text", lambda value: isinstance(value, str) and bool(value), _look_at_template)
CONDITION = Kind(
    "an expression, true or false",
    lambda value: isinstance(value, bool) or (isinstance(value, str) and bool(value.strip().strip("!"))),
    _look_at_condition,
)

RISKY_NAMES = frozenset({"globals", "locals", "vars", "eval", "exec", "compile", "__import__", "getattr"})
"""Names by which code may reach things that can't be seen by reading it."""
