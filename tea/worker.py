"""`tea worker`: runs jobs that others made, on this machine, until the spool has nothing left.

    look for a fan-out with work --> slots on it --> until nobody needs them there --> look again

The slots are the same as those of the strategy `process`, under the same supervisor: a job that exceeds its time is
ended with everything it started, a slot that dies is replaced.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from executors.server import warm_up
from executors.slot import SlotSetup
from executors.slots import Slots
from spool import job as jobs
from spool import tickets
from spool.claim import claimed_by
from spool.errors import SpoolError
from spool.layout import FanOutFiles, RunFiles
from spool.pause import paused
from spool.publish import read_json
from spool.run import fanouts, find_spool, runs
from spool.worker import LEASE, this_worker
from tea.version import __version__

_TICK = 0.05
_SETTLE = 1.0
"""Seconds that slots stay at a fan-out without free jobs before the worker looks elsewhere, and between its looks."""

_IDLE_TICK = 0.2


@dataclass(slots=True)
class Work:
    """A fan-out with work for anybody."""

    fanout: FanOutFiles
    record: dict[str, Any]
    folder: str
    run: RunFiles | None = None
    """Its run; without one the worker stays with it until nothing is left to do."""

    @property
    def lease(self) -> float:
        return float(self.record.get("lease") or LEASE)

    @property
    def patience(self) -> float:
        """Seconds within which whoever stays sees that a silent worker is dead, or that a back-off has passed."""
        retry = (self.record.get("config") or {}).get("retry_policy") or {}
        return _SETTLE + 2 * self.lease + float(retry.get("max_delay") or 0)


class WorkerCommand:
    """One call of `work`."""

    def __init__(self, spool: str, slots: int, follow: bool, warn: Callable[[str], None]) -> None:
        self.spool = find_spool(spool)
        self.count, self.follow, self.warn = slots, follow, warn
        self.done = 0
        self._told: set[str] = set()
        self._left: dict[str, float] = {}
        self._orphaned = threading.Event()

    def run(self) -> int:
        """Work until there is nothing left, or for ever; the number of attempts that were run."""
        warm_up("tea.job")
        _watch_stdin(self._orphaned)
        while not self._orphaned.is_set():
            work = self._find()
            if work is not None:
                self.work_on(work)
            elif self.follow:
                self._orphaned.wait(0.5)
            elif not self._anything_unfinished():
                break
            else:
                self._orphaned.wait(0.2)
        return self.done

    # -- looking ------------------------------------------------------------------------------------------------

    def _find(self) -> Work | None:
        """The oldest fan-out with a job that nobody has had yet.

        Where there is none, the one that we left longest ago of those whose jobs may come back: their worker may be
        dead, or they wait to be tried again.
        """
        waiting = []
        for work in self._works():
            if _has_new(work.fanout):
                return work
            waiting.append(work)
        return min(waiting, key=lambda work: self._left.get(work.fanout.path, 0.0), default=None)

    def _works(self) -> Iterator[Work]:
        """Fan-outs that have jobs to do which anybody may run, the oldest first."""
        for run in runs(self.spool):
            for fanout in fanouts(run.fanouts):
                if tickets.names(fanout, "todo") and not self._held(run) and (work := self._usable(fanout, run)):
                    yield work

    def _wanted_elsewhere(self, work: Work, idle: float) -> bool:
        """Whether slots that found nothing to do for `idle` seconds are of more use at another fan-out.

        They are not while nobody else needs them: only who stays for a lease sees that a worker of another host died.
        """
        if work.run is None:
            return False
        others = [other for other in self._works() if other.fanout.path != work.fanout.path]
        return self._held(work.run) or any(idle > work.patience or _has_new(other.fanout) for other in others)

    def _held(self, run: RunFiles) -> bool:
        """Whether a run is paused, so that nobody takes jobs of it."""
        if not (note := paused(run)):
            return False
        self._tell(f"{run.path} {note['at']}", f"run {run.name} is paused by {note['by']}; its jobs wait")
        return True

    def _usable(self, fanout: FanOutFiles, run: RunFiles) -> Work | None:
        try:
            record = read_json(fanout.fanout)
            folder = str(read_json(run.run).get("folder") or "")
        except FileNotFoundError:
            return None  # it is just being made, or removed
        except SpoolError as error:
            self._tell(fanout.path, f"{error}; its jobs are passed over")
            return None
        if record.get("strategy") == "thread":
            return None  # its coordinator's threads have the state as objects
        if not record.get("portable") or record.get("runner") != "tea.job:WorkflowRunner":
            self._tell(fanout.path, f"{fanout.path}: only the process that made these jobs can run them; passed over")
            return None
        return Work(fanout, record, folder, run)

    def _tell(self, key: str, text: str) -> None:
        if key not in self._told:
            self._told.add(key)
            self.warn(text)

    def _anything_unfinished(self) -> bool:
        """Whether jobs that run elsewhere may yet come back: their workers may die."""
        return any(
            tickets.names(fanout, "todo") and self._usable(fanout, run)
            for run in runs(self.spool)
            for fanout in fanouts(run.fanouts)
        )

    # -- working ------------------------------------------------------------------------------------------------

    def work_on(self, work: Work) -> None:
        """Run jobs of a fan-out until it has none to do, or none that are free while others have some."""
        slots = Slots(self.spool, self._setup(work), self.count, lambda *_a, **_k: None, self.warn)
        grace = float((work.record.get("config") or {}).get("grace_seconds", 5.0))
        try:
            slots.start()
            self._attend(slots, work, grace)
        finally:
            slots.stop(grace)
            self._left[work.fanout.path] = time.monotonic()

    def _attend(self, slots: Slots, work: Work, grace: float) -> None:
        """Supervise the slots, also when they have been told to end: who took a job just then finishes it."""
        fanout = work.fanout
        since, leaving = time.monotonic(), False
        next_look = 0.0
        while slots.slots and not self._orphaned.is_set():
            lines = [*slots.hints(), *slots.replace_dead()]
            self.done += sum(line.startswith("-") for line in lines)
            for line in lines:
                if line.startswith("!"):
                    self._tell(line, line[1:])
            slots.end_late(lambda job: self._limits(fanout, job), grace)
            _end_superseded(slots, fanout, grace)
            now = time.monotonic()
            if lines or any(slot.look() for slot in slots.slots):
                since = now
            elif leaving:
                if now - since > _SETTLE:
                    break
            elif not _all_started(slots) and tickets.names(fanout, "todo"):
                since = now
            elif not tickets.names(fanout, "todo"):
                slots.stop_claiming()
                since, leaving = now, True
            elif now - since > _SETTLE and now >= next_look:
                if self._wanted_elsewhere(work, now - since):
                    slots.stop_claiming()
                    since, leaving = now, True
                next_look = time.monotonic() + _SETTLE
            slots.wait(_IDLE_TICK if now - since > _SETTLE else _TICK)

    def _limits(self, fanout: FanOutFiles, job: str) -> tuple[float | None, float | None]:
        try:
            policy = jobs.read_job(fanout.job(job)).policy
        except (SpoolError, OSError):
            return None, None
        return policy.timeout_seconds, policy.timeout_total

    def _setup(self, work: Work) -> SlotSetup:
        return SlotSetup(
            spool=self.spool.path,
            fanout=work.fanout.path,
            runner=str(work.record["runner"]),
            slots=self.count if self.count > 1 else 0,
            supervisor=this_worker(self.spool, slots=0, version=__version__).text,
            options=work.record.get("options") or {},
            sync=work.record.get("durability") == "power",
            lease=work.lease,
            version=__version__,
            path=(work.folder,) if work.folder else (),
            cwd=os.getcwd(),
            environment=dict(os.environ),
        )


def _has_new(fanout: FanOutFiles) -> bool:
    """Whether a job is to do that nobody has had yet."""
    return any(claimed_by(fanout.job(name), 1) is None for name in tickets.names(fanout, "todo"))


def _all_started(slots: Slots) -> bool:
    """Whether every slot has come so far that it looks for jobs: before that it is not idle."""
    return all(slot.files is not None for slot in slots.slots)


def _end_superseded(slots: Slots, fanout: FanOutFiles, grace: float) -> None:
    """End jobs whose result nobody waits for: their coordinator, or somebody who took them for lost, has gone on."""
    for doing in [doing for slot in slots.slots if (doing := slot.look()) is not None]:
        if claimed_by(fanout.job(doing.job), doing.attempt + 1) is not None:
            slots.end_job(doing.job, grace, "cancelled, or taken for lost, while it ran")


def _watch_stdin(orphaned: threading.Event) -> None:
    """A worker whose stdin is a pipe ends when the other end is closed: its parent has gone."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        orphaned.set()

    threading.Thread(target=watch, name="tea-stdin", daemon=True).start()


def work(spool: str, *, slots: int = 1, until_empty: bool = True, warn: Callable[[str], None] | None = None) -> int:
    """Run jobs of a spool with so many slots; the number of attempts that were run.

    Raises SpoolError when there is no spool.
    """
    return WorkerCommand(spool, slots, not until_empty, warn or (lambda _text: None)).run()
