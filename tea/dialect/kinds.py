"""The kinds of value a key may have: what a `Kind` says, what fits it, and what to look at inside.

A kind is a value in the tables of `schema`. Checking one value never stops at the first mistake: everything is
told to a `Report`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tea.dialect.load import Source
from tea.dialect.problems import KeyPath, Problem


@dataclass(slots=True)
class Report:
    """Where mistakes are told."""

    source: Source
    problems: list[Problem] = field(default_factory=list)

    def error(self, path: KeyPath, message: str, hint: str = "", at_key: bool = False) -> None:
        """A mistake that keeps the workflow from running."""
        self.problems.append(self.source.problem(path, message, hint, at_key=at_key))

    def warn(self, path: KeyPath, message: str, hint: str = "", at_key: bool = False) -> None:
        """Something that is probably not meant."""
        self.problems.append(self.source.problem(path, message, hint, "warning", at_key))

    @property
    def failed(self) -> bool:
        """Whether there is an error among the problems."""
        return any(problem.level == "error" for problem in self.problems)


Look = Callable[[Any, KeyPath, Report], None]


def _no_look(value: Any, path: KeyPath, report: Report) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value must be. `says` completes "'key' must be ..."; `look` checks what is inside a value that fits."""

    says: str
    fits: Callable[[Any], bool]
    look: Look = _no_look

    def check(self, value: Any, path: KeyPath, report: Report) -> None:
        """Tell the report what is wrong with a value."""
        if self.fits(value):
            self.look(value, path, report)
        else:
            report.error(path, f"{label(path)} must be {self.says}, not {shown(value)}", _quote_hint(self, value))


def label(path: KeyPath) -> str:
    """How a message names the value at a path: `'key'`, or `'key[2]'` in a list."""
    name = next((part for part in reversed(path) if isinstance(part, str)), "workflow")
    tail = path[-1] if path and isinstance(path[-1], int) else None
    return f"'{name}'" if tail is None else f"'{name}[{tail}]'"


def shown(value: Any) -> str:
    """A value as a message shows it: short."""
    if value is None:
        return "empty"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "an empty list" if not value else "a list"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _quote_hint(kind: Kind, value: Any) -> str:
    wants_text = kind.says.startswith(("text", "the name"))
    return "put it in quotes" if wants_text and isinstance(value, int | float) else ""


# -- simple kinds --------------------------------------------------------------------------------------------

ANY = Kind("anything", lambda value: True)
TEXT = Kind("text", lambda value: isinstance(value, str) and bool(value.strip()))
ANY_TEXT = Kind("text", lambda value: isinstance(value, str))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
MAPPING = Kind("a mapping", lambda value: isinstance(value, Mapping))


def _is_size(value: Any) -> bool:
    if isinstance(value, str):
        return SIZE_TEXT.fullmatch(value.strip()) is not None
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


SIZE_TEXT = re.compile(r"([1-9][0-9]*)\s*([kKMGT]?)(?:i?B)?")
SIZE = Kind("a number of bytes, or a size like 512M or 2G", _is_size)


def whole(at_least: int, at_most: int | None = None) -> Kind:
    """A whole number in a range."""
    says = (
        f"a whole number, {at_least} or more" if at_most is None else f"a whole number from {at_least} to {at_most}"
    )

    def fits(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int):
            return False
        return value >= at_least and (at_most is None or value <= at_most)

    return Kind(says, fits)


def number(at_least: float = 0, above: bool = False) -> Kind:
    """A finite number."""

    def fits(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        return value > at_least if above else value >= at_least

    return Kind(f"a number above {at_least:g}" if above else f"a number, {at_least:g} or more", fits)


def one_of(*names: str) -> Kind:
    """One of a few words."""
    return Kind(" or ".join(f"'{name}'" for name in names), lambda value: isinstance(value, str) and value in names)


def optional(kind: Kind) -> Kind:
    """The kind, or an empty value that says the same as leaving the key out."""

    def look(value: Any, path: KeyPath, report: Report) -> None:
        if value is not None:
            kind.look(value, path, report)

    return Kind(f"{kind.says} (or empty)", lambda value: value is None or kind.fits(value), look)


def list_of(kind: Kind, non_empty: bool = False) -> Kind:
    """A list whose values are all of one kind."""

    def look(value: Sequence[Any], path: KeyPath, report: Report) -> None:
        for index, one in enumerate(value):
            kind.check(one, (*path, index), report)

    says = "a list with at least one value" if non_empty else "a list"
    return Kind(says, lambda value: isinstance(value, list) and (bool(value) or not non_empty), look)


def mapping_of(kind: Kind, says: str = "a mapping") -> Kind:
    """A mapping with names of one's own, whose values are all of one kind."""

    def look(value: Mapping[Any, Any], path: KeyPath, report: Report) -> None:
        for key, one in value.items():
            kind.check(one, (*path, key), report)

    return Kind(says, lambda value: isinstance(value, Mapping), look)


def either(says: str, *kinds: Kind) -> Kind:
    """Whichever of several kinds fits first."""

    def look(value: Any, path: KeyPath, report: Report) -> None:
        next(kind for kind in kinds if kind.fits(value)).look(value, path, report)

    return Kind(says, lambda value: any(kind.fits(value) for kind in kinds), look)
