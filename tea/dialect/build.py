"""A workflow becomes a graph: nodes with functions, edges with conditions, fan-outs with their configuration."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from executors.attempt import NodeFailure
from executors.policy import ParallelConfig
from tea import templates
from tea.dialect.actions import check_functions, check_references, imported
from tea.dialect.code import place_of
from tea.dialect.kinds import Report
from tea.dialect.navigate import Link, data_fan_in, is_data_fan_out
from tea.dialect.problems import WorkflowError
from tea.dialect.settings import merged, parallel_config
from tea.dialect.subset import overlay_names
from tea.dialect.workflow import Workflow, load_dict, load_file
from tea.graph import END, START, DataFanOut, Edge, Graph, Node
from tea.nodes import Context, make_body, make_node
from tea.nodes.condition import condition
from tea.nodes.loop import as_items

Actions = Mapping[str, Callable[..., Any]]


def build(
    workflow: Workflow,
    graph_class: type[Graph] | None = None,
    actions_registry: Actions | None = None,
    engine: Any = None,
    strategy: str | None = None,
    functions: bool = True,
) -> Graph:
    """The graph of a workflow, `graph.workflow` set to it.

    graph_class: `tea.StateGraph` by default. actions_registry: actions by name, besides the imported ones.
    engine: handed to `register_actions(registry, engine)` of imported modules. strategy: the one that the run will
    have, whatever the workflow says. functions: whether functions of modules that `uses` names are looked for.

    Raises WorkflowError when an import, an action, a function, a sub-workflow or a `retry_on` name can't be found.
    """
    builder = _Builder(workflow, graph_class or _state_graph(), dict(actions_registry or {}), engine)
    graph = builder.graph()
    if functions:
        builder.look_for_functions(graph, strategy)
    return graph


def _state_graph() -> type[Graph]:
    from tea.stategraph import StateGraph

    return cast("type[Graph]", StateGraph)


class _Builder:
    """One build; holds what every part needs."""

    def __init__(self, workflow: Workflow, graph_class: type[Graph], actions: dict[str, Any], engine: Any) -> None:
        self.workflow = workflow
        self.graph_class = graph_class
        self.report = Report(workflow.source)
        self.settings = workflow.parallel
        self.registered = dict(actions)
        actions.update(imported(workflow.raw, workflow.folder, engine, self.report))
        check_references(workflow.raw, actions, workflow.folder, self.report)
        runner = _SubWorkflows(graph_class, workflow.folder, actions, engine)
        place = functools.partial(place_of, workflow.source)
        self.context = Context(workflow.variables, actions, place, runner)

    def graph(self) -> Graph:
        default = self.config({}, ("settings", "parallel"))
        if self.report.failed:
            raise WorkflowError(self.report.problems)
        config = self.workflow.raw.get("config") or {}
        graph = self.graph_class(
            self.workflow.raw.get("state_schema") or {},
            raise_exceptions=config.get("raise_exceptions", False),
            max_workers=self.settings.get("max_workers"),
            parallel_config=default,
        )
        graph.name = self.workflow.name
        graph.workflow = self.workflow
        graph.interrupt_before = list(config.get("interrupt_before", []))
        graph.interrupt_after = list(config.get("interrupt_after", []))
        graph.checkpoint_dir = config.get("checkpoint_dir")
        graph.__dict__["actions"] = self.registered  # workers need them; imported ones they import themselves
        self.fill(graph)
        if self.report.failed:
            raise WorkflowError(self.report.problems)
        return graph

    def look_for_functions(self, graph: Graph, strategy: str | None) -> None:
        """Raises WorkflowError when a function of a module that `uses` names is not where it will be called."""
        strategies = [strategy] if strategy else [one for one, _config in graph.configs()]
        elsewhere = self.workflow.plan.in_branches() if set(strategies) - {"thread", "process"} else set()
        check_functions(self.workflow.raw, self.context.actions, self.workflow.folder, elsewhere, self.report)
        if self.report.failed:
            raise WorkflowError(self.report.problems)

    def fill(self, graph: Graph) -> None:
        plan = self.workflow.plan
        for name, spec in plan.nodes.items():
            graph.nodes[name] = self.node(name, spec)
        for source, links in plan.links.items():
            if links:
                graph.edges[source] = self.edges(links)

    def node(self, name: str, spec: Mapping[str, Any]) -> Node:
        path = self.workflow.plan.paths[name]
        collects = spec.get("fan_in") is True
        if not is_data_fan_out(spec):
            return Node(name, make_node(spec, path, self.context), collects, spec=spec)
        return Node(name, None, collects, self.fan_out(spec, path), spec)

    def edges(self, links: list[Link]) -> list[Edge]:
        strategy = next((link.strategy for link in links if link.strategy), None)
        return [self.edge(link, strategy) for link in links]

    def edge(self, link: Link, strategy: str | None) -> Edge:
        if link.fan_in is not None:
            config = None
            if link.config or strategy:
                config = self.config(link.config or {}, link.path, strategy)
            return Edge(link.source, link.target, fan_in=link.fan_in, config=config)
        if link.guard is None:
            return Edge(link.source, link.target)
        holds, wanted, variables = condition(link.guard.text), link.guard.wanted, self.context.variables

        def opens(state: Any) -> bool:
            return holds(state, variables) is wanted

        return Edge(link.source, link.target, cond=opens, cond_map={True: link.target})

    def config(self, above: Mapping[str, Any], path: Any, strategy: str | None = None) -> ParallelConfig:
        """Settings with the ones of an edge or node, which stand at `path`, laid over them."""
        values = merged(self.settings, above)
        if strategy:
            values["strategy"] = strategy
        try:
            return parallel_config(values)
        except ValueError as error:
            self.report.error(self._retry_on(above, path), str(error))
            return ParallelConfig()

    def _retry_on(self, above: Mapping[str, Any], path: Any) -> Any:
        """Where the classes stand that cannot be imported: with the edge or node, or in the settings."""
        at, owner = ("retry", "retry_on"), (*path[:2], "parallel_config")
        return (*owner, *at) if "retry_on" in (above.get("retry") or {}) else ("settings", "parallel", *at)

    def fan_out(self, spec: Mapping[str, Any], path: Any) -> DataFanOut:
        strategy: Mapping[str, Any] = spec.get("strategy") or {}
        dynamic = spec.get("type") == "dynamic_parallel"
        kind = "dynamic" if dynamic else "matrix" if "matrix" in strategy else "each"
        fan_in, output = data_fan_in(spec), spec.get("output") if dynamic else None
        own = spec.get("parallel_config")
        numbers = (spec.get("max_concurrency"), spec.get("max_workers"), strategy.get("max_parallel"))
        return DataFanOut(
            kind=kind,
            items=_items(spec, strategy, kind, self.context.variables),
            overlay=_overlay(spec),
            body=make_body(spec, path, self.context) or _nothing,
            fan_in=fan_in,
            output=output or (None if fan_in else "parallel_results"),
            chunk_size=spec.get("chunk_size") or strategy.get("chunk_size") or 1,
            max_concurrency=next((number for number in numbers if number is not None), None),
            fail_fast=spec.get("fail_fast", strategy.get("fail_fast")),
            strategy=spec.get("parallel_strategy"),
            config=self.config(own, path, spec.get("parallel_strategy")) if own else None,
        )


def _nothing() -> dict[str, Any]:
    return {}


def _items(spec: Mapping[str, Any], strategy: Mapping[str, Any], kind: str, variables: Any) -> Callable[..., Any]:
    """What gives the items of a data fan-out."""
    if kind == "matrix":
        return lambda state: _combinations(templates.render(strategy["matrix"], state, variables))
    if kind == "each":
        values = strategy.get("parallel_each", spec.get("parallel_each"))
    else:
        values = spec["items"]
    return lambda state: as_items(templates.render(values, state, variables))


def _combinations(axes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every combination of a matrix, the last axis varying fastest."""
    lists = {key: as_items(values) for key, values in axes.items()}
    for key, values in lists.items():
        if not isinstance(values, list) or not values:
            raise TypeError(f"matrix '{key}' must be a non-empty list, not {values!r}")
    return [dict(zip(lists, combination, strict=True)) for combination in itertools.product(*lists.values())]


def _overlay(spec: Mapping[str, Any]) -> Callable[[Any, int], dict[str, Any]]:
    item_var, index_var = overlay_names(spec)
    if index_var is None:
        return lambda item, index: {item_var: item}
    return lambda item, index: {item_var: item, index_var: index}


def _named(reference: Any) -> str:
    return f"'{reference}'" if isinstance(reference, str) else "that is written here"


class _SubWorkflows:
    """Runs sub-workflows; each is built once."""

    def __init__(self, graph_class: type[Graph], folder: Path, actions: Actions, engine: Any) -> None:
        self.graph_class, self.folder, self.actions, self.engine = graph_class, folder, actions, engine
        self.built: dict[str, Graph] = {}

    def __call__(self, reference: Any, state: dict[str, Any], offered: Mapping[str, Any]) -> dict[str, Any]:
        """The final state; without `parallel_results`, which belong to the sub-workflow's own fan-ins.

        With the walk's scope, fan-outs of the sub-workflow are recorded inside the job that runs it.
        """
        graph: Any = self.graph(reference)
        around = {key: offered[key] for key in ("config", "scope") if offered.get(key) is not None}
        try:
            final: dict[str, Any] = graph.execute_scoped(state, START, END, **around)
        except NodeFailure as failure:
            if isinstance(failure.error, RecursionError):  # once, not in the name of each of a hundred nodes
                raise RecursionError(f"sub-workflow {_named(reference)} runs itself without an end") from None
            raise
        return {key: value for key, value in final.items() if key != "parallel_results"}

    def graph(self, reference: Any) -> Graph:
        """The graph of a path, relative to the workflow's folder, or of a mapping."""
        key = os.path.abspath(self.folder / reference) if isinstance(reference, str) else f"inline {id(reference)}"
        if key not in self.built:
            workflow = load_file(key) if isinstance(reference, str) else load_dict(reference, self.folder)
            self.built[key] = build(workflow, self.graph_class, self.actions, self.engine, functions=False)
        return self.built[key]
