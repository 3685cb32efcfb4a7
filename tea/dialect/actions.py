"""Actions that a workflow imports: modules with `register_actions(registry, engine)`, under a namespace."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from tea.dialect.kinds import Report
from tea.dialect.problems import KeyPath, did_you_mean
from tea.nodes import absent

Actions = dict[str, Callable[..., Any]]


def imported(raw: Mapping[str, Any], folder: Path, engine: Any, report: Report) -> Actions:
    """Load every import of a workflow; what can't be loaded is told to the report."""
    actions: Actions = {}
    for n, one in enumerate(raw.get("imports") or []):
        key = "path" if "path" in one else "package"
        try:
            module = _module_at(folder / Path(one["path"]).expanduser()) if key == "path" else _package(one[key])
            found = _registered(module, engine)
        except Exception as error:  # a module runs any code when it is imported
            where: KeyPath = ("imports", n, key)
            report.error(where, f"can't import '{one[key]}': {type(error).__name__}: {error}")
            continue
        actions.update({f"{one['namespace']}.{name}": function for name, function in found.items()})
    return actions


def _package(name: str) -> ModuleType:
    return importlib.import_module(name)


def _module_at(path: Path) -> ModuleType:
    """The module in a file; loaded once as long as the file does not change."""
    path = path.absolute()
    stamp = path.stat().st_mtime_ns
    name = f"tea_actions_{path.stem}_{zlib.crc32(str(path).encode()):08x}"
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__tea_stamp__", None) == stamp:
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: it may pickle or inspect its own classes
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    module.__dict__["__tea_stamp__"] = stamp
    return module


def _registered(module: ModuleType, engine: Any) -> Actions:
    register = getattr(module, "register_actions", None)
    if register is None:
        raise AttributeError("it has no register_actions(registry, engine)")
    registry: Actions = {}
    register(registry, engine)
    return registry


def check_references(raw: Mapping[str, Any], actions: Mapping[str, Any], folder: Path, report: Report) -> None:
    """Every action that is used is known, and every sub-workflow is there."""
    for path, spec in _specs(raw):
        uses, subgraph = spec.get("uses"), spec.get("subgraph")
        if isinstance(uses, str) and uses not in actions and ":" not in uses:
            hint = did_you_mean(uses, actions) or "write module:function, or import the module that registers it"
            report.error((*path, "uses"), f"there is no action '{uses}'", hint)
        if isinstance(subgraph, str) and "{{" not in subgraph:
            file = folder / Path(subgraph).expanduser()
            if not file.is_file():
                report.error((*path, "subgraph"), f"there is no workflow '{file}'")


def check_functions(
    raw: Mapping[str, Any], actions: Mapping[str, Any], folder: Path, elsewhere: Collection[str], report: Report
) -> None:
    """Every function of a module that is used is there; the folder comes first on `sys.path`.

    elsewhere: nodes that another machine may run, with modules of its own.
    """
    used = [(path, uses) for path, uses in _uses(raw) if ":" in uses and uses not in actions]
    if not used:
        return
    before = list(sys.path)
    sys.path[:] = [str(folder), *(entry for entry in before if entry != str(folder))]
    try:
        for path, uses in used:
            wrong = absent(uses, elsewhere=raw["nodes"][path[1]]["name"] in elsewhere)
            if wrong is not None:
                report.error(path, wrong)
    finally:
        sys.path[:] = before


def _uses(raw: Mapping[str, Any], at: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Every `uses`, those of workflows that are written inside this one too."""
    for path, spec in _specs(raw):
        if isinstance(spec.get("uses"), str):
            yield (*at, *path, "uses"), spec["uses"]
        if isinstance(spec.get("subgraph"), Mapping):
            yield from _uses(spec["subgraph"], (*at, *path, "subgraph"))


def _specs(raw: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Mapping[str, Any]]]:
    """Every mapping of a workflow that may run something: nodes, their steps, bodies and actions."""
    for n, node in enumerate(raw["nodes"]):
        path: KeyPath = ("nodes", n)
        yield path, node
        for key in ("steps", "body"):
            for m, step in enumerate(node.get(key) or []):
                yield (*path, key, m), step
        if "action" in node:
            yield (*path, "action"), node["action"]
