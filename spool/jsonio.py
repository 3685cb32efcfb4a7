"""JSON in and out: orjson where it is installed, the standard library's in the zip application.

Both write and read the same for what `is_json` accepts, and that is what they are for. Other values may be written
as something else (NaN as null, a tuple as a list) or be refused.
"""

from __future__ import annotations

import json
from math import isfinite
from typing import Any

try:
    import orjson
except ImportError:  # pragma: no cover - the zip application has only pure Python
    orjson = None  # type: ignore[assignment]

MAX_DEPTH = 200
"""Containers in containers; deeper values are no JSON to us (orjson stops at 254)."""


def _std_dumps(value: Any, indent: bool = False) -> bytes:
    text = json.dumps(
        value,
        ensure_ascii=False,
        allow_nan=False,
        separators=None if indent else (",", ":"),
        indent=2 if indent else None,
    )
    return text.encode()


def dumps(value: Any) -> bytes:
    """Compact JSON. Raises TypeError or ValueError for what cannot be written at all."""
    if orjson is not None:
        try:
            return orjson.dumps(value)
        except TypeError:  # an integer beyond 64 bits, or not JSON at all: the other one tells
            pass
    return _std_dumps(value)


def pretty(value: Any) -> bytes:
    """JSON for people: indented, ending in a newline."""
    if orjson is not None:
        try:
            return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        except TypeError:
            pass
    return _std_dumps(value, indent=True) + b"\n"


def loads(data: bytes) -> Any:
    """Parse JSON in UTF-8. Raises ValueError; NaN and Infinity are refused, as JSON has none."""
    if orjson is not None:
        return orjson.loads(data)
    try:
        return json.loads(data.decode(), parse_constant=_no_constant)  # json would guess UTF-16 from bytes
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_SCALARS = frozenset({str, int, bool, type(None)})


def is_json(value: Any, depth: int = 0) -> bool:
    """Whether JSON gives this value back unchanged: same types, same keys, same order."""
    kind = type(value)
    if kind is str:
        return value.isascii() or _encodable(value)
    if kind in _SCALARS:
        return kind is not int or -(2**63) <= value < 2**64
    if kind is float:
        return isfinite(value)
    if depth > MAX_DEPTH:
        return False
    depth += 1
    if kind is list:
        return all(is_json(item, depth) for item in value)
    if kind is dict:  # a loop, not a generator: this looks at every value that travels
        for key, item in value.items():
            if type(key) is not str or not (key.isascii() or _encodable(key)) or not is_json(item, depth):
                return False
        return True
    return False


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True
