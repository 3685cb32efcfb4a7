"""What the record of a run holds of every job: its state, and each of its attempts with who ran it when.

Read at one moment, also of a live or damaged run, and never changed. A finished job costs a listing and a read. What
cannot be read is told in `Run.damaged`; it never ends the report.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import zip_longest
from math import isfinite
from typing import Any, NamedTuple

from spool import tickets
from spool.claim import Claimant, claimed_by
from spool.errors import CorruptFileError, ForeignFileError
from spool.find import in_run
from spool.inspect import RunView, group_name, is_driven
from spool.job import check_result, read_accepted
from spool.layout import CLAIM, QUARANTINED, RESULT, TICKETS, FanOutFiles, JobFiles, RunFiles, SpoolFiles
from spool.opened import brief, fetch
from spool.publish import read_quietly
from spool.run import coordinator, fanouts
from spool.worker import Observer
from tools.reporting.text import visible

STATES = ("succeeded", "failed", "timed_out", "lost", "cancelled", "running", "waiting")
"""What a job is: the outcome of its accepted result, or that it runs or waits."""

FAILED = ("failed", "timed_out", "lost")

_OF_TICKET = {"done": "succeeded", "failed": "failed", "cancelled": "cancelled", "todo": "waiting"}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt. outcome: as of a result, or `running`, `lost` (no result, its worker is dead), `unreadable`.

    started: seconds since the epoch, on the clock of its worker; of an attempt without a result when it was claimed.
    seconds: how long it took, so far while it runs; of a lost one how long it may have lived; None when unknown.
    worker: `host:pid`, "" when nobody knows.
    """

    number: int
    outcome: str
    started: float
    seconds: float | None
    worker: str

    @property
    def host(self) -> str:
        return self.worker.rpartition(":")[0]


@dataclass(frozen=True, slots=True)
class Job:
    """A job. fanout: number in `Run.fanouts`. name: `FANOUT/JOB`. attempts: oldest first.

    error: the first line of why it failed, or why it may be tried again. counted: the accepted attempt, or the last.
    """

    fanout: int
    name: str
    path: str
    state: str
    attempts: tuple[Attempt, ...] = ()
    counted: Attempt | None = None
    error_type: str = ""
    error: str = ""

    @property
    def failed(self) -> bool:
        return self.state in FAILED

    @property
    def seconds(self) -> float | None:
        return self.counted.seconds if self.counted else None


@dataclass(slots=True)
class FanOut:
    """A fan-out, or all of one name inside the branches of another: `001-split/*/001-inner`.

    record: the fanout.json of the first. folders: how many these are. unmade: jobs that have not been made yet.
    """

    name: str
    record: Mapping[str, Any]
    folders: int = 0
    unmade: int = 0


@dataclass(slots=True)
class Run:
    """A run at one moment. taken: seconds since the epoch. alive: None when that can't be told from here."""

    files: RunFiles
    record: Mapping[str, Any]
    state: str
    alive: bool | None
    driver: str
    taken: float
    fanouts: list[FanOut] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    @property
    def started(self) -> float:
        """When it began: as it says, or when its first attempt did."""
        begins = (one.started for job in self.jobs for one in job.attempts if one.started)
        return number(self.record.get("started")) or min(begins, default=self.taken)

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        end = None if self.state == "running" else number(self.record.get("finished"))
        if end is None and self.state != "running":
            end = max((one.started + (one.seconds or 0) for job in self.jobs for one in job.attempts), default=None)
        return max(0.0, (end or self.taken) - self.started)


def number(value: Any) -> float | None:
    """A number that one can count with; None for anything else that a damaged file may hold."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15 and isfinite(value):
        return float(value)
    return None


def read_run(spool: SpoolFiles, run: RunFiles) -> Run:
    """Read a run."""
    return _Reader(spool, run).read()


class _Seen(NamedTuple):
    """What there is of a job. accepted: the number of the attempt that counts, and its result.

    tries: the result of each attempt, oldest first; empty for one without. claims: claimants and times, where they
    are known already.
    """

    accepted: Any
    result: Mapping[str, Any]
    tries: Mapping[int, Mapping[str, Any]]
    claims: Mapping[int, tuple[str, float]]


class _Reader:
    """One reading under way."""

    def __init__(self, spool: SpoolFiles, run: RunFiles) -> None:
        view = RunView(run, read_quietly(run.run), coordinator(run), is_driven(run))
        self.run = Run(run, view.record, view.state, view.alive, view.coordinator, time.time())
        self._observer = Observer(spool)
        self._alive: dict[str, bool] = {}
        self._groups: dict[str, int] = {}

    def read(self) -> Run:
        run = self.run
        if "$unreadable" in run.record:
            self._tell(run.files.run, run.record["$unreadable"])
        elif not run.record:
            self._tell(run.files.run, "missing")
        pending = deque(fanouts(run.files.fanouts))
        while pending:
            pending.extend(self._fanout(pending.popleft()))
        return run

    def _tell(self, path: str, why: Any) -> None:
        self.run.damaged.append(f"{os.path.relpath(path, self.run.files.path)}: {why}")

    def _fanout(self, files: FanOutFiles) -> list[FanOutFiles]:
        """Read a fan-out; the fan-outs inside its branches."""
        record = read_quietly(files.fanout)
        if "$unreadable" in record or not record:
            self._tell(files.fanout, record.get("$unreadable", "missing"))
        group = self._group(group_name(files), record)
        listed = {name: kind for kind in TICKETS for name in tickets.names(files, kind)}
        self.run.fanouts[group].folders += 1
        self.run.fanouts[group].unmade += max(0, int(number(record.get("total")) or 0) - len(listed))
        prefix, inside = in_run(files.path), []
        for name in sorted(listed):
            job = files.job(name)
            self.run.jobs.append(self._job(job, group, f"{prefix}/{name}", listed[name]))
            if record.get("nested") is not False and os.access(job.fanouts, os.F_OK):
                inside += fanouts(job.fanouts)
        return inside

    def _group(self, name: str, record: Mapping[str, Any]) -> int:
        if name not in self._groups:
            self._groups[name] = len(self.run.fanouts)
            self.run.fanouts.append(FanOut(name, record))
        return self._groups[name]

    # -- jobs -----------------------------------------------------------------------------------------------

    def _job(self, job: JobFiles, group: int, name: str, ticket: str) -> Job:
        seen = self._packed(job) or self._seen(job)
        counts, last = seen.accepted, max(seen.tries, default=0)
        # Who was followed by another attempt was found dead; only the last one may still live.
        attempts = [
            self._attempt(job, n, result, seen.claims.get(n), n == last and not seen.result)
            for n, result in seen.tries.items()
        ]
        if len(attempts) > 1:
            attempts = list(_with_ends(attempts))
        state = str(seen.result.get("outcome") or _OF_TICKET[ticket])
        if state == "waiting" and attempts and attempts[-1].outcome == "running":
            state = "running"
        counted = next((one for one in attempts if one.number == counts), attempts[-1] if attempts else None)
        kind, error = _why(state, seen.result or seen.tries.get(last, {}), attempts)
        return Job(group, name, job.path, state, tuple(attempts), counted, kind, error)

    def _packed(self, job: JobFiles) -> _Seen | None:
        """What the pack of its run tells of a job; None for one whose files are to be looked at."""
        told = brief(job)
        if told is None:
            return None
        tries = {number_: told.results.get(number_, {}) for number_ in sorted(told.claims | told.results.keys())}
        return _Seen(told.accepted, told.result, tries, told.claims)

    def _seen(self, job: JobFiles) -> _Seen:
        """What the files of a job tell."""
        fetch(job)
        claims, results, is_accepted = set(), set(), False
        for one in self._names(job):
            if one.startswith(("claim.", "result.")):  # the other half of the names needs no closer look
                if match := CLAIM.fullmatch(one):
                    claims.add(int(match[1]))
                elif match := RESULT.fullmatch(one):
                    results.add(int(match[1]))
                elif QUARANTINED.fullmatch(one):
                    self._tell(f"{job.path}/{one}", "was put aside, as it could not be trusted")
                elif one == "result.json":
                    is_accepted = True
        accepted = self._accepted(job) if is_accepted else {}
        counts = accepted.get("attempt")
        tries: dict[int, Mapping[str, Any]] = {}
        for number_ in sorted(claims | results):
            if number_ == counts:
                tries[number_] = accepted
            else:
                tries[number_] = self._result(job, number_) if number_ in results else {}
        return _Seen(counts, accepted, tries, {})

    def _names(self, job: JobFiles) -> list[str]:
        try:
            return os.listdir(job.path)
        except OSError as error:
            self._tell(job.path, error.strerror)
            return []

    def _accepted(self, job: JobFiles) -> Mapping[str, Any]:
        """The accepted result; with `$unreadable` one that cannot be trusted."""
        try:
            return read_accepted(job, None) or {}
        except (CorruptFileError, ForeignFileError) as error:
            return self._distrust(job.accepted, error.why)
        except OSError as error:
            return self._distrust(job.accepted, error.strerror)

    def _result(self, job: JobFiles, attempt: int) -> Mapping[str, Any]:
        """The result of an attempt; with `$unreadable` one that cannot be trusted."""
        path = job.result(attempt)
        result = read_quietly(path)
        if "$unreadable" in result:
            return self._distrust(path, result["$unreadable"])
        try:
            check_result(path, dict(result), job.name, attempt, None)
        except CorruptFileError as error:
            return self._distrust(path, error.why)
        return result

    def _distrust(self, path: str, why: Any) -> dict[str, Any]:
        self._tell(path, why)
        return {"$unreadable": str(why)}

    def _attempt(
        self, job: JobFiles, number_: int, result: Mapping[str, Any], claim: tuple[str, float] | None, may_live: bool
    ) -> Attempt:
        started = number(result.get("started"))
        if result and "$unreadable" not in result and started is not None:
            worker = _worker(result.get("host"), result.get("pid"))
            return Attempt(number_, str(result["outcome"]), started, number(result.get("seconds")), worker)
        text, claimed = claim or (claimed_by(job, number_) or "", _claimed(job, number_))
        claimant = Claimant.parse(text)
        worker = f"{claimant.host}:{claimant.pid}" if claimant else ""
        if result:
            outcome = "unreadable" if "$unreadable" in result else str(result["outcome"])
            return Attempt(number_, outcome, claimed, number(result.get("seconds")), worker)
        if may_live and self._lives(text):
            return Attempt(number_, "running", claimed, max(0.0, self.run.taken - claimed), worker)
        return Attempt(number_, "lost", claimed, None, worker)

    def _lives(self, claimant: str) -> bool:
        if claimant not in self._alive:
            self._alive[claimant] = self._observer.is_alive(claimant)
        return self._alive[claimant]


def _worker(host: Any, pid: Any) -> str:
    return _visible(f"{host or '?'}:{pid or '?'}")


_visible = lru_cache(maxsize=4096)(visible)  # a few workers are in many results


def _claimed(job: JobFiles, attempt: int) -> float:
    """When an attempt was claimed, as the file system says; 0 when nobody knows."""
    for path in (job.claim(attempt), job.result(attempt)):
        try:
            return os.lstat(path).st_mtime
        except OSError:
            continue
    return 0.0


def _with_ends(attempts: list[Attempt]) -> Iterator[Attempt]:
    """The attempts; a lost one has lived until the next one began at most."""
    for one, after in zip_longest(attempts, attempts[1:]):
        if one.outcome in ("lost", "unreadable") and one.seconds is None and after is not None:
            yield Attempt(one.number, one.outcome, one.started, max(0.0, after.started - one.started), one.worker)
        else:
            yield one


def _why(state: str, result: Mapping[str, Any], attempts: list[Attempt]) -> tuple[str, str]:
    """The type and the first line of what went wrong; both empty when nothing did."""
    if "$unreadable" in result:
        return "unreadable result", visible(str(result["$unreadable"]))
    if state in ("succeeded", "running"):
        return "", ""
    if not result:
        lost = bool(attempts) and attempts[-1].outcome == "lost"
        return ("lost", f"attempt {attempts[-1].number} lost its worker") if lost else ("", "")
    text = visible(str(result.get("error") or "")).strip()
    kind = visible(str(result.get("error_type") or "")) or (state.replace("_", " ") if state in FAILED else "")
    return kind[:120], text.partition("\n")[0][:300]
