"""`tea validate`: every mistake of every file, at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from tea.cli.errors import EXIT_INPUT, say
from tea.cli.options import json_option

if TYPE_CHECKING:
    from tea.dialect import Problem

HELP = """Read workflow files and name every mistake and every warning in them: file, line, column, what is wrong, and
a hint. Runs nothing, but imports the modules that the workflows import.

\b
  tea validate workflow.yaml
  tea validate flows/*.yaml --json

Exits with 2 when there is an error; warnings alone give 0.
"""


@click.command(help=HELP, short_help="Name every mistake in workflow files, and run nothing.")
@click.argument("workflows", metavar="WORKFLOW...", nargs=-1, required=True)
@json_option
def validate(workflows: tuple[str, ...], as_json: bool) -> int:
    found = {path: _problems(path) for path in workflows}
    errors = sum(problem.level == "error" for problems in found.values() for problem in problems)
    warnings = sum(map(len, found.values())) - errors
    if as_json:
        click.echo(json.dumps({"ok": not errors, "files": [_json(*item) for item in found.items()]}, indent=2))
        return EXIT_INPUT if errors else 0
    for path, problems in found.items():
        for problem in problems:
            click.echo(str(problem))
        if not any(problem.level == "error" for problem in problems):
            click.echo(f"{path}: ok")
    if errors or warnings:
        say(f"{_count(errors, 'error')}, {_count(warnings, 'warning')} in {_count(len(found), 'file')}")
    return EXIT_INPUT if errors else 0


def _problems(path: str) -> list[Problem]:
    """What is wrong with a file; a file that can't be read is a mistake like any other."""
    from tea.cli.check import checked_graph
    from tea.dialect import Problem, WorkflowError, load_file

    try:
        workflow = load_file(path)
    except OSError as error:
        return [Problem(path, 0, 0, f"can't be read: {error.strerror}")]
    except WorkflowError as error:
        return error.problems
    try:
        checked_graph(workflow)
    except WorkflowError as error:
        return [*workflow.problems, *error.problems]
    except ValueError as error:
        return [*workflow.problems, Problem(path, 0, 0, str(error))]
    return workflow.problems


def _json(path: str, problems: list[Problem]) -> dict[str, Any]:
    members = ("level", "line", "column", "message", "hint", "where")
    return {
        "file": path,
        "ok": not any(problem.level == "error" for problem in problems),
        "problems": [{name: getattr(problem, name) for name in members} for problem in problems],
    }


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
