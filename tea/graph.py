"""The graph: nodes, edges, fan-outs. What a workflow *is*; `tea.walk` is what happens to a state in it.

A `Graph` is built either by hand or from YAML (`tea.dialect`); both give the same three things:

- **nodes**: a name and a function that is called with what it asks for by name (`state`, `config`, `node`,
  `graph`, `parallel_results`, `cancel_token`) and returns a dict of updates to the state;
- **edges**: where to go next, first match wins;
- **fan-outs**: several parallel edges from one node to one fan-in, or one node that is run for each item of
  a list (`DataFanOut`).

Nothing here runs anything, touches a disk or knows YAML.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from executors.breaker import CircuitBreakerRegistry
from executors.callbacks import CallbackManager
from executors.policy import ParallelConfig

START = "__start__"
END = "__end__"

NodeFunction = Callable[..., Any]


class GraphError(ValueError):
    """The graph cannot be run as it is: a missing node, a fan-in nobody reaches, a branch that leaks."""


@dataclass(slots=True)
class DataFanOut:
    """A node that is run once for each item of a list.

    items: called like a node function; gives the list (anything else raises `TypeError` in the walk).
    overlay: what the branch of item *i* sees in its state: `overlay(item, index) -> dict`.
    body: the node function of one branch.
    fan_in: the node that gets the results; None when the node collects them itself into `output`.
    kind: "dynamic", "matrix" or "each", for messages and for the shape of the results.
    """

    kind: str
    items: NodeFunction
    overlay: Callable[[Any, int], dict[str, Any]]
    body: NodeFunction
    fan_in: str | None = None
    output: str | None = None
    chunk_size: int = 1
    max_concurrency: int | None = None
    fail_fast: bool | None = None
    strategy: str | None = None
    config: ParallelConfig | None = None


@dataclass(slots=True)
class Node:
    """A node of the graph. `spec` is its mapping in the YAML file, None for a graph built in Python."""

    name: str
    run: NodeFunction | None = None
    fan_in: bool = False
    fan_out: DataFanOut | None = None
    spec: Mapping[str, Any] | None = None
    wants: tuple[str, ...] | None = None
    """What `run` asks for by name, once somebody has looked."""

    def get(self, key: str, default: Any = None) -> Any:
        """Dict-like access: `graph.node(name).get("run")`."""
        return getattr(self, key, default)

    def __getitem__(self, key: str) -> Any:
        return getattr(self, key)


@dataclass(slots=True)
class Edge:
    """An edge. `cond` is called by name like a node function; `cond_map` maps its value to a target.

    A plain edge has no `cond`. A parallel edge names its `fan_in`.
    """

    source: str
    target: str
    cond: NodeFunction | None = None
    cond_map: Mapping[Any, str] | None = None
    fan_in: str | None = None
    config: ParallelConfig | None = None

    @property
    def parallel(self) -> bool:
        return self.fan_in is not None

    def get(self, key: str, default: Any = None) -> Any:
        return getattr(self, {"fan_in_node": "fan_in", "parallel_config": "config"}.get(key, key), default)


def nearest(name: str, known: Iterator[str] | list[str]) -> str:
    """` (did you mean 'x'?)`, or nothing when no known name is near."""
    close = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


@dataclass(slots=True)
class FanOut:
    """The fan-out that leaves a node: `edges` for branches named in the graph, `data` for one over items."""

    source: str
    fan_in: str | None
    edges: list[Edge] = field(default_factory=list)
    data: DataFanOut | None = None


class Graph:
    """A graph of nodes over a shared state: the model below `tea.StateGraph`, which also runs it.

    Args:
        state_schema: names and types of the state's keys; documentation, not enforced.
        raise_exceptions: raise `RuntimeError` where a node fails instead of yielding an `error` event.
        max_workers: how many branches run at once; None lets the strategy choose.
        log_level: level of the logger `tea`.
        log_state_values: log whole states, not only their keys (they may hold secrets).
        parallel_config: the default for every parallel edge.
    """

    def __init__(
        self,
        state_schema: Mapping[str, Any] | None = None,
        raise_exceptions: bool = False,
        max_workers: int | None = None,
        log_level: int = logging.WARNING,
        log_state_values: bool = False,
        parallel_config: ParallelConfig | None = None,
    ) -> None:
        self.state_schema = dict(state_schema or {})
        self.raise_exceptions = raise_exceptions
        self.max_workers = max_workers
        self.log_state_values = log_state_values
        self.logger = logging.getLogger("tea")
        self.logger.setLevel(log_level)
        self.parallel_config = parallel_config or ParallelConfig()
        self.name: str | None = None
        self.nodes: dict[str, Node] = {START: Node(START), END: Node(END)}
        self.edges: dict[str, list[Edge]] = {}
        self.interrupt_before: list[str] = []
        self.interrupt_after: list[str] = []
        self.checkpoint_dir: str | None = None
        self.checkpointer: Any = None
        self.circuit_registry = CircuitBreakerRegistry()
        self.callback_manager: CallbackManager | None = None
        self.max_active_threads: int | None = None
        self.subsets: dict[Any, bytes] = {}
        """Subsets of the workflow that were made for fan-outs, by what they hold."""
        self.workflow: Any = None
        """The `tea.dialect.Workflow` this graph was built from; None for a graph built in Python."""

    # -- building ---------------------------------------------------------------------------------------

    def _new_node(self, node: Node) -> None:
        if node.name in self.nodes:
            raise ValueError(f"Node '{node.name}' already exists in the graph.")
        self.nodes[node.name] = node

    def _known(self, *names: str) -> None:
        for name in names:
            if name not in self.nodes:
                hint = nearest(name, list(self.nodes))
                raise ValueError(f"Node '{name}' does not exist in the graph{hint}.")

    def _new_edge(self, edge: Edge) -> None:
        self._known(edge.source, edge.target)
        self.edges.setdefault(edge.source, []).append(edge)

    def add_node(self, node: str, run: NodeFunction | None = None) -> None:
        """Add a node. Raises ValueError when the name is taken."""
        self._new_node(Node(node, run))

    def add_fanin_node(self, node: str, run: NodeFunction | None = None) -> None:
        """Add a node that collects branches: it gets `parallel_results`, one entry a branch, in order."""
        self._new_node(Node(node, run, fan_in=True))

    def add_edge(self, in_node: str, out_node: str) -> None:
        """Add an unconditional edge. Raises ValueError when a node does not exist."""
        self._new_edge(Edge(in_node, out_node))

    def add_conditional_edges(self, in_node: str, func: NodeFunction, cond: Mapping[Any, str]) -> None:
        """Go where `cond` maps the value of `func`. Raises ValueError when a node does not exist."""
        self._known(in_node, *cond.values())
        for target in dict.fromkeys(cond.values()):
            self._new_edge(Edge(in_node, target, cond=func, cond_map=cond))

    def add_parallel_edge(
        self, in_node: str, out_node: str, fan_in_node: str, config: ParallelConfig | None = None
    ) -> None:
        """Add a branch that begins at `out_node` and ends where `fan_in_node` begins.

        Raises ValueError when a node does not exist, or when branches of `in_node` end elsewhere.
        """
        self._known(in_node, out_node, fan_in_node)
        for edge in self.edges.get(in_node, []):
            if edge.fan_in not in (None, fan_in_node):
                raise ValueError(
                    f"Branches of '{in_node}' must share one fan-in: '{edge.target}' ends at '{edge.fan_in}', "
                    f"'{out_node}' at '{fan_in_node}'."
                )
        self._new_edge(Edge(in_node, out_node, fan_in=fan_in_node, config=config))

    def set_entry_point(self, init_state: str) -> None:
        """Start at this node."""
        self.add_edge(START, init_state)

    def set_finish_point(self, final_state: str) -> None:
        """End after this node."""
        self.add_edge(final_state, END)

    # -- reading ----------------------------------------------------------------------------------------

    def node(self, node_name: str) -> Node:
        """The node of this name. Raises KeyError when it does not exist."""
        if node_name not in self.nodes:
            raise KeyError(f"Node '{node_name}' not found in the graph{nearest(node_name, list(self.nodes))}")
        return self.nodes[node_name]

    def edge(self, in_node: str, out_node: str) -> Edge:
        """The first edge between two nodes. Raises KeyError when there is none."""
        for edge in self.edges.get(in_node, []):
            if edge.target == out_node:
                return edge
        raise KeyError(f"Edge from '{in_node}' to '{out_node}' not found in the graph")

    def successors(self, node: str) -> list[str]:
        """The targets of a node's edges, each once, in order. Raises KeyError for an unknown node."""
        self.node(node)
        return list(dict.fromkeys(edge.target for edge in self.edges.get(node, [])))

    def fan_out(self, node: str) -> FanOut | None:
        """The fan-out that leaves a node, if any."""
        data = self.nodes[node].fan_out
        if data is not None:
            return FanOut(node, data.fan_in, data=data)
        edges = self.edges.get(node, ())
        for edge in edges:
            if edge.parallel:
                return FanOut(node, edge.fan_in, edges=[edge for edge in edges if edge.parallel])
        return None

    def configs(self) -> Iterator[tuple[str, ParallelConfig]]:
        """The strategy and the configuration of every fan-out."""
        for node in self.nodes.values():
            if node.fan_out is not None:
                config = node.fan_out.config or self.parallel_config
                yield node.fan_out.strategy or config.strategy, config
        for edges in self.edges.values():
            for edge in edges:
                if edge.parallel:
                    config = edge.config or self.parallel_config
                    yield config.strategy, config

    # -- travelling -------------------------------------------------------------------------------------

    def reachable(self, *entries: str, until: str | None = None) -> list[str]:
        """The nodes that a walk from these can come to, not beyond `until`."""
        found: dict[str, None] = {}
        pending = list(entries)
        while pending:
            name = pending.pop()
            if name in found or name in (until, END):
                continue
            found[name] = None
            pending += [edge.target for edge in self.edges.get(name, [])]
            pending += [edge.fan_in for edge in self.edges.get(name, []) if edge.fan_in]
            data = self.nodes[name].fan_out
            pending += [data.fan_in] if data is not None and data.fan_in else []
        return list(found)

    def pruned(self, fan_out: FanOut) -> Graph:
        """What the branches of a fan-out need of this graph, ready to be pickled: no locks, no callbacks."""
        graph = Graph(
            self.state_schema, self.raise_exceptions, self.max_workers, parallel_config=self.parallel_config
        )
        graph.name = self.name
        entries = [edge.target for edge in fan_out.edges]
        names = self.reachable(*entries, until=fan_out.fan_in) if entries else [fan_out.source]
        for name in names:
            graph.nodes[name] = self.nodes[name]
            graph.edges[name] = self.edges.get(name, [])
        if fan_out.fan_in is not None:
            graph.nodes[fan_out.fan_in] = Node(fan_out.fan_in, fan_in=True)
        return graph

    def __getstate__(self) -> dict[str, Any]:
        kept = dict(self.__dict__)
        for name in ("circuit_registry", "callback_manager", "checkpointer", "logger", "workflow", "subsets"):
            del kept[name]
        return kept

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.circuit_registry = CircuitBreakerRegistry()
        self.callback_manager = None
        self.checkpointer = self.workflow = None
        self.logger = logging.getLogger("tea")
        self.subsets = {}
