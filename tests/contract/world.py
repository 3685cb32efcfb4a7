"""One way to write a fan-out, many ways to run it: what the contract's tests are written with.

A test describes its branches as Python code; a `World` makes a YAML workflow or a Python graph of them and runs it
under its strategy. So every promise is asked of every combination.
"""

from __future__ import annotations

import itertools
import json
import os
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tea import ParallelFlowResult, StateGraph, YAMLEngine
from tea.dialect.settings import parallel_config

Code = str
Branches = Mapping[str, "Code | Sequence[Code]"]

# Waits until it is told to stop or killed, and not for ever.
WAIT = """
import time
end = time.monotonic() + 300
while time.monotonic() < end and not (cancel_token and cancel_token.is_cancelled()):
    time.sleep(0.005)
return {"waited": True}
"""


@dataclass
class Ran:
    """What a run gave."""

    events: list[dict[str, Any]]
    results: list[ParallelFlowResult] = field(default_factory=list)

    @property
    def last(self) -> dict[str, Any]:
        return self.events[-1]

    @property
    def state(self) -> dict[str, Any]:
        """The final state, without the results."""
        assert self.last["type"] == "final", self.last
        return {key: value for key, value in self.last["state"].items() if key != "parallel_results"}

    @property
    def fanout(self) -> Path:
        """The folder of the fan-out."""
        return Path(str(self.results[0].job)).parent.parent

    @property
    def run(self) -> Path:
        return self.fanout.parent.parent

    def column(self, name: str) -> list[Any]:
        """A field of every result, in order."""
        return [getattr(result, name) for result in self.results]

    def of(self, branch: str) -> ParallelFlowResult:
        return next(result for result in self.results if result.branch == branch)


@dataclass
class World:
    """A strategy, a kind of graph, and where they may write."""

    strategy: str
    kind: str
    spool: Path
    folder: Path
    remote: Mapping[str, Any] = field(default_factory=dict)

    @property
    def _settings(self) -> dict[str, Any]:
        """Those that every graph has."""
        wanted = {"strategy": self.strategy, "max_workers": 4, "grace_seconds": 0.2}
        return {**wanted, "remote": dict(self.remote)} if self.remote else wanted

    @property
    def json_only(self) -> bool:
        """Whether nothing but JSON travels to the workers."""
        return self.strategy == "remote"

    @property
    def records_all(self) -> bool:
        """Whether fan-outs inside a branch are recorded here, and there for its next attempt."""
        return self.strategy != "remote"

    def limit(self, seconds: float) -> float:
        """Time for a job of some steps: on a host, a slot loads what it needs with its first one."""
        return seconds + 6 if self.strategy == "remote" else seconds

    @property
    def shares_memory(self) -> bool:
        return self.strategy == "thread"

    # -- graphs --------------------------------------------------------------------------------------------------

    def edges(
        self,
        branches: Branches,
        settings: Mapping[str, Any] | None = None,
        *,
        first: Code = "return {}",
        last: Code = "return {'n': len(parallel_results)}",
        own: Mapping[str, Mapping[str, Any]] | None = None,
        **compiling: Any,
    ) -> Any:
        """`src` fans out to the branches, each a node or a chain of nodes; `join` collects them.

        own: settings of single branches, over those that all have.
        """
        own = own or {}
        chains = {name: [code] if isinstance(code, str) else list(code) for name, code in branches.items()}
        wanted = {**self._settings, **(settings or {})}
        if self.kind == "yaml":
            return self.yaml(_nodes(chains, first, last), _edges(chains, own), wanted, **compiling)
        return _python_graph(chains, first, last, wanted, own).compile(**compiling)

    def yaml(
        self,
        nodes: list[dict[str, Any]],
        edges: list[dict[str, Any]] | None = None,
        settings: Mapping[str, Any] | None = None,
        *,
        actions: Mapping[str, Any] | None = None,
        more: Mapping[str, Any] | None = None,
        **compiling: Any,
    ) -> Any:
        """A graph of a workflow that is a mapping."""
        wanted = {**self._settings, **(settings or {})}
        workflow = {"name": "contract", "settings": {"parallel": wanted}, "nodes": nodes, **(more or {})}
        if edges is not None:
            workflow["edges"] = edges
        graph = YAMLEngine(actions).load_from_dict(workflow, self.folder)
        return graph.compile(**compiling) if compiling else graph

    def over(
        self,
        spec: Mapping[str, Any],
        settings: Mapping[str, Any] | None = None,
        last: Code = "return {}",
        **more: Any,
    ) -> Any:
        """A node `each` that fans out over data into `join`."""
        nodes = [{"name": "each", "fan_in": "join", **spec}, {"name": "join", "fan_in": True, "run": last}]
        return self.yaml(nodes, None, settings, **more)

    # -- running -------------------------------------------------------------------------------------------------

    def run(self, graph: Any, state: Mapping[str, Any] | None = None, **config: Any) -> Ran:
        """Run to the end."""
        return self._ran(graph.invoke(dict(state or {}), {"spool": str(self.spool), **config}))

    def stream(self, graph: Any, state: Mapping[str, Any] | None = None) -> Ran:
        return self._ran(graph.stream(dict(state or {}), {"spool": str(self.spool)}))

    def _ran(self, events: Iterable[dict[str, Any]]) -> Ran:
        listed = list(events)
        results = listed[-1].get("state", {}).get("parallel_results") or []
        return Ran(listed, [result for result in results if isinstance(result, ParallelFlowResult)])

    def runs(self) -> list[str]:
        return sorted(os.listdir(self.spool / "runs")) if (self.spool / "runs").exists() else []

    @contextmanager
    def no_job_is_made(self) -> Iterator[None]:
        """Fail when the block makes a job."""
        before = set(self.jobs())
        yield
        assert set(self.jobs()) == before

    def jobs(self) -> list[Path]:
        return sorted(self.spool.glob("runs/*/fanouts/*/jobs/*"))


def function(code: Code) -> Any:
    """A node function of a piece of code, as a user's program would define it."""
    names: dict[str, Any] = {"__name__": "nodes_of_a_test", "json": json}
    head = "def node(state, parallel_results=None, config=None, cancel_token=None):\n"
    exec(head + textwrap.indent(textwrap.dedent(code).strip() or "pass", "    "), names)
    return names["node"]


def chain_names(branch: str, chain: Sequence[Code]) -> list[str]:
    return [branch, *(f"{branch}_{i}" for i in range(2, len(chain) + 1))]


def _nodes(chains: Mapping[str, Sequence[Code]], first: Code, last: Code) -> list[dict[str, Any]]:
    nodes = [{"name": "src", "run": first}]
    for branch, chain in chains.items():
        names = chain_names(branch, chain)
        nodes += [{"name": name, "run": textwrap.dedent(code)} for name, code in zip(names, chain, strict=True)]
    return [*nodes, {"name": "join", "fan_in": True, "run": last}]


def _edges(chains: Mapping[str, Sequence[Code]], own: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    out = {"from": "src", "parallel": True, "fan_in": "join"}
    common = {**out, "to": list(chains)}
    single = [
        {**out, "to": name, "parallel_config": dict(own[name])} if name in own else {**out, "to": name}
        for name in chains
    ]
    edges: list[dict[str, Any]] = [
        {"from": "__start__", "to": "src"},
        *(single if own else [common]),
        {"from": "join", "to": "__end__"},
    ]
    for branch, chain in chains.items():
        names = [*chain_names(branch, chain), "join"]
        edges += [{"from": one, "to": other} for one, other in itertools.pairwise(names)]
    return edges


def _python_graph(
    chains: Mapping[str, Sequence[Code]],
    first: Code,
    last: Code,
    settings: Mapping[str, Any],
    own: Mapping[str, Mapping[str, Any]],
) -> StateGraph:
    graph = StateGraph({}, parallel_config=parallel_config(settings))
    graph.add_node("src", run=function(first))
    graph.add_fanin_node("join", run=function(last))
    graph.set_entry_point("src")
    graph.set_finish_point("join")
    for branch, chain in chains.items():
        names = chain_names(branch, chain)
        for name, code in zip(names, chain, strict=True):
            graph.add_node(name, run=function(code))
        config = parallel_config({**settings, **own[branch]}) if branch in own else None
        graph.add_parallel_edge("src", branch, "join", config)
        for one, other in zip(names, [*names[1:], "join"], strict=True):
            graph.add_edge(one, other)
    return graph
