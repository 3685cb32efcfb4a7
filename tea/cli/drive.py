"""What `tea run` and `tea resume` have in common: show progress, end in order, give the exit code."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from tea.cli.ending import finish, stopped

if TYPE_CHECKING:
    from spool.layout import RunFiles
    from tea.session import Ended, RunOptions


def drive(
    go: Callable[[], Ended],
    options: RunOptions,
    progress: str,
    out: int,
    output: str | None,
    fail_on_branch_errors: bool,
) -> int:
    """Call `go` with progress shown, and deliver what it ended with; the exit code.

    out: descriptor of the real stdout. Raises what `go` raises for wrong input.
    """
    check_output(output)
    known: list[RunFiles] = []
    options.on_run = known.append
    try:
        ended = _shown(go, options, progress)
    except KeyboardInterrupt:
        return stopped(known[-1] if known else None)
    return finish(ended, out, output, fail_on_branch_errors)


def check_output(output: str | None) -> None:
    """A final state that can't be written is known before the run, not after it. Raises OSError."""
    if output is None or output == "-":
        return
    folder = os.path.dirname(os.path.abspath(output))
    if not os.path.isdir(folder):
        raise FileNotFoundError(2, "no such folder for --output", folder)
    if os.path.isdir(output):
        raise IsADirectoryError(21, "--output is a folder", output)


def _shown(go: Callable[[], Ended], options: RunOptions, mode: str) -> Ended:
    from tea.progress import progress

    display = progress(mode)
    if display is None:
        return go()
    options.progress = display
    with display:
        return go()
