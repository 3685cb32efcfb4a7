"""Reading a spool for people: how far runs are, and who works on what. (What a job went through: `jobview.py`.)

Works on live, finished and crashed runs, and never writes. Counting is by ticket folders: no job is opened to be
counted. What needs a look at every job (fan-outs inside branches) is done within a budget of time, and said when it
ran out.
"""

from __future__ import annotations

import heapq
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from spool import tickets
from spool.claim import claimed_by, host_name
from spool.find import fanout_of, in_run
from spool.jobview import accepted_of, claimed_at, newest_claim
from spool.layout import TICKETS, FanOutFiles, JobFiles, RunFiles, SpoolFiles, WorkerFiles, is_name
from spool.publish import process_exists, read_quietly
from spool.run import coordinator, fanouts
from spool.worker import Observer, is_locked, read_now

NESTED_BUDGET = 0.45
"""Seconds for finding the fan-outs inside branches."""

THREADS_LOOKED_AT = 64
"""Jobs at the head of `todo/` that are looked into to find what threads run."""


# -- workers ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Running:
    """An attempt that runs. started: seconds since the epoch, on the worker's clock. host: another one, which its
    claimant sent it to; empty when it runs where its claimant does.
    """

    job: JobFiles
    attempt: int
    claimant: str
    started: float
    host: str = ""


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker that has a folder: it lives, or it was killed. attempts: several where it serves another host."""

    name: str
    alive: bool
    record: Mapping[str, Any]
    attempts: tuple[Running, ...]

    @property
    def running(self) -> Running | None:
        """What it runs, the first of several."""
        return next(iter(self.attempts), None)


def workers(spool: SpoolFiles, observer: Observer | None = None) -> list[WorkerView]:
    """The workers of a spool, by name."""
    observer = observer or Observer(spool)
    dead = set(observer.dead_workers())
    try:
        names = sorted(name for name in os.listdir(spool.workers) if is_name(name))
    except FileNotFoundError:
        return []
    return [_worker(spool, name, name not in dead) for name in names]


def _worker(spool: SpoolFiles, name: str, alive: bool) -> WorkerView:
    files = spool.worker(name)
    record = read_quietly(files.worker)
    return WorkerView(name, alive, record, at_work(files, str(record.get("serves") or "")))


def at_work(files: WorkerFiles, host: str = "") -> tuple[Running, ...]:
    """The attempts that a worker's `now` names. host: the one that it serves."""
    return tuple(one for line in read_now(files).splitlines() if (one := _running(line, host)))


def _running(line: str, host: str) -> Running | None:
    try:
        path, name, attempt, started, _ = line.rsplit(" ", 4)
        job = FanOutFiles(path).job(name)
        return Running(job, int(attempt), claimed_by(job, int(attempt)) or "", float(started), host)
    except (ValueError, OSError):
        return None


# -- runs -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class FanOutView:
    """A fan-out, or all fan-outs of one name inside the branches of another: `001-split/*/001-inner`.

    record: the fanout.json (of the first). folders: how many fan-outs these are.
    counts: tickets by folder. moved: when the newest ticket moved, seconds since the epoch; 0 when none did.
    """

    name: str
    record: Mapping[str, Any]
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TICKETS, 0))
    total: int = 0
    folders: int = 0
    moved: float = 0.0
    running: int = 0

    @property
    def finished(self) -> int:
        return sum(self.counts[kind] for kind in tickets.FINISHED)

    @property
    def todo(self) -> int:
        """Jobs that wait, those included that have not been made yet."""
        return max(0, self.total - self.finished - self.running)

    def rate(self, now: float | None = None) -> float:
        """Finished jobs a second: until now, or until the last ticket moved."""
        started = self.record.get("started")
        seconds = (now or self.moved) - float(started) if isinstance(started, int | float) else 0.0
        return self.finished / seconds if seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """A job that failed for good, and why."""

    job: JobFiles
    result: Mapping[str, Any]


@dataclass(slots=True)
class RunView:
    """A run at one moment.

    alive: whether a coordinator drives it; None when that can't be told from here.
    searched: whether all branches were looked at for fan-outs inside them.
    """

    files: RunFiles
    record: Mapping[str, Any]
    coordinator: str
    alive: bool | None
    fanouts: list[FanOutView] = field(default_factory=list)
    running: list[Running] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    searched: bool = True

    @property
    def state(self) -> str:
        """`running`; the outcome that run.json tells; `stopped` when nobody drives it and it has none."""
        if self.alive:
            return "running"
        outcome = self.record.get("outcome")
        return str(outcome) if outcome else "unknown" if self.alive is None else "stopped"


def is_driven(run: RunFiles) -> bool | None:
    """Whether a coordinator drives a run; None when that can't be told from here.

    The lock is probed only when its owner may live: a probe holds it for a moment, and a coordinator that starts
    just then would be refused.
    """
    owner = coordinator(run)
    host, _, pid = owner.rpartition("@")[2].partition(":")
    if host == host_name() and pid.isdecimal() and not process_exists(int(pid)):
        return False
    return is_locked(run.lock)


def look_at_run(spool: SpoolFiles, run: RunFiles, failures: int = 5, observer: Observer | None = None) -> RunView:
    """A run as it is now; the first `failures` failed jobs of each fan-out with their reasons."""
    view = RunView(run, read_quietly(run.run), coordinator(run), is_driven(run))
    inside = f"{run.path}/"
    now = [one for worker in workers(spool, observer) if worker.alive for one in worker.attempts]
    # A job that has a result runs no more, though a worker of another host may still seem to be at it.
    mine = (running for running in now if running.job.path.startswith(inside))
    view.running = [running for running in mine if not os.path.lexists(running.job.accepted)]
    groups: dict[str, FanOutView] = {}
    deadline = time.monotonic() + NESTED_BUDGET
    pending = fanouts(run.fanouts)
    while pending:
        fanout = pending.pop(0)
        names = _add(view, groups, fanout, failures)
        nested, searched = _nested(fanout, names, deadline)
        view.searched = view.searched and searched
        pending += nested
    view.fanouts = list(groups.values())
    _count_running(view, groups)
    view.failures = view.failures[:failures]
    return view


def _add(view: RunView, groups: dict[str, FanOutView], fanout: FanOutFiles, failures: int) -> list[str]:
    """Count a fan-out in its group; the names of its jobs."""
    group = groups.get(name := group_name(fanout))
    if group is None:
        group = groups[name] = FanOutView(name, read_quietly(fanout.fanout))
    record = read_quietly(fanout.fanout) if group.folders else group.record
    group.folders += 1
    every: list[str] = []
    found: dict[str, list[str]] = {}
    for kind in TICKETS:
        found[kind] = tickets.names(fanout, kind)
        group.counts[kind] += len(found[kind])
        every += found[kind]
    group.total += int(record.get("total") or len(every))
    group.moved = max(group.moved, _moved(fanout))
    if found["todo"] and view.alive and record.get("strategy", "thread") == "thread":
        view.running += _threads(fanout, found["todo"])
    if len(view.failures) < failures:
        first = [fanout.job(job) for job in heapq.nsmallest(failures, found["failed"])]
        view.failures += [Failure(job, accepted_of(job)) for job in first]
    return every


def group_name(fanout: FanOutFiles) -> str:
    """`001-split/*/001-inner`: the name that all fan-outs of one place in the workflow share."""
    parts = in_run(fanout.path).split("/")
    return "/".join("*" if number % 2 else part for number, part in enumerate(parts))


def _moved(fanout: FanOutFiles) -> float:
    """When the newest ticket moved: a rename changes the folder that it ends in."""
    newest = 0.0
    for kind in tickets.FINISHED:
        try:
            newest = max(newest, os.stat(fanout.tickets(kind)).st_mtime)
        except FileNotFoundError:
            continue
    return newest


def _threads(fanout: FanOutFiles, todo: list[str]) -> Iterator[Running]:
    """What the threads of a coordinator run: they take jobs in order, and no worker's `now` tells of them."""
    for name in heapq.nsmallest(THREADS_LOOKED_AT, todo):
        job = fanout.job(name)
        last = newest_claim(job)
        if last and not os.path.lexists(job.result(last)):
            yield Running(job, last, claimed_by(job, last) or "", claimed_at(job, last))


def _nested(fanout: FanOutFiles, names: Iterable[str], deadline: float) -> tuple[list[FanOutFiles], bool]:
    """The fan-outs inside the branches of a fan-out, and whether there was time to look at all of them."""
    if read_quietly(fanout.fanout).get("nested") is False:
        return [], True
    found: list[FanOutFiles] = []
    for number, name in enumerate(sorted(names)):
        if number % 256 == 255 and time.monotonic() > deadline:
            return found, False
        folder = fanout.job(name).fanouts
        if os.access(folder, os.F_OK):  # much cheaper than a listing that fails
            found += fanouts(folder)
    return found, True


def fanouts_inside(fanout: FanOutFiles, names: Iterable[str]) -> list[FanOutFiles]:
    """The fan-outs inside the named branches, however long it takes to look."""
    return _nested(fanout, names, float("inf"))[0]


def _count_running(view: RunView, groups: dict[str, FanOutView]) -> None:
    """Each running attempt once, counted in its group."""
    view.running = list({(one.job.path, one.attempt): one for one in view.running}.values())
    for one in view.running:
        group = groups.get(group_name(fanout_of(one.job)))
        if group is not None:
            group.running += 1
