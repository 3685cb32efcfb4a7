"""Circuit breakers: after too many failures in a row the rest fail at once; later a trial is let through."""

from __future__ import annotations

import json
from typing import Any

from tea import CallbackManager
from tests.contract.world import Ran, World

BREAKER = {"failure_threshold": 3, "reset_timeout": 60}


def over(world: World, code: str, breaker: dict[str, Any], **more: Any) -> Any:
    spec = {"type": "dynamic_parallel", "items": "{{ state.numbers }}", "action": {"run": code}}
    return world.over(spec, {"max_workers": 1, "circuit_breaker": breaker, **more})


def kinds(ran: Ran) -> list[Any]:
    return ran.column("error_type")


def test_it_opens_after_the_threshold_and_the_rest_fail_at_once(yaml_world: World) -> None:
    counted = yaml_world.folder / "counted"
    graph = over(yaml_world, f"open({str(counted)!r}, 'a').write('x')\nraise OSError('down')", BREAKER)
    ran = yaml_world.run(graph, {"numbers": list(range(8))})
    assert kinds(ran) == ["OSError"] * 3 + ["CircuitOpenError"] * 5
    assert counted.read_text() == "xxx"
    assert ran.column("outcome") == ["failed"] * 8
    assert ran.results[5].error == "Circuit breaker 'each' is open"
    assert ran.results[5].circuit_state == "open"
    assert [result.circuit_state for result in ran.results[:3]] == ["closed", "closed", "open"]
    assert graph.get_circuit_states()["each"]["state"] == "open"
    assert json.loads((ran.fanout / "breaker.json").read_bytes())["circuits"][0]["state"] == "open"


def test_a_success_in_between_keeps_it_closed(yaml_world: World) -> None:
    ran = yaml_world.run(over(yaml_world, "assert state['item']", BREAKER), {"numbers": [0, 0, 1, 0, 0, 1, 0, 0]})
    assert kinds(ran).count("AssertionError") == 6
    assert ran.results[2].circuit_state == "closed"


def test_it_stays_open_for_the_next_run_until_it_is_reset(yaml_world: World) -> None:
    graph = over(yaml_world, "assert state['item']", BREAKER)
    yaml_world.run(graph, {"numbers": [0, 0, 0]})
    assert kinds(yaml_world.run(graph, {"numbers": [1]})) == ["CircuitOpenError"]
    graph.reset_circuit("each")
    assert yaml_world.run(graph, {"numbers": [1]}).column("success") == [True]


def test_half_open_after_the_reset_timeout(yaml_world: World) -> None:
    """A trial that succeeds closes it, one that fails opens it again."""
    seen: list[tuple[str, str]] = []

    class Watch:
        def on_circuit_state_change(self, context: Any, old: Any, new: Any) -> None:
            seen.append((old.value, new.value))

    graph = over(yaml_world, "assert state['item']", {"failure_threshold": 2, "reset_timeout": 0.0})
    graph.callback_manager = CallbackManager([Watch()], timeout=None)
    ran = yaml_world.run(graph, {"numbers": [0, 0, 0, 1, 1]})
    assert kinds(ran) == ["AssertionError"] * 3 + [None, None]
    assert seen == [
        ("closed", "open"),
        ("open", "half_open"),
        ("half_open", "open"),
        ("open", "half_open"),
        ("half_open", "closed"),
    ]


def test_named_branches_have_a_circuit_each(world: World) -> None:
    graph = world.edges({"bad": "raise OSError", "good": ""}, {"circuit_breaker": {"failure_threshold": 1}})
    world.run(graph)
    assert {name: info["state"] for name, info in graph.get_circuit_states().items()} == {
        "bad": "open",
        "good": "closed",
    }
    ran = world.run(graph)
    assert kinds(ran) == ["CircuitOpenError", None]


def test_every_attempt_counts(world: World) -> None:
    settings = {"circuit_breaker": {"failure_threshold": 3}, "retry": {"max_retries": 2, "base_delay": 0.01}}
    graph = world.edges({"bad": "raise OSError"}, settings)
    assert world.run(graph).results[0].circuit_state == "open"
    assert graph.get_circuit_states()["bad"]["failure_count"] == 3


def test_circuits_are_the_graphs_own_or_everybodys(python_world: World) -> None:
    settings = {"circuit_breaker": {"failure_threshold": 1}}
    branches = {"contract_bad": "raise OSError"}
    one = python_world.edges(branches, settings, circuit_breaker_scope="global")
    other = python_world.edges(branches, settings, circuit_breaker_scope="global")
    alone = python_world.edges(branches, settings)
    try:
        assert kinds(python_world.run(one)) == ["OSError"]
        assert kinds(python_world.run(other)) == ["CircuitOpenError"]
        assert kinds(python_world.run(alone)) == ["OSError"]
    finally:
        one.reset_circuit()
