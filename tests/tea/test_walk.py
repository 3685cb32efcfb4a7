"""The walk by itself: no executors, no disk."""

from __future__ import annotations

from typing import Any

import pytest

from executors.attempt import NodeFailure
from tea.graph import END, START, Graph
from tea.walk import Scope, run_branch, walk


def graph_of(**nodes: Any) -> Graph:
    """Nodes in a line."""
    graph = Graph()
    for name, run in nodes.items():
        graph.add_node(name, run=run)
    for one, other in zip([START, *nodes], [*nodes, END], strict=True):
        graph.add_edge(one, other)
    return graph


def no_fan_out(*_: Any) -> Any:
    raise AssertionError("there is none")


def steps(graph: Graph, state: dict[str, Any], at: str = START, **options: Any) -> list[Any]:
    scope = Scope(no_fan_out, emit=lambda event: None)
    return [(e["type"], e.get("node"), e.get("when")) for e in walk(graph, state, at, scope, **options)]


def test_updates_are_merged_in_order() -> None:
    state: dict[str, Any] = {"x": 1}
    graph = graph_of(a=lambda state: {"x": state["x"] + 1}, b=None, c=lambda state: {"y": state["x"]})
    assert steps(graph, state) == [("state", "a", None), ("state", "c", None)]
    assert state == {"x": 2, "y": 2}


def test_up_to_a_node_that_is_not_run() -> None:
    state: dict[str, Any] = {}
    graph = graph_of(a=lambda: {"a": 1}, b=lambda: {"b": 1}, c=lambda: {"c": 1})
    steps(graph, state, "a", until="c")
    assert state == {"a": 1, "b": 1}


def test_a_loop_that_enters_a_node_again_stops_there_again() -> None:
    graph = Graph()
    graph.add_node("a", run=lambda state: {"n": state["n"] + 1})
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", lambda state: state["n"] < 3, {True: "a", False: END})
    graph.interrupt_before = ["a"]
    state = {"n": 0}
    assert steps(graph, state) == [("interrupt", "a", "before")]
    assert steps(graph, state, "a", entered=True)[-1] == ("interrupt", "a", "before")
    assert state == {"n": 1}


def test_going_on_after_a_node() -> None:
    state: dict[str, Any] = {}
    graph = graph_of(a=lambda: {"a": 1}, b=lambda: {"b": 1})
    assert steps(graph, state, "a", left=True) == [("state", "b", None)]
    assert state == {"b": 1}


@pytest.mark.parametrize(
    ("run", "kind"), [(lambda: 1 / 0, ZeroDivisionError), (lambda: [1], TypeError), (lambda unknown: {}, TypeError)]
)
def test_a_node_that_fails_is_named(run: Any, kind: type[Exception]) -> None:
    with pytest.raises(NodeFailure) as caught:
        steps(graph_of(bad=run), {})
    assert caught.value.node == "bad"
    assert isinstance(caught.value.error, kind)


def test_the_first_edge_that_holds_is_taken() -> None:
    graph = Graph()
    for name in ("a", "b", "c"):
        graph.add_node(name, run=lambda state, node: {"way": [*state["way"], node]})
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", lambda state: state["go"], {"b": "b"})
    graph.add_edge("a", "c")
    graph.add_edge("b", END)
    graph.add_edge("c", END)
    for go, way in (("b", ["a", "b"]), ("elsewhere", ["a", "c"])):
        state = {"go": go, "way": []}
        steps(graph, state)
        assert state["way"] == way


def test_a_condition_that_fails_names_its_node() -> None:
    graph = Graph()
    graph.add_node("a")
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", lambda state: state["missing"], {1: END})
    with pytest.raises(NodeFailure, match="Error in node 'a'"):
        steps(graph, {})


def test_a_fan_out_gives_its_results_to_the_fan_in() -> None:
    graph = Graph()
    graph.add_node("src")
    graph.add_node("a")
    graph.add_fanin_node("join", run=lambda parallel_results: {"got": parallel_results})
    graph.add_edge(START, "src")
    graph.add_parallel_edge("src", "a", "join")
    graph.add_edge("a", "join")
    graph.add_edge("join", END)
    asked: list[Any] = []

    def fan_out(graph: Any, fan_out: Any, state: Any, scope: Any) -> Any:
        asked.append((fan_out.source, [edge.target for edge in fan_out.edges], fan_out.fan_in))
        return ["result"]

    for emit in (None, lambda event: None):
        state: dict[str, Any] = {}
        list(walk(graph, state, START, Scope(fan_out, emit=emit)))
        assert state == {"parallel_results": ["result"], "got": ["result"]}
    assert asked == [("src", ["a"], "join")] * 2


def test_an_error_of_a_fan_out_reaches_the_one_who_listens() -> None:
    graph = Graph()
    graph.add_node("src")
    graph.add_node("a")
    graph.add_fanin_node("join")
    graph.add_edge(START, "src")
    graph.add_parallel_edge("src", "a", "join")
    graph.add_edge("a", "join")

    def fan_out(*_: Any) -> Any:
        raise ValueError("no spool")

    for emit in (None, lambda event: None):
        with pytest.raises(ValueError, match="no spool"):
            list(walk(graph, {}, START, Scope(fan_out, emit=emit)))


def test_a_branch_tells_its_states() -> None:
    told: list[Any] = []
    graph = graph_of(a=lambda: {"x": 1}, b=lambda: {"y": 2})
    scope = Scope(no_fan_out, emit=told.append, branch="a")
    assert run_branch(graph, {}, "a", "b", scope) == {"x": 1}
    assert [(event["type"], event["branch"], event["node"]) for event in told] == [("parallel_state", "a", "a")]
