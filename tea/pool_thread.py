"""A pool whose jobs run in threads of this process.

Arguments and results go by reference; the job directory is the record, in which what JSON cannot hold is marked. A
thread cannot be killed: a job that exceeds its time fails, its slot goes to another, and what it brings is dropped.
"""

from __future__ import annotations

import contextvars
import heapq
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from executors import attempt as attempts
from executors.capture import captured
from executors.slot import raising
from executors.state import BranchState
from executors.threads import run_in_thread
from spool import job as jobs
from spool.attempts import Ended, Outcome, may_retry
from spool.claim import try_claim
from spool.errors import TooLargeError
from spool.patience import patiently
from spool.pause import LOOK, Gate
from tea import calls
from tea.futures import JobFuture
from tea.pool import PERIOD, Pool, PoolSetup


@dataclass(slots=True, eq=False)
class _Try:
    """One attempt of one job. spent: seconds that earlier ones took, with the waits between them."""

    future: JobFuture[Any]
    state: dict[str, Any]
    context: contextvars.Context
    attempt: int = 1
    spent: float = 0.0
    failures: int = 0
    began: float = 0.0
    limit: float | None = None
    abandoned: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class ThreadPool(Pool):
    """Jobs in threads, as many at once as there are workers."""

    carry = False

    def __init__(self, setup: PoolSetup) -> None:
        super().__init__(setup)
        self._ready: deque[_Try] = deque()
        self._later: list[tuple[float, int, _Try]] = []
        self._running: set[_Try] = set()
        self._gate = Gate(self.fanout)
        self._changed = threading.Condition(self.lock)
        self._threads = threading.local()

    def added(self, future: JobFuture[Any], state: dict[str, Any]) -> None:
        """Begin it, where fewer run than may."""
        self._ready.append(_Try(future, state, contextvars.copy_context()))
        self._begin_more()

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def drive(self) -> None:
        """Keep deadlines and back-offs until it is over."""
        while True:
            with self._changed:
                self._begin_more()
                if self.over:
                    return
                self._changed.wait(self._patience())
            self.listen()
            self._end_late()

    def _patience(self) -> float:
        """Seconds until something must be done without being asked."""
        times = [one.began + one.limit for one in self._running if one.limit is not None]
        times += [self._later[0][0]] if self._later else []
        most = LOOK if self._ready and self._gate.closed() else PERIOD
        return max(0.0, min(most, *(at - time.monotonic() for at in times))) if times else most

    def _begin_more(self) -> None:
        """Begin what waits; under the lock."""
        while self._later and self._later[0][0] <= time.monotonic():
            self._ready.append(heapq.heappop(self._later)[2])
        if self._gate.closed():
            return
        while self._ready and len(self._running) < self.setup.workers and self.stopping is None:
            one = self._ready.popleft()
            if one.future.done():  # cancelled
                continue
            one.began, one.limit = time.monotonic(), self._limit(one.spent)
            self._running.add(one)
            run_in_thread(lambda one=one: self._work(one))  # type: ignore[misc]

    def _limit(self, spent: float) -> float | None:
        total = self.policy.timeout_total
        limits = [self.policy.timeout_seconds, None if total is None else max(total - spent, 0.001)]
        return min((limit for limit in limits if limit is not None), default=None)

    # -- in a thread of its own ---------------------------------------------------------------------------------

    def _work(self, one: _Try) -> None:
        ran = None
        try:
            if self._is_initialized() and self._claim_attempt(one):
                one.future.running_now()
                ran = one.context.run(self._attempt, one)
        except Exception as error:  # the record could not be written: the job fails with that reason
            ran = attempts.run(raising(error), BranchState({}, {}))
        if ran is not None:
            self._ended(one, ran)
        with self._changed:
            self._running.discard(one)
            self._begin_more()
            self._changed.notify_all()

    def _is_initialized(self) -> bool:
        """Call the initializer, once in each thread; False when it fails, and the whole pool with it."""
        if self.setup.initializer is None or hasattr(self._threads, "ready"):
            return True
        initializer, args = self.setup.initializer
        try:
            initializer(*args)
        except BaseException as error:  # user code
            self.break_down(error)
            return False
        self._threads.ready = True
        return True

    def _claim_attempt(self, one: _Try) -> bool:
        """Whether it is ours to run: who cancels a job claims it, too."""
        job = one.future.files
        assert job is not None
        what = f"cannot claim jobs in {self.fanout.path}"
        return patiently(lambda: try_claim(job, one.attempt, self.me.text, anew=True), what, self.setup.warn)

    def _attempt(self, one: _Try) -> attempts.Ran:
        job = one.future.files
        assert job is not None
        with captured(job, one.attempt):
            return attempts.run(lambda _: calls.call(one.state), BranchState({}, {}))

    # -- what came of it ----------------------------------------------------------------------------------------

    def _ended(self, one: _Try, ran: attempts.Ran) -> None:
        if ran.error is not None:
            ran.changes = {calls.EXCEPTION: ran.error}
        with one.lock:
            if one.abandoned:
                return
            one.abandoned = True  # by whoever comes first: this thread, or the one that keeps deadlines
        result = self._recorded(one, ran)
        spent = one.spent + ran.result["seconds"]
        ended = Ended(Outcome(result["outcome"]), tuple(result.get("error_types") or ()), spent)
        if not result["success"] and may_retry(self.policy, ended, one.failures + 1):
            delay = self.policy.delay(one.failures + 1)
            again = _Try(one.future, one.state, one.context, one.attempt + 1, spent + delay, one.failures + 1)
            with self._changed:
                heapq.heappush(self._later, (time.monotonic() + delay, id(again), again))
                self._changed.notify_all()
            return
        one.state.pop(calls.EXCEPTION, None)
        self.settle(one.future, result, ran.changes)

    def _recorded(self, one: _Try, ran: attempts.Ran) -> dict[str, Any]:
        """The result of an attempt, published."""
        job, record = one.future.files, self.record(one.future)
        assert job is not None
        result = attempts.report(job, record, one.attempt, one.spent, ran, strict=False)

        def publish() -> None:
            try:
                jobs.finish(self.fanout, job, record, one.attempt, result)
            except TooLargeError as error:  # only for the record: the future gets the object
                self.setup.warn(str(error))
                result.update(state={}, not_kept=sorted(ran.changes))
                jobs.finish(self.fanout, job, record, one.attempt, result)

        patiently(publish, f"cannot write results in {self.fanout.path}", self.setup.warn)
        return result

    def _end_late(self) -> None:
        """Give up jobs that have had their time; their threads may run on."""
        now = time.monotonic()
        with self.lock:
            late = [one for one in self._running if one.limit is not None and now >= one.began + one.limit]
        for one in late:
            policy = self.policy
            limit = policy.timeout_seconds if one.limit == policy.timeout_seconds else policy.timeout_total
            text = f"Flow timed out after {limit}s"
            self._give_up(one, Outcome.TIMED_OUT, "TimeoutError", text, attempts.TIMEOUT_TYPES)

    def end_running(self, reason: str) -> None:
        """Give up the jobs that run."""
        with self.lock:
            running = list(self._running)
        for one in running:
            self._give_up(one, Outcome.CANCELLED, "CancelledError", reason, ["CancelledError"])

    def _give_up(self, one: _Try, outcome: Outcome, kind: str, text: str, types: list[str]) -> None:
        result = {
            "outcome": outcome.value,
            "success": False,
            "error": f"{text}; its thread may still run",
            "error_type": kind,
            "error_types": types,
            "seconds": time.monotonic() - one.began,
        }
        self._ended(one, attempts.Ran(result, {}, []))
        with self._changed:
            self._running.discard(one)
