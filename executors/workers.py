"""`workers`: whoever runs `tea worker` on this spool, from any machine that mounts it.

This process makes the jobs and collects the results; it starts no worker and ends none. As long as nobody works on
the fan-out, it says so.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from executors.base import FanOutContext
from executors.board import Board
from executors.execution import Execution
from executors.policy import ParallelConfig
from executors.result import ParallelFlowResult
from spool.claim import Claimant
from spool.worker import Observer

_PATIENCE = 5.0
"""Seconds without a live worker until the user is told, and between such messages at first."""


class WorkersExecutor:
    """Leaves the branches to workers that others start.

    Args:
        max_workers: only how many jobs may be under way behind a circuit breaker; 1 without it.
        context: where the record is kept.
    """

    strategy = "workers"

    def __init__(self, max_workers: int | None = None, context: FanOutContext | None = None) -> None:
        self.max_workers = max_workers
        self.context = context or FanOutContext()

    def execute(
        self, flows: Sequence[Any], states: Sequence[Any], config: ParallelConfig
    ) -> list[ParallelFlowResult]:
        """Make a job of each flow and wait for its result; see `ParallelExecutor`.

        Raises ValueError for branches that only this process could run.
        """
        if self.context.fanout is None:
            raise ValueError("strategy 'workers' needs a spool that workers can find")
        if self.context.runtime is not None:
            raise ValueError(
                "strategy 'workers' runs branches from their files alone, but these need functions or a config of "
                "this process; use 'process' or 'thread'"
            )
        board = Board(flows, states, config, self.context, carry=True)
        board.prepare()
        return _Execution(board, self.max_workers or config.max_workers or 1).run()


class _Execution(Execution):
    """One call of `execute`, with workers that somebody else looks after."""

    def __init__(self, board: Board, window: int) -> None:
        super().__init__(board, window, events=True)
        self._observer = Observer(self.spool)
        self._next_look = time.monotonic() + _PATIENCE
        self._interval = _PATIENCE

    def tick(self) -> None:
        now = time.monotonic()
        if now < self._next_look:
            return
        if self._observer.live_workers() - {self.claimant_name}:
            self._interval = _PATIENCE
        else:
            self.board.context.warn(
                f"nobody works on {self.spool.path}: {self.board.total - self.board.collected} jobs wait; "
                f"start workers with `tea worker {self.spool.path}`"
            )
            self._interval = min(self._interval * 2, 300.0)
        self._next_look = now + self._interval

    @property
    def claimant_name(self) -> str:
        """This process's own folder among the workers."""
        claimant = Claimant.parse(self.claimant)
        return claimant.worker if claimant else ""
