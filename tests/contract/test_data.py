"""Branches over data: dynamic_parallel in its three modes, matrix, parallel_each, chunks, and what is no list."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contract.world import Ran, World

ITEMS = [3, 1, 2]


def values(ran: Ran, key: str = "v") -> list[Any]:
    return [result.get(key) for result in ran.results]


def test_dynamic_parallel_with_an_action(yaml_world: World) -> None:
    spec = {
        "type": "dynamic_parallel",
        "items": "{{ state.numbers }}",
        "item_var": "number",
        "index_var": "place",
        "action": {"run": "return {'v': [state['place'], state['number'] * 10]}"},
    }
    ran = yaml_world.run(yaml_world.over(spec), {"numbers": ITEMS})
    assert values(ran) == [[0, 30], [1, 10], [2, 20]]


def test_dynamic_parallel_with_steps(yaml_world: World) -> None:
    steps = [{"run": "return {'w': state['item'] + 1}"}, {"run": "return {'v': state['w'] * 2}"}]
    spec = {"type": "dynamic_parallel", "items": "{{ state.numbers }}", "steps": steps}
    ran = yaml_world.run(yaml_world.over(spec), {"numbers": ITEMS})
    assert values(ran) == [8, 4, 6]
    assert values(ran, "w") == [4, 2, 3]


def test_dynamic_parallel_with_a_subgraph(yaml_world: World) -> None:
    inner = {"name": "inner", "nodes": [{"name": "one", "run": "return {'v': state['given'] * state['given']}"}]}
    (yaml_world.folder / "inner.yaml").write_text(json.dumps(inner))
    for reference in (inner, "inner.yaml"):
        spec = {
            "type": "dynamic_parallel",
            "items": "{{ state.numbers }}",
            "subgraph": reference,
            "input": {"given": "{{ state.item }}"},
        }
        settings = {"remote": {**yaml_world.remote, "files": ["inner.yaml"]}} if yaml_world.remote else {}
        ran = yaml_world.run(yaml_world.over(spec, settings), {"numbers": ITEMS})
        assert values(ran) == [9, 1, 4]


def test_dynamic_parallel_into_a_key_of_its_own(yaml_world: World) -> None:
    nodes = [
        {
            "name": "each",
            "type": "dynamic_parallel",
            "items": [1, 2],
            "action": {"run": "return {'v': state['item']}"},
            "output": "all",
        },
        {"name": "after", "run": "return {'sum': sum(r['v'] for r in state['all'])}"},
    ]
    ran = yaml_world.run(yaml_world.yaml(nodes))
    assert ran.state["sum"] == 3


def test_matrix(yaml_world: World) -> None:
    spec = {
        "strategy": {"matrix": {"os": ["linux", "mac"], "py": "{{ state.versions }}"}},
        "run": "m = state['matrix']\nreturn {'v': f\"{m['os']}-{m['py']}\"}",
    }
    ran = yaml_world.run(yaml_world.over(spec), {"versions": [11, 12]})
    assert values(ran) == ["linux-11", "linux-12", "mac-11", "mac-12"]
    assert [result.state["matrix"] for result in ran.results][1] == {"os": "linux", "py": 12}  # type: ignore[index]
    assert [result.state["index"] for result in ran.results] == [0, 1, 2, 3]  # type: ignore[index]


def test_parallel_each(yaml_world: World) -> None:
    spec = {
        "strategy": {"parallel_each": "{{ state.numbers }}"},
        "run": "return {'v': state['item'] * 2, 'at': state['item_index']}",
    }
    ran = yaml_world.run(
        yaml_world.over(spec, last="return {'got': [r.state['result'] for r in parallel_results]}"),
        {"numbers": ITEMS},
    )
    assert ran.state["got"] == [{"v": 6, "at": 0}, {"v": 2, "at": 1}, {"v": 4, "at": 2}]
    assert [result["index"] for result in ran.results] == [0, 1, 2]
    assert [result["item"] for result in ran.results] == ITEMS


MODES: dict[str, dict[str, Any]] = {
    "action": {
        "type": "dynamic_parallel",
        "items": "{{ state.numbers }}",
        "action": {"run": "return {'v': 12 // state['item']}"},
    },
    "steps": {
        "type": "dynamic_parallel",
        "items": "{{ state.numbers }}",
        "item_var": "n",
        "steps": [{"run": "state['log'].append(state['n'])"}, {"run": "return {'v': 12 // state['n']}"}],
    },
    "each": {"strategy": {"parallel_each": "{{ state.numbers }}"}, "run": "return {'v': 12 // state['item']}"},
    "matrix": {"strategy": {"matrix": {"a": "{{ state.numbers }}"}}, "run": "return {'v': 12 // state.matrix['a']}"},
}


@pytest.mark.parametrize("mode", MODES)
def test_chunks_fill_the_same_slots(yaml_world: World, mode: str) -> None:
    """Also where an item fails: it fails alone."""
    if mode == "matrix":
        MODES[mode]["run"] = "return {'v': 12 // state['matrix']['a']}"
    state = {"numbers": [4, 0, 6, 3, 0, 2, 1], "log": []}
    alone = yaml_world.run(yaml_world.over(MODES[mode]), state)
    for size in (2, 3, 100):
        ran = yaml_world.run(yaml_world.over({**MODES[mode], "chunk_size": size}), state)
        assert [comparable(r) for r in ran.results] == [comparable(r) for r in alone.results]
        assert len(list(ran.fanout.glob("jobs/*"))) == -(-7 // size)
    assert values(alone) == [3, None, 2, 4, None, 6, 12]
    assert alone.column("error_type") == [None, "ZeroDivisionError", None, None, "ZeroDivisionError", None, None]


def comparable(result: Any) -> dict[str, Any]:
    fields = ("branch", "success", "outcome", "state", "error", "error_type", "timeout", "exit_code", "retry_count")
    return {name: getattr(result, name) for name in (*fields, "attempt_errors")}


@pytest.mark.parametrize("spec", [MODES["action"], MODES["each"], {**MODES["action"], "chunk_size": 2}])
def test_no_items_no_branches(yaml_world: World, spec: dict[str, Any]) -> None:
    graph = yaml_world.over(spec, last="return {'got': list(parallel_results)}")
    assert yaml_world.run(graph, {"numbers": []}).state["got"] == []


@pytest.mark.parametrize("items", [5, "text", {"a": 1}, None])
@pytest.mark.parametrize("mode", ["action", "each"])
def test_items_that_are_no_list_are_an_error(yaml_world: World, mode: str, items: Any) -> None:
    last = yaml_world.run(yaml_world.over(MODES[mode]), {"numbers": items}).last
    assert (last["type"], last["node"], last["error_type"]) == ("error", "each", "TypeError")
    assert "each" in last["error"]
    assert type(items).__name__ in last["error"]


def test_items_that_are_missing_are_an_error_too(yaml_world: World) -> None:
    last = yaml_world.run(yaml_world.over(MODES["action"]), {}).last
    assert (last["type"], last["node"]) == ("error", "each")


def test_max_concurrency_bounds_branches_at_once(yaml_world: World) -> None:
    """Each branch leaves a mark while it runs, and says how many it saw."""
    if yaml_world.strategy == "workers":
        pytest.skip("who starts the workers decides how many there are")
    marks = yaml_world.folder / "marks"
    marks.mkdir()
    code = f"""
import os, time
mine = os.path.join({str(marks)!r}, str(state['item']))
open(mine, 'x').close()
time.sleep(0.02)
seen = len(os.listdir({str(marks)!r}))
os.unlink(mine)
return {{'v': seen}}
"""
    spec = {"type": "dynamic_parallel", "items": list(range(8)), "max_concurrency": 2, "action": {"run": code}}
    ran = yaml_world.run(yaml_world.over(spec, {"max_workers": 8}))
    assert all(ran.column("success"))
    assert max(values(ran)) <= 2


def test_fail_fast_of_the_node_overrides_the_settings(yaml_world: World) -> None:
    code = "assert state['item']"
    spec = {"type": "dynamic_parallel", "items": [0, *[1] * 30], "fail_fast": True, "action": {"run": code}}
    ran = yaml_world.run(yaml_world.over(spec, {"max_workers": 1}))
    assert ran.results[0].outcome == "failed"
    calm = yaml_world.run(yaml_world.over({**spec, "fail_fast": False}, {"fail_fast": True, "max_workers": 1}))
    assert calm.column("outcome") == ["failed", *["succeeded"] * 30]
