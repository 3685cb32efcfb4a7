"""What `tea run` and `tea resume` have in common: show progress, end in order, give the exit code."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from tea.cli.ending import finish, stopped

if TYPE_CHECKING:
    from executors.board import Board
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
    seen = _LastRun()
    try:
        ended = _shown(go, options, progress, seen)
    except KeyboardInterrupt:
        return stopped(seen.run)
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


class _LastRun:
    """The run of the last board that was seen: what Ctrl-C stopped."""

    def __init__(self) -> None:
        self._board: Board | None = None

    def watch(self, board: Board) -> None:
        self._board = board

    @property
    def run(self) -> RunFiles | None:
        from spool.find import run_of

        if self._board is None or self._board.context.fanout is None:
            return None
        return run_of(self._board.context.fanout.path)


def _shown(go: Callable[[], Ended], options: RunOptions, mode: str, seen: _LastRun) -> Ended:
    from tea.progress import progress

    display = progress(mode)
    if display is None:
        options.progress = seen.watch
        return go()
    shown = display

    def watch(board: Board) -> None:
        seen.watch(board)
        shown(board)

    options.progress = watch
    with display:
        return go()
