"""`while_loop` and `for_each`: a body that runs again and again inside one node."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from executors import attempt as attempts
from executors.state import BranchState
from tea import templates
from tea.nodes.condition import condition
from tea.nodes.context import Context, Step, Updates, in_order, scratch

logger = logging.getLogger("tea")


def while_step(spec: Mapping[str, Any], body: Sequence[Step], name: str, context: Context) -> Step:
    """Run the body as long as the condition holds, `max_iterations` times at most."""
    holds = condition(spec["condition"])
    limit: int = spec["max_iterations"]

    def step(offered: Mapping[str, Any]) -> Updates:
        updates: Updates = {}
        now = scratch(offered)
        for _ in range(limit):
            if not holds(now["state"], context.variables):
                return updates
            updates.update(in_order(body, now))
        if holds(now["state"], context.variables):
            logger.warning("while_loop '%s' stopped after %d iterations; its condition still holds", name, limit)
        return updates

    return step


def for_each_step(spec: Mapping[str, Any], body: Step, name: str, context: Context) -> Step:
    """Run the body for each item, one after the other; an item that fails is recorded and does not stop the rest.

    The record of each item: `{index, success, state, error, error_type, traceback, seconds}`, where `state` holds
    what the body changed. This is what the job of a chunk runs.
    """
    items, start = spec["items"], spec.get("start", 0)
    output = spec["output"]
    item_var, index_var = spec.get("item_var", "item"), spec.get("index_var", "index")

    def step(offered: Mapping[str, Any]) -> Updates:
        state = offered["state"]
        first = int(templates.render(start, state, context.variables))
        values = as_items(templates.render(items, state, context.variables))
        if not isinstance(values, list):
            raise TypeError(f"node '{name}': 'items' gives {type(values).__name__}, not a list")
        records = []
        for index, item in enumerate(values, first):
            overlay = {item_var: item} if index_var is None else {item_var: item, index_var: index}
            records.append(_attempt(body, {**offered, "state": BranchState(state, overlay)}, index))
        return {output: records}

    return step


def _attempt(body: Step, offered: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Run the body for one item, as a job of its own would; the record of what came of it."""
    token = offered.get("cancel_token")
    if token is not None and token.is_cancelled():
        return chunk_record(index, {"success": False, **_NOT_BEGUN}, {})

    def branch(state: BranchState) -> None:
        state.update(body(offered))

    ran = attempts.run(branch, offered["state"])
    return chunk_record(index, ran.result, ran.changes)


_NOT_BEGUN = {"error": "cancelled before it began", "error_type": "CancelledError", "seconds": 0.0}


def chunk_record(index: int, result: Mapping[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """What became of one item of a chunk."""
    record = {"index": index, "success": result["success"], "state": changes, "error": None, "error_type": None}
    more = ("error", "error_type", "traceback", "exit_code", "seconds")
    return {**record, **{key: result[key] for key in more if key in result}}


def as_items(value: Any) -> Any:
    """What a template gave, as a list where it can be one; text, mappings and numbers stay what they are."""
    if isinstance(value, list | str | bytes | Mapping) or not hasattr(value, "__iter__"):
        return value
    return list(value)
