"""A pool whose jobs run in worker processes of this machine: the slots of the strategy `process`, job after job.

Hints in the slots' pipes tell at once what has begun and ended; a listing of `todo/` now and then finds what a lost
hint did not tell, or what a `tea worker` has done.
"""

from __future__ import annotations

import os
import sys
import time
from multiprocessing import connection
from typing import Any

import cloudpickle

from executors.ending import reap
from executors.server import warm_up
from executors.slot import SlotSetup
from executors.slots import Slots
from spool import job as jobs
from spool import tickets
from spool.attempts import Outcome
from spool.errors import CorruptFileError, ForeignFileError
from spool.patience import PASSING, PATIENCE
from spool.publish import quarantine
from spool.watcher import INTERVAL, SHARE
from spool.worker import Observer
from tea.futures import JobFuture, unpickled
from tea.pool import Pool, PoolSetup
from tea.version import __version__

TICK = 0.05
"""Seconds between looks at deadlines."""


class ProcessPool(Pool):
    """Jobs in processes, one `ProcessPoolExecutor` a slot."""

    def __init__(self, setup: PoolSetup) -> None:
        self._runtime = None if setup.initializer is None else bytes(cloudpickle.dumps(setup.initializer))
        super().__init__(setup)
        self._slots: Slots | None = None
        self._news, self._bell = connection.Pipe(duplex=False)
        os.set_blocking(self._bell.fileno(), False)
        self._timed = self.policy.timeout_seconds is not None or self.policy.timeout_total is not None
        self._busy: set[str] = set()
        self._next_poll = 0.0
        self._told: set[str] = set()

    def added(self, future: JobFuture[Any], state: dict[str, Any]) -> None:
        """Wake the slots, where some have nothing to do and have not been told of a job that waits."""
        slots, busy, workers = self._slots, len(self._busy), self.setup.workers
        if slots is not None and busy < workers and len(self.pending) - busy <= workers:
            slots.wake()
        if len(self.pending) == 1:
            self.wake()

    def wake(self) -> None:
        """Ring the bell that `_wait` hears."""
        with self.lock:
            try:
                os.write(self._bell.fileno(), b"!")
            except OSError:  # it has rung often enough, or nobody is there any more
                pass

    def end_running(self, reason: str) -> None:
        """End the slots that run jobs, and take what they had finished before."""
        slots = self._slots
        assert slots is not None
        slots.stop_claiming()
        for name in list(self.pending):
            slots.end_job(name, self.config.grace_seconds, reason)
        self._poll()

    # -- the loop -----------------------------------------------------------------------------------------------

    def drive(self) -> None:
        """Take what workers bring, until it is over."""
        reap(self.spool)
        warm_up("tea.calls")
        slots = self._slots = Slots(self.spool, self._slot_setup(), self.setup.workers, self.note, self.setup.warn)
        try:
            slots.start()
            while not self.over:
                self._step(slots)
        finally:
            self._slots = None
            slots.stop(self.config.grace_seconds, patience=0.0 if self.stopping else 1.0)
            Observer(self.spool).bury()
            with self.lock:
                self._bell.close()
            self._news.close()

    def _slot_setup(self) -> SlotSetup:
        return SlotSetup(
            spool=self.spool.path,
            fanout=self.fanout.path,
            runner="tea.calls:CallRunner",
            slots=self.setup.workers,
            supervisor=self.me.text,
            runtime=self._runtime,
            version=__version__,
            path=tuple(os.path.abspath(entry) for entry in sys.path),
            cwd=os.getcwd(),
            environment=dict(os.environ),
            announce=True,
        )

    def _step(self, slots: Slots) -> None:
        lines = [*slots.hints(), *slots.replace_dead()]
        for line in lines:
            self._take_hint(line)
        if time.monotonic() >= self._next_poll:
            self._poll()
        if self._timed:
            limits = (self.policy.timeout_seconds, self.policy.timeout_total)
            slots.end_late(lambda _job: limits, self.config.grace_seconds)
        self.listen()
        if not lines and not self.over:
            self._wait(slots)

    def _wait(self, slots: Slots) -> None:
        """Wait for a hint, a death or the bell."""
        most = 1.0 if not self.pending else TICK if self._timed else INTERVAL
        ends: list[Any] = [self._news, *(slot.hints for slot in slots.slots)]
        if self._news in connection.wait([*ends, *(slot.process.sentinel for slot in slots.slots)], most):
            os.read(self._news.fileno(), 65536)

    def _take_hint(self, line: str) -> None:
        if line[0] == "!":
            self._complain(line[1:])
            return
        name = line[1:].partition(" ")[0]
        future = self.pending.get(name)
        if line[0] == "+":
            self._busy.add(name)
            if future is not None:
                future.running_now()
        else:
            self._busy.discard(name)
            if future is not None:
                self._collect(name, future)

    def _poll(self) -> None:
        """Find what no hint told: jobs without a ticket in `todo/`."""
        began = time.monotonic()
        if self.pending:
            known = self.pending.copy()  # at once: others add to it
            waiting = set(tickets.names(self.fanout, "todo"))
            for name, future in known.items():
                if name not in waiting:
                    self._collect(name, future)
                    self._busy.discard(name)
        ended = time.monotonic()
        self._next_poll = ended + max(INTERVAL, (ended - began) * SHARE)

    # -- results ------------------------------------------------------------------------------------------------

    def _collect(self, name: str, future: JobFuture[Any]) -> None:
        """Take a job's accepted result, if it has one that can be trusted; a retry may follow instead."""
        job = self.fanout.job(name)
        raw: dict[str, Any] | None = None
        try:
            raw = jobs.read_accepted(job, future.sha)
            changes = unpickled(job, raw) if raw is not None else {}
        except (CorruptFileError, ForeignFileError) as error:
            quarantine(job.accepted)
            if raw is not None:  # what belongs to the result is spoiled, and the result with it
                quarantine(job.result(raw["attempt"]))
            tickets.settle(self.fanout, name, "todo")
            self.note("corrupt", job=name, error=str(error))
            return
        except OSError as error:
            if error.errno not in PASSING:
                raise
            self._complain(f"cannot read the result of {name}: {error}; waiting until it is possible again")
            time.sleep(PATIENCE)
            return
        except Exception as error:  # unpickling imports and calls user code
            assert raw is not None
            text = f"its result cannot be unpickled in this process: {type(error).__name__}: {error}"
            raw, changes = {**raw, **(_unreadable(text) if raw.get("success") else {})}, {}
        if raw is not None:
            self.settle(future, raw, changes)
            if raw["outcome"] == Outcome.CANCELLED.value and self._slots is not None and name in self._busy:
                self._slots.end_job(name, self.config.grace_seconds, str(raw.get("error")))

    def _complain(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self.setup.warn(text)
            self.note("disk", error=text)


def _unreadable(text: str) -> dict[str, Any]:
    return {"success": False, "outcome": Outcome.FAILED.value, "error": text, "error_type": "UnreadableError"}
