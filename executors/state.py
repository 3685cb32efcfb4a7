"""The state of a branch: what it shares with its siblings, what is its own, and what it changed.

Branches see the same values without a copy for each: `BranchState` copies a list, dict or set when the branch first
looks at it, so a branch may change what it sees and its siblings never notice. Other objects go by reference. That is
what a process gives by nature, and what makes a fan-out cost as much as its branches, not as their square, when the
state holds the list that was fanned out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, ItemsView, Iterator, Mapping, Sequence, ValuesView
from operator import is_
from typing import Any

_CONTAINERS = frozenset({list, dict, set})
_MISSING: Any = object()
_SET: Any = object()


def isolated(value: Any) -> Any:
    """A copy of lists, dicts and sets, down to the first value of another type; that goes by reference."""
    kind = type(value)
    if kind is list:
        return [isolated(v) if type(v) in _CONTAINERS else v for v in value]
    if kind is dict:
        return {k: isolated(v) if type(v) in _CONTAINERS else v for k, v in value.items()}
    return set(value) if kind is set else value


def _isolated_or_itself(value: Any) -> Any:
    try:
        return isolated(value)
    except RecursionError:  # a container that holds itself is no plain data: by reference, like other objects
        return value


def _unchanged(copy: Any, original: Any) -> bool:
    """Whether a copy that `isolated` made still is what it was made of.

    By identity of what is in the containers: `1`, `1.0` and `True` are equal and not the same, and comparing a user's
    objects may raise anything.
    """
    kind = type(copy)
    if kind is not type(original) or kind not in _CONTAINERS or len(copy) != len(original):
        return copy is original
    if kind is set:
        return set(map(id, copy)) == set(map(id, original))
    if kind is dict:
        return all(map(is_, copy, original)) and _same_items(copy.values(), original.values())
    return _same_items(copy, original)


def _same_items(copies: Any, originals: Any) -> bool:
    return all(map(is_, copies, originals)) or all(map(_unchanged, copies, originals))


class BranchState(dict[str, Any]):
    """A state that begins as `base` updated with `own`, and knows what was changed since.

    Args:
        base: the state at the fan-out, shared by all branches and never changed.
        own: what this branch alone has: its item, its index.
    """

    __slots__ = ("_mine", "base", "own")

    def __init__(self, base: Mapping[str, Any], own: Mapping[str, Any]) -> None:
        super().__init__(dict.items(base) if isinstance(base, dict) else base)  # past any __getitem__ of its own
        super().update(own)
        self.base, self.own = base, own
        self._mine: dict[str, Any] = {}  # what is no longer shared: the copy, or _SET for what was set

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        if type(value) in _CONTAINERS and key not in self._mine:
            self._mine[key] = value = _isolated_or_itself(value)
            super().__setitem__(key, value)
        return value

    def _isolate_all(self) -> None:
        for key in list(super().keys()):
            self[key]  # looking at it is enough

    def __setitem__(self, key: str, value: Any) -> None:
        self._mine[key] = _SET
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self._mine[key] = _SET

    def update(self, *others: Any, **more: Any) -> None:
        new = dict(*others, **more)
        self._mine.update(dict.fromkeys(new, _SET))
        super().update(new)

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default  # noqa: SIM401 - it would call itself

    def setdefault(self, key: str, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: str, *default: Any) -> Any:
        if key not in self:
            return super().pop(key, *default)
        value = self[key]
        del self[key]
        return value

    def popitem(self) -> tuple[str, Any]:
        self._isolate_all()
        return super().popitem()

    def clear(self) -> None:
        for key in list(self):
            del self[key]

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        self._isolate_all()
        return super().items()

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        self._isolate_all()
        return super().values()

    def __iter__(self) -> Iterator[str]:
        # Overridden so that `{**state}` and `dict(state)` come through `__getitem__` instead of copying the table.
        return super().__iter__()

    def __or__(self, other: Any) -> dict[str, Any]:  # type: ignore[override]
        return {**self, **other}

    def __ror__(self, other: Any) -> dict[str, Any]:  # type: ignore[override]
        return {**other, **self}

    def __ior__(self, other: Any) -> BranchState:  # type: ignore[override]
        self.update(other)
        return self

    def __eq__(self, other: object) -> bool:
        self._isolate_all()
        return super().__eq__(other)

    __hash__ = None

    def copy(self) -> dict[str, Any]:
        return dict(self)

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return copy.deepcopy(dict(self), memo)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def changes(self) -> dict[str, Any]:
        """The keys that were set to another value or changed in place, with their new values."""
        changed = {}
        own, base, mine = self.own, self.base, self._mine
        for key, value in super().items():
            original = own[key] if key in own else _plain(base, key)
            if value is original:
                continue
            if value is mine.get(key) and _unchanged(value, original):
                continue  # looked at, not changed
            changed[key] = value
        return changed

    def removed(self) -> list[str]:
        """The keys of the beginning that are gone."""
        gone = [key for key in self.base if key not in self]
        return gone + [key for key in self.own if key not in self and key not in self.base]


def _plain(base: Mapping[str, Any], key: str) -> Any:
    """What a base holds, past the `get` of one that is a branch's state itself (an item of a chunk): that copies."""
    return dict.get(base, key, _MISSING) if isinstance(base, dict) else base.get(key, _MISSING)


class BranchStates(Sequence[BranchState]):
    """The states of all branches of a fan-out, each made when it is asked for.

    Args:
        base: the shared state.
        own: gives the own part of branch i.
        count: how many branches.
    """

    def __init__(self, base: Mapping[str, Any], own: Callable[[int], Mapping[str, Any]], count: int) -> None:
        self.base, self.own, self._count = base, own, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        if not -self._count <= index < self._count:
            raise IndexError(index)
        return BranchState(self.base, self.own(index % self._count))


def as_branch_states(states: Sequence[Mapping[str, Any]]) -> BranchStates:
    """Any list of states as branch states: what all share by identity is the base, the rest each one's own."""
    if isinstance(states, BranchStates):
        return states
    if not states:
        return BranchStates({}, lambda _: {}, 0)
    first = states[0]
    shared = {
        key: value
        for key, value in first.items()
        if len(states) > 1 and all(key in state and state[key] is value for state in states)
    }
    return BranchStates(
        shared, lambda i: {key: value for key, value in states[i].items() if key not in shared}, len(states)
    )
