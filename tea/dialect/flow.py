"""What is wrong with the way a workflow goes: names that lead nowhere, branches that leak, fan-ins nobody reaches.

Works on the plan of `navigate`. The questions about reachability are asked only once every name is known to
exist; a misspelled target would otherwise show up as a dozen follow-up errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tea.dialect.kinds import Report
from tea.dialect.navigate import Branch, Plan, data_fan_in, edge_guard, edge_links, goto_links, is_parallel, plan
from tea.dialect.problems import KeyPath, Problem, did_you_mean
from tea.graph import END, START


def check_flow(raw: Mapping[str, Any], path: KeyPath, report: Report) -> None:
    """Check where a workflow goes; `path` is where the workflow stands in the file."""
    checker = _Flow(raw, path, report)
    checker.names()
    checker.edge_rules()
    if checker.plan.nodes and not any(_misleads(problem) for problem in report.problems):
        checker.branches()
        checker.reachability()
        checker.endless_loops()


_NAVIGATION = re.compile(r"(^|\.)(edges\b.*|nodes(\[\d+\](\.(name|type|goto|fan_in|strategy|parallel_each)\b.*)?)?)$")


def _misleads(problem: Problem) -> bool:
    """Whether a mistake is one of navigation, which makes every answer about reachability doubtful."""
    return problem.level == "error" and _NAVIGATION.search(problem.where) is not None


class _Flow:
    """One check; holds what every question needs."""

    def __init__(self, raw: Mapping[str, Any], path: KeyPath, report: Report) -> None:
        self.raw = raw
        self.path = path
        self.report = report
        self.plan: Plan = plan(raw)

    def error(self, path: KeyPath, message: str, hint: str = "") -> None:
        self.report.error((*self.path, *path), message, hint)

    def warn(self, path: KeyPath, message: str, hint: str = "") -> None:
        self.report.warn((*self.path, *path), message, hint)

    def edges(self) -> list[tuple[KeyPath, Mapping[str, Any]]]:
        edges = self.raw.get("edges")
        listed = enumerate(edges) if isinstance(edges, list) else ()
        return [(("edges", index), edge) for index, edge in listed if isinstance(edge, Mapping)]

    # -- names ---------------------------------------------------------------------------------------------

    def names(self) -> None:
        for name, spec in self.plan.nodes.items():
            self.node_names(name, spec)
        for path, edge in self.edges():
            self.edge_names(path, edge)
        self.interrupt_names()

    def node_names(self, name: str, spec: Mapping[str, Any]) -> None:
        path = self.plan.paths[name]
        for link in goto_links(name, spec.get("goto"), (*path, "goto"))[0] if "goto" in spec else ():
            self.target(link.path, link.target)
        if (fan_in := data_fan_in(spec)) is not None:
            self.fan_in((*path, "fan_in"), fan_in)

    def edge_names(self, path: KeyPath, edge: Mapping[str, Any]) -> None:
        source = edge.get("from")
        if source == END:
            self.error((*path, "from"), f"an edge can't begin at '{END}'")
        elif isinstance(source, str) and source != START:
            self.known((*path, "from"), source)
        # An edge that is never taken or lacks its fan-in has no links, but its names are checked all the same.
        plain = {key: value for key, value in edge.items() if key in ("from", "to", "type") and value != "parallel"}
        for link in edge_links({"from": START, **plain}, path):
            self.target(link.path, link.target)
        if isinstance(edge.get("fan_in"), str) and is_parallel(edge):
            self.fan_in((*path, "fan_in"), edge["fan_in"])

    def interrupt_names(self) -> None:
        branches = self.plan.branches()
        inside = {name: one.fan_in for one in branches for name in self.plan.within(one.entry, one.fan_in)}
        for path, name in self.interrupts():
            if self.known(path, name) and name in inside:
                self.error(
                    path,
                    f"node '{name}' is in a branch, and branches can't be interrupted",
                    f"name the node before the fan-out, or its fan-in '{inside[name]}'",
                )

    def interrupts(self) -> Iterator[tuple[KeyPath, str]]:
        """The nodes that a run is interrupted at, and where that stands."""
        config = self.raw.get("config")
        for key in ("interrupt_before", "interrupt_after"):
            names = config.get(key) if isinstance(config, Mapping) else None
            for index, name in enumerate(names if isinstance(names, list) else ()):
                if isinstance(name, str):
                    yield ("config", key, index), name

    def known(self, path: KeyPath, name: str) -> bool:
        if name in self.plan.nodes:
            return True
        known = [*self.plan.nodes, START, END]
        hint = did_you_mean(name, known) or f"nodes are {', '.join(self.plan.nodes)}"
        self.error(path, f"there is no node '{name}'", hint)
        return False

    def target(self, path: KeyPath, name: str) -> None:
        if name == START:
            self.error(path, f"nothing can go to '{START}'")
        elif name != END:
            self.known(path, name)

    def fan_in(self, path: KeyPath, name: str) -> None:
        if name in (START, END):
            self.error(path, f"fan_in '{name}' is not a node", "name the node that collects the results")
        elif self.known(path, name) and self.plan.nodes[name].get("fan_in") is not True:
            self.error(path, f"node '{name}' collects results but has no 'fan_in: true'", f"add it to node '{name}'")

    # -- edges of one node -----------------------------------------------------------------------------------

    def edge_rules(self) -> None:
        by_source: dict[str, list[tuple[KeyPath, Mapping[str, Any]]]] = {}
        for path, edge in self.edges():
            if isinstance(source := edge.get("from", START), str):
                by_source.setdefault(source, []).append((path, edge))
        for source, edges in by_source.items():
            self.overruled(source, edges)
            parallel = [(path, edge) for path, edge in edges if is_parallel(edge)]
            if parallel and len(parallel) < len(edges):
                path = next(path for path, edge in edges if not is_parallel(edge))
                self.error(path, f"'{source}' has parallel and other edges", "a fan-out goes on from its fan-in")
            self.one_fan_out(source, parallel)
            if not parallel:
                self.shadowed(source, edges)

    def overruled(self, source: str, edges: list[tuple[KeyPath, Mapping[str, Any]]]) -> None:
        """Edges that a `goto` or a data fan-out keeps from ever being taken."""
        spec = self.plan.nodes.get(source, {})
        if (fan_in := data_fan_in(spec)) is not None:
            for path, edge in edges:
                if edge.get("to") != fan_in or is_parallel(edge):
                    self.error(path, f"'{source}' goes to its fan_in '{fan_in}' and nowhere else")
        elif "goto" in spec:
            self.warn(edges[0][0], f"edges from '{source}' are not used, for its 'goto' wins", "remove one of them")

    def one_fan_out(self, source: str, parallel: list[tuple[KeyPath, Mapping[str, Any]]]) -> None:
        """Branches of one node share one fan-in and one strategy, and no two begin at the same node."""
        for key in ("fan_in", "parallel_strategy"):
            values = {edge[key]: path for path, edge in reversed(parallel) if isinstance(edge.get(key), str)}
            if len(values) > 1:
                first, *others = reversed(values)
                self.error(
                    (*values[others[0]], key),
                    f"branches of '{source}' have different values of '{key}': '{first}' and '{others[0]}'",
                    "all branches of one node share it",
                )
        seen: set[str] = set()
        for path, edge in parallel:
            for link in edge_links(edge, path):
                if link.target in seen:
                    self.error(link.path, f"'{source}' has two branches that begin at '{link.target}'")
                seen.add(link.target)

    def shadowed(self, source: str, edges: list[tuple[KeyPath, Mapping[str, Any]]]) -> None:
        for n, (path, edge) in enumerate(edges):
            guard = edge_guard(edge)
            if guard is False:
                self.warn((*path, "when"), f"this edge from '{source}' is never taken")
            if guard is True and n + 1 < len(edges):
                self.warn(
                    edges[n + 1][0],
                    f"this edge from '{source}' is never reached: the one to '{edge.get('to')}' is always taken",
                    "edges are tried in order; put conditions first",
                )
                return

    # -- branches ------------------------------------------------------------------------------------------

    def branches(self) -> None:
        for name, fan_ins in self.plan.conflicts.items():
            ends = " and ".join(f"'{fan_in}'" for fan_in in fan_ins)
            self.error(self.plan.paths[name], f"node '{name}' belongs to branches that end at {ends}", "say 'goto:'")
        for branch in self.plan.branches():
            self.branch(branch)

    def branch(self, branch: Branch) -> None:
        if branch.entry == branch.fan_in:
            self.error(branch.path, f"the branch from '{branch.source}' to its fan-in '{branch.fan_in}' is empty")
            return
        inside = self.plan.within(branch.entry, branch.fan_in)
        for outside in (END, branch.source):
            if outside in inside:
                way = " -> ".join(self.way(branch, outside))
                self.error(
                    branch.path,
                    f"branch '{branch.entry}' leaks: it reaches '{outside}' without passing its fan-in "
                    f"'{branch.fan_in}': {way}",
                    f"a branch ends where its fan-in begins; lead it to '{branch.fan_in}'",
                )
                return
        self.ends(branch, inside)

    def ends(self, branch: Branch, inside: list[str]) -> None:
        """The branch reaches its fan-in, and no fan-out inside it takes the same one."""
        for name in inside:
            if self.plan.fan_in_after(name) == branch.fan_in:
                self.error(
                    self.plan.paths[name],
                    f"node '{name}' fans out inside branch '{branch.entry}' but shares its fan-in '{branch.fan_in}'",
                    "a nested fan-out has a fan-in of its own",
                )
                return
        if not any(branch.fan_in in self.plan.onward(name) for name in inside):
            self.error(branch.path, f"branch '{branch.entry}' never reaches its fan-in '{branch.fan_in}'")

    def way(self, branch: Branch, goal: str) -> list[str]:
        """A shortest way from a branch's entry to a node it should not reach."""
        ways = {branch.entry: [branch.entry]}
        waiting = [branch.entry]
        while goal not in ways:
            name = waiting.pop(0)
            for target in self.plan.onward(name):
                if target != branch.fan_in and target not in ways:
                    ways[target] = [*ways[name], target]
                    waiting.append(target)
        return ways[goal]

    # -- loops -----------------------------------------------------------------------------------------------

    def endless_loops(self) -> None:
        """Nodes that go round without a way out. One that the run is interrupted at has one."""
        interrupts = {name for _, name in self.interrupts()}
        scopes = [(START, END), *((branch.entry, branch.fan_in) for branch in self.plan.branches())]
        for entry, exit in scopes:
            inside = [name for name in self.plan.within(entry, exit) if name in self.plan.nodes]
            stuck = [name for name in inside if not self.leads(name, exit)]
            if stuck and not interrupts.intersection(stuck):
                first = next(name for name in self.plan.nodes if name in stuck)
                self.error(
                    self.plan.paths[first],
                    f"the loop of {self.listed(stuck)} has no way out",
                    "give one of its nodes a `goto` or an edge with a condition that leaves it",
                )
                return

    def leads(self, name: str, exit: str) -> bool:
        """Whether a node can come to the end, or to a fan-in."""
        return any(exit in self.plan.onward(one) for one in self.plan.within(name, exit))

    def listed(self, names: list[str]) -> str:
        ordered = [f"'{name}'" for name in self.plan.nodes if name in names]
        return ", ".join(ordered[:5]) + (" and others" if len(ordered) > 5 else "")

    # -- reachability ----------------------------------------------------------------------------------------

    def reachability(self) -> None:
        reached = set(self.plan.reachable(START))
        collected = {self.plan.fan_in_after(name) for name in reached}
        for name, spec in self.plan.nodes.items():
            path = self.plan.paths[name]
            if spec.get("fan_in") is True and name not in reached:
                self.error(path, f"no path reaches the fan-in '{name}'", "name it as 'fan_in' of a fan-out")
            elif name not in reached:
                self.warn(path, f"no path reaches node '{name}'")
            elif spec.get("fan_in") is True and name not in collected:
                self.warn(path, f"no fan-out ends at '{name}': it will get no parallel_results")
