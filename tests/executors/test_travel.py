"""How values travel: JSON, a pickle, or a refusal that names the key."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executors.travel import PickleValidationError, is_marked, mark, pack, unpack_pickle

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.tuples(inner)
        | st.sets(st.integers(), max_size=3)
    ),
    max_leaves=8,
)


def typed(value: Any) -> Any:
    if isinstance(value, dict):
        return [(typed(key), typed(one)) for key, one in value.items()]
    if isinstance(value, (list, tuple)):
        return (type(value), [typed(one) for one in value])
    return (type(value), sorted(value) if isinstance(value, set) else value)


@given(st.dictionaries(st.text(max_size=5), ANYTHING, max_size=4))
def test_what_is_packed_comes_out_the_same(values: dict[str, Any]) -> None:
    parcel = pack(values)
    back = {key: value for key, value in json.loads(parcel.shown).items() if key not in parcel.marked}
    if parcel.pickle is not None:
        back.update(unpack_pickle(parcel.pickle))
    assert {key: typed(value) for key, value in back.items()} == {key: typed(value) for key, value in values.items()}


def test_plain_data_needs_no_pickle() -> None:
    parcel = pack({"a": [1, {"b": None}]})
    assert (parcel.shown, parcel.pickle, parcel.marked) == (b'{"a":[1,{"b":null}]}', None, ())


def test_without_carrying_the_rest_is_only_marked() -> None:
    parcel = pack({"a": 1, "lock": threading.Lock()}, carry=False)
    assert parcel.pickle is None
    assert parcel.marked == ("lock",)
    assert json.loads(parcel.shown)["lock"]["$not_json"] == "_thread.lock"


def test_a_refusal_names_key_branch_index_type_and_remedy() -> None:
    with pytest.raises(PickleValidationError) as caught:
        pack({"fine": {1}, "lock": threading.Lock()}, branch="b", index=3)
    error = caught.value
    assert (error.key, error.branch, error.flow_index) == ("lock", "b", 3)
    assert isinstance(error.original_error, TypeError)
    for part in ("'lock'", "_thread.lock", "branch 'b'", "strategy 'thread'"):
        assert part in str(error)


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_marks_stand_for_anything() -> None:
    assert is_marked(mark({1}))
    assert not is_marked({"x": 1})
    assert mark(Rude())["repr"] == "<repr failed: RuntimeError>"
    assert len(mark("x" * 10_000)["repr"]) == 200
    json.dumps(mark("\ud800"))


def test_a_pickle_of_something_else_is_refused() -> None:
    import pickle

    with pytest.raises(TypeError, match="pickled list"):
        unpack_pickle(pickle.dumps([1]))
