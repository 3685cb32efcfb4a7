"""The state of a branch behaves like a deep copy of a dict, and knows what was changed."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from executors.state import BranchState, BranchStates, as_branch_states, isolated

KEYS = st.sampled_from(["a", "b", "c", "d"])
LEAVES = st.none() | st.booleans() | st.integers(-2, 2) | st.floats(0, 1) | st.text(max_size=2)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(KEYS, inner, max_size=3)
        | st.sets(st.integers(0, 3), max_size=3)
        | st.tuples(inner)
    ),
    max_leaves=6,
)
STATES = st.dictionaries(KEYS, VALUES, max_size=4)


def typed(value: Any) -> Any:
    """A value with its types, so that 1, 1.0 and True differ."""
    if isinstance(value, dict):
        return ("dict", [(key, typed(one)) for key, one in value.items()])
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, [typed(one) for one in value])
    if isinstance(value, (set, frozenset)):
        return ("set", sorted(value))
    return (type(value).__name__, value)


def mutate(value: Any, new: Any) -> bool:
    """Change something inside a value, as deep as it goes; False when there is nothing to change."""
    if isinstance(value, list):
        if value and isinstance(value[-1], (list, dict, set)) and mutate(value[-1], new):
            return True
        value.append(new)
    elif isinstance(value, dict):
        last = next(reversed(value.values()), None)
        if isinstance(last, (list, dict, set)) and mutate(last, new):
            return True
        value["new"] = new
    elif isinstance(value, set):
        value ^= {99}
    else:
        return False
    return True


class BranchStateIsADeepCopy(RuleBasedStateMachine):
    """The same operations on a branch state and on a deep copy of the same dict."""

    @initialize(base=STATES, own=STATES)
    def begin(self, base: dict[str, Any], own: dict[str, Any]) -> None:
        self.base, self.own = base, own
        self.before = copy.deepcopy((base, own))
        self.start = {**base, **own}
        self.state = BranchState(base, own)
        self.model = copy.deepcopy(self.start)

    @rule(key=KEYS, value=VALUES)
    def set(self, key: str, value: Any) -> None:
        self.state[key] = copy.deepcopy(value)
        self.model[key] = copy.deepcopy(value)

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        if key in self.model:
            del self.model[key]
            del self.state[key]
        else:
            with pytest.raises(KeyError):
                del self.state[key]

    @rule(key=KEYS)
    def pop(self, key: str) -> None:
        assert typed(self.state.pop(key, None)) == typed(self.model.pop(key, None))

    @rule()
    def popitem(self) -> None:
        if self.model:
            assert typed(self.state.popitem()) == typed(self.model.popitem())

    @rule(key=KEYS, value=VALUES)
    def setdefault(self, key: str, value: Any) -> None:
        new = copy.deepcopy(value)
        assert typed(self.state.setdefault(key, new)) == typed(self.model.setdefault(key, copy.deepcopy(value)))

    @rule(more=STATES)
    def update(self, more: dict[str, Any]) -> None:
        self.state.update(copy.deepcopy(more))
        self.model.update(copy.deepcopy(more))

    @rule(more=STATES)
    def or_in_place(self, more: dict[str, Any]) -> None:
        self.state |= copy.deepcopy(more)
        self.model |= copy.deepcopy(more)
        assert type(self.state) is BranchState

    @rule()
    def clear(self) -> None:
        self.state.clear()
        self.model.clear()

    @rule(
        key=KEYS, new=LEAVES, way=st.sampled_from(["item", "get", "items", "values", "spread", "dict", "setdefault"])
    )
    def change_in_place(self, key: str, new: Any, way: str) -> None:
        if key not in self.model:
            return
        mutate(self.model[key], new)
        mutate(reached(self.state, key, way), new)

    @rule(key=KEYS)
    def replace_by_an_equal_of_another_type(self, key: str) -> None:
        if isinstance(self.model.get(key), list):
            for values in (self.model[key], self.state[key]):
                values[:1] = [bool(value) if type(value) is int else value for value in values[:1]]

    @rule(other=STATES)
    def read(self, other: dict[str, Any]) -> None:
        assert typed(self.state | other) == typed(self.model | other)
        assert typed(other | self.state) == typed(other | self.model)
        assert self.state == self.model
        assert (self.state != other) == (self.model != other)
        assert list(self.state) == list(self.model)
        assert len(self.state) == len(self.model)
        assert list(self.state.keys()) == list(self.model.keys())
        assert [key in self.state for key in "abcd"] == [key in self.model for key in "abcd"]
        assert str(self.state) == str(self.model)

    @invariant()
    def copies_are_equal(self) -> None:
        if hasattr(self, "state"):
            for made in (copy.deepcopy(self.state), pickle.loads(pickle.dumps(self.state)), dict(self.state)):
                assert type(made) is dict
                assert typed(made) == typed(self.model)

    @invariant()
    def nothing_shared_was_changed(self) -> None:
        if hasattr(self, "state"):
            assert typed([self.base, self.own]) == typed(list(self.before))

    @invariant()
    def the_beginning_and_the_changes_make_the_end(self) -> None:
        if hasattr(self, "state"):
            end = {**self.start, **self.state.changes()}
            for key in self.state.removed():
                del end[key]
            assert {key: typed(value) for key, value in end.items()} == {k: typed(v) for k, v in self.model.items()}


def reached(state: BranchState, key: str, way: str) -> Any:
    """A value of the state, found in one of the ways in which nodes find it; a change of it is one of the state."""
    match way:
        case "get":
            return state.get(key)
        case "items":
            return next(value for k, value in state.items() if k == key)
        case "values":
            return list(state.values())[list(state).index(key)]
        case "spread":
            return {**state}[key]
        case "dict":
            return dict(state)[key]
        case "setdefault":
            return state.setdefault(key, 1)
    return state[key]


TestBranchStateIsADeepCopy = BranchStateIsADeepCopy.TestCase
TestBranchStateIsADeepCopy.settings = settings(max_examples=60, stateful_step_count=12)


def test_what_was_only_looked_at_is_no_change() -> None:
    state = BranchState({"a": [1, {"b": [2]}], "s": {1}, "t": 5}, {"item": {"x": [3]}})
    assert (state["a"][1]["b"], state["s"], state["item"]["x"]) == ([2], {1}, [3])
    assert json.loads(json.dumps({k: v for k, v in state.items() if k != "s"}))["t"] == 5
    assert state.changes() == {}
    assert state.removed() == []


def test_what_nobody_looks_at_is_not_copied() -> None:
    base = {"big": [1, 2, 3]}
    state = BranchState(base, {})
    assert dict.__getitem__(state, "big") is base["big"]
    assert state["big"] is not base["big"]
    assert state["big"] is state["big"]


def test_other_objects_go_by_reference() -> None:
    thing, pair = object(), ([1], 2)
    state = BranchState({"thing": thing, "pair": pair, "list": [thing]}, {})
    assert state["thing"] is thing
    assert state["pair"] is pair
    assert state["list"][0] is thing
    assert state.changes() == {}


class Grumpy:
    """Compares like an array: not at all."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth value is ambiguous")

    __hash__ = object.__hash__


def test_values_that_cannot_be_compared() -> None:
    one, other = Grumpy(), Grumpy()
    state = BranchState({"list": [one], "same": [one]}, {})
    state["list"][0] = other
    assert state["same"] == [one]
    assert list(state.changes()) == ["list"]
    assert state.changes()["list"][0] is other


def test_an_equal_value_of_another_type_is_a_change() -> None:
    state = BranchState({"flags": [1, {"x": 0}]}, {})
    state["flags"][1]["x"] = False
    assert state.changes() == {"flags": [1, {"x": False}]}
    assert state.changes()["flags"][1]["x"] is False


def test_a_list_that_holds_itself_goes_by_reference() -> None:
    ring: list[Any] = [1]
    ring.append(ring)
    state = BranchState({"ring": ring}, {})
    assert state["ring"] is ring
    assert state.changes() == {}


def test_a_state_over_a_branch_state() -> None:
    """The items of a chunk share their job's state; looking at it makes no change of any of them."""
    outer = BranchState({"log": [1], "n": [2]}, {})
    assert outer["n"] == [2]
    one, other = BranchState(outer, {"item": [0]}), BranchState(outer, {"item": [1]})
    one["log"].append("one")
    assert (other["log"], outer["log"]) == ([1], [1])
    assert one.changes() == {"log": [1, "one"]}
    assert other.changes() == {}


def test_own_values_win_and_are_known_as_removed() -> None:
    state = BranchState({"a": 1, "b": 2}, {"b": 3, "item": 4})
    assert state == {"a": 1, "b": 3, "item": 4}
    del state["b"], state["item"]
    assert sorted(state.removed()) == ["b", "item"]


def test_isolated_copies_containers_and_nothing_else() -> None:
    inner = (1, [2])
    value = {"list": [inner], "set": {1}}
    copied = isolated(value)
    assert copied == value
    assert copied["list"] is not value["list"]
    assert copied["list"][0] is inner


class TestBranchStates:
    def test_they_are_made_when_asked_for(self) -> None:
        asked: list[int] = []

        def own(i: int) -> Mapping[str, Any]:
            asked.append(i)
            return {"item": i}

        states = BranchStates({"shared": [0]}, own, 3)
        assert (len(states), asked) == (3, [])
        assert [state["item"] for state in states] == [0, 1, 2]
        assert states[-1]["item"] == 2
        assert [state["item"] for state in states[1:]] == [1, 2]
        for wrong in (3, -4):
            with pytest.raises(IndexError):
                states[wrong]

    def test_of_plain_dicts_what_is_the_same_object_is_shared(self) -> None:
        big = list(range(5))
        states = as_branch_states([{"big": big, "x": [1]}, {"big": big, "x": [1]}])
        assert list(states.base) == ["big"]
        states[0]["big"].append(1)
        assert states[1]["big"] == [0, 1, 2, 3, 4]
        assert list(as_branch_states([{"big": big}]).base) == []
        assert len(as_branch_states([])) == 0
        assert as_branch_states(states) is states
