"""Options that several commands share."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_SPOOL = ".tea/spool"


def spool_option(function: F) -> F:
    """`--spool DIR`, also from TEA_SPOOL; None when neither is given."""
    return click.option(
        "--spool",
        metavar="DIR",
        envvar="TEA_SPOOL",
        help=f"The spool; else $TEA_SPOOL, else {DEFAULT_SPOOL}.",
    )(function)


def json_option(function: F) -> F:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(function)


def progress_option(function: F) -> F:
    """`--progress`."""
    return click.option(
        "--progress",
        type=click.Choice(["auto", "bar", "plain", "none"]),
        default="auto",
        show_default=True,
        help="A live bar, plain lines every few seconds, or nothing; auto: a bar on a terminal, else lines.",
    )(function)


def outcome_options(function: F) -> F:
    """What a command that drives a run takes beside what it runs."""
    for option in (
        click.option(
            "--fail-on-branch-errors", is_flag=True, help="Exit with 3 when branches failed and the workflow did not."
        ),
        click.option("--strict", is_flag=True, help="A strategy that is unknown is an error, not `thread`."),
        click.option("--max-workers", metavar="N", type=click.IntRange(min=1), help="Branches at once."),
        click.option(
            "--strategy",
            metavar="NAME",
            help="Where all branches run, whatever the workflow says: thread, process...",
        ),
        click.option("--output", metavar="FILE", help="Write the final state there instead of stdout."),
    ):
        function = option(function)
    return function


def spool_path(given: str | None) -> str:
    """The spool that commands read when a workflow does not name one."""
    return given or DEFAULT_SPOOL


def spool_hint(path: str) -> str:
    """` --spool DIR` for a command to type next; nothing where it finds the spool by itself."""
    known = os.environ.get("TEA_SPOOL") or DEFAULT_SPOOL
    return "" if os.path.abspath(path) == os.path.abspath(known) else f" --spool {shlex.quote(path)}"
