"""Where a workflow goes: `goto`, `edges` and the order of nodes brought into one list of links.

`goto` wins over `edges`, `edges` over order. A node without either goes on to the next node in order; inside a
branch (what is reached from the target of a parallel edge before its fan-in) it ends the branch instead.
A node of a branch is never the "next in order" of a node outside.

Everything that follows a workflow - validation, building, subsets - follows this plan, so they can't differ.
Malformed parts are left out here; `validate` reports them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tea.dialect.problems import KeyPath
from tea.graph import END, START


@dataclass(frozen=True, slots=True)
class Guard:
    """The condition of a link. `wanted` is the truth value that opens it."""

    text: str
    wanted: bool = True

    def keys(self) -> dict[str, Any]:
        """The guard as the keys of an edge."""
        if self.wanted:
            return {"when": self.text}
        return {"condition": {"type": "expression", "value": self.text}, "when": False}


@dataclass(frozen=True, slots=True)
class Link:
    """One way from a node to the next, wherever it is written; `path` is that place."""

    source: str
    target: str
    path: KeyPath
    guard: Guard | None = None
    fan_in: str | None = None
    strategy: str | None = None
    config: Mapping[str, Any] | None = None
    implicit: bool = False


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch: from its entry up to, and not including, its fan-in."""

    source: str
    entry: str
    fan_in: str
    path: KeyPath


@dataclass(slots=True)
class Plan:
    """The nodes of a workflow and every link between them, explicit and implicit, in the order they are tried."""

    nodes: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    paths: dict[str, KeyPath] = field(default_factory=dict)
    links: dict[str, list[Link]] = field(default_factory=dict)
    conflicts: dict[str, list[str]] = field(default_factory=dict)
    """Nodes without a way on that belong to branches with different fan-ins."""

    def branches(self) -> list[Branch]:
        """Every branch that is written as a parallel edge."""
        links = (link for some in self.links.values() for link in some)
        return [Branch(one.source, one.target, one.fan_in, one.path) for one in links if one.fan_in is not None]

    def in_branches(self) -> set[str]:
        """The nodes that run in branches; one that fans out over data is among them, for its body does."""
        written = {name for one in self.branches() for name in self.reachable(one.entry, one.fan_in)}
        return written | {name for name, spec in self.nodes.items() if is_data_fan_out(spec)}

    def onward(self, name: str) -> list[str]:
        """Where the flow goes on after a node; after a fan-out that is its fan-in."""
        if (collected := self.fan_in_after(name)) is not None:
            return [collected]
        return [link.target for link in self.links.get(name, [])]

    def fan_in_after(self, name: str) -> str | None:
        """The fan-in of the fan-out that leaves a node, if there is one."""
        data = data_fan_in(self.nodes.get(name, {}))
        parallel = (link.fan_in for link in self.links.get(name, []) if link.fan_in is not None)
        return data if data is not None else next(parallel, None)

    def entered(self, name: str) -> list[str]:
        """Every node that may run right after this one, branches included."""
        after = [self.fan_in_after(name)] if self.fan_in_after(name) else []
        return [*(link.target for link in self.links.get(name, [])), *(one for one in after if one)]

    def within(self, entry: str, exit: str) -> list[str]:
        """The nodes on the way from `entry` before `exit`, nested branches left out, entry first."""
        return list(_reach(entry, exit, self.onward))

    def reachable(self, entry: str, exit: str = END) -> list[str]:
        """Every node that may run from `entry` before `exit`, nested branches included."""
        return [name for name in _reach(entry, exit, self.entered) if name != END]


def _reach(entry: str, exit: str, onward: Any) -> Iterator[str]:
    seen: set[str] = set()
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        if name in seen or name == exit:
            continue
        seen.add(name)
        yield name
        waiting.extend(reversed(onward(name)))


def is_data_fan_out(spec: Mapping[str, Any]) -> bool:
    """Whether a node is run for each item of a list."""
    strategy = spec.get("strategy")
    return spec.get("type") == "dynamic_parallel" or isinstance(strategy, Mapping) or "parallel_each" in spec


def data_fan_in(spec: Mapping[str, Any]) -> str | None:
    """The fan-in node of a data fan-out; None for other nodes, and where the node collects into `output`."""
    fan_in = spec.get("fan_in")
    return fan_in if is_data_fan_out(spec) and isinstance(fan_in, str) else None


def plan(raw: Mapping[str, Any]) -> Plan:
    """The plan of a workflow."""
    result = Plan()
    for index, spec in enumerate(_mappings(raw.get("nodes"))):
        name = spec.get("name")
        if isinstance(name, str) and name not in result.nodes:
            result.nodes[name] = spec
            result.paths[name] = ("nodes", index)
    edges = _edges_by_source(raw)
    open_ended = [name for name in result.nodes if not _explicit(name, result, edges)]
    _enter(result, edges)
    _go_on(result, open_ended)
    return result


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    """The mappings of a list; anything else keeps its place as an empty one."""
    return [one if isinstance(one, Mapping) else {} for one in value] if isinstance(value, list) else []


def _edges_by_source(raw: Mapping[str, Any]) -> dict[str, list[Link]]:
    found: dict[str, list[Link]] = {}
    for index, edge in enumerate(_mappings(raw.get("edges"))):
        for link in edge_links(edge, ("edges", index)):
            found.setdefault(link.source, []).append(link)
    return found


def edge_links(edge: Mapping[str, Any], path: KeyPath) -> list[Link]:
    """The links that one edge stands for; none where a name is missing or the edge is never taken."""
    source = edge.get("from", START if edge.get("type") == "entry" else None)
    target = edge.get("to", END if edge.get("type") == "finish" else None)
    targets = target if isinstance(target, list) else [target]
    guard = edge_guard(edge)
    if not isinstance(source, str) or guard is False:
        return []
    parallel = is_parallel(edge)
    fan_in = edge.get("fan_in") if parallel else None
    if parallel and not isinstance(fan_in, str):
        return []
    strategy, config = (edge.get("parallel_strategy"), edge.get("parallel_config")) if parallel else (None, None)
    several = isinstance(target, list)
    opened = guard if isinstance(guard, Guard) else None
    return [
        Link(source, one, (*path, "to", n) if several else (*path, "to"), opened, fan_in, strategy, config)
        for n, one in enumerate(targets)
        if isinstance(one, str)
    ]


def is_parallel(edge: Mapping[str, Any]) -> bool:
    """Whether an edge begins a branch, in either spelling."""
    return edge.get("parallel") is True or edge.get("type") == "parallel"


def edge_guard(edge: Mapping[str, Any]) -> Guard | bool:
    """The condition of an edge: True when it is always taken, False when it never is."""
    condition, when = edge.get("condition"), edge.get("when", True)
    if isinstance(condition, Mapping) and "value" in condition:
        return _guard(condition["value"], when is not False)
    return _guard(when, True)


def _guard(value: Any, wanted: bool) -> Guard | bool:
    if isinstance(value, str):
        return Guard(value, wanted)
    return bool(value) is wanted


def goto_links(name: str, goto: Any, path: KeyPath) -> tuple[list[Link], bool]:
    """The links of a `goto`, and whether one of them is always taken."""
    if isinstance(goto, str):
        return [Link(name, goto, path)], True
    links: list[Link] = []
    for index, rule in enumerate(_mappings(goto)):
        guard = _guard(rule.get("if", True), True)
        if guard is not False and isinstance(rule.get("to"), str):
            links.append(Link(name, rule["to"], (*path, index, "to"), guard if isinstance(guard, Guard) else None))
            if guard is True:
                return links, True
    return links, False


def _explicit(name: str, result: Plan, edges: dict[str, list[Link]]) -> bool:
    """Fill in the links a node has of its own; False when it may also go on in order."""
    spec, path = result.nodes[name], result.paths[name]
    if (collected := data_fan_in(spec)) is not None:
        result.links[name] = [Link(name, collected, (*path, "fan_in"))]
        return True
    if "goto" in spec:
        result.links[name], always = goto_links(name, spec["goto"], (*path, "goto"))
        return always
    result.links[name] = list(edges.get(name, []))
    return bool(result.links[name])


def _enter(result: Plan, edges: dict[str, list[Link]]) -> None:
    """Where the workflow begins: the edges from `__start__`, or the first node."""
    entry = list(edges.get(START, []))
    if not entry and result.nodes:
        first = next(iter(result.nodes))
        entry = [Link(START, first, result.paths[first], implicit=True)]
    result.links[START] = entry


def _go_on(result: Plan, open_ended: list[str]) -> None:
    """Give every node that has no way on its implicit one: the branch's fan-in, or the next in order."""
    ends: dict[str, list[str]] = {}
    inside: set[str] = set()
    for branch in result.branches():
        for name in result.within(branch.entry, branch.fan_in):
            inside.add(name)
            if branch.fan_in not in ends.setdefault(name, []):
                ends[name].append(branch.fan_in)
    order = list(result.nodes)
    for name in open_ended:
        fan_ins = ends.get(name, [])
        if len(fan_ins) > 1:
            result.conflicts[name] = fan_ins
        later = (one for one in order[order.index(name) + 1 :] if one not in inside)
        target = fan_ins[0] if fan_ins else next(later, END)
        result.links[name].append(Link(name, target, result.paths[name], implicit=True))
