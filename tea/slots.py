"""One slot for each branch: what an executor's results become in the fan-in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from executors.result import ParallelFlowResult
from tea.dialect.subset import CHUNK_RESULTS
from tea.graph import DataFanOut, FanOut
from tea.plan import Plan
from tea.walk import Event, Results


def slots_of(fan_out: FanOut, plan: Plan, results: Results) -> Iterator[ParallelFlowResult]:
    """One slot for each branch, in order; a chunk's job fills the slots of all its items."""
    data = fan_out.data
    for i, result in enumerate(results):
        if data is None:
            yield result
        elif plan.chunk_size > 1:
            yield from _chunk_slots(data, plan, i, result)
        else:
            yield _shaped(data, plan, i, result)


def _shaped(data: DataFanOut, plan: Plan, i: int, result: ParallelFlowResult) -> ParallelFlowResult:
    """A branch over data: `matrix` and `each` also show their index, and what they changed as `result`."""
    if data.kind != "dynamic" and result.state is not None:
        own = {**plan.states.base, **data.overlay((plan.items or [])[i], i)}
        changed = {k: v for k, v in result.state.items() if k not in own or v is not own[k]}
        result.state.setdefault("index", i)
        result.state.setdefault("result", changed)
    return result


def _chunk_slots(data: DataFanOut, plan: Plan, i: int, result: ParallelFlowResult) -> Iterator[ParallelFlowResult]:
    items = plan.items or []
    first = i * plan.chunk_size
    records = (result.state or {}).get(CHUNK_RESULTS)
    for k, item in enumerate(items[first : first + plan.chunk_size]):
        own = data.overlay(item, first + k)
        record = records[k] if isinstance(records, list) and k < len(records) else None
        slot = replace(result, state=None) if record is None else _item_slot(result, record)
        if record is not None:
            slot.state = {**plan.states.base, **own, **record["state"]}
        yield _shaped(data, plan, first + k, slot)


def _item_slot(result: ParallelFlowResult, record: dict[str, Any]) -> ParallelFlowResult:
    ok = bool(record["success"])
    errors = result.attempt_errors
    if not result.success:  # the chunk's error is not the item's
        own = {"attempt": result.retry_count, "error": record.get("error"), "error_type": record.get("error_type")}
        errors = [] if ok else [own]
    return replace(
        result,
        success=ok,
        attempt_errors=errors,
        outcome="succeeded" if ok else "failed",
        error=record.get("error"),
        error_type=record.get("error_type"),
        traceback=record.get("traceback"),
        exit_code=record.get("exit_code"),
        timing_ms=float(record.get("seconds") or 0.0) * 1000,
    )


def emit_end(emit: Callable[[Event], None], plan: Plan, result: ParallelFlowResult) -> None:
    """Tell a listener of a branch's end; its nodes' states were told by the branch, if it ran in this process."""
    event = {"branch": result.branch, "node": result.branch, "state": result.state or {}}
    if not result.success:
        emit({"type": "parallel_error", **event, "error": result.error, "outcome": result.outcome})
    elif plan.strategy != "thread":
        emit({"type": "parallel_state", **event})
