"""How `tea run` and `tea resume` end: the final state where it belongs, what failed and why, what to type next."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from spool.errors import UnknownNameError
from spool.find import in_run, short_path, spool_of
from tea.cli.errors import EXIT_BRANCHES, EXIT_FAILED, EXIT_INTERRUPTED, debugging, say
from tea.cli.lazy import ReaderGoneError
from tea.cli.options import spool_hint

if TYPE_CHECKING:
    from executors.result import ParallelFlowResult
    from spool.layout import RunFiles
    from tea.asked import Ended

NAMED = 5
"""Failed branches that are named at the end of a run."""


def finish(ended: Ended, out: int, output: str | None, fail_on_branch_errors: bool) -> int:
    """Deliver what a run ended with; the exit code. `out` is the descriptor of the real stdout."""
    if ended.state is not None:
        deliver(ended.state, out, output)
    if ended.cancelled_by is not None:
        return _tell_cancelled(ended)
    if ended.failed:
        _tell_branches(ended)
    if ended.error is not None:
        _tell_failure(ended)
        return EXIT_FAILED
    if ended.interrupted_at is not None:
        again = f". To go on:  {_resume(ended.run)}" if ended.run is not None else ""
        say(f"stopped at node '{ended.interrupted_at}', where the workflow wants to be interrupted{again}")
        return EXIT_INTERRUPTED
    return EXIT_BRANCHES if ended.failed and fail_on_branch_errors else 0


def deliver(state: dict[str, object], out: int, output: str | None) -> None:
    """Write the final state as JSON. Raises OSError, ReaderGoneError."""
    from tea.given import final_json

    data = final_json(state)
    if not data.endswith(b"\n"):
        data += b"\n"
    if output is not None and output != "-":
        with open(output, "wb") as file:
            file.write(data)
        return
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(out, view) :]
    except BrokenPipeError:
        raise ReaderGoneError from None


def _tell_branches(ended: Ended) -> None:
    say(f"{ended.failed} {'branch' if ended.failed == 1 else 'branches'} failed:")
    for result in ended.failures[:NAMED]:
        say(f"  {_branch(result)}")
    if ended.failed > min(NAMED, len(ended.failures)):
        say(f"  and {ended.failed - min(NAMED, len(ended.failures))} more")
    if ended.run is None:
        return
    with_jobs = next((result.job for result in ended.failures if result.job), None)
    if with_jobs:
        say(f"to see why:     tea spool show {short_path(with_jobs)}{_where(ended.run)}")
    say(f"to run again:   {_resume(ended.run)} --retry-failed")


def _where(run: RunFiles) -> str:
    return spool_hint(spool_of(run.path).path)


def _resume(run: RunFiles) -> str:
    return f"tea resume {run.name}{_where(run)}"


def _branch(result: ParallelFlowResult) -> str:
    """One failed branch in one line."""
    try:
        name = in_run(result.job) if result.job else result.branch
    except UnknownNameError:
        name = result.branch
    reason = (result.error or "").strip().splitlines() or ["no reason known"]
    kind = f"{result.error_type}: " if result.error_type and result.error_type not in reason[0] else ""
    text = f"{name}  {kind}{reason[0]}"
    if result.outcome not in (None, "failed"):
        text += f" ({result.outcome.replace('_', ' ')})"
    if result.retry_count:
        text += f" (after {result.retry_count + 1} attempts)"
    return text if len(text) <= 300 else text[:297] + "..."


def _tell_failure(ended: Ended) -> None:
    where = f" in node '{ended.node}'" if ended.node else ""
    first, *more = (ended.error or "").splitlines() or [""]
    say(f"the workflow failed{where}: {first}")
    for line in more:
        say(f"  {line}")
    if ended.traceback and debugging():
        say(ended.traceback.rstrip())
    if ended.run is not None:
        say(f"to go on from {_where_to_begin(ended.run)}:  {_resume(ended.run)}")
    if not debugging() and ended.traceback:
        say("TEA_DEBUG=1 shows the traceback")


def _where_to_begin(run: RunFiles) -> str:
    """Where `tea resume` begins, in words."""
    from tea.record import begun

    if begun(run):
        return "the last fan-out"
    return "where it was interrupted" if os.path.exists(run.interrupt(1)) else "its start"


def _tell_cancelled(ended: Ended) -> int:
    again = f". To go on:  {_resume(ended.run)} --retry-failed" if ended.run is not None else ""
    say(f"cancelled by {ended.cancelled_by}; what has finished is kept{again}")
    return EXIT_INTERRUPTED


def stopped(run: RunFiles | None) -> int:
    """Ctrl-C in the middle of a run: what is done is kept; say how to go on."""
    if run is None:
        say("interrupted; nothing is kept")
    else:
        say(f"interrupted; what has finished is kept. To go on:  {_resume(run)}")
    return EXIT_INTERRUPTED
