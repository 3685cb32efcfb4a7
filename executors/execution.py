"""One fan-out whose branches run in other processes: the loop that `process` and `workers` share.

    make jobs (a batch) | take hints of ended attempts | collect accepted results | now and then: deaths, deadlines
      ^                                                                                               |
      +---------------------------------- until every slot of the fan-in is filled -------------------+

A subclass says who the workers are: where news comes from, how to wait for it, how to end a job.
"""

from __future__ import annotations

import os
import time

from executors.board import Board
from executors.ending import reap
from executors.result import ParallelFlowResult
from spool import job as jobs
from spool.attempts import Outcome, Verdict, may_retry
from spool.patience import PASSING, PATIENCE
from spool.pause import Gate
from spool.watcher import Watcher
from spool.worker import Observer, this_worker

BATCH = 64
"""Jobs that are made between two looks at what has finished."""

TICK = 0.05
"""Seconds between looks at deaths, deadlines and cancellation."""


class Execution:
    """One call of `execute`.

    Args:
        board: the jobs. window: how many jobs may be under way when a circuit breaker stands before them.
        events: whether file events are a source of hints.
    """

    def __init__(self, board: Board, window: int, *, events: bool) -> None:
        self.board = board
        context = board.context
        assert context.spool is not None
        self.spool = context.spool
        self.claimant = board.patiently(
            lambda: this_worker(self.spool, lease=context.lease, version=context.version).text, "cannot register"
        )
        self.watcher = Watcher(board.fanout, events=events)
        self._gate = Gate(board.fanout)
        configs = [board.config, *(flow.config for flow in board.flows if flow.config is not None)]
        self.timed = any(c.timeout_seconds is not None or c.timeout_total is not None for c in configs)
        guarded = any(c.circuit_breaker for c in configs)
        self._watches = context.callbacks is not None or guarded or any(c.retry_policy for c in configs)
        self._window = window if guarded else board.total
        self._resumed = bool(os.listdir(board.fanout.jobs))
        self._next_job = 0
        self._in_flight = 0
        self._next_tick = 0.0
        self._seen: set[tuple[int, int]] = set()
        self._told: set[str] = set()

    # -- who the workers are ------------------------------------------------------------------------------------

    def news(self) -> list[str]:
        """Hints that workers have sent: `+job attempt` for one that begins, `-job attempt` for one that has ended,
        `!text` for what keeps them from working."""
        return []

    def wait(self, seconds: float) -> None:
        """Wait for news, at most so long."""
        self.watcher.wait(seconds)

    def new_jobs(self) -> None:
        """There are new jobs."""

    def tick(self) -> None:
        """Look after the workers."""

    def stop_claiming(self) -> None:
        """No worker shall claim another job of this fan-out."""

    def end_job(self, job: str, reason: str) -> None:
        """End a job that runs, where that can be done."""

    def stop(self, *, failed: bool) -> None:
        """The fan-out is over."""

    # -- the loop -----------------------------------------------------------------------------------------------

    def run(self) -> list[ParallelFlowResult]:
        """Drive the fan-out to its end; the results, in branch order."""
        board = self.board
        reap(self.spool)
        try:
            while not board.complete:
                self._step()
        except BaseException:
            board.note("stopping")
            self.stop(failed=True)
            raise
        else:
            self.stop(failed=False)
        finally:
            Observer(self.spool).bury()
            self.watcher.close()
        board.progress()
        return [result for result in board.results if result is not None]

    def _step(self) -> None:
        self._make_jobs()
        news = self.news()
        for line in news:
            self._take_hint(line)
        for name in self.watcher.finished():
            self._collect(name)
        now = time.monotonic()
        if now >= self._next_tick:
            self._look_around()
            self._next_tick = time.monotonic() + TICK
        elif not news and not self._may_make() and not self.board.complete:
            self.wait(min(TICK, self.watcher.due))

    def _look_around(self) -> None:
        self.board.paused = self._gate.closed()
        self.board.progress()
        self.tick()
        reason = self.board.should_stop
        if reason is not None:
            self._cancel(reason)

    def look_soon(self) -> None:
        """A worker died: its job waits for a verdict."""
        self._next_tick = 0.0

    # -- making -------------------------------------------------------------------------------------------------

    def _may_make(self) -> bool:
        return self._next_job < self.board.total and self._in_flight < self._window

    def _make_jobs(self) -> None:
        """Make the next jobs; through a circuit breaker only as many as may be under way."""
        made = 0
        if self.board.should_stop is not None:
            return  # what would be made now might be run before it is cancelled
        while made < BATCH and self._may_make():
            try:
                made += self._make(self._next_job)
            except OSError as error:  # a full disk, a file system that hangs: later
                self._disk_refused(f"cannot make jobs in {self.board.fanout.path}: {error}", error)
                break
            self._next_job += 1
        if made:
            self.new_jobs()

    def _disk_refused(self, text: str, error: OSError) -> None:
        """Say once what the disk refuses, and wait a little. Raises the error when waiting cannot help."""
        if error.errno not in PASSING:
            raise error
        if text not in self._told:
            self._told.add(text)
            self.board.context.warn(f"{text}; waiting until it is possible again")
            self.board.note("disk", error=text)
        self.wait(PATIENCE)

    def _make(self, i: int) -> bool:
        board = self.board
        begun = False
        if self._resumed and os.path.exists(board.job(i).job):
            if board.adopt(i):
                return False  # an earlier coordinator of this run has its result
            begun = self._watches and self._take_up(i)
        admitted = begun or board.circuits.admits(i)
        board.create(i, ticket=admitted)
        if not admitted:
            name = board.circuits.breaker(i).name  # type: ignore[union-attr]
            text = f"Circuit breaker '{name}' is open"
            board.end(i, self.claimant, Outcome.FAILED, "CircuitOpenError", text, circuit_state="open")
            return False
        self._in_flight += 1
        return True

    def _take_up(self, i: int) -> bool:
        """What ended before this coordinator is told to nobody again; whether the job has been begun, let through."""
        listing = self.board.take_up(i)
        if listing is None:
            return False
        self._seen.update((i, one.number) for one in listing.attempts if one.ended is not None)
        return any(one.number > listing.forgiven for one in listing.attempts)

    # -- collecting ---------------------------------------------------------------------------------------------

    def _take_hint(self, line: str) -> None:
        if line[0] == "!":
            return self._complaint(line[1:])
        name, _, number = line[1:].partition(" ")
        i = self.board.index(name)
        if i is None or not number.isdecimal():
            return None
        if line[0] == "+":
            self.board.started(i)
        elif not self._watches or self._attempt_ended(i, int(number)):
            self.watcher.hint(name)
        return None

    def _complaint(self, text: str) -> None:
        """A worker cannot go on; once is enough, however many say so."""
        if text not in self._told:
            self._told.add(text)
            self.board.context.warn(text)
            self.board.note("disk", error=text)

    def _attempt_ended(self, i: int, attempt: int) -> bool:
        """Whether the job has finished; an attempt that will be retried is told to those who listen."""
        board = self.board
        if (i, attempt) in self._seen:
            return True
        result = jobs.trusted_result(board.job(i), board.record(i), attempt)
        if result is None:
            return True
        for earlier in range(1, attempt):  # their hints were lost, or come from another worker
            self._attempt_ended(i, earlier)
        self._seen.add((i, attempt))
        ended, policy = jobs.ended(result), board.policy(i)
        if "started" in result or ended.outcome is Outcome.TIMED_OUT:
            board.started(i, result.get("started"))
        board.circuits.count(i, ended.outcome)
        if ended.outcome in (Outcome.SUCCEEDED, Outcome.CANCELLED):
            return True
        failures = board.failures(i) + 1
        again = may_retry(policy, ended, failures)
        board.attempt_failed(i, attempt, result, None, policy.delay(failures) if again else None)
        return not again

    def _collect(self, name: str) -> None:
        try:
            self._take_result(name)
        except OSError as error:
            self.watcher.forget(name)
            self._disk_refused(f"cannot read the result of {name}: {error}", error)

    def _take_result(self, name: str) -> None:
        i = self.board.index(name)
        if i is None or self.board.results[i] is not None:
            return
        if self._watches:  # attempts whose hint was lost, or that ended where nobody hints
            for number in jobs.look(self.board.job(i), self.board.record(i)).results:
                self._attempt_ended(i, number)
        if self.board.collect(i):
            self._in_flight -= 1
            if (result := self.board.results[i]) is not None and result.outcome == Outcome.CANCELLED:
                self.end_job(name, str(result.error))  # cancelled by somebody else, while one of ours may be at it
        else:
            self.watcher.forget(name)

    # -- the end before the end ---------------------------------------------------------------------------------

    def _cancel(self, reason: str) -> None:
        """End every branch that has no result: those that wait are claimed here, those that run are ended."""
        board = self.board
        observer = Observer(self.spool)
        self.stop_claiming()
        for i in range(board.total):
            if board.results[i] is None:
                self._cancel_one(i, reason, observer)
        while not board.complete:  # what a worker finished while we looked elsewhere
            for name in self.watcher.poll():
                self._collect(name)

    def _cancel_one(self, i: int, reason: str, observer: Observer) -> None:
        board = self.board
        made = i < self._next_job
        if not made:
            self._next_job = i + 1
            board.create(i, ticket=False)
        if board.collect(i):
            return
        job = board.job(i)
        decision = jobs.judge(board.fanout, job, board.record(i), observer.is_alive)
        if decision.verdict is Verdict.RUNNING:
            self.end_job(job.name, reason)
        # A claim on the next attempt fences off a worker that is not ours to end.
        board.end(i, self.claimant, Outcome.CANCELLED, "CancelledError", reason)
        if made:
            board.circuits.count(i, Outcome.CANCELLED)
