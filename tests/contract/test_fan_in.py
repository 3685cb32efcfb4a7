"""The fan-in gets one slot for each branch, in branch order, whatever became of it."""

from __future__ import annotations

import pytest

from tests.contract.world import World

# Branch `c` lets `b` go, which lets `a` go: they finish in reverse.
AFTER = """
import os, time
end = time.monotonic() + 300
while not os.path.exists({other!r}):
    assert time.monotonic() < end, "the other branch never came"
    time.sleep(0.005)
finished = time.time()
open({mine!r}, "x").close()
return {{"mine": {name!r}, "finished": finished}}
"""


def test_slots_come_in_branch_order_whatever_finishes_first(world: World) -> None:
    flags = {name: str(world.folder / name) for name in "abcd"}
    (world.folder / "d").touch()
    branches = {
        name: AFTER.format(other=flags[other], mine=flags[name], name=name)
        for name, other in (("a", "b"), ("b", "c"), ("c", "d"))
    }
    ran = world.run(world.edges(branches, last="return {'seen': [(r.branch, r['mine']) for r in parallel_results]}"))
    assert ran.state["seen"] == [("a", "a"), ("b", "b"), ("c", "c")]
    finished = [result["finished"] for result in ran.results]
    assert finished == sorted(finished, reverse=True)


def test_one_branch_raises_and_its_slot_says_so(world: World) -> None:
    branches = {
        "good": "return {'x': 1}",
        "bad": "state['half'] = True\nraise ZeroDivisionError('by nothing')",
        "also_good": "return {'x': 3}",
    }
    ran = world.run(world.edges(branches, {"include_traceback": True}))
    assert ran.last["type"] == "final"
    assert ran.state["n"] == 3
    assert ran.column("branch") == ["good", "bad", "also_good"]
    assert ran.column("success") == [True, False, True]
    assert ran.column("outcome") == ["succeeded", "failed", "succeeded"]
    bad = ran.of("bad")
    assert (bad.error, bad.error_type, bad.timeout, bad.retry_count) == ("by nothing", "ZeroDivisionError", False, 0)
    assert bad.traceback is not None
    assert "ZeroDivisionError" in bad.traceback
    assert bad.state is not None
    assert bad.state["half"] is True
    assert bad.attempt_errors == [{"attempt": 0, "error": "by nothing", "error_type": "ZeroDivisionError"}]
    assert [result.get("x") for result in ran.results] == [1, None, 3]


def test_traceback_only_when_asked_for(world: World) -> None:
    ran = world.run(world.edges({"bad": "raise OSError('x')"}))
    assert ran.results[0].traceback is None


def test_slots_know_their_job_and_host(world: World) -> None:
    ran = world.run(world.edges({"a": "return {}", "b": "return {}"}))
    assert [str(job).rpartition("/")[2] for job in ran.column("job")] == ["0000-a", "0001-b"]
    assert all(ran.column("host"))
    assert all(ms >= 0 for ms in ran.column("timing_ms"))


def test_a_branch_may_be_a_chain(world: World) -> None:
    branches = {"a": ["return {'x': 1}", "return {'x': state['x'] + 1}", "return {'y': state['x'] * 10}"], "b": ""}
    ran = world.run(world.edges(branches), {"x": 5})
    assert [(r["x"], r.get("y")) for r in ran.results] == [(2, 20), (5, None)]


def test_a_chain_that_breaks_in_the_middle_keeps_what_it_had(world: World) -> None:
    branches = {"a": ["return {'x': 1}", "raise KeyError('gone')", "return {'x': 3}"]}
    ran = world.run(world.edges(branches))
    (result,) = ran.results
    assert (result.success, result.error_type, result["x"]) == (False, "KeyError", 1)


def test_sys_exit_in_a_branch_is_a_failure_of_that_branch(world: World) -> None:
    ran = world.run(world.edges({"a": "import sys\nsys.exit(7)", "b": "return {}"}))
    assert ran.column("success") == [False, True]
    assert (ran.results[0].error_type, ran.results[0].exit_code) == ("SystemExit", 7)


def test_a_branch_that_returns_no_dict_fails(world: World) -> None:
    ran = world.run(world.edges({"a": "return 5", "b": "return None"}))
    assert ran.column("success") == [False, True]
    assert ran.results[0].error_type == "TypeError"
    assert "'a' returned int" in str(ran.results[0].error)


def test_removed_keys_are_gone_in_that_branch_only(world: World) -> None:
    ran = world.run(world.edges({"a": "del state['x']", "b": "return {}"}), {"x": 1, "y": 2})
    assert ["x" in (result.state or {}) for result in ran.results] == [False, True]
    assert ran.state["x"] == 1


def test_two_fan_outs_one_after_the_other(yaml_world: World) -> None:
    nodes = [
        {"name": "one", "strategy": {"parallel_each": [1, 2]}, "fan_in": "mid", "run": "return {'v': state['item']}"},
        {"name": "mid", "fan_in": True, "run": "return {'sum': sum(r['v'] for r in parallel_results)}"},
        {"name": "two", "strategy": {"parallel_each": [3, 4]}, "fan_in": "end", "run": "return {'v': state['sum']}"},
        {"name": "end", "fan_in": True, "run": "return {'all': [r['v'] for r in parallel_results]}"},
    ]
    ran = yaml_world.run(yaml_world.yaml(nodes))
    assert (ran.state["sum"], ran.state["all"]) == (3, [3, 3])
    assert sorted(path.name for path in ran.run.glob("fanouts/*")) == ["001-one", "002-two"]


@pytest.mark.parametrize("asked", [False, True])
def test_raise_exceptions_raises_for_a_failed_branch(world: World, asked: bool) -> None:
    graph = world.edges({"a": "return {}", "bad": "raise OSError('no luck')"})
    graph.raise_exceptions = asked
    if not asked:
        assert world.run(graph).last["type"] == "final"
        return
    with pytest.raises(RuntimeError, match="Error in node 'bad': no luck"):
        world.run(graph)
