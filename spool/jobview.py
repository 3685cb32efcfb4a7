"""Reading jobs for people: what one went through, and a line of each. Never writes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from spool import tickets
from spool.attempts import Outcome
from spool.claim import Claimant, claimed_by
from spool.find import fanout_of, in_run
from spool.layout import CLAIM, FanOutFiles, JobFiles
from spool.opened import brief, fetch
from spool.publish import read_quietly
from spool.worker import Observer

SUCCEEDED = Outcome.SUCCEEDED.value


def accepted_of(job: JobFiles) -> Mapping[str, Any]:
    """The accepted result of a job, as of `read_quietly`; of a job of a packed run what its brief says."""
    packed = brief(job)
    if packed is not None:
        return packed.result
    fetch(job)
    return read_quietly(job.accepted)


def newest_claim(job: JobFiles) -> int:
    """The number of the newest attempt, 0 for none and when the job is gone."""
    try:
        return max((int(match[1]) for name in os.listdir(job.path) if (match := CLAIM.fullmatch(name))), default=0)
    except OSError:
        return 0


def claimed_at(job: JobFiles, attempt: int) -> float:
    """When an attempt was claimed, as the file system says; 0 when nobody knows."""
    try:
        return os.lstat(job.claim(attempt)).st_mtime
    except OSError:
        return 0.0


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One attempt.

    claimed: seconds since the epoch, as the file system says. alive: asked only without a result.
    sent_back: the note of a person who let the job run again after this attempt.
    """

    number: int
    claimant: str
    claimed: float
    result: Mapping[str, Any]
    alive: bool | None
    sent_back: Mapping[str, Any]

    @property
    def host(self) -> str:
        claimant = Claimant.parse(self.claimant)
        return claimant.host if claimant else ""

    @property
    def state(self) -> str:
        """`running`, `lost`, or what it ended with."""
        if self.result:
            return str(self.result.get("outcome", "unreadable"))
        return "running" if self.alive else "lost"


def attempts(job: JobFiles, observer: Observer) -> list[AttemptView]:
    """The attempts of a job, oldest first. Raises FileNotFoundError when the job is gone."""
    fetch(job)
    numbers = sorted(int(match[1]) for name in os.listdir(job.path) if (match := CLAIM.fullmatch(name)))
    # Who was followed by another attempt was found dead, whatever a host that is far away seems to do.
    return [_attempt(job, number, observer, number == numbers[-1]) for number in numbers]


def _attempt(job: JobFiles, number: int, observer: Observer, may_live: bool = True) -> AttemptView:
    result = read_quietly(job.result(number))
    claimant = claimed_by(job, number) or ""
    alive = None if result else may_live and observer.is_alive(claimant)
    return AttemptView(number, claimant, claimed_at(job, number), result, alive, read_quietly(job.retry(number)))


def ticket_of(job: JobFiles) -> str:
    """The folder in which a job's ticket lies; "" when it has none."""
    return tickets.kind_of(fanout_of(job), job.name) or ""


class JobLine(NamedTuple):
    """A job as a listing shows it. state: todo, running, done, failed or cancelled."""

    job: JobFiles
    state: str
    attempt: int = 0
    outcome: str | None = None
    seconds: float | None = None
    host: str = ""
    error: str | None = None

    @property
    def name(self) -> str:
        """`FANOUT/JOB`."""
        fanout, _, job = self.job.path.rpartition("/jobs/")
        return f"{_fanout_name(fanout)}/{job}"


@lru_cache(64)
def _fanout_name(path: str) -> str:
    """The short path of a fan-out: of its jobs there may be 100,000."""
    return in_run(path)


def job_line(fanout: FanOutFiles, name: str, ticket: str, observer: Observer) -> JobLine:
    """A job whose ticket was seen in `ticket`; finished ones cost one read."""
    job = fanout.job(name)
    if ticket == "todo":
        fetch(job)
        return _open_line(job, observer)
    result = accepted_of(job)
    outcome = result.get("outcome")
    error = result.get("error") or result.get("$unreadable")
    if outcome != SUCCEEDED and result.get("error_type"):
        error = f"{result['error_type']}: {error}"
    return JobLine(
        job,
        ticket,
        _whole(result.get("attempt")),
        str(outcome) if outcome else None,
        _number(result.get("seconds")),
        str(result.get("host") or ""),
        str(error) if error else None,
    )


def _whole(value: Any) -> int:
    """A number of an attempt, whatever a damaged file may hold."""
    return value if type(value) is int else 0


def _number(value: Any) -> float | None:
    return value if type(value) in (float, int) else None


def _open_line(job: JobFiles, observer: Observer) -> JobLine:
    newest = newest_claim(job)
    if not newest:
        return JobLine(job, "todo")
    attempt = _attempt(job, newest, observer)
    if attempt.result:
        error = attempt.result.get("error") or attempt.result.get("$unreadable")
        why = f"attempt {newest} {attempt.state}: {error}; it may be tried again"
        return JobLine(job, "todo", newest, host=attempt.host, error=why)
    if not attempt.alive:
        return JobLine(job, "todo", newest, host=attempt.host, error=f"attempt {newest} lost its worker")
    return JobLine(job, "running", newest, seconds=max(0.0, time.time() - attempt.claimed), host=attempt.host)
