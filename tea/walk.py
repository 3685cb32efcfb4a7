"""The walk: a state goes through a graph. The only loop there is.

`invoke`, `stream`, scoped runs, branches and resume are this walk with different starts, ends and listeners:

    at START or a checkpoint's node --> run the node --> fan out, where a fan-out leaves it --> next node --> ...
                                         until END or the node where the walk shall stop

The walk changes the state that it is given, and yields events. It knows neither disks nor executors: what a fan-out
is, it asks of its `Scope`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from executors.attempt import NodeFailure
from executors.cancel import CancellationToken
from executors.result import ParallelFlowResult
from tea.call import call, wanted
from tea.graph import END, START, DataFanOut, FanOut, Graph

RESULTS = "parallel_results"

Event = dict[str, Any]
State = dict[str, Any]
Results = list[ParallelFlowResult]


@dataclass(slots=True)
class Scope:
    """What a walk has around it.

    fan_out: runs the branches of a fan-out with a state and gives their results in order.
    config: what the caller of `invoke` handed over; node functions may ask for it.
    emit: takes events of branches while they run; None when nobody listens.
    branch: the branch this walk is; None for the walk of the whole graph.
    """

    fan_out: Callable[[Graph, FanOut, State, Scope], Results]
    config: dict[str, Any] = field(default_factory=dict)
    token: CancellationToken = field(default_factory=CancellationToken)
    emit: Callable[[Event], None] | None = None
    branch: str | None = None


def walk(
    graph: Graph,
    state: State,
    at: str,
    scope: Scope,
    *,
    until: str = END,
    entered: bool = False,
    left: bool = False,
    whole: bool = True,
) -> Iterator[Event]:
    """Take a state through the graph from node `at` until END or the node `until`, which is not run.

    Args:
        entered: an interrupt before `at` has been answered, do not stop there again.
        left: `at` has been run, go on with what follows it.
        whole: this is the walk of the whole graph, which may be interrupted; a branch can't be.

    Yields `state` and `interrupt` events; after an interrupt the walk is over.
    Raises NodeFailure when a node fails, or when nothing leads on.
    """
    node = at
    offered: dict[str, Any] = {
        "state": state,
        "config": scope.config,
        "graph": graph,
        "cancel_token": scope.token,
        "parallel_results": dict.get(state, RESULTS),
        "node": node,
        "scope": scope if scope.branch is not None else None,  # a sub-workflow in a branch is recorded in its job
    }
    while node not in (END, until):
        offered["node"] = node
        if not left:
            if whole and node in graph.interrupt_before and not entered:
                yield {"type": "interrupt", "node": node, "state": state.copy(), "when": "before"}
                return
            if _run(graph, node, state, offered):
                yield {"type": "state", "node": node, "state": state.copy()} if scope.emit else _QUIET
            if whole and node in graph.interrupt_after:
                yield {"type": "interrupt", "node": node, "state": state.copy(), "when": "after"}
                return
        entered = left = False
        fan_out = graph.fan_out(node)
        if fan_out is None:
            node = next_node(graph, node, offered)
            continue
        results = yield from _fan_out(graph, fan_out, state, scope)
        offered["parallel_results"] = state[RESULTS] = results
        node = _after(graph, fan_out, state, results, offered)


_QUIET: Event = {"type": "state"}
"""Stands for a state event that nobody looks at: copying states is for those who stream."""


def _run(graph: Graph, node: str, state: State, offered: Mapping[str, Any]) -> bool:
    """Run a node and merge its updates; False when there is nothing to run."""
    here = graph.nodes[node]
    if here.run is None:
        return False
    if here.wants is None:
        here.wants = wanted(here.run)
    try:
        updates = here.run(**{name: offered[name] for name in here.wants if name in offered})
        if updates is not None:
            if not isinstance(updates, Mapping):
                kind = type(updates).__name__
                raise TypeError(f"node '{node}' returned {kind}, not a dict of updates to the state")
            if updates is not state:
                state.update(updates)
    except Exception as error:  # user code may raise anything; the walk's caller decides what that means
        graph.logger.debug("node %s failed: %s", node, error)
        raise NodeFailure(node, error) from error
    return True


def next_node(graph: Graph, node: str, offered: Mapping[str, Any]) -> str:
    """Where the first edge leads whose condition holds. Raises NodeFailure when none does."""
    for edge in graph.edges.get(node, ()):
        if edge.parallel:
            continue
        if edge.cond is None:
            return edge.target
        try:
            value = call(edge.cond, offered)
        except Exception as error:  # a condition is user code too
            raise NodeFailure(node, error) from error
        target = edge.cond_map.get(value) if edge.cond_map is not None else edge.target if value else None
        if target is not None:
            return target
    why = "the graph has no entry point" if node == START else "the condition of none of its edges holds"
    raise NodeFailure(node, RuntimeError(f"No valid next node found from node '{node}': {why}"))


def _after(graph: Graph, fan_out: FanOut, state: State, results: Results, offered: Mapping[str, Any]) -> str:
    """The node after a fan-out: its fan-in, or what follows a node that collects its results itself."""
    if graph.raise_exceptions:
        for result in results:
            if not result.success:
                raise NodeFailure(result.branch, RuntimeError(result.error or "failed"))
    if fan_out.fan_in is not None:
        return fan_out.fan_in
    data = fan_out.data
    assert isinstance(data, DataFanOut)
    state[data.output or RESULTS] = results
    return next_node(graph, fan_out.source, offered)


def _fan_out(graph: Graph, fan_out: FanOut, state: State, scope: Scope) -> Generator[Event, None, Results]:
    """Run the branches; for a listener in a thread of their own, so that their events come as they happen."""
    if scope.emit is None:
        return scope.fan_out(graph, fan_out, state, scope)
    events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    results: list[Results] = []
    errors: list[BaseException] = []
    inner = Scope(scope.fan_out, scope.config, scope.token, events.put, scope.branch)

    def run() -> None:
        try:
            results.append(scope.fan_out(graph, fan_out, state, inner))
        except BaseException as error:  # carried to the thread that walks
            errors.append(error)
        finally:
            events.put(None)

    threading.Thread(target=run, name="tea-fan-out", daemon=True).start()
    try:
        while (event := events.get()) is not None:
            yield event
    except BaseException:  # the listener went away, or Ctrl-C: the branches shall not go on alone
        scope.token.cancel()
        raise
    if errors:
        raise errors[0]
    return results[0]


def run_branch(graph: Graph, state: State, entry: str, exit: str, scope: Scope) -> State:
    """Walk a branch from its entry to its fan-in, and give the state in which it ends.

    Raises NodeFailure.
    """
    for event in walk(graph, state, entry, scope, until=exit, whole=False):
        if scope.emit is not None and event["type"] == "state":
            scope.emit({**event, "type": "parallel_state", "branch": scope.branch})
    return state
