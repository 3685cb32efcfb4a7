"""Cancelling from outside: a run that a coordinator drives is asked to end, what nobody drives is ended here.

A request is a file in the run's folder, `cancel.json`, at which its coordinator looks once a second. It stays there
as a record of who asked, until the run is driven again. A job is ended as whoever claims its next attempt: that
fences off a worker that is at it, and what this one brings later is kept beside the result and counts no more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from spool import job as jobs
from spool import jsonio, tickets
from spool.attempts import Outcome
from spool.claim import claimed_by, host_name, try_claim, user_name
from spool.errors import SpoolError
from spool.find import fanout_of, spool_of
from spool.job import accepted_attempt, read_accepted, read_job
from spool.journal import Journal
from spool.layout import CLAIM, FanOutFiles, JobFiles, RunFiles
from spool.publish import is_there, publish, read_quietly
from spool.run import CoordinatorLock, all_fanouts, update_run
from spool.worker import Worker


def ask(run: RunFiles) -> None:
    """Ask the coordinator of a run to cancel it. Asking twice is the same as asking once."""
    try:
        publish(run.cancel, jsonio.pretty({"by": asker(), "at": time.time()}))
    except FileExistsError:
        pass


def asker() -> str:
    """Who asks: `user@host`."""
    return f"{user_name()}@{host_name()}"


def asked(run: RunFiles) -> str | None:
    """Who asked to cancel this run; None when nobody did."""
    if not is_there(run.cancel):
        return None
    return str(read_quietly(run.cancel).get("by") or "somebody")


def forget(run: RunFiles) -> None:
    """A coordinator begins: what was asked of an earlier one is over."""
    try:
        os.unlink(run.cancel)
    except FileNotFoundError:
        pass


@dataclass(slots=True)
class Cancelled:
    """What was cancelled of one run. refused: jobs that were not, each with why.

    going_on: jobs whose worker is not ours to end, with its claimant.
    """

    run: RunFiles
    jobs: list[JobFiles] = field(default_factory=list)
    refused: list[tuple[JobFiles, str]] = field(default_factory=list)
    going_on: list[tuple[JobFiles, str]] = field(default_factory=list)


def cancel_run(run: RunFiles) -> Cancelled:
    """Cancel what has not finished in a run that nobody drives, and say so in run.json.

    Raises RunBusyError when a coordinator drives it.
    """
    lock = CoordinatorLock(run)
    try:
        found = [fanout.job(name) for fanout in all_fanouts(run) for name in sorted(tickets.names(fanout, "todo"))]
        if found or read_quietly(run.run).get("outcome") not in ("done", "failed", "cancelled"):
            update_run(run, outcome="cancelled", finished=time.time(), cancelled_by=asker())
        return cancel_jobs(run, found)
    finally:
        lock.release()


def cancel_jobs(run: RunFiles, chosen: Iterable[JobFiles]) -> Cancelled:
    """Cancel jobs, whether they wait or run."""
    done = Cancelled(run)
    with Worker(spool_of(run.path)) as me:  # lives as long as it takes: nobody takes our claims for lost
        for job in chosen:
            _cancel(done, job, me)
    if done.jobs:
        journal = Journal(run)
        journal.write("cancelled", jobs=[job.name for job in done.jobs], by=asker())
        journal.close()
    return done


def _cancel(done: Cancelled, job: JobFiles, me: Worker) -> None:
    try:
        running = _running(job)
        why = cancel_job(fanout_of(job), job, me.text, f"cancelled by {asker()}")
    except (SpoolError, FileNotFoundError) as error:
        done.refused.append((job, str(error)))
        return
    if why is not None:
        done.refused.append((job, why))
        return
    done.jobs.append(job)
    if running is not None:
        done.going_on.append((job, running))


def _running(job: JobFiles) -> str | None:
    """Who has the newest attempt, when it has no result."""
    newest = newest_claim(job)
    return claimed_by(job, newest) if newest and not os.path.lexists(job.result(newest)) else None


def newest_claim(job: JobFiles) -> int:
    """The number of the newest attempt, 0 for none. Raises FileNotFoundError when the job is gone."""
    return max((int(match[1]) for name in os.listdir(job.path) if (match := CLAIM.fullmatch(name))), default=0)


def cancel_job(fanout: FanOutFiles, job: JobFiles, claimant: str, reason: str) -> str | None:
    """End a job as cancelled; why it could not be, None when it was.

    Raises SpoolError when its files cannot be trusted, FileNotFoundError when it is gone.
    """
    record = read_job(job)
    while read_accepted(job, record.input_sha256) is None:
        attempt = newest_claim(job) + 1
        if not try_claim(job, attempt, claimant):
            continue  # a worker was faster: fence that one off
        result = jobs.verdict_result(job, record, attempt, Outcome.CANCELLED, "CancelledError", reason)
        jobs.finish(fanout, job, record, attempt, result)
        if accepted_attempt(job) == attempt:
            return None
    result = read_accepted(job, record.input_sha256) or {}
    return f"it has ended already ({result.get('outcome')})"
