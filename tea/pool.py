"""What `tea.SpoolExecutor` has behind it: one run with one fan-out, to which jobs come as they are submitted.

    submit --> job directory, ticket --> workers --> result --> the job's future
      |                                                |
      in the caller's thread: it is in the spool       in the pool's own thread: it waits for news of the
      when `submit` returns                            workers, keeps deadlines, listens for `tea spool cancel`

A pool knows futures, and no executor: that may be garbage-collected while jobs are under way. Where they run is the
business of `pool_process` and `pool_thread`.
"""

from __future__ import annotations

import concurrent.futures.process  # noqa: F401 - before us: see `_at_exit`
import os
import sys
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from executors.branches import policy_of
from executors.policy import ParallelConfig
from executors.travel import Parcel
from spool import job as jobs
from spool.attempts import Outcome
from spool.cancel import asked, forget
from spool.claim import try_claim
from spool.errors import SpoolError
from spool.job import JobRecord, sha256
from spool.layout import FORMAT, JobFiles, job_name
from spool.making import JobSpec, JobWriter
from spool.patience import patiently
from spool.worker import LEASE, this_worker
from tea import calls
from tea.futures import JobFuture, PoolBrokenError, error_of
from tea.record import Run, spool_path, who
from tea.version import __version__

MANY = 1_000_000
"""Jobs up to which their names sort like their numbers; nobody knows how many there will be."""

PERIOD = 1.0
"""Seconds between looks whether somebody wants the run to end."""


@dataclass(slots=True)
class PoolSetup:
    """What an executor wants of its pool.

    path: of the spool. label: for the run's name. strategy: for fanout.json. workers: how many.
    initializer: called in each worker before its first job, with the arguments after it.
    """

    path: str | None
    label: str
    strategy: str
    workers: int
    config: ParallelConfig
    initializer: tuple[Any, ...] | None = None
    warn: Callable[[str], None] = lambda text: print(f"tea: warning: {text}", file=sys.stderr)


_living: weakref.WeakSet[Pool] = weakref.WeakSet()


class Pool(ABC):
    """A run with one fan-out, the futures of its jobs, and the thread that fills them.

    A subclass says where the jobs run: how one begins (`added`), how news of them becomes results (`drive`, which
    calls `listen` now and then and `settle` for what has ended), and how all are ended (`end_running`).
    """

    carry = True
    """Whether what JSON cannot hold is pickled for its way, or only marked in the record."""

    def __init__(self, setup: PoolSetup) -> None:
        self.setup, self.config, self.policy = setup, setup.config, policy_of(setup.config)
        folder = calls.program_folder()
        text = calls.workflow(folder)
        record = {
            "workflow": calls.program(),
            "folder": folder,
            "sha256": sha256(text),
            "strategy": setup.strategy,
            "max_workers": setup.workers,
        }
        self.run = Run(spool_path(setup.path), setup.label, text, lambda: who(**record, executor=True), now=True)
        recorder = self.run.recorder()
        self.spool, self.journal = recorder.spool, recorder.journal
        self.fanout = recorder.fan_out("calls", self._fanout_record())
        self.me = this_worker(self.spool, version=__version__)
        common = {"exit": "__end__", "policy": self.policy.to_json(), "tea": __version__, "format": FORMAT}
        self._writer = JobWriter(self.fanout, b"{}", {calls.ENTRY: text}, common)
        self.pending: dict[str, JobFuture[Any]] = {}
        self.lock = threading.RLock()
        self.failed = 0
        self.closing = False
        """No job comes any more; those that are there are run to their end."""
        self.stopping: str | None = None
        """Why nothing shall go on, not even what runs."""
        self.outcome = "done"
        self.cancelled_by: str | None = None
        self._why = ""
        self._made = 0
        self._next_look = 0.0
        self.thread: threading.Thread | None = None
        assert self.run.files is not None
        self.files = self.run.files
        _living.add(self)

    def _fanout_record(self) -> dict[str, Any]:
        """`total` is not known: jobs come as long as the program goes on."""
        portable = self.carry and self.setup.initializer is None
        return {
            "format": 1,
            "source": "calls",
            "fan_in": None,
            "kind": "calls",
            "strategy": self.setup.strategy,
            "max_workers": self.setup.workers,
            "config": self.config.to_json(),
            "runner": "tea.job:WorkflowRunner" if portable else None,
            "options": {},
            "lease": LEASE,
            "durability": "process",
            "portable": portable,
            "nested": False,
        }

    # -- where they run -----------------------------------------------------------------------------------------

    @abstractmethod
    def added(self, future: JobFuture[Any], state: dict[str, Any]) -> None:
        """There is a new job."""

    @abstractmethod
    def drive(self) -> None:
        """Fill the futures until `over`; in a thread of its own."""

    @abstractmethod
    def end_running(self, reason: str) -> None:
        """End the jobs that run, as cancelled; called by `drive`."""

    @abstractmethod
    def wake(self) -> None:
        """Something has changed that `drive` shall look at."""

    # -- jobs come ----------------------------------------------------------------------------------------------

    def submit(
        self, function: Callable[..., Any], args: Any, kwargs: dict[str, Any], chunk: bool = False
    ) -> JobFuture[Any]:
        """Make a job of a call. Raises RuntimeError when no job may come any more."""
        state, name = calls.state_of(function, args, kwargs, chunk), calls.name_of(function)
        with self.lock:
            self._check_open()
            try:
                parcel = calls.packed(state, name, self._made, carry=self.carry)
            except TypeError as error:  # as with other executors, the future tells
                future: JobFuture[Any] = JobFuture()
                future.set_exception(error)
                return future
            future = self._make(parcel, name)
            self.added(future, state)
            if self.thread is None:
                self.thread = threading.Thread(target=self._drive, name="tea-executor")
                self.thread.daemon = True  # `_at_exit` waits for it, after it has told it
                self.thread.start()
        return future

    def _check_open(self) -> None:
        if self.stopping is not None:
            raise PoolBrokenError(self._why) if self._why else RuntimeError(self.stopping)
        if self.closing:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def _make(self, parcel: Parcel, name: str) -> JobFuture[Any]:
        number = self._made
        extra = None
        if not self.carry and parcel.marked:
            extra = {"not_replayable": f"JSON cannot hold {', '.join(parcel.marked)}"}
        spec = JobSpec(
            job_name(number, MANY, name), number, name, calls.ENTRY, parcel.shown, calls.ENTRY, extra, parcel.pickle
        )
        future: JobFuture[Any] = JobFuture(self, self.fanout.job(spec.name), sha256(parcel.shown))
        self.pending[spec.name] = future  # before its ticket: a worker may be quick
        try:
            what = f"cannot make jobs in {self.fanout.path}"
            patiently(lambda: self._writer.create(spec), what, self.setup.warn)
        except BaseException:
            del self.pending[spec.name]
            raise
        self._made += 1
        return future

    def record(self, future: JobFuture[Any]) -> JobRecord:
        """What job.json of a future's job says, without reading it."""
        assert future.files is not None
        return JobRecord({"id": future.files.name}, self.policy, future.sha)

    # -- jobs end -----------------------------------------------------------------------------------------------

    def cancel(self, future: JobFuture[Any]) -> bool:
        """Cancel a job that nobody has begun, as whoever claims it first: the workers' claim decides."""
        job = future.files
        assert job is not None
        with self.lock:
            if future.cancelled():
                return True
            if future.done() or future.running() or not self._claim(job):
                return False
            if self.pending.pop(job.name, None) is None:  # whoever takes it out fills it
                return False
        record, text = self.record(future), "its program cancelled it"
        result = jobs.verdict_result(job, record, 1, Outcome.CANCELLED, "CancelledError", text)
        what = f"cannot write the result of {job.path}"
        patiently(lambda: jobs.finish(self.fanout, job, record, 1, result), what, self.setup.warn)
        future.give_up(text)  # outside the lock: it calls back
        self.wake()
        return True

    def _claim(self, job: JobFiles) -> bool:
        try:
            return try_claim(job, 1, self.me.text, anew=True)
        except OSError:  # the disk refuses: it can't be cancelled now
            return False

    def settle(self, future: JobFuture[Any], raw: dict[str, Any], changes: dict[str, Any]) -> None:
        """Fill a future with what its job ended with."""
        assert future.files is not None
        if self.pending.pop(future.files.name, None) is None:
            return
        if not raw.get("success"):
            self.failed += raw["outcome"] != Outcome.CANCELLED.value
            self.note("failed", job=future.files.name, outcome=raw["outcome"], error=raw.get("error"))
        if raw["outcome"] == Outcome.CANCELLED.value:
            future.give_up(str(raw.get("error")))
            return
        future.running_now()
        if raw.get("success"):
            future.set_result(changes.get(calls.RESULT))
        else:
            future.set_exception(error_of(raw, changes, future.files.path, remote=self.carry))

    def note(self, event: str, **fields: Any) -> None:
        """Write to the run's journal."""
        if self.journal is not None:
            self.journal.write(event, fanout=self.fanout.name, **fields)

    # -- the end ------------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return self.stopping is not None or (self.closing and not self.pending)

    def close(self) -> None:
        """No job comes any more. One that another thread is submitting is there before, or refused."""
        with self.lock:
            self.closing = True
            if self.thread is None and not self.stopping:
                self.stopping = "cannot schedule new futures after shutdown"
                self._end()
        self.wake()

    def cancel_all(self) -> None:
        """Cancel what has not begun."""
        for future in list(self.pending.values()):
            future.cancel()

    def stop(self, reason: str, outcome: str) -> None:
        """End at once, also what runs; what waits stays in the spool."""
        if self.stopping is None:
            self.stopping, self.outcome = reason, outcome
        self.closing = True
        self.wake()

    def listen(self) -> None:
        """Stop when somebody has asked to cancel the run; looks once in a while."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + PERIOD
        try:
            by = asked(self.files)
        except OSError:  # a disk that does not answer now may answer later
            return
        if by is not None:
            self.cancelled_by = by
            self.stop(f"the run was cancelled by {by}", "cancelled")
            self.cancel_all()
            self.end_running(f"cancelled by {by}")

    def _drive(self) -> None:
        try:
            forget(self.files)
            self.drive()
        except BaseException as error:
            self.break_down(error)
            if not isinstance(error, (OSError, SpoolError, RuntimeError)):
                raise
        finally:
            self._end()

    def break_down(self, error: BaseException) -> None:
        """Nothing can go on: all futures get that as their exception."""
        self._why = f"{type(error).__name__}: {error}"
        self.stop(self._why, "failed")

    def _end(self) -> None:
        """Give up what is left, and say in the record how it ended."""
        with self.lock:
            left = list(self.pending.values())
            self.pending.clear()
        for future in left:
            if self._why and not future.done():
                future.running_now()
                future.set_exception(PoolBrokenError(self._why))
            else:
                future.give_up(self.stopping or "the executor has ended")
        more = {key: value for key, value in (("error", self._why), ("cancelled_by", self.cancelled_by)) if value}
        try:
            self.run.end(self.outcome, failed=self.failed, **more)
        except OSError as error:  # it is over all the same
            self.setup.warn(f"cannot write how the run ended: {error}")
        finally:
            self.run.close()
        _living.discard(self)


def _at_exit() -> None:
    """The program ends: what was submitted is run to its end first, as with other executors.

    The last to be registered is called first: we are before `concurrent.futures.process`, which would wait for our
    slots, whom nobody has told to stop.
    """
    for pool in list(_living):
        pool.close()
    for pool in list(_living):
        if pool.thread is not None:
            pool.thread.join()


threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
os.register_at_fork(after_in_child=_living.clear)  # a forked child has none of our threads, and drives no run
