"""What `tea run` and `tea resume` have in common: show progress, end in order, give the exit code."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tea.cli.ending import finish, stopped

if TYPE_CHECKING:
    from spool.layout import RunFiles
    from tea.asked import Ended, RunOptions


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a run is to be shown and delivered.

    progress: the mode of the display. output: a file for the final state, stdout when None.
    """

    progress: str = "auto"
    output: str | None = None
    fail_on_branch_errors: bool = False


def drive(go: Callable[[], Ended], options: RunOptions, wishes: Wishes) -> int:
    """Call `go` with progress shown, and deliver what it ended with; the exit code.

    Raises what `go` raises for wrong input, OSError for an output that can't be.
    """
    check_output(wishes.output)
    out = stdout_for_results()
    known: list[RunFiles] = []
    options.on_run = known.append
    try:
        ended = _shown(go, options, wishes.progress)
    except KeyboardInterrupt:
        _end_slots()
        return stopped(known[-1] if known else None)
    return finish(ended, out, wishes.output, wishes.fail_on_branch_errors)


def _end_slots() -> None:
    """A second Ctrl-C may have come before the first was through with the worker processes."""
    if slots := sys.modules.get("executors.slots"):
        slots.kill_all()


def check_output(output: str | None) -> None:
    """A final state that can't be written is known before the run, not after it. Raises OSError."""
    if output is None or output == "-":
        return
    folder = os.path.dirname(os.path.abspath(output))
    if not os.path.isdir(folder):
        raise FileNotFoundError(2, "no such folder for --output", folder)
    if os.path.isdir(output):
        raise IsADirectoryError(21, "--output is a folder", output)


def stdout_for_results() -> int:
    """From here on stdout is stderr, so that what nodes print can't mix with the result; the real stdout.

    Descriptors are moved, not Python's objects: commands that nodes start are redirected, too.
    """
    sys.stdout.flush()
    real = os.dup(1)
    os.dup2(2, 1)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file or pipe until now; what nodes print is to be seen at once
        sys.stdout.reconfigure(line_buffering=True)
    return real


def _shown(go: Callable[[], Ended], options: RunOptions, mode: str) -> Ended:
    from tea.progress import progress

    display = progress(mode)
    if display is None:
        return go()
    options.progress = display
    with display:
        return go()
