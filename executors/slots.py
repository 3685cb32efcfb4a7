"""Slots and their supervisor: starts worker processes, sees them die, ends them when their job's time is up.

One single-process pool a slot, so that a killed worker costs one slot and nothing else. The supervisor is the process
that owns the pools. It alone knows how a slot died:

    by SIGKILL, SIGTERM, SIGHUP ...       somebody or something from outside: the attempt is lost, it runs again
    by SIGSEGV, SIGABRT ... or an exit    the job did it: the attempt failed, with that reason
    because its time was up               the attempt timed out
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import connection
from typing import Any

from executors.attempt import TIMEOUT_TYPES
from executors.ending import end_worker, kill_rest, signal_group
from executors.server import ForkContext, start_server
from executors.slot import SlotSetup, die_with_parent, slot_main
from spool import job as jobs
from spool.attempts import Outcome
from spool.claim import Claimant, claimed_by, host_name
from spool.errors import SpoolError
from spool.layout import FanOutFiles, SpoolFiles, WorkerFiles
from spool.logs import keep_logs
from spool.patience import patiently
from spool.publish import sweep
from spool.worker import is_locked, read_now

_FROM_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT})
_EARLY_DEATHS = 3
_SERVERS = 5
"""Servers that may be killed while one slot is being started."""


class SlotsFailedError(RuntimeError):
    """Worker processes die before they take a job."""


@dataclass(frozen=True, slots=True)
class Doing:
    """What a slot runs now, from its `now` file."""

    fanout: str
    job: str
    attempt: int
    started: float
    spent: float

    @classmethod
    def parse(cls, text: str) -> Doing | None:
        parts = text.rsplit(" ", 4)
        if len(parts) != 5:
            return None
        try:
            return cls(parts[0], parts[1], int(parts[2]), float(parts[3]), float(parts[4]))
        except ValueError:  # caught in the middle of a write: the next look tells
            return None


class Slot:
    """One worker process, its pipes and its deadline."""

    def __init__(self, setup: SlotSetup) -> None:
        self.setup = setup
        self._manager: threading.Thread | None = None
        context = ForkContext()
        control_r, self._control = context.Pipe(duplex=False)
        self.hints, hints_w = context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(
            max_workers=1, mp_context=context, initializer=_keep, initargs=(control_r, hints_w)
        )
        try:
            self.future: Future[None] = self._pool.submit(_live, setup)
        except BaseException:
            self.close()
            raise
        finally:
            control_r.close()
            hints_w.close()
        self._manager = self._pool._executor_manager_thread  # type: ignore[assignment]  # typeshed errs
        self.process = context.started[0]
        for end in (self.hints, self._control):  # a slot that is at a long job does not read what it is told
            os.set_blocking(end.fileno(), False)
        self._rest = b""
        self.doing: Doing | None = None
        self.since = 0.0
        self.worked = False
        self.files: WorkerFiles | None = None
        """Its folder; None until it has said which."""

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def read_hints(self) -> list[str]:
        """The lines that the slot has sent since the last call."""
        lines = []
        while True:
            try:
                data = os.read(self.hints.fileno(), 65536)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.EBADF:
                    break
                raise
            if not data:
                break
            *whole, self._rest = (self._rest + data).split(b"\n")
            lines += [line.decode("ascii", "replace") for line in whole]
        if self.files is None and (name := next((line for line in lines if line.startswith("=")), None)):
            self.files = SpoolFiles(self.setup.spool).worker(name[1:])
            lines.remove(name)
        self.worked = self.worked or bool(lines)
        return lines

    def wake(self) -> None:
        """Tell the slot that there are new jobs."""
        with contextlib.suppress(OSError):
            os.write(self._control.fileno(), b"!")

    def tell_to_stop(self) -> None:
        """The slot ends after the job that it runs now."""
        self._control.close()
        self._pool.shutdown(wait=False)

    def look(self) -> Doing | None:
        """What the slot runs now; remembers since when it has run it, on our own clock."""
        doing = Doing.parse(read_now(self.files)) if self.files else None
        if doing != self.doing:
            self.doing, self.since = doing, time.monotonic()
        return doing

    def end(self, grace: float) -> None:
        """TERM to the slot and all that its job started, after `grace` seconds KILL; returns when nobody is left."""
        if not self.ended_in_order:
            end_worker(self.pid, self.files, grace, self.process.join)
            self.process.join(5)

    @property
    def ended_in_order(self) -> bool:
        """Whether the slot has ended as it was told: no job was running, so nothing need be looked for."""
        return self.process.exitcode == 0

    def kill_rest(self) -> None:
        """KILL to what a slot that is dead has left: all that its job started, or what is left of its group."""
        if self.ended_in_order:
            signal_group(self.pid, signal.SIGKILL)
        else:
            kill_rest(self.pid, self.files)

    def terminate(self) -> None:
        """TERM to the slot and its group, without waiting."""
        signal_group(self.pid, signal.SIGTERM)

    def close(self) -> None:
        """Release pipes and pool of a slot that has ended.

        The pool's own thread is the last that holds its semaphores. Started by a daemon it is one, too, and at exit
        nobody would wait until it has let go of them: the resource tracker would call them leaked.
        """
        with contextlib.suppress(OSError):
            self._control.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._manager is not None:
            self._manager.join(5)
        self.hints.close()


_pipes: list[connection.Connection] = []


def _keep(control: connection.Connection, hints: connection.Connection) -> None:
    """Pool initializer: pipes can only be handed over while a process starts.

    The process that started this one may die before it says what to do, so it is watched from here on.
    """
    die_with_parent()
    _pipes[:] = [control, hints]


def _live(setup: SlotSetup) -> None:
    slot_main(setup, *_pipes)


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


def how_it_ended(code: int | None) -> str:
    """An exit code of multiprocessing in words."""
    if code is None:
        return "it did not end"
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
