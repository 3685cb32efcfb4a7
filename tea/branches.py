"""The branches of a fan-out over data, as they run in the process that has them: one item, or a chunk of items."""

from __future__ import annotations

from typing import Any

from executors.attempt import NodeFailure, run
from executors.state import BranchState
from tea.call import call
from tea.dialect.subset import CHUNK, CHUNK_RESULTS, CHUNK_START
from tea.graph import DataFanOut, Graph
from tea.nodes.loop import chunk_record
from tea.walk import Scope, State


class ChunkError(RuntimeError):
    """Items of a chunk failed; the chunk's results say which and why."""


def run_body(graph: Graph, source: str, data: DataFanOut, state: State, scope: Scope) -> None:
    """Run the body of a node that fans out over data, for the item that is in the state."""
    offered = {
        "state": state,
        "config": scope.config,
        "node": source,
        "graph": graph,
        "cancel_token": scope.token,
        "parallel_results": None,
        "scope": scope,
    }
    try:
        updates = call(data.body, offered)
    except Exception as error:  # user code
        raise NodeFailure(source, error) from error
    if updates:
        state.update(updates)
    if scope.emit is not None:
        scope.emit({"type": "parallel_state", "branch": source, "node": source, "state": state.copy()})


def run_chunk(graph: Graph, source: str, data: DataFanOut, state: State, scope: Scope) -> None:
    """Run the items of a chunk one after the other; each fails alone. Raises ChunkError when any did."""
    records = []
    for index, item in enumerate(state[CHUNK], state[CHUNK_START]):
        branch = BranchState(state, data.overlay(item, index))
        ran = run(lambda one: run_body(graph, source, data, one, scope), branch)
        records.append(chunk_record(index, ran.result, ran.changes))
    state[CHUNK_RESULTS] = records
    check_chunk(records)


def check_chunk(records: list[dict[str, Any]]) -> None:
    """Raises ChunkError when an item of a chunk failed: its job has failed then, and what succeeded stays in it."""
    failed = [record for record in records if not record["success"]]
    if failed:
        first = failed[0]
        raise ChunkError(
            f"{len(failed)} of {len(records)} items failed; first: item {first['index']}: "
            f"{first.get('error_type')}: {first.get('error')}"
        )
