"""What listings and reports want to know of each job, kept in a pack beside the jobs themselves.

A job of which anything is out of the ordinary has none: whoever wants to know of it reads its files, by the same
rules as those of any other job. So a brief says nothing that they would not say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from spool import jsonio
from spool.errors import CorruptFileError
from spool.job import check_result
from spool.layout import CLAIM, RESULT
from spool.tar import Entry, Kind

MEMBERS = ("attempt", "outcome", "error", "error_type", "started", "seconds", "host", "pid")
"""What is kept of a result."""

LONGEST = 20_000
"""Bytes of the largest result of which something is kept here."""


class Brief(NamedTuple):
    """A job in brief. accepted: the attempt that counts, 0 for none.

    claims: by attempt the claimant, and when it claimed (seconds since the epoch). results: by attempt its `MEMBERS`.
    """

    accepted: int
    claims: Mapping[int, tuple[str, float]]
    results: Mapping[int, Mapping[str, Any]]

    @property
    def result(self) -> Mapping[str, Any]:
        """The accepted result; empty when there is none."""
        return self.results.get(self.accepted, {})


def brief_of(job: str, files: Sequence[tuple[Entry, bytes]]) -> dict[str, Any] | None:
    """A job in brief, as JSON; None for one that is out of the ordinary. job: its name. files: what is in it."""
    claims: dict[str, Any] = {}
    results: dict[str, Any] = {}
    accepted = 0
    for entry, data in files:
        name = entry.path.rpartition("/")[2]
        if match := CLAIM.fullmatch(name):
            if entry.kind is not Kind.SYMLINK:
                return None
            claims[match[1]] = [entry.target, entry.mtime / 1e9]
        elif match := RESULT.fullmatch(name):
            result = _kept(job, int(match[1]), entry, data)
            if result is None:
                return None
            results[match[1]] = result
        elif name == "result.json":
            match = RESULT.fullmatch(entry.target.rpartition("/")[2])
            if entry.kind is Kind.FILE or match is None:
                return None
            accepted = int(match[1])
        elif ".corrupt" in name or name.startswith("."):
            return None
    return (
        {"accepted": accepted, "claims": claims, "results": results} if accepted in (0, *map(int, results)) else None
    )


def _kept(job: str, attempt: int, entry: Entry, data: bytes) -> dict[str, Any] | None:
    if entry.kind is not Kind.FILE or entry.mode & 0o022 or entry.size > LONGEST:
        return None
    try:
        result = jsonio.loads(data)
        check_result(entry.path, result, job, attempt, None)
    except (ValueError, AttributeError, CorruptFileError):
        return None
    return {name: result[name] for name in MEMBERS if name in result}


def read_brief(value: Any) -> Brief | None:
    """The inverse of `brief_of`; None for what is none."""
    try:
        claims = {int(number): (str(who), float(at)) for number, (who, at) in value["claims"].items()}
        results = {int(number): dict(result) for number, result in value["results"].items()}
        return Brief(int(value["accepted"]), claims, results)
    except (TypeError, ValueError, KeyError, AttributeError):
        return None
