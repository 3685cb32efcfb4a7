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
from collections.abc import Sequence
from typing import Any

from executors.base import FanOutContext, as_flows
from executors.board import Board
from executors.execution import Execution
from executors.policy import ParallelConfig
from executors.result import ParallelFlowResult
from executors.server import is_warm, warm_up
from executors.slot import SlotSetup
from executors.slots import Slots
from spool.layout import SpoolFiles
from spool.run import create_fanout, open_spool
from spool.worker import leave


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
            leave(SpoolFiles(folder))  # its beat must not come between what is removed, nor go on for ever
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
    import cloudpickle  # not needed by workflows

    context.runtime = cloudpickle.dumps([flow.__call__ for flow in as_flows(flows)])
    context.not_replayable = "its function was given as an object"
    return context


class _Execution(Execution):
    """One call of `execute`, with slots on this machine."""

    def __init__(self, board: Board, workers: int) -> None:
        super().__init__(board, workers, events=False)
        warm_up(board.context.runner.partition(":")[0])
        self.slots = Slots(self.spool, self._setup(workers), workers, board.note, board.context.warn)

    def _setup(self, workers: int) -> SlotSetup:
        context = self.board.context
        return SlotSetup(
            spool=self.spool.path,
            fanout=self.board.fanout.path,
            runner=context.runner,
            slots=workers,
            supervisor=self.claimant,
            options=context.options,
            runtime=context.runtime,
            sync=context.sync,
            lease=context.lease,
            version=context.version,
            path=context.path,
            cwd=os.getcwd(),
            environment=dict(os.environ),
            announce=context.callbacks is not None,
        )

    def news(self) -> list[str]:
        return self.slots.hints()

    def wait(self, seconds: float) -> None:
        self.slots.start()
        if self.slots.wait(seconds):
            self.look_soon()

    def new_jobs(self) -> None:
        if is_warm():  # until then there are jobs to make
            self.slots.start()
        self.slots.wake()

    def tick(self) -> None:
        self.board.running = sum(slot.look() is not None for slot in self.slots.slots)
        for line in self.slots.replace_dead():
            self._take_hint(line)
        if self.timed:
            self.slots.end_late(self._limits, self.board.grace)

    def _limits(self, job: str) -> tuple[float | None, float | None]:
        """The limits of a job, in seconds: for this attempt, for all."""
        i = self.board.index(job)
        if i is None:
            return None, None
        policy = self.board.policy(i)
        return policy.timeout_seconds, policy.timeout_total

    def stop_claiming(self) -> None:
        self.slots.stop_claiming()

    def end_job(self, job: str, reason: str) -> None:
        self.slots.end_job(job, self.board.grace, reason)

    def stop(self, *, failed: bool) -> None:
        self.slots.stop(self.board.grace, patience=0.0 if failed else 1.0)
