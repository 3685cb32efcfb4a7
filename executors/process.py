"""`process`: branches are job directories that worker processes of this machine claim and run.

    this process   makes the jobs | takes hints from the slots' pipes | collects results | ends late slots
    each slot      lists todo/, claims, runs, publishes, moves the ticket, hints

The state travels as JSON, and what JSON cannot carry as a pickle beside it; a key that neither can carry is named
before anything starts.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import cloudpickle

from executors.base import FanOutContext, as_flows
from executors.board import Board
from executors.policy import ParallelConfig
from executors.result import ParallelFlowResult
from executors.slot import SlotSetup
from executors.slots import Slots, preload
from spool import job as jobs
from spool.attempts import Outcome, Verdict
from spool.run import create_fanout, open_spool
from spool.watcher import Watcher
from spool.worker import Observer, this_worker

_BATCH = 64
"""Jobs that are made between two looks at what has finished."""

_TICK = 0.05
"""Seconds between looks at deadlines and cancellation."""


class ProcessExecutor:
    """Runs branches in processes of this machine, one `ProcessPoolExecutor` a slot.

    Args:
        max_workers: slots; None takes the configuration's, or one for each cpu.
        context: where the record is kept; None keeps one in a temporary folder until `execute` returns.
    """

    strategy = "process"

    def __init__(self, max_workers: int | None = None, context: FanOutContext | None = None) -> None:
        self.max_workers = max_workers
        self.context = context or FanOutContext()

    def execute(
        self, flows: Sequence[Any], states: Sequence[Any], config: ParallelConfig
    ) -> list[ParallelFlowResult]:
        """Run each flow with its state; see `ParallelExecutor`.

        Raises PickleValidationError for a state that cannot travel, before anything starts.
        """
        if self.context.fanout is not None:
            return self._execute(self.context, flows, states, config)
        folder = tempfile.mkdtemp(prefix="tea-spool-")
        try:
            return self._execute(_temporary(folder, self.context, flows), flows, states, config)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _execute(
        self, context: FanOutContext, flows: Sequence[Any], states: Sequence[Any], config: ParallelConfig
    ) -> list[ParallelFlowResult]:
        board = Board(flows, states, config, context, carry=True)
        board.prepare()
        workers = min(self.max_workers or config.max_workers or os.cpu_count() or 1, board.total)
        return _Execution(board, workers).run()


def _temporary(folder: str, context: FanOutContext, flows: Sequence[Any]) -> FanOutContext:
    """A context for plain functions: their record lives as long as the call."""
    context.spool = open_spool(folder)
    context.fanout = create_fanout(f"{folder}/runs", 1, "flows")
    context.runtime = cloudpickle.dumps([flow.__call__ for flow in as_flows(flows)])
    context.not_replayable = "its function was given as an object"
    return context


class _Execution:
    """One call of `execute`."""

    def __init__(self, board: Board, workers: int) -> None:
        self.board = board
        context = board.context
        assert context.spool is not None
        self.spool = context.spool
        self.claimant = this_worker(self.spool, lease=context.lease, version=context.version).text
        preload("executors.slot", "executors.slots", context.runner.partition(":")[0])
        self.slots = Slots(self.spool, self._setup(workers), workers, board.note)
        self.watcher = Watcher(board.fanout)
        self.next_job = 0
        self.in_flight = 0
        configs = [board.config, *(flow.config for flow in board.flows if flow.config is not None)]
        self.timed = any(c.timeout_seconds is not None or c.timeout_total is not None for c in configs)
        self.watches = context.callbacks is not None or any(c.retry_policy or c.circuit_breaker for c in configs)
        self.window = workers if any(c.circuit_breaker for c in configs) else board.total
        self.next_tick = 0.0
        self.seen_retries: set[tuple[int, int]] = set()

    def _setup(self, workers: int) -> SlotSetup:
        context = self.board.context
        return SlotSetup(
            spool=self.spool.path,
            fanout=self.board.fanout.path,
            runner=context.runner,
            slots=workers,
            runtime=context.runtime,
            sync=context.sync,
            lease=context.lease,
            version=context.version,
            path=context.path,
            cwd=os.getcwd(),
            environment=dict(os.environ),
            announce=context.callbacks is not None,
        )

    def run(self) -> list[ParallelFlowResult]:
        board = self.board
        try:
            while not board.complete:
                self._step()
            self.slots.stop(board.grace, patience=1.0)
        except BaseException:
            self.slots.stop(board.grace)
            raise
        finally:
            self.watcher.close()
        board.progress()
        return [result for result in board.results if result is not None]

    def _step(self) -> None:
        self._make_jobs()
        news = self.slots.hints()
        for line in news:
            self._take_hint(line)
        for name in self.watcher.finished():
            self._collect(name)
        now = time.monotonic()
        if now >= self.next_tick:
            self._tick()
            self.next_tick = now + _TICK
        elif not news and not self._may_make():
            self.slots.wait(min(_TICK, self.watcher.due))

    # -- making -------------------------------------------------------------------------------------------------

    def _may_make(self) -> bool:
        return self.next_job < self.board.total and self.in_flight < self.window

    def _make_jobs(self) -> None:
        """Make the next jobs; through a circuit breaker only as many as there are slots for."""
        made = 0
        while made < _BATCH and self._may_make():
            i = self.next_job
            self.next_job += 1
            made += self._make(i)
        if made:
            self.slots.wake()

    def _make(self, i: int) -> bool:
        board = self.board
        admitted = board.admits(i)
        if not board.create(i) and board.collect(i):
            return False  # an earlier coordinator of this run has its result
        if not admitted:
            name = board.breaker(i).name  # type: ignore[union-attr]
            text = f"Circuit breaker '{name}' is open"
            board.end(i, self.claimant, Outcome.FAILED, "CircuitOpenError", text, circuit_state="open")
            return False
        self.in_flight += 1
        return True

    # -- collecting ---------------------------------------------------------------------------------------------

    def _take_hint(self, line: str) -> None:
        """`+job attempt`: an attempt begins. `-job attempt`: it has ended."""
        name, _, number = line[1:].partition(" ")
        i = self.board.index(name)
        if i is None or not number.isdecimal():
            return
        if line[0] == "+":
            self.board.started(i)
        elif self._attempt_ended(i, int(number)):
            self.watcher.hint(name)

    def _attempt_ended(self, i: int, attempt: int) -> bool:
        """Whether the job has finished; an attempt that will be retried is told to those who listen."""
        board = self.board
        if not self.watches or (i, attempt) in self.seen_retries:
            return True
        self.seen_retries.add((i, attempt))
        result = jobs.trusted_result(board.job(i), board.record(i), attempt)
        if result is None:
            return True
        ok = result["outcome"] == Outcome.SUCCEEDED.value
        board.count_for_breaker(i, ok)
        if not ok:
            final = os.path.lexists(board.job(i).accepted)
            delay = None if final else board.policy(i).delay(attempt)
            board.attempt_failed(i, attempt, result, None, delay)
            return final
        return True

    def _collect(self, name: str) -> None:
        i = self.board.index(name)
        if i is None or self.board.results[i] is not None:
            return
        if not self.board.collect(i):
            self.watcher.forget(name)
            return
        self.in_flight -= 1

    # -- now and then -------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        board = self.board
        board.progress()
        self.slots.replace_dead()
        if self.timed:
            self.slots.end_late(self._limits, board.grace)
        reason = board.should_stop
        if reason is not None:
            self._cancel(reason)

    def _limits(self, job: str) -> tuple[float | None, float | None]:
        """The limits of a job, in seconds: for this attempt, for all."""
        i = self.board.index(job)
        if i is None:
            return None, None
        policy = self.board.policy(i)
        return policy.timeout_seconds, policy.timeout_total

    def _cancel(self, reason: str) -> None:
        """End every branch that has no result: those that wait are claimed here, those that run are ended."""
        board = self.board
        observer = Observer(self.spool)
        self.slots.stop_claiming()
        for i in range(board.total):
            if board.results[i] is None:
                self._cancel_one(i, reason, observer)
        while not board.complete:  # what a slot finished while we looked elsewhere
            for name in self.watcher.poll():
                self._collect(name)

    def _cancel_one(self, i: int, reason: str, observer: Observer) -> None:
        board = self.board
        if i >= self.next_job:
            self.next_job = i + 1
            board.create(i)
        if board.collect(i):
            return
        job = board.job(i)
        decision = jobs.judge(board.fanout, job, board.record(i), observer.is_alive)
        if decision.verdict is Verdict.RUNNING:
            self.slots.end_job(job.name, board.grace, reason)
        # A claim on the next attempt fences off a worker that is not ours to end.
        board.end(i, self.claimant, Outcome.CANCELLED, "CancelledError", reason)
