"""Fan-outs inside branches: recorded inside their job, with the same promises."""

from __future__ import annotations

from typing import Any

import pytest

from tea import ParallelConfig, StateGraph
from tests.contract.world import World, function

INNER: dict[str, Any] = {
    "name": "inner",
    "nodes": [
        {
            "name": "split",
            "strategy": {"parallel_each": "{{ state.parts }}"},
            "fan_in": "add",
            "run": "assert state['item'] != 13\nreturn {'v': state['item'] * 10}",
        },
        {
            "name": "add",
            "fan_in": True,
            "run": "return {'sum': sum(r['v'] for r in parallel_results if r.success), "
            "'bad': [r.branch for r in parallel_results if not r.success]}",
        },
    ],
}


@pytest.mark.parametrize("chunk", [1, 2])
def test_a_subgraph_that_fans_out(yaml_world: World, chunk: int) -> None:
    spec = {
        "type": "dynamic_parallel",
        "items": [[1, 2], [3, 13], []],
        "subgraph": INNER,
        "input": {"parts": "{{ state.item }}"},
        "chunk_size": chunk,
    }
    ran = yaml_world.run(yaml_world.over(spec))
    assert ran.column("error") == [None] * 3
    assert [(r["sum"], r["bad"]) for r in ran.results] == [(30, []), (30, ["split"]), (0, [])]
    if not yaml_world.records_all:
        return
    inner = sorted(str(path.relative_to(ran.fanout / "jobs")) for path in ran.fanout.glob("jobs/*/fanouts/*/jobs/*"))
    jobs = {path.partition("/")[0] for path in inner}
    assert len(inner) == 4
    assert jobs == ({"0000-each", "0001-each"} if chunk == 1 else {"0000-each"})


def nested_edges() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    nodes = [
        {"name": "src", "run": "return {'log': []}"},
        {"name": "a", "run": "state['log'].append('a')"},
        {"name": "a1", "run": "state['log'].append('a1')\nreturn {'v': 1}"},
        {"name": "a2", "run": "state['log'].append('a2')\nreturn {'v': 2}"},
        {
            "name": "a_join",
            "fan_in": True,
            "run": "return {'v': sum(r['v'] for r in parallel_results), "
            "'logs': [r['log'] for r in parallel_results]}",
        },
        {"name": "b", "run": "return {'v': 100}"},
        {
            "name": "join",
            "fan_in": True,
            "run": "return {'v': [r['v'] for r in parallel_results], 'logs': parallel_results[0]['logs'], "
            "'log': [r['log'] for r in parallel_results]}",
        },
    ]
    edges = [
        {"from": "__start__", "to": "src"},
        {"from": "src", "to": ["a", "b"], "parallel": True, "fan_in": "join"},
        {"from": "a", "to": ["a1", "a2"], "parallel": True, "fan_in": "a_join"},
        *({"from": name, "to": "a_join"} for name in ("a1", "a2")),
        {"from": "a_join", "to": "join"},
        {"from": "b", "to": "join"},
        {"from": "join", "to": "__end__"},
    ]
    return nodes, edges


def test_a_branch_that_fans_out_over_edges(yaml_world: World) -> None:
    ran = yaml_world.run(yaml_world.yaml(*nested_edges()))
    assert ran.state["v"] == [3, 100]
    assert ran.state["logs"] == [["a", "a1"], ["a", "a2"]]
    assert ran.state["log"] == [["a"], []]
    if yaml_world.records_all:
        inner = ran.fanout.glob("jobs/0000-a/fanouts/001-a/jobs/*")
        assert sorted(path.name for path in inner) == ["0000-a1", "0001-a2"]


def test_a_branch_of_a_python_graph_that_fans_out(python_world: World) -> None:
    graph = StateGraph({}, parallel_config=ParallelConfig(strategy=python_world.strategy, max_workers=2))
    nodes, _ = nested_edges()
    for node in nodes:
        add = graph.add_fanin_node if node.get("fan_in") else graph.add_node
        add(node["name"], run=function(node["run"]))
    graph.set_entry_point("src")
    graph.set_finish_point("join")
    for source, target, fan_in in (
        ("src", "a", "join"),
        ("src", "b", "join"),
        ("a", "a1", "a_join"),
        ("a", "a2", "a_join"),
    ):
        graph.add_parallel_edge(source, target, fan_in)
    for source, target in (("a1", "a_join"), ("a2", "a_join"), ("a_join", "join"), ("b", "join")):
        graph.add_edge(source, target)
    ran = python_world.run(graph.compile())
    assert ran.state["v"] == [3, 100]
    assert ran.state["logs"] == [["a", "a1"], ["a", "a2"]]


def test_a_failure_inside_is_the_inner_fan_ins_business(yaml_world: World) -> None:
    nodes, edges = nested_edges()
    nodes[2]["run"] = "raise OSError('inside')"
    nodes[4]["run"] = "return {'v': [r.outcome for r in parallel_results], 'logs': []}"
    ran = yaml_world.run(yaml_world.yaml(nodes, edges))
    assert ran.state["v"] == [["failed", "succeeded"], 100]
    assert ran.column("success") == [True, True]


def test_an_outer_branch_that_is_tried_again_keeps_what_its_inner_branches_gave(yaml_world: World) -> None:
    """The inner fan-out has finished when the outer branch fails: its jobs are not run again."""
    if not yaml_world.records_all:
        pytest.skip("what a branch on a host has begun stays there, and its next attempt may run elsewhere")
    counted = yaml_world.folder / "counted"
    nodes, edges = nested_edges()
    nodes[2]["run"] = f"open({str(counted)!r}, 'a').write('x')\nreturn {{'v': 1}}"
    nodes[4]["run"] = (
        "import os\n"
        f"flag = {str(yaml_world.folder / 'flag')!r}\n"
        "if not os.path.exists(flag):\n"
        "    open(flag, 'x').close()\n"
        "    raise OSError('once')\n"
        "return {'v': sum(r['v'] for r in parallel_results), 'logs': []}"
    )
    ran = yaml_world.run(yaml_world.yaml(nodes, edges, {"retry": {"max_retries": 1, "base_delay": 0.01}}))
    assert ran.state["v"] == [3, 100]
    assert ran.column("retry_count") == [1, 0]
    assert counted.read_text() == "x"


def test_an_outer_branch_that_timed_out_is_tried_again_with_its_inner_branches(yaml_world: World) -> None:
    """What was given up in the first attempt is not what the second one gets."""
    nodes, edges = nested_edges()
    nodes[2]["run"] = (
        "import os, time\n"
        f"flag = {str(yaml_world.folder / 'flag')!r}\n"
        "if not os.path.exists(flag):\n"
        "    open(flag, 'x').close()\n"
        "    end = time.monotonic() + 300\n"
        "    while time.monotonic() < end and not cancel_token.is_cancelled():\n"
        "        time.sleep(0.005)\n"
        "return {'v': 1}"
    )
    nodes[4]["run"] = "return {'v': [r.outcome for r in parallel_results], 'logs': []}"
    retry = {
        "max_retries": 30,
        "base_delay": 0.01,
        "backoff_multiplier": 1.0,
    }  # on a machine that stalls, a later one
    limits = {"timeout_seconds": yaml_world.limit(5), "retry": retry}
    edges[1]["parallel_config"] = limits
    ran = yaml_world.run(yaml_world.yaml(nodes, edges))
    outer, other = ran.results
    assert {error["error_type"] for error in outer.attempt_errors} == {"TimeoutError"}
    assert other.retry_count == 0
    assert ran.state["v"] == [["succeeded", "succeeded"], 100]
