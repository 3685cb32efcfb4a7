"""Sending finished jobs back: a person wants what did not succeed to run again.

Nothing is deleted. `retry.N` forgives the job all attempts up to N, its accepted result is kept as `retired.N.json`,
and its ticket goes back to `todo/`. Attempt numbers go on growing.
"""

from __future__ import annotations

import os
import time

from spool import jsonio, tickets
from spool.claim import user_name
from spool.errors import SpoolError
from spool.job import JobRecord, accepted_attempt, look, read_accepted, read_job
from spool.layout import FanOutFiles, JobFiles
from spool.publish import publish


def send_back(fanout: FanOutFiles, job: JobFiles) -> bool:
    """Let a job that did not succeed run again; False when it succeeded or has not finished.

    Raises SpoolError when its files cannot be trusted. May be repeated after a crash at any point.
    """
    record = read_job(job)
    result = read_accepted(job, record.input_sha256)
    if result is None:
        return _take_up(fanout, job, record)
    attempt = accepted_attempt(job)
    if attempt is None or result.get("success"):
        return False
    note = {"by": user_name(), "at": time.time(), "outcome": result.get("outcome"), "error": result.get("error")}
    try:
        publish(job.retry(attempt), jsonio.pretty(note))
    except FileExistsError:
        pass  # a crash came between the note and what follows
    os.rename(job.accepted, job.retired(attempt))
    tickets.settle(fanout, job.name, "todo")
    return True


def _take_up(fanout: FanOutFiles, job: JobFiles, record: JobRecord) -> bool:
    """Move the ticket of a job that somebody sent back, but did not live to move it."""
    listing = look(job, record)
    newest = max((a.number for a in listing.attempts), default=0)
    return listing.forgiven >= max(newest, 1) and tickets.settle(fanout, job.name, "todo")


def retry_failed(fanout: FanOutFiles) -> list[str]:
    """Send back every job of a fan-out that failed or was cancelled; their names."""
    names = sorted({*tickets.names(fanout, "failed"), *tickets.names(fanout, "cancelled")})
    return [name for name in names if _sent_back(fanout, name)]


def _sent_back(fanout: FanOutFiles, name: str) -> bool:
    try:
        return send_back(fanout, fanout.job(name))
    except (SpoolError, FileNotFoundError):
        return False  # a job without files that can be trusted cannot run either
