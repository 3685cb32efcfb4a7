"""Branches that are named in the graph: how edges fan out, and what a branch may be."""

from __future__ import annotations

from typing import Any

import pytest

from tea import END, ParallelConfig, StateGraph
from tests.contract.world import World, function


def three_edges(strategy: str) -> dict[str, list[dict[str, Any]]]:
    targets = ["a", "b", "c"]
    common = {"fan_in": "join", "parallel_strategy": strategy}
    return {
        "one edge": [{"from": "src", "to": targets, "parallel": True, **common}],
        "one edge of a type": [{"from": "src", "to": targets, "type": "parallel", **common}],
        "an edge each": [{"from": "src", "to": to, "type": "parallel", **common} for to in targets],
        "the first decides": [
            {"from": "src", "to": "a", "parallel": True, **common},
            {"from": "src", "to": ["b", "c"], "parallel": True, "fan_in": "join"},
        ],
    }


@pytest.mark.parametrize("form", three_edges(""))
def test_every_way_to_write_them_fans_out_the_same(yaml_world: World, form: str) -> None:
    """`parallel_strategy` of the edge overrides the settings."""
    nodes: list[dict[str, Any]] = [{"name": "src", "run": "return {'x': 1}"}]
    nodes += [{"name": name, "run": f"return {{'got': '{name}', 'x': state['x']}}"} for name in "abc"]
    nodes += [{"name": "join", "fan_in": True, "run": "return {'got': [r['got'] for r in parallel_results]}"}]
    edges = three_edges(yaml_world.strategy)[form]
    edges += [{"from": name, "to": "join"} for name in "abc"]
    other = "process" if yaml_world.strategy == "thread" else "thread"
    ran = yaml_world.run(yaml_world.yaml(nodes, edges, {"strategy": other}))
    assert ran.state["got"] == ["a", "b", "c"]
    assert strategy_of(ran) == yaml_world.strategy


def strategy_of(ran: Any) -> str:
    from spool.publish import read_json

    return str(read_json(str(ran.fanout / "fanout.json"))["strategy"])


def test_fan_out_from_the_start(yaml_world: World) -> None:
    nodes = [{"name": name, "run": f"return {{'got': '{name}'}}"} for name in "ab"]
    nodes += [{"name": "join", "fan_in": True, "run": "return {'got': [r['got'] for r in parallel_results]}"}]
    edges = [
        {"from": "__start__", "to": ["a", "b"], "parallel": True, "fan_in": "join"},
        *({"from": name, "to": "join"} for name in "ab"),
        {"from": "join", "to": "__end__"},
    ]
    assert yaml_world.run(yaml_world.yaml(nodes, edges)).state["got"] == ["a", "b"]


def test_a_branch_with_conditions_and_a_loop_inside(yaml_world: World) -> None:
    """`count` goes back to itself until it has had enough; `pick` takes one of two ways to the fan-in."""
    nodes = [
        {"name": "src", "run": "return {}"},
        {"name": "count", "run": "return {'n': state.get('n', 0) + 1}"},
        {"name": "odd", "run": "return {'way': 'odd'}"},
        {"name": "even", "run": "return {'way': 'even'}"},
        {"name": "other", "run": "return {'n': -1}"},
        {"name": "join", "fan_in": True, "run": "return {'got': [(r['n'], r.get('way')) for r in parallel_results]}"},
    ]
    edges = [
        {"from": "__start__", "to": "src"},
        {"from": "src", "to": ["count", "other"], "parallel": True, "fan_in": "join"},
        {"from": "count", "to": "count", "when": "state.n < state.limit"},
        {"from": "count", "to": "even", "when": "state.n % 2 == 0"},
        {"from": "count", "to": "odd"},
        *({"from": name, "to": "join"} for name in ("odd", "even", "other")),
        {"from": "join", "to": "__end__"},
    ]
    graph = yaml_world.yaml(nodes, edges)
    assert yaml_world.run(graph, {"limit": 4}).state["got"] == [(4, "even"), (-1, None)]
    assert yaml_world.run(graph, {"limit": 7}).state["got"] == [(7, "odd"), (-1, None)]


def test_a_branch_with_a_while_loop(yaml_world: World) -> None:
    nodes = [
        {"name": "src", "run": "return {}"},
        {
            "name": "grow",
            "type": "while_loop",
            "condition": "state.n < 5",
            "max_iterations": 100,
            "body": [{"run": "return {'n': state['n'] + 2}"}],
        },
        {"name": "join", "fan_in": True, "run": "return {'n': [r['n'] for r in parallel_results]}"},
    ]
    edges = [
        {"from": "src", "to": ["grow"], "parallel": True, "fan_in": "join"},
        {"from": "grow", "to": "join"},
    ]
    assert yaml_world.run(yaml_world.yaml(nodes, edges), {"n": 0}).state["n"] == [6]


def python_loop(config: ParallelConfig) -> StateGraph:
    graph = StateGraph({}, parallel_config=config)
    graph.add_node("src")
    graph.add_node("count", run=function("return {'n': state.get('n', 0) + 1}"))
    graph.add_node("odd", run=function("return {'way': 'odd'}"))
    graph.add_node("even", run=function("return {'way': 'even'}"))
    graph.add_fanin_node("join", run=function("return {'got': [(r['n'], r['way']) for r in parallel_results]}"))
    graph.set_entry_point("src")
    graph.add_parallel_edge("src", "count", "join")
    choose = function("return 'on' if state['n'] < state['limit'] else state['n'] % 2")
    graph.add_conditional_edges("count", choose, {"on": "count", 0: "even", 1: "odd"})
    graph.add_edge("odd", "join")
    graph.add_edge("even", "join")
    graph.add_edge("join", END)
    return graph.compile()


def test_a_branch_of_a_python_graph_with_conditions_and_a_loop(python_world: World) -> None:
    graph = python_loop(ParallelConfig(strategy=python_world.strategy))
    assert python_world.run(graph, {"limit": 4}).state["got"] == [(4, "even")]
    assert python_world.run(graph, {"limit": 5}).state["got"] == [(5, "odd")]


def test_edges_may_differ_in_their_configuration(yaml_world: World) -> None:
    """One edge retries, the other does not."""
    nodes = [{"name": "src", "run": "return {}"}]
    nodes += [{"name": name, "run": "raise OSError('no')"} for name in "ab"]
    nodes += [{"name": "join", "fan_in": True, "run": "return {'n': [r.retry_count for r in parallel_results]}"}]
    retry = {"retry": {"max_retries": 2, "base_delay": 0.01}}
    edges = [
        {"from": "src", "to": "a", "parallel": True, "fan_in": "join", "parallel_config": retry},
        {"from": "src", "to": "b", "parallel": True, "fan_in": "join"},
        *({"from": name, "to": "join"} for name in "ab"),
    ]
    assert yaml_world.run(yaml_world.yaml(nodes, edges)).state["n"] == [2, 0]


def test_edges_of_a_python_graph_may_differ_too(python_world: World) -> None:
    from tea import RetryPolicy

    def config(retries: int) -> ParallelConfig:
        return ParallelConfig(strategy=python_world.strategy, retry_policy=RetryPolicy(retries, base_delay=0.01))

    graph = StateGraph({})
    graph.add_node("src")
    graph.add_fanin_node("join", run=function("return {'n': [r.retry_count for r in parallel_results]}"))
    graph.set_entry_point("src")
    for name, retries in (("a", 2), ("b", 0), ("c", 1)):
        graph.add_node(name, run=function("raise OSError('no')"))
        graph.add_parallel_edge("src", name, "join", config(retries))
        graph.add_edge(name, "join")
    graph.set_finish_point("join")
    assert python_world.run(graph.compile()).state["n"] == [2, 0, 1]
