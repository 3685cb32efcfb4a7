"""A slot as the process holds it that looks after it: how it is started, spoken to, listened to and ended."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import connection

from executors.ending import end_worker, kill_rest, signal_group
from executors.server import ForkContext
from executors.slot import SlotSetup, die_with_parent, slot_main
from spool.layout import SpoolFiles, WorkerFiles
from spool.worker import read_now


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
