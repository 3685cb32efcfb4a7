"""All that is wrong with a workflow, in one go.

Three passes over plain data: the tables of `schema` (keys, types, ranges, syntax of code), the rules of nodes
and edges that one key alone can't break (below), and the way the workflow goes (`flow`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tea.dialect.flow import check_flow
from tea.dialect.kinds import Report
from tea.dialect.navigate import is_data_fan_out, is_parallel
from tea.dialect.problems import KeyPath, did_you_mean
from tea.dialect.schema import DATA_FAN_OUT, RUNNERS, TABLES
from tea.graph import END, START

MAX_NAME = 200
NODE_TYPES = ("dynamic_parallel", "while_loop", "for_each")
_BODIES = ("action", "steps", "subgraph")


def validate(raw: Mapping[str, Any], report: Report, path: KeyPath = ()) -> None:
    """Tell the report everything that is wrong with a workflow; `path` is where it stands in its file."""
    data = dict(raw)
    TABLES["workflow"].check(data, path, report)
    _nodes(data.get("nodes"), (*path, "nodes"), report)
    for n, edge in _mappings(data.get("edges")):
        _edge(edge, (*path, "edges", n), report)
    for n, one in _mappings(data.get("imports")):
        if ("path" in one) == ("package" in one):
            report.error((*path, "imports", n), "an import has either 'path' or 'package'")
    _hosts(data, path, report)
    check_flow(data, path, report)


def _hosts(data: dict[str, Any], path: KeyPath, report: Report) -> None:
    """The strategy `remote` needs hosts. A warning, for a run may choose another one."""
    settings = data.get("settings")
    parallel = settings.get("parallel") if isinstance(settings, dict) else None
    parallel = parallel if isinstance(parallel, dict) else {}
    if isinstance(remote := parallel.get("remote"), dict) and remote.get("hosts"):
        return
    wanted: list[tuple[KeyPath, Any]] = [(("settings", "parallel", "strategy"), parallel.get("strategy"))]
    for kind in ("nodes", "edges"):
        wanted += [
            ((kind, n, "parallel_strategy"), one.get("parallel_strategy")) for n, one in _mappings(data.get(kind))
        ]
    for where, strategy in wanted:
        if strategy == "remote":
            hint = "name them under settings.parallel.remote.hosts"
            report.warn((*path, *where), "strategy 'remote' has no hosts", hint)


def _mappings(value: Any) -> list[tuple[int, dict[str, Any]]]:
    listed = enumerate(value) if isinstance(value, list) else ()
    return [(n, one) for n, one in listed if isinstance(one, dict)]


# -- nodes -----------------------------------------------------------------------------------------------------


def _nodes(nodes: Any, path: KeyPath, report: Report) -> None:
    seen: dict[str, int] = {}
    for n, spec in _mappings(nodes):
        here = (*path, n)
        _table_of(spec, here, report)
        name = spec.get("name")
        if isinstance(name, str):
            _name(name, (*here, "name"), seen, report)
            seen.setdefault(name, n)


def _name(name: str, path: KeyPath, seen: dict[str, int], report: Report) -> None:
    if name in (START, END):
        report.error(path, f"'{name}' is reserved", "give the node another name")
    elif name in seen:
        line = report.source.spot((*path[:-2], seen[name], "name"))[0]
        where = f"line {line}" if line else f"nodes[{seen[name]}]"
        report.error(path, f"node '{name}' exists already", f"the first one is in {where}")
    if len(name) > MAX_NAME or not name.isprintable():
        report.error(path, f"a node's name is printable text of at most {MAX_NAME} characters, not {name[:40]!r}")


def _table_of(spec: dict[str, Any], path: KeyPath, report: Report) -> None:
    """Check a node against the table of its type, and then against the type's own rules."""
    kind = spec.get("type")
    if kind is None and "type" not in spec:
        TABLES["node"].check(spec, path, report)
        _plain_node(spec, path, report)
    elif kind not in NODE_TYPES:
        hint = did_you_mean(kind, NODE_TYPES) or f"known are {', '.join(NODE_TYPES)}; leave it out for other nodes"
        report.error((*path, "type"), f"unknown type of node {kind!r}", hint)
    else:
        TABLES[kind].check(spec, path, report)
        _TYPE_RULES[kind](spec, path, report)


def _plain_node(spec: dict[str, Any], path: KeyPath, report: Report) -> None:
    _one_runner(spec, RUNNERS, path, report)
    _parameters(spec, path, report)
    _steps(spec.get("steps"), (*path, "steps"), report)
    _subgraph(spec, path, report)
    if is_data_fan_out(spec):
        _over_data(spec, path, report)
        return
    for key in DATA_FAN_OUT:
        if key in spec:
            report.error(
                (*path, key),
                f"'{key}' needs a node that fans out",
                "add strategy.matrix or parallel_each",
                at_key=True,
            )
    _flag_only(spec, path, report)


def _flag_only(spec: dict[str, Any], path: KeyPath, report: Report) -> None:
    if isinstance(spec.get("fan_in"), str):
        report.error(
            (*path, "fan_in"),
            "'fan_in' of this node must be true or false, for it does not fan out",
            "'fan_in: name' belongs in a parallel edge or on a node that fans out over data",
        )


def _over_data(spec: dict[str, Any], path: KeyPath, report: Report) -> None:
    """`strategy.matrix`, `strategy.parallel_each` and `parallel_each`: one of them, something to run, a fan_in."""
    raw = spec.get("strategy")
    strategy = raw if isinstance(raw, dict) else {}
    sources = ("matrix" in strategy) + ("parallel_each" in strategy) + ("parallel_each" in spec)
    if sources != 1 and (raw is None or isinstance(raw, dict)):
        report.error((*path, "strategy"), "'strategy' has either 'matrix' or 'parallel_each'")
    if not isinstance(spec.get("fan_in"), str):
        report.error(path, "a node that fans out over data needs 'fan_in', the node that collects its results")
    if not any(key in spec for key in RUNNERS):
        report.error(path, "nothing to run for each item", f"add one of {', '.join(RUNNERS)}")
    _twice(spec, "max_workers", strategy, "max_parallel", path, report)
    _twice(spec, "chunk_size", strategy, "chunk_size", path, report)


def _twice(
    one: Mapping[str, Any], key: str, other: Mapping[str, Any], other_key: str, path: KeyPath, report: Report
) -> None:
    if key in one and other_key in other:
        report.error((*path, key), f"'{key}' is given twice: '{other_key}' means the same", at_key=True)


def _dynamic(spec: dict[str, Any], path: KeyPath, report: Report) -> None:
    _body(spec, _BODIES, path, report)
    if "output" in spec and isinstance(spec.get("fan_in"), str):
        hint = "the results go to the fan-in; remove one of them"
        report.warn((*path, "output"), "'output' is not used beside 'fan_in'", hint, at_key=True)
    _twice(spec, "max_workers", spec, "max_concurrency", path, report)


def _body(spec: dict[str, Any], ways: tuple[str, ...], path: KeyPath, report: Report) -> None:
    found = [key for key in ways if key in spec]
    if not found:
        report.error(path, f"nothing to run for each item: one of {', '.join(ways)} is missing")
    _one_runner(spec, ways, path, report)
    if isinstance(spec.get("action"), dict):
        _step(spec["action"], (*path, "action"), report)
    _steps(spec.get("steps"), (*path, "steps"), report)
    _subgraph(spec, path, report)


def _while_loop(spec: dict[str, Any], path: KeyPath, report: Report) -> None:
    _steps(spec.get("body"), (*path, "body"), report)
    _flag_only(spec, path, report)


def _for_each(spec: dict[str, Any], path: KeyPath, report: Report) -> None:
    _body(spec, ("action", *RUNNERS), path, report)
    _parameters({key: value for key, value in spec.items() if key != "output"}, path, report)
    _flag_only(spec, path, report)


_TYPE_RULES = {"dynamic_parallel": _dynamic, "while_loop": _while_loop, "for_each": _for_each}


# -- what a node runs -------------------------------------------------------------------------------------------


def _one_runner(spec: Mapping[str, Any], ways: tuple[str, ...], path: KeyPath, report: Report) -> None:
    found = [key for key in spec if key in ways]
    for extra in found[1:]:
        report.error((*path, extra), f"'{extra}' beside '{found[0]}': one of them runs, not both", at_key=True)


def _parameters(spec: Mapping[str, Any], path: KeyPath, report: Report) -> None:
    """`with` belongs to `uses`, `output` to what has one result."""
    if "with" in spec and "uses" not in spec:
        report.error((*path, "with"), "'with' needs 'uses'", at_key=True)
    if "output" in spec and not any(key in spec for key in ("uses", "command", "subgraph")):
        report.warn(
            (*path, "output"),
            "'output' is not used here: it names the result of 'uses', 'command' or 'subgraph'",
            "a 'run' block names its results in the dict it returns",
            at_key=True,
        )


def _steps(steps: Any, path: KeyPath, report: Report) -> None:
    for n, step in _mappings(steps):
        _step(step, (*path, n), report)


def _step(step: dict[str, Any], path: KeyPath, report: Report) -> None:
    ways = ("run", "script", "command", "uses", "subgraph")
    if not any(key in step for key in ways) and "type" not in step:
        report.error(path, f"nothing to run: one of {', '.join(ways)} is missing")
    _one_runner(step, ways, path, report)
    _parameters(step, path, report)
    _subgraph(step, path, report)


def _subgraph(spec: Mapping[str, Any], path: KeyPath, report: Report) -> None:
    if "input" in spec and "subgraph" not in spec:
        report.error((*path, "input"), "'input' needs 'subgraph'", at_key=True)
    if isinstance(spec.get("subgraph"), dict):
        validate(spec["subgraph"], report, (*path, "subgraph"))


# -- edges -------------------------------------------------------------------------------------------------------


def _edge(edge: dict[str, Any], path: KeyPath, report: Report) -> None:
    kind = edge.get("type")
    for key, free, reserved in (("from", "entry", START), ("to", "finish", END)):
        if key not in edge and kind != free:
            report.error(path, f"'{key}' is missing in an edge")
        elif kind == free and edge.get(key, reserved) != reserved:
            report.error((*path, key), f"an edge of type '{free}' has '{key}: {reserved}'")
    if isinstance(edge.get("from"), list):
        return
    _conditional(edge, path, report)
    if kind == "parallel" and edge.get("parallel") is False:
        report.error((*path, "parallel"), "'parallel: false' contradicts 'type: parallel'", at_key=True)
    (_parallel_edge if is_parallel(edge) else _plain_edge)(edge, path, report)


def _conditional(edge: dict[str, Any], path: KeyPath, report: Report) -> None:
    if edge.get("type") == "conditional" and not ("when" in edge or "condition" in edge):
        report.error(path, "a conditional edge needs 'when' or 'condition'")
    if "condition" in edge and isinstance(edge.get("when"), str):
        report.error((*path, "when"), "beside 'condition', 'when' must be true or false")


def _parallel_edge(edge: dict[str, Any], path: KeyPath, report: Report) -> None:
    if "fan_in" not in edge:
        report.error(path, "a parallel edge needs 'fan_in', the node that collects the results")
    for key in ("when", "condition"):
        if key in edge:
            report.error(
                (*path, key),
                f"a parallel edge can't have '{key}'",
                "decide in a node before the fan-out",
                at_key=True,
            )


def _plain_edge(edge: dict[str, Any], path: KeyPath, report: Report) -> None:
    for key in ("fan_in", "parallel_strategy", "parallel_config"):
        if key in edge:
            report.error((*path, key), f"'{key}' needs a parallel edge", "add 'parallel: true'", at_key=True)
    if isinstance(edge.get("to"), list):
        report.error((*path, "to"), "several targets need a parallel edge", "add 'parallel: true' and 'fan_in'")
