"""Sending finished jobs back: a person wants what did not succeed to run again.

Nothing is deleted. `retry.N` forgives the job all attempts up to N, its accepted result is kept as `retired.N.json`,
and its ticket goes back to `todo/`. Attempt numbers go on growing. What failed in fan-outs inside a branch goes
back with the branch: it would fail again with the same results otherwise.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from spool import jsonio, tickets
from spool.claim import host_name, user_name
from spool.errors import SpoolError
from spool.find import fanout_of, in_run, run_of
from spool.job import JobRecord, accepted_attempt, look, read_accepted, read_job
from spool.journal import Journal
from spool.layout import RETRY, FanOutFiles, JobFiles, RunFiles
from spool.publish import publish, read_json, replace
from spool.run import CoordinatorLock, fanouts, update_run

OUTCOMES = ("failed", "timed_out", "lost", "cancelled")
"""What a job that may be sent back has ended with."""


def given_input(job: JobFiles, attempt: int) -> dict[str, Any]:
    """The values that persons gave a job when they sent it back: what this attempt has instead of those in its input.

    Raises SpoolError when a note cannot be trusted, FileNotFoundError when the job is gone.
    """
    numbers = sorted(int(match[1]) for name in os.listdir(job.path) if (match := RETRY.fullmatch(name)))
    values: dict[str, Any] = {}
    for number in numbers:
        if number < attempt:
            values.update(read_json(job.retry(number)).get("input") or {})
    return values


def send_back(
    fanout: FanOutFiles, job: JobFiles, *, succeeded: bool = False, given: Mapping[str, Any] | None = None
) -> bool:
    """Let a job that did not succeed run again; False when it succeeded or has not finished.

    succeeded: also one that did, for what is in it shall run again. given: values for its input.
    Raises SpoolError when its files cannot be trusted. May be repeated after a crash at any point.
    """
    record = read_job(job)
    result = read_accepted(job, record.input_sha256)
    if result is None:
        return _take_up(fanout, job, record)
    attempt = accepted_attempt(job)
    if attempt is None or (result.get("success") and not succeeded):
        return False
    for inside in fanouts(job.fanouts):
        retry_failed(inside)
    note = {"by": user_name(), "at": time.time(), "outcome": result.get("outcome"), "error": result.get("error")}
    # Also what was claimed after that: whoever cancels a job that runs fences it off with the next attempt.
    _leave_note(job.retry(_newest(job, record)), note, given)
    os.rename(job.accepted, job.retired(attempt))
    tickets.settle(fanout, job.name, "todo")
    return True


def _leave_note(path: str, note: dict[str, Any], given: Mapping[str, Any] | None) -> None:
    """Say who sent a job back. A note that a crash left before what follows stands, unless there are new values."""
    if given:
        note["input"] = dict(given)
    try:
        publish(path, jsonio.pretty(note))
    except FileExistsError:
        if given:
            replace(path, jsonio.pretty(note))


def _take_up(fanout: FanOutFiles, job: JobFiles, record: JobRecord) -> bool:
    """Move the ticket of a job that somebody sent back, but did not live to move it."""
    forgiven = look(job, record).forgiven
    return forgiven >= max(_newest(job, record), 1) and tickets.settle(fanout, job.name, "todo")


def _newest(job: JobFiles, record: JobRecord) -> int:
    return max((attempt.number for attempt in look(job, record).attempts), default=0)


def retry_failed(fanout: FanOutFiles, outcomes: Collection[str] = OUTCOMES) -> list[str]:
    """Send back every job of a fan-out that ended with one of these outcomes; their names."""
    return [name for name in failed_in(fanout, outcomes) if _sent_back(fanout, name)]


def failed_in(fanout: FanOutFiles, outcomes: Collection[str] = OUTCOMES) -> list[str]:
    """The jobs of a fan-out that ended with one of these outcomes, in branch order."""
    names = sorted({*tickets.names(fanout, "failed"), *tickets.names(fanout, "cancelled")})
    if set(outcomes) >= set(OUTCOMES):
        return names
    return [name for name in names if _outcome(fanout.job(name)) in outcomes]


def _outcome(job: JobFiles) -> str:
    try:
        return str((read_accepted(job, None) or {}).get("outcome"))
    except SpoolError:
        return "failed"


def _sent_back(fanout: FanOutFiles, name: str) -> bool:
    try:
        return send_back(fanout, fanout.job(name))
    except (SpoolError, FileNotFoundError):
        return False  # a job without files that can be trusted cannot run either


# -- runs, as a person names them -------------------------------------------------------------------------------


@dataclass(slots=True)
class SentBack:
    """What was sent back of one run. around: branches that succeeded, and go back because of what is in them.

    refused: jobs that a person named, each with why they stay.
    """

    run: RunFiles
    jobs: list[JobFiles] = field(default_factory=list)
    around: list[JobFiles] = field(default_factory=list)
    refused: list[tuple[JobFiles, str]] = field(default_factory=list)


def retry_run(
    run: RunFiles, outcomes: Collection[str] = OUTCOMES, given: Mapping[str, Any] | None = None
) -> SentBack:
    """Send back what failed in the fan-outs of a run that nobody drives; nothing runs. given: values for the inputs.

    Raises RunBusyError when a coordinator drives it.
    """
    found = [fanout.job(name) for fanout in fanouts(run.fanouts) for name in failed_in(fanout, outcomes)]
    return retry_jobs(run, found, given)


def retry_jobs(run: RunFiles, chosen: Iterable[JobFiles], given: Mapping[str, Any] | None = None) -> SentBack:
    """Send back jobs of a run that nobody drives; nothing runs. given: values for the inputs.

    Raises RunBusyError when a coordinator drives it.
    """
    done, lock = SentBack(run), CoordinatorLock(run)
    try:
        for job in chosen:
            _retry(done, job, given)
        if done.jobs:
            journal = Journal(run)
            names = [in_run(job.path) for job in done.jobs]
            journal.write("sent_back", jobs=names, by=f"{user_name()}@{host_name()}")
            journal.close()
    finally:
        lock.release()
    return done


def _retry(done: SentBack, job: JobFiles, given: Mapping[str, Any] | None) -> None:
    """Send a job back, and the branches around it, from the inside out: after a crash it can be done again."""
    why = _why_not(job)
    if why is not None:
        done.refused.append((job, why))
        return
    if not done.jobs:
        update_run(done.run, outcome="interrupted")  # before: a run that is done would not be taken up again
    done.jobs.append(job)
    send_back(fanout_of(job), job, given=given)
    for above in branches_around(job):
        if send_back(fanout_of(above), above, succeeded=True):
            done.around.append(above)


def _why_not(job: JobFiles) -> str | None:
    """Why a job cannot be sent back; None when it can."""
    try:
        result = read_accepted(job, read_job(job).input_sha256)
    except (SpoolError, FileNotFoundError) as error:
        return str(error)
    if result is None:
        return "it has not ended; `tea resume` goes on with it"
    return "it succeeded" if result.get("success") else None


def branches_around(job: JobFiles) -> list[JobFiles]:
    """The branches that a job of a fan-out inside them is in, the nearest first."""
    found: list[JobFiles] = []
    while True:
        folder = os.path.dirname(os.path.dirname(fanout_of(job).path))
        if folder == run_of(job.path).path:
            return found
        job = JobFiles(folder)
        found.append(job)
