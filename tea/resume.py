"""Going on with a run: from where the workflow wanted to be interrupted, or from a fan-out and the results it has.

a run in the spool --> its first fan-out with jobs to do, and the state there --> the walk --> how it ended
"""

from __future__ import annotations

import os
from typing import Any

from executors.travel import is_marked, unpack_pickle
from spool import run as runs
from spool import tickets
from spool.layout import FanOutFiles, RunFiles, SpoolFiles
from spool.pause import paused, unpause
from spool.publish import read_bytes, read_json
from spool.retry import retry_failed as send_failed_back
from tea.asked import Ended, RunOptions
from tea.checkpoint import FAN_OUTS, Checkpoint, last_interrupt
from tea.dialect import Workflow, load_text
from tea.given import InputError
from tea.graph import END, START
from tea.record import Run, begun, who
from tea.session import FAILURES, Session
from tea.walk import State


def resume(spool: str, run: str | None, options: RunOptions, retry_failed: bool = False) -> Ended:
    """Go on with a run: from its last fan-out, with the results that are there.

    Raises UnknownNameError, RunBusyError or InputError when it cannot be.
    """
    session = Session(options)
    files = runs.find_spool(spool)
    found = runs.find_run(files, run, lazily=True)
    record = _record_of(found)
    if record.get("python_graph"):  # also when it is done: its final state is only in that program
        raise InputError(f"run {found.name} came from a graph built in Python; resume it from that program")
    over = record.get("outcome") == "done" and not (retry_failed and _has_failures(found))
    if record.get("executor"):
        return _go_on_with_calls(files, found, record, session, retry_failed, over)
    if over:
        return Ended(found, _kept_output(found))
    workflow = _recorded_workflow(found, record)
    graph = session.graph(workflow)
    session.take_over(record)
    driven = Run.resume(files, found, sync=workflow.spool.durability == "power", lease=workflow.spool.lease_duration)
    try:
        if (note := paused(found)) and unpause(found):
            session.warn(f"the run was paused by {note['by']}; it goes on now")
        start = _start(driven, found, retry_failed)
        driven.note("resumed", by=f"{who()['user']}@{who()['host']}:{os.getpid()}")
    except BaseException:
        driven.close()
        raise
    return session.drive(graph, start, record.get("exit") or END, driven)


def _go_on_with_calls(
    files: SpoolFiles, found: RunFiles, record: dict[str, Any], session: Session, retry_failed: bool, over: bool
) -> Ended:
    """The jobs that a `SpoolExecutor` has left are run; there is nothing after them, so the end is their number."""
    from tea.go_on import go_on

    session.take_over(record)
    workers = session.options.max_workers
    failures = [] if over else go_on(files, found, workers=workers, retry_failed=retry_failed, warn=session.warn)
    counts = [tickets.counts(fanout) for fanout in runs.fanouts(found.fanouts)]
    state = {kind: sum(one[kind] for one in counts) for kind in tickets.FINISHED}
    return Ended(found, state, failures=failures[:FAILURES], failed=len(failures))


def _record_of(found: RunFiles) -> dict[str, Any]:
    """The record of a run. Raises InputError for one whose coordinator was killed while it made it."""
    try:
        return read_json(found.run)
    except FileNotFoundError:
        raise _unmade(found) from None


def _unmade(found: RunFiles) -> InputError:
    return InputError(
        f"run {found.name} was stopped while it was being made, nothing of it has run; start it again with `tea run`"
    )


def _has_failures(found: RunFiles) -> bool:
    return any(tickets.names(f, kind) for f in runs.fanouts(found.fanouts) for kind in ("failed", "cancelled"))


def _kept_output(found: RunFiles) -> State:
    try:
        return read_json(found.output)
    except FileNotFoundError:  # killed between the last node and the output
        return {}


def _recorded_workflow(found: RunFiles, record: dict[str, Any]) -> Workflow:
    text = read_bytes(found.workflow).decode()
    return load_text(text, record.get("workflow") or found.workflow, record.get("folder"))


def _start(driven: Run, found: RunFiles, retry_failed: bool) -> Checkpoint:
    """Where to go on: where the workflow was interrupted, if no fan-out came after that, else at a fan-out."""
    fanout = _fan_out_to_resume(found, retry_failed)
    number, stop = len(begun(found)), last_interrupt(found)
    if stop is not None and stop.config.get(FAN_OUTS) == number and not (fanout and tickets.names(fanout, "todo")):
        driven.go_on_after(number)
        return stop
    if fanout is not None:
        driven.go_back_to(fanout)
    return _start_of(found, fanout)


def _fan_out_to_resume(found: RunFiles, retry_failed: bool) -> FanOutFiles | None:
    """The first fan-out that has jobs to do, among them those that were sent back; else the last that was begun.

    What follows it is walked again. Its fan-outs are taken up as they are where their input is the same.
    """
    known = begun(found)
    for fanout in known if retry_failed else ():
        send_failed_back(fanout)
    return next((fanout for fanout in known if tickets.names(fanout, "todo")), known[-1] if known else None)


def _start_of(found: RunFiles, fanout: FanOutFiles | None) -> Checkpoint:
    """Where a resumed run starts again: at its last fan-out, or from the beginning when there was none."""
    if fanout is None:
        if not os.path.exists(found.input):
            raise _unmade(found)
        record = read_json(found.run)
        return Checkpoint(read_json(found.input), record.get("entry") or START, when="fresh")
    source = read_json(fanout.fanout)["source"]
    state = {key: value for key, value in read_json(fanout.state).items() if not is_marked(value)}
    if os.path.exists(fanout.state_pickle):
        state.update(unpack_pickle(read_bytes(fanout.state_pickle)))
    return Checkpoint(state, source, when="after")
