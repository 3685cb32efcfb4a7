"""Planning a fan-out: which branches, with which configuration, how many at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from executors.attempt import NodeFailure
from executors.base import FanOutContext
from spool.layout import FanOutFiles
from tea import ParallelConfig, StateGraph, YAMLEngine
from tea.branches import check_chunk
from tea.fanout import FanOuts, _restore_circuits, known_strategy
from tea.nodes.loop import chunk_record
from tea.plan import Options, Plan
from tea.walk import Scope


def planned(graph: Any, source: str, state: dict[str, Any], **options: Any) -> Plan:
    fan_outs = FanOuts(None, Options(**options))
    fan_out = graph.fan_out(source)
    return fan_outs.plan(graph, fan_out, state, Scope(fan_outs))


@pytest.mark.parametrize("kept", ["{", '{"circuits": 3}', '{"circuits": [{}]}', '{"circuits": ["open"]}', "[]"])
def test_circuits_that_cannot_be_read_are_told(tmp_path: Path, kept: str) -> None:
    told: list[str] = []
    context = FanOutContext(fanout=FanOutFiles(str(tmp_path)), warn=told.append)
    _restore_circuits(context)
    assert told == []
    Path(context.fanout.breaker).write_text(kept)
    _restore_circuits(context)
    (text,) = told
    assert text.startswith(f"{context.fanout.breaker}: ")
    assert text.endswith("; all circuits are closed")


def edges(*configs: ParallelConfig | None, **options: Any) -> StateGraph:
    graph = StateGraph({}, **options)
    graph.add_node("src")
    graph.add_fanin_node("join")
    for i, config in enumerate(configs):
        graph.add_node(f"b{i}")
        graph.add_parallel_edge("src", f"b{i}", "join", config)
        graph.add_edge(f"b{i}", "join")
    return graph


def over(**spec: Any) -> Any:
    nodes = [
        {"name": "each", "fan_in": "join", "action": {"run": "return {}"}, "type": "dynamic_parallel", **spec},
        {"name": "join", "fan_in": True, "run": "return {}"},
    ]
    return YAMLEngine().load_from_dict({"name": "w", "nodes": nodes})


def test_an_edge_has_its_own_configuration_or_the_graphs() -> None:
    slow, default = ParallelConfig(timeout_seconds=9), ParallelConfig(timeout_seconds=1)
    plan = planned(edges(slow, None, slow, parallel_config=default), "src", {})
    limits = [(flow.config or plan.config).timeout_seconds for flow in plan.flows]
    assert limits == [9, 1, 9]
    assert [flow.branch for flow in plan.flows] == ["b0", "b1", "b2"]


def test_results_of_before_do_not_go_along() -> None:
    plan = planned(edges(None), "src", {"x": 1, "parallel_results": [1]})
    assert plan.states.base == {"x": 1}


@pytest.mark.parametrize(
    ("count", "size", "sizes"), [(5, 2, [2, 2, 1]), (4, 2, [2, 2]), (0, 3, []), (3, 1, None), (2, 100, [2])]
)
def test_chunks(count: int, size: int, sizes: list[int] | None) -> None:
    plan = planned(over(items="{{ state.n }}", chunk_size=size), "each", {"n": list(range(count))})
    if sizes is None:
        assert [state["item"] for state in plan.states] == list(range(count))
    else:
        assert [len(state["chunk"]) for state in plan.states] == sizes
        assert [state["chunk_start"] for state in plan.states] == [i * size for i in range(len(sizes))]


@pytest.mark.parametrize("items", [{"a": 1}, 3])
def test_items_that_are_none(items: Any) -> None:
    with pytest.raises(NodeFailure, match=r"items of 'each' must be a list.*not (dict|int)"):
        planned(over(items="{{ state.n }}"), "each", {"n": items})


def test_how_many_at_once() -> None:
    def workers(graph: Any, source: str = "src", **options: Any) -> int | None:
        return planned(graph, source, {"n": [1]}, **options).max_workers

    assert workers(edges(None)) is None
    assert workers(edges(None, max_workers=3)) == 3
    assert workers(edges(ParallelConfig(max_workers=2), max_workers=3)) == 2
    assert workers(edges(ParallelConfig(max_workers=2)), max_workers=5) == 5
    assert workers(edges(None, max_workers=8).compile(max_active_threads=2)) == 2
    assert workers(over(items="{{ state.n }}", max_concurrency=4), "each") == 4


def test_strategies_of_edges_nodes_and_the_caller() -> None:
    process = ParallelConfig(strategy="process")
    assert planned(edges(process), "src", {}).strategy == "process"
    assert planned(edges(process), "src", {}, strategy="thread").strategy == "thread"
    assert planned(over(items=[1], parallel_strategy="process"), "each", {}).strategy == "process"
    workers = ParallelConfig(strategy="workers")
    assert planned(edges(workers), "src", {}, nested=True).strategy == "process"


def test_unknown_strategies() -> None:
    said: list[str] = []
    assert known_strategy("thread", True, said.append) == "thread"
    assert known_strategy("quantum", False, said.append) == "thread"
    assert "no strategy 'quantum'" in said[0]
    with pytest.raises(ValueError, match="quantum"):
        known_strategy("quantum", True, said.append)


def test_a_chunk_with_failed_items_is_a_failed_job() -> None:
    good = chunk_record(0, {"success": True, "seconds": 0.1}, {"v": 1})
    bad = chunk_record(1, {"success": False, "error": "no", "error_type": "OSError", "seconds": 0.1}, {})
    check_chunk([good])
    with pytest.raises(RuntimeError, match="1 of 2 items failed; first: item 1: OSError: no"):
        check_chunk([good, bad])


def test_processes_need_a_record(tmp_path: Path) -> None:
    fan_outs = FanOuts(None)
    graph = edges(ParallelConfig(strategy="process"))
    with pytest.raises(ValueError, match="needs a spool"):
        fan_outs(graph, graph.fan_out("src"), {}, Scope(fan_outs))
