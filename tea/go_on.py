"""`tea resume` of a run whose jobs came from a `SpoolExecutor`: its program is gone, what it left is run.

There is no walk to go on with and no fan-in that waits: the results are in the spool. Jobs run from their files, as
under `tea worker`. A job that needs what only its program had (an object that JSON cannot hold) fails with that
reason; an initializer is not called.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from executors.result import ParallelFlowResult
from executors.server import warm_up
from spool import tickets
from spool.layout import FanOutFiles, RunFiles, SpoolFiles
from spool.pause import unpause
from spool.publish import read_json, read_quietly
from spool.retry import retry_failed as send_failed_back
from spool.run import fanouts
from tea.record import Run, who
from tea.worker import Work, WorkerCommand


def go_on(
    spool: SpoolFiles, run: RunFiles, *, workers: int | None, retry_failed: bool, warn: Callable[[str], None]
) -> list[ParallelFlowResult]:
    """Run what waits in a run of an executor, and what failed if that is asked for.

    Gives the jobs that have failed in the end. Raises RunBusyError when its program lives.
    """
    driven = Run.resume(spool, run)
    outcome, failures = "interrupted", 0
    try:
        driven.note("resumed", by=f"{who()['user']}@{who()['host']}:{os.getpid()}")
        unpause(run)
        warm_up("tea.job")
        folder = str(read_json(run.run).get("folder") or "")
        command = WorkerCommand(spool.path, min(workers or 1, os.cpu_count() or 1), False, warn)
        for fanout in fanouts(run.fanouts):
            if retry_failed:
                send_failed_back(fanout)
            work = Work(fanout, {**read_json(fanout.fanout), "runner": "tea.job:WorkflowRunner"}, folder)
            while tickets.names(fanout, "todo"):
                command.work_on(work)
        failed = [one for fanout in fanouts(run.fanouts) for one in _failed(fanout)]
        outcome, failures = "done", len(failed)
        return failed
    finally:
        driven.end(outcome, failed=failures)
        driven.close()


def _failed(fanout: FanOutFiles) -> list[ParallelFlowResult]:
    """What there is to say of the jobs that failed."""
    found = []
    for name in sorted(tickets.names(fanout, "failed")):
        job = fanout.job(name)
        raw = read_quietly(job.accepted)
        outcome = str(raw.get("outcome") or "failed")
        found.append(
            ParallelFlowResult(
                str(read_quietly(job.job).get("branch") or name),
                False,
                error=raw.get("error"),
                error_type=raw.get("error_type"),
                job=job.path,
                outcome=outcome,
            )
        )
    return found
