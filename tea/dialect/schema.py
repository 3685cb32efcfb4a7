"""The keys of a workflow file: which key may stand where, and what its value must be.

Tables, read top-down. `validate` walks a file along them; `docs/YAML_REFERENCE.md` describes each key, and a
test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tea.dialect import kinds as k
from tea.dialect.code import (
    CONDITION,
    PYTHON,
    PYTHON_EXPRESSION,
    TEMPLATE_MAPPING,
    TEMPLATE_TEXT,
    TEMPLATES,
)
from tea.dialect.kinds import Kind, Report
from tea.dialect.problems import KeyPath, did_you_mean

BUILT_IN = ("thread", "process", "remote", "workers")
STRATEGIES = (*BUILT_IN, "slurm", "dask")
RUNNERS = ("run", "script", "command", "uses", "steps", "subgraph")
"""The ways to run something in a node; a node has one of them at most."""

DATA_FAN_OUT = ("max_workers", "chunk_size", "parallel_strategy", "parallel_config")
"""Keys that only make sense on a node that fans out over data."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a table."""

    kind: Kind
    required: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """The keys that may stand in one place. `title` completes "... in an edge"."""

    title: str
    keys: dict[str, Key]

    def check(self, value: dict[Any, Any], path: KeyPath, report: Report) -> None:
        """Check a mapping: unknown keys, missing keys, and every value."""
        for key, one in value.items():
            known = self.keys.get(key)
            if known is None:
                report.error((*path, key), f"unknown key '{key}' in {self.title}", self.hint(key), at_key=True)
            else:
                known.kind.check(one, (*path, key), report)
        for key, entry in self.keys.items():
            if entry.required and key not in value:
                report.error(path, f"'{key}' is missing in {self.title}")

    def hint(self, key: object) -> str:
        """What an unknown key might have been: a misspelling, or a key that belongs elsewhere."""
        if near := did_you_mean(key, self.keys):
            return near
        homes = [table.title for table in TABLES.values() if key in table.keys]
        if homes:
            return f"it belongs in {' or in '.join(dict.fromkeys(homes))}"
        elsewhere = {name for table in TABLES.values() for name in table.keys}
        return did_you_mean(key, elsewhere) or f"known are {', '.join(self.keys)}"


def inside(name: str) -> Kind:
    """A mapping that follows a table; looked up by name, for tables may hold each other."""

    def look(value: dict[Any, Any], path: KeyPath, report: Report) -> None:
        TABLES[name].check(value, path, report)

    return Kind("a mapping", lambda value: isinstance(value, dict), look)


def _needed(kind: Kind) -> Key:
    return Key(kind, required=True)


def _strategy_look(value: str, path: KeyPath, report: Report) -> None:
    if value in BUILT_IN or value in _plugged_in():
        return
    if value in STRATEGIES:
        report.warn(
            path,
            f"strategy '{value}' is not in this version of tea",
            f"a run is refused; there are {', '.join(BUILT_IN)}",
        )
    else:
        report.warn(
            path,
            f"strategy '{value}' is unknown; 'thread' is used instead",
            did_you_mean(value, STRATEGIES) or f"known are {', '.join(STRATEGIES)}",
        )


def _plugged_in() -> list[str]:
    """Strategies that other packages bring along; asked for only when a name is not one of tea's own."""
    from executors.base import available_strategies

    return list(available_strategies())


def _matrix_look(value: dict[Any, Any], path: KeyPath, report: Report) -> None:
    from tea.templates import is_template

    if not value:
        report.error(path, "'matrix' must have at least one list of values")
    for key, values in value.items():
        if is_template(values):
            TEMPLATES.look(values, (*path, key), report)
        else:
            MATRIX_AXIS.check(values, (*path, key), report)


def _host_look(value: Any, path: KeyPath, report: Report) -> None:
    host = value if isinstance(value, str) else value.get("host")
    if isinstance(value, dict):
        TABLES["host"].check(value, path, report)
    if isinstance(host, str) and (host.startswith("-") or any(c.isspace() or not c.isprintable() for c in host)):
        report.error(path, f"host {host!r} is refused: ssh would not take it for a host name", "write user@host")


def _items_fit(value: Any) -> bool:
    return isinstance(value, str | list)


STRATEGY_NAME = Kind("the name of a strategy", lambda v: isinstance(v, str) and bool(v), _strategy_look)
MATRIX_AXIS = Kind("a non-empty list", lambda v: isinstance(v, list) and bool(v), TEMPLATES.look)
MATRIX = Kind("a mapping of names to lists", lambda v: isinstance(v, dict), _matrix_look)
ITEMS = Kind("a template that gives a list, or a list", _items_fit, TEMPLATES.look)
EACH = Kind("a template that gives a list, or a non-empty list", lambda v: bool(v) and _items_fit(v), TEMPLATES.look)
HOST = Kind("user@host, or a mapping with 'host'", lambda v: bool(v) and isinstance(v, str | dict), _host_look)
COMMAND = k.either(
    "a list of words, or text for a shell",
    TEMPLATE_TEXT,
    k.list_of(Kind("text or a number", lambda v: isinstance(v, str | int | float), TEMPLATES.look), non_empty=True),
)
RUN = k.either("Python code, or {type: expression, value: ...}", PYTHON, inside("expression"))
SUBGRAPH = k.either("the path of a workflow, or a workflow", TEMPLATE_TEXT, k.MAPPING)
TARGET = k.TEXT
STEPS = k.list_of(inside("step"), non_empty=True)
RETRY = k.optional(inside("retry"))
BREAKER = k.optional(inside("circuit_breaker"))
SECONDS = k.optional(k.number(0, above=True))
NOT_NESTED = Kind("left out: a nested while_loop or fan-out is not supported", lambda v: False)
IDENTIFIER = Kind("a name made of letters, digits and _", lambda v: isinstance(v, str) and v.isidentifier())

_POLICY = {
    "timeout_seconds": Key(SECONDS),
    "timeout_total": Key(SECONDS),
    "fail_fast": Key(k.FLAG),
    "retry": Key(RETRY),
    "circuit_breaker": Key(BREAKER),
    "max_workers": Key(k.optional(k.whole(1))),
    "include_traceback": Key(k.FLAG),
    "max_lost": Key(k.whole(0)),
    "grace_seconds": Key(k.number(0)),
    "max_memory": Key(k.SIZE),
}
_RUNNERS = {
    "run": Key(RUN),
    "script": Key(PYTHON),
    "command": Key(COMMAND),
    "uses": Key(k.TEXT),
    "with": Key(TEMPLATE_MAPPING),
    "output": Key(k.TEXT),
    "language": Key(k.one_of("python")),
}
_EVERY_NODE = {
    "name": _needed(k.TEXT),
    "fan_in": Key(k.either("true, false or the name of the fan-in node", k.FLAG, k.TEXT)),
    "goto": Key(k.either("the name of a node, or a list of rules", TARGET, k.list_of(inside("goto"), True))),
    "language": Key(k.one_of("python")),
}
_OVER_ITEMS = {
    "items": _needed(ITEMS),
    "item_var": Key(IDENTIFIER),
    "index_var": Key(IDENTIFIER),
    "action": Key(inside("step")),
    "steps": Key(STEPS),
    "subgraph": Key(SUBGRAPH),
    "input": Key(TEMPLATE_MAPPING),
    "output": Key(k.TEXT),
}
_FAN_OUT = {
    "max_workers": Key(k.whole(1)),
    "chunk_size": Key(k.whole(1)),
    "parallel_strategy": Key(STRATEGY_NAME),
    "parallel_config": Key(inside("parallel_config")),
}

TABLES: dict[str, Table] = {
    "workflow": Table(
        "a workflow",
        {
            "name": Key(k.TEXT),
            "description": Key(k.ANY_TEXT),
            "state_schema": Key(k.MAPPING),
            "variables": Key(k.MAPPING),
            "settings": Key(inside("settings")),
            "config": Key(inside("config")),
            "imports": Key(k.list_of(inside("import"))),
            "nodes": _needed(k.list_of(Kind("a mapping", lambda v: isinstance(v, dict)), non_empty=True)),
            "edges": Key(k.list_of(inside("edge"))),
        },
    ),
    "settings": Table(
        "settings",
        {"parallel": Key(inside("parallel")), "spool": Key(inside("spool")), "folder": Key(k.TEXT)},
    ),
    "parallel": Table(
        "settings.parallel", {"strategy": Key(STRATEGY_NAME), **_POLICY, "remote": Key(inside("remote"))}
    ),
    "parallel_config": Table("parallel_config", _POLICY),
    "retry": Table(
        "retry",
        {
            "max_retries": Key(k.whole(0)),
            "base_delay": Key(k.number(0)),
            "max_delay": Key(k.number(0)),
            "backoff_multiplier": Key(k.number(0, above=True)),
            "retry_on": Key(k.list_of(k.TEXT, non_empty=True)),
        },
    ),
    "circuit_breaker": Table(
        "circuit_breaker",
        {
            "failure_threshold": Key(k.whole(1)),
            "reset_timeout": Key(k.number(0)),
            "half_open_max_calls": Key(k.whole(1)),
        },
    ),
    "remote": Table(
        "settings.parallel.remote",
        {
            "hosts": _needed(k.list_of(HOST, non_empty=True)),
            "basefile": Key(k.TEXT),
            "files": Key(k.list_of(k.TEXT)),
            "workdir": Key(k.TEXT),
            "cleanup": Key(k.FLAG),
            "launcher": Key(k.one_of("auto", "parallel", "ssh")),
            "transport": Key(k.one_of("auto", "openssh", "sftp")),
            "env": Key(k.list_of(IDENTIFIER)),
            "connect_timeout": Key(k.number(0, above=True)),
            "compress": Key(k.FLAG),
            "host_keys": Key(k.one_of("strict", "accept-new")),
        },
    ),
    "host": Table(
        "a host",
        {
            "host": _needed(k.TEXT),
            "slots": Key(k.whole(1)),
            "python": Key(k.TEXT),
            "workdir": Key(k.TEXT),
            "env": Key(k.mapping_of(Kind("text or a number", lambda v: isinstance(v, str | int | float)))),
        },
    ),
    "spool": Table(
        "settings.spool",
        {
            "dir": Key(k.TEXT),
            "durability": Key(k.one_of("process", "power")),
            "lease_duration": Key(k.number(0, above=True)),
        },
    ),
    "config": Table(
        "config",
        {
            "raise_exceptions": Key(k.FLAG),
            "interrupt_before": Key(k.list_of(k.TEXT)),
            "interrupt_after": Key(k.list_of(k.TEXT)),
            "checkpoint_dir": Key(k.TEXT),
            "max_workers": Key(k.optional(k.whole(1))),
        },
    ),
    "import": Table("an import", {"path": Key(k.TEXT), "package": Key(k.TEXT), "namespace": _needed(k.TEXT)}),
    "node": Table(
        "a node",
        {
            **_EVERY_NODE,
            **_RUNNERS,
            "steps": Key(STEPS),
            "subgraph": Key(SUBGRAPH),
            "input": Key(TEMPLATE_MAPPING),
            "strategy": Key(inside("strategy")),
            "parallel_each": Key(EACH),
            **_FAN_OUT,
        },
    ),
    "dynamic_parallel": Table(
        "a dynamic_parallel node",
        {
            **_EVERY_NODE,
            "type": _needed(k.ANY),
            **_OVER_ITEMS,
            "max_concurrency": Key(k.whole(1)),
            "fail_fast": Key(k.FLAG),
            **_FAN_OUT,
        },
    ),
    "while_loop": Table(
        "a while_loop node",
        {
            **_EVERY_NODE,
            "type": _needed(k.ANY),
            "condition": _needed(CONDITION),
            "max_iterations": _needed(k.whole(1, 1000)),
            "body": _needed(STEPS),
        },
    ),
    "for_each": Table(
        "a for_each node",
        {
            **_EVERY_NODE,
            **_RUNNERS,
            "type": _needed(k.ANY),
            **_OVER_ITEMS,
            "index_var": Key(k.optional(IDENTIFIER)),
            "start": Key(k.either("a whole number or a template", k.whole(0), TEMPLATE_TEXT)),
            "output": _needed(k.TEXT),
        },
    ),
    "strategy": Table(
        "a node's strategy",
        {
            "matrix": Key(MATRIX),
            "parallel_each": Key(EACH),
            "max_parallel": Key(k.whole(1)),
            "fail_fast": Key(k.FLAG),
            "chunk_size": Key(k.whole(1)),
        },
    ),
    "step": Table(
        "a step",
        {
            "name": Key(k.TEXT),
            **_RUNNERS,
            "subgraph": Key(SUBGRAPH),
            "input": Key(TEMPLATE_MAPPING),
            "type": Key(NOT_NESTED),
        },
    ),
    "expression": Table(
        "run",
        {
            "type": _needed(k.one_of("expression")),
            "value": _needed(PYTHON_EXPRESSION),
            "output_key": _needed(k.TEXT),
        },
    ),
    "goto": Table("a goto rule", {"if": Key(CONDITION), "to": _needed(TARGET)}),
    "edge": Table(
        "an edge",
        {
            "from": Key(TARGET),
            "to": Key(k.either("the name of a node, or a list of names", TARGET, k.list_of(TARGET, True))),
            "type": Key(k.one_of("normal", "parallel", "entry", "finish", "conditional")),
            "parallel": Key(k.FLAG),
            "fan_in": Key(TARGET),
            "when": Key(CONDITION),
            "condition": Key(inside("condition")),
            "parallel_strategy": Key(STRATEGY_NAME),
            "parallel_config": Key(inside("parallel_config")),
        },
    ),
    "condition": Table("a condition", {"type": _needed(k.one_of("expression")), "value": _needed(CONDITION)}),
}
