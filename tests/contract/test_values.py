"""What JSON cannot show: by reference under threads, equal under processes, refused where neither is possible."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tea import PickleValidationError
from tests.contract.world import World
from tests.support import tea_cmd


class Point:
    """A class of the user's."""

    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and other.x == self.x

    __hash__ = None  # type: ignore[assignment]


ODD: dict[str, Any] = {
    "set": {1, 2},
    "tuple": (1, [2]),
    "time": datetime(2026, 11, 24, tzinfo=UTC),
    "decimal": Decimal("1.10"),
    "bytes": b"\x00\xff",
    "point": Point(3),
    "int_keys": {1: "a", (2, 3): "b"},
    "nan_free": float("inf"),
    "big": 2**80,
    "nested": [{"deep": {4}}],
}


ONLY_JSON = "nothing but JSON travels to a host; what else is refused, test_functions_travel_too says"


def test_odd_values_arrive_and_come_back(world: World) -> None:
    if world.json_only:
        pytest.skip(ONLY_JSON)
    code = (
        "state['set'].add(9)\n"
        "state['point'] = type(state['point'])(state['point'].x + 1)\n"
        "return {'back': state['tuple']}"
    )
    ran = world.run(world.edges({"a": code, "b": ""}), ODD)
    a, b = ran.results
    assert a.error is None
    assert a.state == {**ODD, "set": {1, 2, 9}, "point": Point(4), "back": (1, [2])}
    assert b.state == ODD
    assert [type(a[key]) for key in ODD] == [type(value) for value in ODD.values()]


def test_the_record_shows_them_as_what_they_are(world: World) -> None:
    if world.json_only:
        pytest.skip(ONLY_JSON)
    ran = world.run(world.edges({"a": "return {'new': {5}}"}), {"set": {1}, "n": 1})
    job = Path(str(ran.results[0].job))
    shown = json.loads((job / "input.json").read_bytes())
    assert (shown["n"], shown["set"]["$not_json"], shown["set"]["repr"]) == (1, "builtins.set", "{1}")
    result = json.loads((job / "result.json").read_bytes())
    assert result["state"]["new"]["$not_json"] == "builtins.set"
    record = json.loads((job / "job.json").read_bytes())
    if world.shares_memory and world.kind == "yaml":
        assert record["not_replayable"] == "JSON cannot hold set"
    assert ran.results[0]["new"] == {5}


def test_threads_see_the_object_itself(thread_world: World) -> None:
    lock = threading.Lock()
    ran = thread_world.run(thread_world.edges({"a": "return {'same': state['lock']}"}), {"lock": lock})
    assert ran.results[0]["same"] is lock


class Holder:
    def __init__(self, held: Any) -> None:
        self.held = held


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (threading.Lock(), "_thread.lock"),
        ((n for n in range(3)), "builtins.generator"),
        (Holder(threading.Lock()), "tests.contract.test_values.Holder"),
    ],
    ids=["lock", "generator", "holder"],
)
def test_what_cannot_travel_is_named_before_any_job_exists(world: World, value: Any, kind: str) -> None:
    if world.shares_memory:
        assert world.run(world.edges({"a": ""}), {"handle": value}).column("success") == [True]
        return
    with world.no_job_is_made(), pytest.raises(PickleValidationError) as caught:
        world.run(world.edges({"first": "", "second": ""}), {"fine": 1, "handle": value})
    assert (caught.value.key, caught.value.branch) == ("handle", "first")
    assert kind in str(caught.value)
    assert "'handle'" in str(caught.value)


def test_an_item_that_cannot_travel_is_named_by_its_branch(yaml_world: World) -> None:
    if yaml_world.shares_memory:
        pytest.skip("threads need not send anything")
    spec = {"type": "dynamic_parallel", "items": "{{ state.things }}", "action": {"run": "return {}"}}
    with yaml_world.no_job_is_made(), pytest.raises(PickleValidationError) as caught:
        yaml_world.run(yaml_world.over(spec), {"things": [1, threading.Lock()]})
    assert caught.value.branch == "each"


def test_a_result_that_cannot_travel_fails_its_branch(world: World) -> None:
    ran = world.run(world.edges({"a": "import threading\nreturn {'lock': threading.Lock()}", "b": ""}))
    if world.shares_memory:
        assert ran.column("success") == [True, True]
    else:
        assert ran.column("error_type") == ["PickleValidationError", None]
        assert "'lock'" in str(ran.results[0].error)


def test_functions_travel_too(world: World) -> None:
    """Lambdas by cloudpickle; where only JSON travels, they are refused."""
    if world.json_only:
        with world.no_job_is_made(), pytest.raises(PickleValidationError, match="only JSON travels to a host"):
            world.run(world.edges({"a": ""}), {"f": lambda x: x})
        return
    ran = world.run(world.edges({"a": "return {'y': state['f'](2)}"}), {"f": lambda x: x * 21})
    assert ran.results[0]["y"] == 42


def test_a_state_of_every_json_shape_is_the_same_everywhere(world: World) -> None:
    state = {
        "text": "grüße \u2028 \x7f",
        "empty": ["", [], {}, None],
        "numbers": [0, -1, 1.5, 1e300, 2**63 - 1, True],
        "deep": [[[[{"a": [1]}]]]],
        "order": {"b": 1, "a": 2},
    }
    ran = world.run(world.edges({"a": "return {'copy': {k: v for k, v in state.items()}}"}), state)
    assert ran.results[0]["copy"] == state
    assert [list(map(type, ran.results[0]["copy"]["numbers"]))] == [list(map(type, state["numbers"]))]
    assert list(ran.results[0]["copy"]["order"]) == ["b", "a"]


def test_odd_values_replay_alone(process_world: World) -> None:
    """Sets and tuples lie pickled beside the input, also where the shared state is small."""
    if process_world.kind == "python":
        return
    for padding in ("", "x" * 5000):
        code = "assert type(state['set']) is set\nreturn {'n': len(state['set']), 't': list(state['tuple'])}"
        state = {"set": {1, 2}, "tuple": (1, 2), "padding": padding}
        job = Path(str(process_world.run(process_world.edges({"a": code}), state).results[0].job))
        done = tea_cmd("run", job / "workflow.yaml", "--input", job / "input.json", "--no-spool")
        assert done.returncode == 0, done.stderr
        assert (json.loads(done.stdout)["n"], json.loads(done.stdout)["t"]) == (2, [1, 2])


BREAKS_HERE = """
import os

class Breaks:
    def __reduce__(self):
        return (check, (os.getpid(),))

def check(pid):
    raise ImportError('not here')

return {'broken': Breaks()}
"""


def test_a_result_that_cannot_be_read_here_fails_its_branch(process_world: World) -> None:
    ran = process_world.run(process_world.edges({"a": BREAKS_HERE, "b": ""}))
    assert ran.column("outcome") == ["failed", "succeeded"]
    assert ran.results[0].error == "its result cannot be unpickled in this process: not here"


class BreaksThere:
    """Can be pickled, and cannot be unpickled."""

    def __reduce__(self) -> Any:
        return _not_there, ()


def _not_there() -> None:
    raise ImportError("not there")


def test_an_input_that_cannot_be_read_there_fails_its_branch(world: World) -> None:
    if world.json_only:
        pytest.skip(ONLY_JSON)
    ran = world.run(world.edges({"a": ""}), {"thing": BreaksThere()})
    if world.shares_memory:
        assert ran.column("success") == [True]
    else:
        assert (ran.results[0].error_type, ran.results[0].error) == ("ImportError", "not there")
