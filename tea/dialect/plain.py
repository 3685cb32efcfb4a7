"""A mapping from Python as the plain data that YAML would have given, so that both are checked alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tea.dialect.load import MAX_DEPTH, Source
from tea.dialect.problems import KeyPath, Problem, WorkflowError


def plain(config: Any, source: Source) -> tuple[dict[str, Any], list[Problem]]:
    """A copy made of dicts, lists, text, numbers, booleans and None, and what could not be copied.

    Raises WorkflowError when it is not a mapping or nested too deep.
    """
    if not isinstance(config, Mapping):
        raise WorkflowError([source.problem((), f"a workflow is a mapping, not {type(config).__name__}")])
    problems: list[Problem] = []
    return _plain(config, (), source, problems), problems


def _plain(value: Any, path: KeyPath, source: Source, problems: list[Problem]) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if len(path) > MAX_DEPTH:
        raise WorkflowError([source.problem(path[:3], f"nested deeper than {MAX_DEPTH} levels")])
    if isinstance(value, list | tuple):
        return [_plain(one, (*path, n), source, problems) for n, one in enumerate(value)]
    if isinstance(value, Mapping):
        return {
            _key(key, path, source, problems): _plain(one, (*path, key), source, problems)
            for key, one in value.items()
        }
    problems.append(
        source.problem(path, f"a {type(value).__name__} is not plain data", "use text, numbers, lists and mappings")
    )
    return None


def _key(key: Any, path: KeyPath, source: Source, problems: list[Problem]) -> Any:
    if isinstance(key, bool) or not isinstance(key, str | int):
        problems.append(source.problem(path, f"key {key!r} is not text", "use text"))
    return key
