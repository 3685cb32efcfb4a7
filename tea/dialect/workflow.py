"""A workflow that has been read and found valid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tea.dialect import subset as subsets
from tea.dialect.dump import dump
from tea.dialect.kinds import Report
from tea.dialect.load import Source, read_file, read_text
from tea.dialect.navigate import Plan, plan
from tea.dialect.plain import plain
from tea.dialect.problems import Problem, WorkflowError
from tea.dialect.settings import SpoolSettings, parallel_settings, spool_settings
from tea.dialect.validate import validate


@dataclass(frozen=True)
class Workflow:
    """A workflow: its data, where they came from, and the warnings about it. Treat `raw` as read-only.

    raw: the workflow as plain data. path: its file, if it has one. text: the file's text; "" for `load_dict`.
    folder: where its relative paths and its own Python modules are. problems: warnings.
    """

    raw: Mapping[str, Any]
    path: Path | None
    text: str
    folder: Path
    problems: list[Problem] = field(default_factory=list)
    source: Source = field(default_factory=Source, repr=False)

    @property
    def name(self) -> str:
        """Its `name`, or that of its file, or `workflow`."""
        return str(self.raw.get("name") or (self.path.stem if self.path else "workflow"))

    @property
    def variables(self) -> Mapping[str, Any]:
        """Its `variables`."""
        variables: Mapping[str, Any] = self.raw.get("variables") or {}
        return variables

    @property
    def spool(self) -> SpoolSettings:
        """Its `settings.spool`."""
        return spool_settings(self.raw)

    @property
    def parallel(self) -> dict[str, Any]:
        """Its `settings.parallel`, the default of every fan-out."""
        return parallel_settings(self.raw)

    @cached_property
    def plan(self) -> Plan:
        """Where it goes."""
        return plan(self.raw)

    def subset(self, entry: str, exit: str) -> dict[str, Any]:
        """The smallest workflow that runs from `entry` up to, and not including, `exit`.

        Raises ValueError when a node does not exist or `exit` can't be reached.
        """
        return subsets.subset(self, entry, exit)

    def subset_item(self, node: str, chunk: bool = False) -> dict[str, Any]:
        """The smallest workflow that runs one item of a node that fans out over data.

        With `chunk` it runs the list of items `state.chunk`, the first of which has the index
        `state.chunk_start`, and leaves their records in `state.chunk_results`.
        """
        return subsets.subset_item(self, node, chunk)

    @staticmethod
    def dump(mapping: Mapping[str, Any]) -> str:
        """A workflow as YAML text, for people to read; the same for the same data, and loads back to equal data."""
        return dump(mapping)


def load_file(path: str | Path) -> Workflow:
    """Read and check a workflow file. Raises OSError, or WorkflowError with every mistake in it."""
    file = Path(path)
    loaded = read_file(file)
    return _checked(loaded.data, file, loaded.source, file.absolute().parent, loaded.problems)


def load_text(text: str, path: str | Path | None = None, folder: str | Path | None = None) -> Workflow:
    """Read and check a workflow's text; `path` names it in messages. Raises WorkflowError."""
    file = Path(path) if path is not None else None
    loaded = read_text(text, str(file) if file else "")
    base = Path(folder).absolute() if folder is not None else file.absolute().parent if file else Path.cwd()
    return _checked(loaded.data, file, loaded.source, base, loaded.problems)


def load_dict(config: Mapping[str, Any], folder: str | Path | None = None) -> Workflow:
    """Check a workflow that is a mapping; places in messages are key paths. Raises WorkflowError.

    folder: where its relative paths are; the current one by default.
    """
    source = Source()
    data, problems = plain(config, source)
    return _checked(data, None, source, Path(folder).absolute() if folder is not None else Path.cwd(), problems)


def _checked(data: dict[str, Any], path: Path | None, source: Source, folder: Path, found: list[Problem]) -> Workflow:
    report = Report(source, list(found))
    validate(data, report)
    if report.failed:
        raise WorkflowError(sorted(report.problems, key=lambda problem: (problem.line, problem.column)))
    written = (data.get("settings") or {}).get("folder")
    base = folder / written if written else folder
    return Workflow(data, path, source.text, base, report.problems, source)
