"""What an examination finds: one `Finding` a fact, and the list that collects them and mends what may be mended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from spool.errors import SpoolError


class Severity(StrEnum):
    """How much a finding matters. Only an ERROR that is not mended needs a person."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about a spool or a folder.

    kind: what it is, one word of a fixed set. path: the file or folder that it is about.
    text: what was found and what that means. remedy: what to type or to do.
    fixable: `fix` mends it, or has tried to. fixed: it is mended.
    """

    kind: str
    severity: Severity
    path: str
    text: str
    remedy: str = ""
    fixable: bool = False
    fixed: bool = False

    @property
    def needs_person(self) -> bool:
        return self.severity is Severity.ERROR and not self.fixed


Mend = Callable[[], bool]
"""Mends what was found, after looking once more; False when it is no longer so that it may be mended."""


class Findings:
    """Collects findings. With `fix`, what can be mended is mended as soon as it is found.

    Args:
        fix: whether to mend.
    """

    def __init__(self, fix: bool = False) -> None:
        self.fix = fix
        self.counts: Counter[str] = Counter()
        """How many things of a kind were looked at: runs, fan-outs, jobs, workers."""
        self._found: list[Finding] = []

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._found)

    def ok(self, kind: str, path: str, text: str) -> None:
        self._found.append(Finding(kind, Severity.OK, path, text))

    def note(self, kind: str, path: str, text: str, remedy: str = "") -> None:
        self._found.append(Finding(kind, Severity.NOTE, path, text, remedy))

    def warning(self, kind: str, path: str, text: str, remedy: str = "", mend: Mend | None = None) -> None:
        self._add(Finding(kind, Severity.WARNING, path, text, remedy, mend is not None), mend)

    def error(self, kind: str, path: str, text: str, remedy: str = "", mend: Mend | None = None) -> None:
        self._add(Finding(kind, Severity.ERROR, path, text, remedy, mend is not None), mend)

    def _add(self, finding: Finding, mend: Mend | None) -> None:
        if self.fix and mend is not None:
            finding = _mended(finding, mend)
        self._found.append(finding)


def _mended(finding: Finding, mend: Mend) -> Finding:
    try:
        fixed, why = mend(), "it has changed meanwhile, look again"
    except (OSError, SpoolError) as error:
        fixed, why = False, str(error)
    return replace(finding, fixed=True) if fixed else replace(finding, text=f"{finding.text}; not mended: {why}")
