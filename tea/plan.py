"""The plan of a fan-out: its branches, and what a worker process or a reader of the record must know of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from executors.base import FanOutContext, Flow
from executors.policy import ParallelConfig
from executors.result import ParallelFlowResult
from executors.state import BranchStates
from executors.travel import PickleValidationError
from spool import jsonio
from spool.job import sha256
from tea.graph import FanOut, Graph
from tea.walk import Scope


@dataclass(slots=True)
class Options:
    """What the caller wants of every fan-out of a walk.

    strategy, max_workers: instead of what the graph says. strict: a strategy that is not known is an error.
    warn: takes visible warnings. progress: takes the board of a fan-out, often. on_result: takes each result.
    actions: functions that YAML nodes use by name and that workers must be given.
    nested: these fan-outs are inside a branch. path: folders that come first on a worker's `sys.path`.
    """

    strategy: str | None = None
    max_workers: int | None = None
    strict: bool = False
    warn: Callable[[str], None] = lambda _text: None
    progress: Callable[[Any], None] | None = None
    on_result: Callable[[ParallelFlowResult], None] | None = None
    actions: dict[str, Any] = field(default_factory=dict)
    nested: bool = False
    path: tuple[str, ...] = ()


@dataclass(slots=True)
class Plan:
    """The branches of a fan-out, ready for an executor.

    sizes: how many branches each flow stands for; None when each is one (no chunks).
    """

    flows: list[Flow]
    states: BranchStates
    config: ParallelConfig
    strategy: str
    kind: str
    max_workers: int | None
    chunk_size: int = 1
    items: list[Any] | None = None


def subsets(graph: Graph, fan_out: FanOut, plan: Plan) -> dict[str, bytes]:
    """The subset of each kind of branch, as YAML text; made once for a graph."""
    workflow, texts = graph.workflow, {}
    for flow in {flow.workflow: flow for flow in plan.flows}.values():
        key = (flow.entry, fan_out.fan_in, plan.chunk_size > 1)
        if key not in graph.subsets:
            if fan_out.data is not None:
                mapping = workflow.subset_item(flow.entry, chunk=plan.chunk_size > 1)
            else:
                mapping = workflow.subset(flow.entry, fan_out.fan_in)
            graph.subsets[key] = workflow.dump(mapping).encode()
        texts[str(flow.workflow)] = graph.subsets[key]
    return texts


def set_runner(
    context: FanOutContext, graph: Graph, fan_out: FanOut, plan: Plan, options: Options, scope: Scope
) -> None:
    """Say what a worker process needs to run the branches."""
    config = {key: value for key, value in scope.config.items() if key not in ("spool", "cancel_token")}
    context.options = {"strategy": options.strategy, "max_workers": options.max_workers}
    runtime: dict[str, Any] = {}
    if jsonio.is_json(config):
        context.options["config"] = config
    else:
        runtime["config"] = config
    if graph.workflow is not None:
        context.runner = "tea.job:WorkflowRunner"
        if options.actions:
            runtime["actions"] = options.actions
    else:
        context.runner = "tea.job:GraphRunner"
        data = fan_out.source if fan_out.data is not None else None
        context.options.update(exit=fan_out.fan_in, data=data, chunk=plan.chunk_size > 1)
        runtime["graph"] = graph.pruned(fan_out)
    if runtime:
        context.runtime = _pickled(runtime, f"the functions of the branches of '{fan_out.source}'")


def _pickled(value: Any, what: str) -> bytes:
    import cloudpickle  # not needed by workflows in YAML

    try:
        return bytes(cloudpickle.dumps(value))
    except Exception as error:  # a user's __reduce__ may raise anything
        raise PickleValidationError(what, 0, error, kind="functions") from error


def fanout_record(graph: Graph, fan_out: FanOut, plan: Plan, context: FanOutContext) -> dict[str, Any]:
    """The members of fanout.json."""
    named = [flow.branch for flow in plan.flows] if plan.items is None else [fan_out.source]
    shown = {key: value for key, value in plan.states.base.items() if jsonio.is_json(value) and jsonio.is_json(key)}
    items = plan.items if jsonio.is_json(plan.items) else None
    return {
        "format": 1,
        "source": fan_out.source,
        "fan_in": fan_out.fan_in,
        "kind": plan.kind,
        "branches": named,
        "total": len(plan.flows),
        "items": None if plan.items is None else len(plan.items),
        "chunk_size": plan.chunk_size,
        "strategy": plan.strategy,
        "max_workers": plan.max_workers,
        "config": plan.config.to_json(),
        "runner": context.runner if plan.strategy != "thread" else None,
        "options": context.options,
        "lease": context.lease,
        "durability": "power" if context.sync else "process",
        "portable": context.runtime is None,
        "graph": "python" if graph.workflow is None else "yaml",
        "nested": _may_nest(graph, fan_out),
        "input_sha256": sha256(jsonio.dumps([shown, items])),
    }


def _may_nest(graph: Graph, fan_out: FanOut) -> bool:
    """Whether branches may fan out again: whoever reads the record need not look for what cannot be there."""
    entries = [edge.target for edge in fan_out.edges]
    names = graph.reachable(*entries, until=fan_out.fan_in) if entries else [fan_out.source]
    inner = [name for name in names if name != fan_out.source]
    return any(graph.fan_out(name) for name in inner) or any("subgraph" in repr(graph.nodes[n].spec) for n in names)
