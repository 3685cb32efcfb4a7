"""How values travel to another process and back: JSON where it is faithful, a pickle for the rest.

JSON is the wire format and the record; a pickle goes only between processes of one user on one machine, beside the
JSON that names its hash. What neither can carry is named before anything starts. In the record, a value that JSON
cannot show stands as `{"$not_json": "module.Type", "repr": "..."}`.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spool import jsonio

_REPR = 200


class PickleValidationError(TypeError):
    """A value of the state can travel neither as JSON nor as a pickle.

    Attributes: key (of the state), branch, flow_index, original_error.
    """

    def __init__(
        self, key: str, flow_index: int, original_error: BaseException, branch: str = "", kind: str = ""
    ) -> None:
        self.key, self.flow_index, self.branch, self.original_error = key, flow_index, branch, original_error
        where = f"branch '{branch}'" if branch else f"flow {flow_index}"
        what = f" ({kind})" if kind else ""
        super().__init__(
            f"State key '{key}'{what} of {where} cannot be sent to another process: {original_error}. Make it from "
            "plain data inside the branch, leave it out of the state, or use the strategy 'thread'."
        )


@dataclass(frozen=True, slots=True)
class Parcel:
    """A mapping ready to travel: JSON of what JSON can carry (marks for the rest), and a pickle of the rest."""

    shown: bytes
    pickle: bytes | None = None
    marked: tuple[str, ...] = ()


def pack(values: Mapping[str, Any], *, branch: str = "", index: int = 0, carry: bool = True) -> Parcel:
    """Prepare a mapping for its way.

    With `carry` false, what JSON cannot show is only marked, and nothing is pickled.
    Raises PickleValidationError for the first key that cannot travel.
    """
    others = [key for key, value in values.items() if not (jsonio.is_json(value) and jsonio.is_json(key))]
    if not others:
        return Parcel(jsonio.dumps(values if type(values) is dict else dict(values)))
    shown = {_shown_key(key): mark(value) if key in others else value for key, value in values.items()}
    body = None
    if carry:
        body = _pickled({key: values[key] for key in others}, branch, index)
    return Parcel(jsonio.dumps(shown), body, tuple(map(_shown_key, others)))


def _shown_key(key: Any) -> str:
    return key if type(key) is str and jsonio.is_json(key) else repr(key)[:_REPR]


def _pickled(values: dict[str, Any], branch: str, index: int) -> bytes:
    import cloudpickle  # few states need it, and it imports much

    try:
        return bytes(cloudpickle.dumps(values))
    except Exception:  # a user's __reduce__ may raise anything; the loop below finds out whose and says so
        for key, value in values.items():
            _check_pickles(key, value, branch, index)
        raise


def _check_pickles(key: str, value: Any, branch: str, index: int) -> None:
    import cloudpickle

    try:
        cloudpickle.dumps(value)
    except Exception as error:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise PickleValidationError(key, index, error, branch, kind) from error


def unpack_pickle(data: bytes) -> dict[str, Any]:
    """The values of a parcel's pickle. Only for bytes whose hash this user's own record names."""
    values = pickle.loads(data)
    if not isinstance(values, dict):
        raise TypeError(f"a pickled {type(values).__name__} where a dict belongs")
    return values


def mark(value: Any) -> dict[str, str]:
    """What the record shows of a value that JSON cannot show."""
    kind = type(value)
    try:
        text = repr(value)[:_REPR]
    except Exception as error:  # a user's __repr__ may raise anything
        text = f"<repr failed: {type(error).__name__}>"
    return {"$not_json": f"{kind.__module__}.{kind.__qualname__}", "repr": text.encode("utf-8", "replace").decode()}


def is_marked(value: Any) -> bool:
    """Whether this stands for a value that JSON could not show."""
    return isinstance(value, dict) and "$not_json" in value
