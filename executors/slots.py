"""Slots and their supervisor: starts worker processes, sees them die, ends them when their job's time is up.

One single-process pool a slot, so that a killed worker costs one slot and nothing else. The supervisor is the process
that owns the pools. It alone knows how a slot died:

    by SIGKILL, SIGTERM, SIGHUP ...       somebody or something from outside: the attempt is lost, it runs again
    by SIGSEGV, SIGABRT ... or an exit    the job did it: the attempt failed, with that reason
    because its time was up               the attempt timed out
"""

from __future__ import annotations

import os
import shutil
import signal
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import connection
from typing import Any

from executors.attempt import TIMEOUT_TYPES
from executors.held_slot import Doing, Slot, how_it_ended
from executors.server import start_server
from executors.slot import SlotSetup
from spool import job as jobs
from spool.attempts import Outcome
from spool.claim import Claimant, claimed_by, host_name
from spool.errors import SpoolError
from spool.layout import FanOutFiles, SpoolFiles
from spool.logs import keep_logs
from spool.patience import patiently
from spool.publish import sweep
from spool.worker import is_locked

_FROM_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT})
_EARLY_DEATHS = 3
_SERVERS = 5
"""Servers that may be killed while one slot is being started."""


class SlotsFailedError(RuntimeError):
    """Worker processes die before they take a job."""


_known: weakref.WeakSet[Slots] = weakref.WeakSet()


def kill_all() -> None:
    """KILL to the slots of all fan-outs of this process, which is about to end and must not wait for them."""
    for slots in list(_known):
        slots.kill()


class Slots:
    """The slots of one fan-out on this machine, once they are started.

    Args:
        spool: the spool they register in.
        setup: what every slot is told; `slot` and `first` are filled in here.
        count: how many.
        note: called with an event and its fields when a slot dies or a job's time is up.
        warn: takes visible warnings.
    """

    def __init__(
        self,
        spool: SpoolFiles,
        setup: SlotSetup,
        count: int,
        note: Callable[..., None],
        warn: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._spool, self._setup, self._note, self._warn = spool, setup, note, warn
        self._count, self._early_deaths = count, 0
        self._started = self._closing = False
        self.slots: list[Slot] = []
        self.lost = 0
        _known.add(self)

    def start(self) -> None:
        """Start the slots, when that has not been done yet. Raises SlotsFailedError."""
        if not self._started and not self._closing:
            self._started = True
            for number in range(self._count):
                self.slots.append(self._start(number))

    def _start(self, number: int, first: tuple[str, ...] = ()) -> Slot:
        """Start a slot. The server that it is forked from may be killed at any moment, so that it takes another."""
        setup = replace(self._setup, slot=number, first=first)
        for _ in range(_SERVERS):
            start_server()
            try:
                return Slot(setup)
            except (EOFError, ConnectionError, FileNotFoundError):
                continue
        raise SlotsFailedError(
            f"the server that worker processes are forked from was killed {_SERVERS} times in a row"
        )

    def hints(self) -> list[str]:
        """What all slots have said since the last call."""
        return [line for slot in self.slots for line in slot.read_hints()]

    def wake(self) -> None:
        for slot in self.slots:
            slot.wake()

    def wait(self, timeout: float) -> bool:
        """Wait until a slot says something or dies, at most `timeout` seconds; True when one died."""
        ends: list[Any] = [slot.hints for slot in self.slots]
        ready = connection.wait([*ends, *(slot.process.sentinel for slot in self.slots)], timeout)
        return any(isinstance(one, int) for one in ready)

    # -- death --------------------------------------------------------------------------------------------------

    def replace_dead(self) -> list[str]:
        """Put a new slot in the place of each that died; what it ran is ended or left to run again.

        Returns what they had still said. Raises SlotsFailedError when slots die again and again before they take
        a job.
        """
        last_words: list[str] = []
        if not self._closing:
            for slot in self.slots:
                self._raise_its_error(slot)
        for slot in [slot for slot in self.slots if connection.wait([slot.process.sentinel], timeout=0)]:
            last_words += slot.read_hints()
            slot.process.join(5)
            self._settle_death(slot)
        return last_words

    def _settle_death(self, slot: Slot) -> None:
        slot.kill_rest()  # whatever it started ends with it, so that its lock is free
        doing = slot.look()
        if not self._closing:
            self._count_early_deaths(slot, doing)
        reason = how_it_ended(slot.process.exit_code)
        if doing is not None:
            self._bury(slot, doing, reason)
        if doing is not None or not self._closing:
            self.lost += 1
            self._note("worker died", pid=slot.pid, reason=reason, job=doing and doing.job)
        self._succeed(slot, doing)

    def _succeed(self, slot: Slot, doing: Doing | None) -> None:
        """A new slot takes the place of one that is gone, and looks first at the job that one had."""
        self._forget(slot)
        number = self.slots.index(slot)
        if self._closing:
            del self.slots[number]
        else:
            self.slots[number] = self._start(slot.setup.slot, (doing.job,) if doing else ())

    def _raise_its_error(self, slot: Slot) -> None:
        """A slot that could not even start (an import that fails) says why in its future; its process waits on."""
        if slot.future.done() and not slot.future.cancelled():
            error = slot.future.exception()
            if error is not None and not type(error).__name__.startswith("BrokenProcessPool"):
                raise SlotsFailedError(f"a worker process ended: {type(error).__name__}: {error}") from error

    def _count_early_deaths(self, slot: Slot, doing: Doing | None) -> None:
        self._early_deaths = 0 if slot.worked or doing is not None else self._early_deaths + 1
        if self._early_deaths >= _EARLY_DEATHS:
            raise SlotsFailedError(
                f"{_EARLY_DEATHS} worker processes in a row died before they took a job "
                f"({how_it_ended(slot.process.exit_code)}); see what they printed in {self._spool.workers}"
            )

    def _bury(self, slot: Slot, doing: Doing, reason: str) -> None:
        """Keep what the job had printed; publish its failure when the job itself ended the process."""
        job = FanOutFiles(doing.fanout).job(doing.job)
        if slot.files is not None:
            keep_logs(slot.files, job, doing.attempt)
        sweep(job.path, slot.pid)
        code = slot.process.exit_code
        if code is None or -code in _FROM_OUTSIDE:
            return
        text = f"the job ended its worker process: {reason}"
        self._publish(slot, doing, Outcome.FAILED, "WorkerDied", text, exit_code=code)

    def _publish(self, slot: Slot, doing: Doing, outcome: Outcome, kind: str, error: str, **more: Any) -> None:
        """Publish a result on behalf of a slot that is dead, if its attempt still is its own."""
        fanout = FanOutFiles(doing.fanout)
        job = fanout.job(doing.job)
        claimant = Claimant.parse(claimed_by(job, doing.attempt) or "")
        if claimant is None or claimant.pid != slot.pid:
            return
        try:
            record = jobs.read_job(job)
        except (SpoolError, OSError):
            return
        seconds = max(0.0, time.monotonic() - slot.since)
        result = jobs.verdict_result(job, record, doing.attempt, outcome, kind, error, doing.spent + seconds)
        result.update(seconds=seconds, host=claimant.host, pid=claimant.pid, **more)
        patiently(
            lambda: jobs.finish(fanout, job, record, doing.attempt, result, sync=self._setup.sync),
            f"cannot write the result of {job.path}",
            self._warn,
        )

    def _forget(self, slot: Slot) -> None:
        """The folder of a slot whose end is settled is no evidence any more, though it died before it named it."""
        named = [slot.files.path] if slot.files is not None else self._folders_of(slot.pid)
        for path in named:
            shutil.rmtree(path, ignore_errors=True)
        slot.close()

    def _folders_of(self, pid: int) -> list[str]:
        """Folders that a process of this host has left; whoever else had its number, in a container, has its lock."""
        names = [name for name in os.listdir(self._spool.workers) if name.startswith(f"{host_name()}-{pid}-")]
        left = [self._spool.worker(name) for name in names]
        return [files.path for files in left if not is_locked(files.lock)]

    # -- deadlines ----------------------------------------------------------------------------------------------

    def end_late(self, limits: Callable[[str], tuple[float | None, float | None]], grace: float) -> None:
        """End slots whose job has exceeded its time, and publish that it has.

        limits: gives the seconds that a job may take, in one attempt and in all, None for no limit.
        """
        for slot in list(self.slots):
            doing = slot.look()
            if doing is None:
                continue
            timeout, total = limits(doing.job)
            left = None if total is None else max(total - doing.spent, 0.0)
            limit = min((seconds for seconds in (timeout, left) if seconds is not None), default=None)
            if limit is not None and time.monotonic() - slot.since > limit:
                text = f"Flow timed out after {timeout if limit == timeout else total}s"
                self._end_slot(slot, doing, grace, Outcome.TIMED_OUT, "TimeoutError", text)

    def end_job(self, job: str, grace: float, reason: str) -> bool:
        """End the slot that runs this job and publish that it was cancelled; False when none of ours runs it."""
        for slot in self.slots:
            doing = slot.look()
            if doing is not None and doing.job == job:
                self._end_slot(slot, doing, grace, Outcome.CANCELLED, "CancelledError", reason)
                return True
        return False

    def _end_slot(self, slot: Slot, doing: Doing, grace: float, outcome: Outcome, kind: str, error: str) -> None:
        """End a slot together with what it runs, and then say so in its job's result.

        Until this supervisor has said so, nobody takes the dead slot's attempt for lost.
        """
        slot.end(grace)
        slot.read_hints()
        if slot.files is not None and slot.look() == doing:
            keep_logs(slot.files, FanOutFiles(doing.fanout).job(doing.job), doing.attempt)
            sweep(FanOutFiles(doing.fanout).job(doing.job).path, slot.pid)
            types = TIMEOUT_TYPES if outcome is Outcome.TIMED_OUT else [kind]
            self._publish(slot, doing, outcome, kind, error, error_types=types)
            self._note("ended", job=doing.job, attempt=doing.attempt, outcome=outcome.value)
        self._succeed(slot, doing)

    # -- the end ------------------------------------------------------------------------------------------------

    def stop_claiming(self) -> None:
        """Tell all slots to end after the job they run now; no new slot is started from here on."""
        self._closing = True
        for slot in self.slots:
            slot.tell_to_stop()

    def stop(self, grace: float, patience: float = 0.0) -> None:
        """End all slots: those that still run a job after `patience` seconds get TERM, after `grace` more KILL.

        Who interrupts this (a second Ctrl-C) does not want to wait: all get KILL.
        """
        try:
            self._end_all(grace, patience)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """KILL to all slots and what they have started."""
        for slot in self.slots:
            slot.kill_rest()

    def _end_all(self, grace: float, patience: float) -> None:
        self.stop_claiming()
        deadline = time.monotonic() + patience
        for slot in self.slots:
            connection.wait([slot.process.sentinel], timeout=max(0.0, deadline - time.monotonic()))
        for slot in self.slots:
            if slot.process.exitcode is None:
                slot.terminate()
        for slot in self.slots:
            slot.end(grace)
        self.replace_dead()
