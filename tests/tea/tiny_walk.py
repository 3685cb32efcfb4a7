"""A walk over a graph in thirty lines, one branch after the other: what a workflow means, without any machinery."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from executors.state import BranchState
from tea.call import call
from tea.graph import END, START, FanOut, Graph


def walk(graph: Graph, state: dict[str, Any], entry: str = START, exit: str = END) -> dict[str, Any]:
    """The state after walking from `entry` up to, and not including, `exit`."""
    results: list[Any] | None = None
    name = entry
    while name not in (exit, END):
        node = graph.nodes[name]
        offered = {"state": state, "parallel_results": results, "graph": graph, "node": name}
        if node.run is not None:
            state.update(call(node.run, offered) or {})
        results = None
        fan = graph.fan_out(name)
        if fan is None:
            name = _next(graph, name, state)
            continue
        results = _branches(graph, fan, state)
        if fan.data is not None and fan.data.output is not None:
            state[fan.data.output] = [one.state for one in results]
        name = fan.fan_in or _next(graph, name, state)
    return state


def _next(graph: Graph, name: str, state: dict[str, Any]) -> str:
    for edge in graph.edges[name]:
        if edge.cond is None or (edge.cond_map or {}).get(call(edge.cond, {"state": state})) == edge.target:
            return edge.target
    raise RuntimeError(f"no edge of '{name}' holds")


def _branches(graph: Graph, fan: FanOut, state: dict[str, Any]) -> list[Any]:
    results = []
    for edge in fan.edges:
        branch = walk(graph, BranchState(state, {}), edge.target, fan.fan_in or END)
        results.append(SimpleNamespace(state=dict(branch), branch=edge.target))
    if fan.data is not None:
        for index, item in enumerate(call(fan.data.items, {"state": state})):
            branch = BranchState(state, fan.data.overlay(item, index))
            branch.update(call(fan.data.body, {"state": branch}) or {})
            results.append(SimpleNamespace(state=dict(branch), branch=index))
    return results
