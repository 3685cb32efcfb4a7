"""Branches do not see each other, and what they change is theirs, under every strategy the same."""

from __future__ import annotations

from typing import Any

from tests.contract.world import World

STATE: dict[str, Any] = {
    "log": [0],
    "deep": {"list": [{"x": 1}]},
    "flag": 1,
    "same": [1, 2],
    "text": "t",
    "order": {"b": 1, "a": 2},
}
BRANCHES = {
    "appends": "state['log'].append('me')",
    "nests": "state['deep']['list'][0]['x'] = 2\nstate['deep']['more'] = [3]",
    "retypes": "state['same'][0] = True",
    "sets": "return {'log': [], 'new': {'a': [1]}}",
    "sorts": "state['order'] = dict(sorted(state['order'].items()))",
    "reads": "return {'n': len(state['log']), 'sum': sum(state['same'])}",
    "returns_all": "state['log'].append(1)\nreturn {**state, 'new': 1}",
    "loops": "for key, value in state.items():\n    if isinstance(value, list):\n        value.append(9)",
    "pops": "state['log'].append(2)\nlog = state.pop('log')\nreturn {'was': log}",
    "fails": "state['log'].append('x')\nraise OSError('after the change')",
}
ENDS: dict[str, dict[str, Any]] = {
    "appends": {**STATE, "log": [0, "me"]},
    "nests": {**STATE, "deep": {"list": [{"x": 2}], "more": [3]}},
    "retypes": {**STATE, "same": [True, 2]},
    "sets": {**STATE, "log": [], "new": {"a": [1]}},
    "sorts": {**STATE, "order": {"a": 2, "b": 1}},
    "reads": {**STATE, "n": 1, "sum": 3},
    "returns_all": {**STATE, "log": [0, 1], "new": 1},
    "loops": {**STATE, "log": [0, 9], "same": [1, 2, 9]},
    "pops": {**{key: STATE[key] for key in STATE if key != "log"}, "was": [0, 2]},
    "fails": {**STATE, "log": [0, "x"]},
}


def typed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: typed(one) for key, one in value.items()}
    return [typed(one) for one in value] if isinstance(value, list) else (type(value).__name__, value)


def test_a_change_in_place_is_the_branchs_own(world: World) -> None:
    ran = world.run(world.edges(BRANCHES), STATE)
    for result in ran.results:
        assert typed(result.state) == typed(ENDS[result.branch]), result.branch
    assert list(ran.of("sorts")["order"]) == ["a", "b"]
    assert {key: ran.state[key] for key in STATE} == STATE


def test_a_retry_begins_with_the_state_of_the_fan_out(world: World) -> None:
    """What a failed attempt changed is not there in the next one."""
    flag = world.folder / "flag"
    code = f"""
import os
state['log'].append('tried')
if not os.path.exists({str(flag)!r}):
    open({str(flag)!r}, 'x').close()
    raise OSError('first')
"""
    ran = world.run(world.edges({"a": code}, {"retry": {"max_retries": 2, "base_delay": 0.01}}), {"log": []})
    assert (ran.results[0]["log"], ran.results[0].retry_count) == (["tried"], 1)


def test_items_do_not_see_each_others_changes(yaml_world: World) -> None:
    spec = {
        "type": "dynamic_parallel",
        "items": [[1], [2], [3]],
        "action": {"run": "state['log'].append(state['item'][0])\nstate['item'].append('seen')"},
    }
    for size in (1, 2):
        ran = yaml_world.run(yaml_world.over({**spec, "chunk_size": size}), {"log": []})
        assert [result["log"] for result in ran.results] == [[1], [2], [3]]
        assert [result["item"] for result in ran.results] == [[1, "seen"], [2, "seen"], [3, "seen"]]


def test_results_of_an_earlier_fan_in_are_not_part_of_a_branchs_state(yaml_world: World) -> None:
    nodes = [
        {"name": "one", "strategy": {"parallel_each": [1]}, "fan_in": "mid", "run": ""},
        {"name": "mid", "fan_in": True, "run": "return {}"},
        {"name": "two", "strategy": {"parallel_each": [1]}, "fan_in": "end", "run": "return {'keys': list(state)}"},
        {"name": "end", "fan_in": True, "run": "return {}"},
    ]
    nodes[0]["run"] = "return {}"
    ran = yaml_world.run(yaml_world.yaml(nodes))
    assert "parallel_results" not in ran.results[0]["keys"]
