"""Who hears what happens to the branches of a fan-out: the run's journal and the user's callbacks."""

from __future__ import annotations

import time
from typing import Any

from executors.base import FanOutContext
from executors.branches import Branches
from executors.breaker import CircuitState
from executors.callbacks import ParallelFlowContext
from executors.result import ParallelFlowResult


class RemoteError(Exception):
    """An error that happened in another process; its type's name is in `kind`."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


class Listeners:
    """Tells those who listen. Costs next to nothing where nobody does."""

    def __init__(self, branches: Branches, context: FanOutContext) -> None:
        self._branches, self._context = branches, context
        self._starts: dict[int, float] = {}

    def note(self, event: str, **fields: Any) -> None:
        """Write to the run's journal, where there is one."""
        if self._context.journal is not None:
            self._context.journal.write(event, fanout=self._context.fanout and self._context.fanout.name, **fields)

    def began(self, i: int, at: float | None = None) -> None:
        """Branch i began its first attempt, just now or at that time (seconds since the epoch)."""
        if self._context.callbacks is not None and i not in self._starts:
            self._starts[i] = at or time.time()
            self._context.callbacks.fire_flow_start(self._flow(i))

    def attempt_failed(
        self, i: int, attempt: int, raw: dict[str, Any], error: BaseException | None, delay: float | None
    ) -> None:
        """An attempt (from 1) failed; `delay` seconds until the next, None when there is none.

        `error` is the exception itself where it happened in this process.
        """
        error = error or RemoteError(str(raw.get("error_type")), str(raw.get("error")))
        if delay is not None:
            self.note("retry", job=self._branches.names[i], attempt=attempt, delay=delay, error=str(error))
        callbacks = self._context.callbacks
        if callbacks is None:
            return
        callbacks.fire_flow_error(self._flow(i), error, attempt - 1)
        if delay is not None:
            callbacks.fire_flow_retry(self._flow(i), attempt, delay, error)

    def ended(self, i: int, result: ParallelFlowResult, *, tell: bool) -> None:
        """Branch i has its result; callbacks hear of it with `tell`."""
        if not result.success:
            self.note("failed", job=self._branches.names[i], outcome=result.outcome, error=result.error)
        callbacks = self._context.callbacks
        if callbacks is not None and tell:
            limit = self._branches.config_of(i).timeout_seconds
            if result.timeout and limit is not None:
                callbacks.fire_flow_timeout(self._flow(i), limit)
            callbacks.fire_flow_complete(self._flow(i), result)
        self._starts.pop(i, None)

    def circuit_changed(self, i: int, old: CircuitState, new: CircuitState) -> None:
        """The circuit before branch i changed."""
        self.note("circuit", branch=self._branches.flows[i].branch, old=old.value, new=new.value)
        if self._context.callbacks is not None:
            self._context.callbacks.fire_circuit_state_change(self._flow(i), old, new)

    def _flow(self, i: int) -> ParallelFlowContext:
        branches = self._branches
        return ParallelFlowContext(
            branch=branches.flows[i].branch,
            fan_in_node=self._context.exit,
            state_snapshot=dict(branches.states[i]),
            start_time=self._starts.setdefault(i, time.time()),
            config=branches.config_of(i),
            graph_name=self._context.graph_name,
        )
