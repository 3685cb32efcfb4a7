"""`thread`: branches are threads of this process.

The state goes by reference, so values need not be JSON; the job directory is the record, in which what JSON cannot
show is marked. A thread cannot be killed: a branch that exceeds its timeout is told through its `CancellationToken`,
its slot goes to another branch, its result says that the thread may still run, and what it returns later is dropped.
"""

from __future__ import annotations

import contextlib
import contextvars
import heapq
import os
import queue
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from executors import attempt as attempts
from executors.base import FanOutContext
from executors.board import Board
from executors.cancel import CancellationToken
from executors.capture import captured
from executors.ending import reap
from executors.policy import ParallelConfig
from executors.result import ParallelFlowResult
from executors.slot import raising
from executors.threads import run_in_thread
from spool import job as jobs
from spool.attempts import Ended, Outcome, Policy, Verdict, may_retry
from spool.claim import host_name, try_claim
from spool.errors import TooLargeError
from spool.patience import PASSING, patiently
from spool.pause import Gate
from spool.worker import Observer, this_worker


def default_workers() -> int:
    """As many threads as `concurrent.futures` would take."""
    return min(32, (os.cpu_count() or 1) + 4)


@dataclass(slots=True)
class _Try:
    """One attempt of one branch, on its way through the threads."""

    index: int
    attempt: int
    spent: float
    failures: int
    token: CancellationToken = field(default_factory=CancellationToken)
    began: float = 0.0
    deadline: float | None = None
    ran: attempts.Ran | None = None
    """What came of it; None also when another process has claimed it."""
    abandoned: bool = False

    def limited_by_attempt(self, policy: Policy) -> bool:
        """Whether the limit of one attempt ends this one before the limit of all attempts would."""
        return policy.timeout_total is None or (policy.timeout_seconds or inf) <= policy.timeout_total - self.spent


_ELSEWHERE = 0.1
"""Seconds between looks at branches that another process is at."""


class ThreadExecutor:
    """Runs branches in threads.

    Args:
        max_workers: threads at once; None takes the configuration's, or `min(32, cpus + 4)`.
        context: where the record is kept; None keeps none.
    """

    strategy = "thread"

    def __init__(self, max_workers: int | None = None, context: FanOutContext | None = None) -> None:
        self.max_workers = max_workers
        self.context = context or FanOutContext()

    def execute(
        self, flows: Sequence[Any], states: Sequence[Any], config: ParallelConfig
    ) -> list[ParallelFlowResult]:
        """Run each flow with its state; see `ParallelExecutor`."""
        board = Board(flows, states, config, self.context, carry=False)
        board.prepare()
        workers = min(self.max_workers or config.max_workers or default_workers(), max(board.total, 1))
        return _Execution(board, workers).run()


def _claimant(context: FanOutContext) -> str:
    assert context.spool is not None
    return this_worker(context.spool, lease=context.lease, version=context.version).text


class _Execution:
    """One call of `execute`: this thread decides, the slots run."""

    def __init__(self, board: Board, workers: int) -> None:
        self.board, self.workers = board, workers
        self.recorded = board.context.fanout is not None
        self.claimant = _claimant(board.context) if self.recorded else ""
        self.ready: list[tuple[float, int, int]] = []
        self.waiting: dict[int, _Try] = {}
        self.running: dict[int, _Try] = {}
        self.elsewhere: set[int] = set()
        """Branches that another process is at: one that was taken for dead while it was stopped, and came back."""
        self._observer = Observer(board.context.spool) if board.context.spool is not None else None
        self._next_look = 0.0
        self.outbox: queue.SimpleQueue[_Try] = queue.SimpleQueue()
        self.context_vars = contextvars.copy_context()
        self._gate = Gate(board.context.fanout)
        self._told: set[str] = set()

    def run(self) -> list[ParallelFlowResult]:
        board = self.board
        if board.context.spool is not None and self.recorded:
            reap(board.context.spool)
        self._enqueue_all()
        try:
            while not board.complete:
                self._step()
        except BaseException:
            for trial in self.running.values():
                trial.token.cancel()
            raise
        board.progress()
        return [result for result in board.results if result is not None]

    def _step(self) -> None:
        if self.elsewhere and time.monotonic() >= self._next_look:
            self._look_elsewhere()
        self._begin_ready()
        if self.board.complete:
            return
        try:
            self._returned(self.outbox.get(timeout=self._patience()))
            while True:
                self._returned(self.outbox.get_nowait())
        except queue.Empty:
            pass
        self._abandon_late()
        self.board.running = len(self.running)
        self.board.progress()

    # -- the queue ----------------------------------------------------------------------------------------------

    def _enqueue_all(self) -> None:
        for i in range(self.board.total):
            trial = _Try(i, 1, 0.0, 0)
            if self.recorded and not self._create(i):
                found = self._adopt(i)
                if found is None:
                    continue
                trial = found
            self._enqueue(trial, 0.0)

    def _create(self, i: int) -> bool:
        return self.board.patiently(lambda: self.board.create(i), f"cannot make jobs in {self.board.fanout.path}")

    def _adopt(self, i: int) -> _Try | None:
        """The next attempt of a job that an earlier coordinator of this run made; None when it has finished."""
        board = self.board
        tell = i in self.elsewhere  # what has ended there since is news
        self.elsewhere.discard(i)
        if board.adopt(i, tell=tell):
            return None
        assert self._observer is not None
        job, record = board.job(i), board.record(i)
        decision = jobs.judge(board.fanout, job, record, self._observer.is_alive)
        if decision.verdict is Verdict.FINISHED and board.collect(i, tell=tell):
            return None
        if decision.verdict is Verdict.RUNNING:
            self.elsewhere.add(i)
            return None
        board.take_up(i)
        jobs.clear_up(job, decision.attempt - 1)
        return _Try(i, decision.attempt, decision.spent, decision.failures)

    def _look_elsewhere(self) -> None:
        """Collect what other processes have finished; what they have left is done here."""
        for i in sorted(self.elsewhere):
            if (trial := self._adopt(i)) is not None:
                self._enqueue(trial, 0.0)
        self._next_look = time.monotonic() + _ELSEWHERE

    def _enqueue(self, trial: _Try, delay: float) -> None:
        self.waiting[trial.index] = trial
        heapq.heappush(self.ready, (time.monotonic() + delay if delay else 0.0, trial.index, trial.attempt))

    def _begin_ready(self) -> None:
        """Hand attempts that are due to free slots; end those that may not begin."""
        reason = self.board.should_stop
        if reason is not None:
            self._cancel_all(reason)
            return
        self.board.paused = self._gate.closed()
        if self.board.paused:
            return
        while self.ready and len(self.running) < self.workers and self.ready[0][0] <= time.monotonic():
            _, index, _ = heapq.heappop(self.ready)
            trial = self.waiting.pop(index)
            if trial.failures == 0 and not self.board.circuits.admits(index):
                self._circuit_open(index)
                continue
            self._begin(trial)

    def _begin(self, trial: _Try) -> None:
        policy = self.board.policy(trial.index)
        limits = [policy.timeout_seconds, policy.timeout_total and max(policy.timeout_total - trial.spent, 0.001)]
        seconds = min((limit for limit in limits if limit is not None), default=None)
        trial.began = time.monotonic()
        trial.deadline = None if seconds is None else trial.began + seconds
        self.running[trial.index] = trial
        self.board.started(trial.index)
        run_in_thread(lambda: self._work(trial))

    def _circuit_open(self, index: int) -> None:
        name = self.board.circuits.breaker(index).name  # type: ignore[union-attr]
        self.board.end(
            index,
            self.claimant,
            Outcome.FAILED,
            "CircuitOpenError",
            f"Circuit breaker '{name}' is open",
            circuit_state="open",
        )

    def _cancel_all(self, reason: str) -> None:
        """No further branch begins; those that run are told and given up (a thread cannot be killed)."""
        for index in [*self.waiting, *self.elsewhere]:
            self.board.end(index, self.claimant, Outcome.CANCELLED, "CancelledError", reason)
        self.ready.clear()
        self.waiting.clear()
        self.elsewhere.clear()
        for trial in list(self.running.values()):
            self._give_up(trial, Outcome.CANCELLED, "CancelledError", f"{reason}; its thread may still run")

    # -- in a thread of its own ---------------------------------------------------------------------------------

    def _work(self, trial: _Try) -> None:
        try:
            if not self.recorded or self._claim(trial):
                trial.ran = self._run(trial)
        except Exception as error:  # the record could not be read or written: the branch fails with that reason
            trial.ran = attempts.run(raising(error), self.board.states[trial.index])
        self.outbox.put(trial)

    def _run(self, trial: _Try) -> attempts.Ran:
        board = self.board
        ran = self.context_vars.copy().run(self._call, trial)
        if self.recorded and not trial.abandoned:
            what = f"cannot write results in {board.fanout.path}"
            patiently(lambda: self._record(trial, ran), what, self._warn, lambda: trial.abandoned)
        return ran

    def _claim(self, trial: _Try) -> bool:
        job, what = self.board.job(trial.index), f"cannot claim jobs in {self.board.fanout.path}"
        claim = lambda: try_claim(job, trial.attempt, self.claimant)  # noqa: E731
        return patiently(claim, what, self._warn, lambda: trial.abandoned)

    def _warn(self, text: str) -> None:
        """Once is enough, however many threads meet it."""
        if text not in self._told:
            self._told.add(text)
            self.board.context.warn(text)
            self.board.note("disk", error=text)

    def _call(self, trial: _Try) -> attempts.Ran:
        """Call the branch; in a context of its own, a copy of the one in which `execute` was called."""
        board, i = self.board, trial.index
        flow, state = board.flows[i], board.state(i, trial.attempt)
        job = board.job(i) if self.recorded else None
        with captured(job, trial.attempt) if job is not None else contextlib.nullcontext():
            return attempts.run(lambda one: flow.run(one, trial.token, job), state)

    def _record(self, trial: _Try, ran: attempts.Ran) -> bool:
        """Publish what came of an attempt; False when it has a result already."""
        board, i = self.board, trial.index
        job, record = board.job(i), board.record(i)
        result = attempts.report(job, record, trial.attempt, trial.spent, ran, strict=False)
        try:
            return jobs.finish(board.fanout, job, record, trial.attempt, result, sync=board.context.sync)
        except TooLargeError as error:  # only for the record: the fan-in gets the object
            self._warn(str(error))
            result.update(state={}, not_kept=sorted(map(str, ran.changes)))
            return jobs.finish(board.fanout, job, record, trial.attempt, result, sync=board.context.sync)

    # -- what came of it ----------------------------------------------------------------------------------------

    def _returned(self, trial: _Try) -> None:
        if self.running.get(trial.index) is not trial:
            return  # given up: what it brings now is dropped
        del self.running[trial.index]
        if trial.ran is not None:
            self._settle(trial, trial.ran)
        else:
            self._taken(trial.index)

    def _taken(self, i: int) -> None:
        """Another process has claimed this attempt: it took us for dead while we were stopped. What it makes of the
        branch counts.
        """
        self.board.circuits.count(i, Outcome.CANCELLED)
        self.elsewhere.add(i)
        self._next_look = 0.0

    def _settle(self, trial: _Try, ran: attempts.Ran) -> None:
        board, i = self.board, trial.index
        raw = {**ran.result, "attempt": trial.attempt, "host": host_name(), "removed": ran.removed}
        outcome = Outcome(raw["outcome"])
        raw["circuit_state"] = board.circuits.count(i, outcome)
        if outcome in (Outcome.FAILED, Outcome.TIMED_OUT):
            spent = trial.spent + raw["seconds"]
            ended = Ended(outcome, tuple(raw["error_types"]), spent)
            delay = self._delay(i, trial.failures + 1, ended)
            board.attempt_failed(i, trial.attempt, raw, ran.error, delay)
            if delay is not None:
                self._enqueue(_Try(i, trial.attempt + 1, spent + delay, trial.failures + 1), delay)
                return
        board.put(i, board.result_of(i, raw, ran.changes))

    def _delay(self, i: int, failures: int, ended: Ended) -> float | None:
        """Seconds until the next attempt after this failure, None when there is none."""
        policy = self.board.policy(i)
        return policy.delay(failures) if may_retry(policy, ended, failures) else None

    def _abandon_late(self) -> None:
        now = time.monotonic()
        for trial in list(self.running.values()):
            if trial.deadline is not None and now >= trial.deadline:
                policy = self.board.policy(trial.index)
                limit = policy.timeout_seconds if trial.limited_by_attempt(policy) else policy.timeout_total
                text = f"Flow timed out after {limit}s; its thread was told to stop and may still run"
                self._give_up(trial, Outcome.TIMED_OUT, "TimeoutError", text)

    def _give_up(self, trial: _Try, outcome: Outcome, kind: str, error: str) -> None:
        """End an attempt whose thread runs on; its slot goes to another branch."""
        result = {
            "outcome": outcome.value,
            "success": False,
            "error": error,
            "error_type": kind,
            "error_types": attempts.TIMEOUT_TYPES if outcome is Outcome.TIMED_OUT else [kind],
            "seconds": time.monotonic() - trial.began,
        }
        ran = attempts.Ran(result, {}, [])
        try:
            kept = not self.recorded or self._record(trial, ran)
        except OSError as error:
            if error.errno not in PASSING:
                raise
            self._warn(
                f"cannot write results in {self.board.fanout.path}: {error}; waiting until it is possible again"
            )
            return  # it is late still, and asked for again
        if not kept:
            return  # it ended by itself just now; its thread is about to hand in the result
        trial.abandoned = True
        trial.token.cancel()  # not before the verdict stands: a thread that listens would end well at once
        del self.running[trial.index]
        self._settle(trial, ran)

    def _patience(self) -> float:
        """Seconds until something must be done without being asked."""
        now = time.monotonic()
        times = [trial.deadline for trial in self.running.values() if trial.deadline is not None]
        if self.ready and len(self.running) < self.workers and not self.board.paused:
            times.append(self.ready[0][0])
        return min(max(min(times, default=now + 0.1) - now, 0.0), 0.1)
