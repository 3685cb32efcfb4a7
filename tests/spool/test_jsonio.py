"""JSON: what `is_json` accepts comes back as it was, with either library."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spool import jsonio
from spool.jsonio import MAX_DEPTH, dumps, is_json, loads, pretty

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(max_size=3)
keys = st.text(st.characters(), max_size=5) | st.integers() | st.none() | st.booleans()
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=4)
        | st.tuples(inner)
        | st.frozensets(st.integers(), max_size=2)
    ),
    max_leaves=20,
)


def same(a: Any, b: Any) -> bool:
    """Equal, of the same types, in the same order, to the sign of a zero."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return a == b and math.copysign(1, a) == math.copysign(1, b)
    return bool(a == b)


@given(values)
def test_what_is_json_comes_back_as_it_was(value: Any) -> None:
    if is_json(value):
        assert same(loads(dumps(value)), value)
        assert same(loads(pretty(value)), value)


@given(values)
def test_what_is_json_is_the_same_for_both_libraries(value: Any) -> None:
    if is_json(value):
        assert same(loads(jsonio._std_dumps(value)), value)
        assert same(json.loads(dumps(value)), value)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_every_json_value_is_accepted(value: Any) -> None:
    assert is_json(value)


class Text(str):
    pass


class Number(int):
    pass


REFUSED = {
    "tuple": (1, 2),
    "set": {1},
    "bytes": b"x",
    "NaN": math.nan,
    "infinity": -math.inf,
    "a big integer": 2**64,
    "a small integer": -(2**63) - 1,
    "a lone surrogate": "\ud800",
    "an object": object(),
    "a subclass of str": Text("x"),
    "a subclass of int": Number(1),
    "a key that is a number": {1: 2},
    "a key that is None": {None: 2},
    "a key with a lone surrogate": {"\udfff": 1},
    "a key of a subclass": {Text("x"): 1},
}


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [1, [v]], lambda v: {"a": {"b": v}}])
def test_what_json_would_change_is_refused(value: Any, wrap: Any) -> None:
    assert not is_json(wrap(value))


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_depth_is_bounded_and_what_is_accepted_can_be_written() -> None:
    deepest = max(depth for depth in range(MAX_DEPTH + 10) if is_json(nested(depth)))
    assert deepest >= MAX_DEPTH
    assert loads(dumps({"state": {"x": nested(deepest)}})) == {"state": {"x": nested(deepest)}}
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    assert not is_json(cyclic)


@pytest.mark.parametrize("library", ["orjson", "json"])
@pytest.mark.parametrize(
    "data", [b"", b"{", b"NaN", b"[Infinity]", b"[" * 100_000, b"\xff", b"\xef\xbb\xbf{}", b"{}x"]
)
def test_what_does_not_parse_is_a_value_error(monkeypatch: pytest.MonkeyPatch, library: str, data: bytes) -> None:
    if library == "json":
        monkeypatch.setattr(jsonio, "orjson", None)
    with pytest.raises(ValueError):  # noqa: PT011 - each parser has words of its own
        loads(data)


@pytest.mark.parametrize("library", ["orjson", "json"])
def test_what_cannot_be_written_is_an_error(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    if library == "json":
        monkeypatch.setattr(jsonio, "orjson", None)
    for value in (object(), {"a": {1, 2}}, "\ud800"):
        for write in (dumps, pretty):
            with pytest.raises((TypeError, ValueError)):
                write(value)


def test_pretty_is_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    with_orjson = pretty({"a": [1], "b": "é"})
    assert with_orjson == '{\n  "a": [\n    1\n  ],\n  "b": "é"\n}\n'.encode()
    monkeypatch.setattr(jsonio, "orjson", None)
    assert pretty({"a": [1], "b": "é"}) == with_orjson
