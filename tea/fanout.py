"""From a fan-out in the graph to an executor's call and back: plan the branches, run them, fill the slots.

FanOut, state --plan--> flows (one a branch or chunk) + states --executor--> results --slots--> one a branch
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import cloudpickle

from executors.attempt import NodeFailure, run
from executors.base import FanOutContext, Flow, NotBuiltError, get_executor
from executors.cancel import CancellationToken
from executors.policy import ParallelConfig
from executors.result import ParallelFlowResult
from executors.state import BranchState, BranchStates
from executors.travel import PickleValidationError
from spool import jsonio
from spool.errors import SpoolError
from spool.job import sha256
from spool.layout import JobFiles, safe_name
from spool.publish import read_json
from spool.worker import LEASE, this_worker
from tea.call import call
from tea.dialect.subset import CHUNK, CHUNK_RESULTS, CHUNK_START
from tea.graph import DataFanOut, Edge, FanOut, Graph, GraphError
from tea.nodes import command
from tea.nodes.loop import chunk_record
from tea.record import Recorder
from tea.version import __version__
from tea.walk import RESULTS, Event, Results, Scope, State, run_branch

SWITCH = "TEA_PARALLEL_STRATEGY_ENABLED"


class ChunkError(RuntimeError):
    """Items of a chunk failed; the chunk's results say which and why."""


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


class FanOuts:
    """Runs the fan-outs of a walk; `Scope.fan_out` is its `__call__`.

    Args:
        recorder: gives the place of the record; None keeps none.
        options: what the caller wants.
    """

    def __init__(self, recorder: Callable[[], Recorder] | None, options: Options | None = None) -> None:
        self._recorder = recorder
        self.options = options or Options()

    def __call__(self, graph: Graph, fan_out: FanOut, state: State, scope: Scope) -> Results:
        plan = self.plan(graph, fan_out, state, scope)
        if not plan.flows:
            return []
        context = self._context(graph, fan_out, plan, scope)
        results = get_executor(plan.strategy, plan.max_workers, context).execute(plan.flows, plan.states, plan.config)
        return list(_slots(fan_out, plan, results))

    # -- planning -----------------------------------------------------------------------------------------------

    def plan(self, graph: Graph, fan_out: FanOut, state: State, scope: Scope) -> Plan:
        """Which branches there are, how and with what they run. Raises NodeFailure when the items are none."""
        base = {key: dict.__getitem__(state, key) for key in state if key != RESULTS}
        if fan_out.data is not None:
            return self._plan_data(graph, fan_out.source, fan_out.data, base, scope)
        return self._plan_edges(graph, fan_out, base, scope)

    def _plan_edges(self, graph: Graph, fan_out: FanOut, base: State, scope: Scope) -> Plan:
        edges = [edge for edge in fan_out.edges if _taken(graph, edge, base, scope)]
        configs = [edge.config or graph.parallel_config for edge in edges]
        config = configs[0] if configs else graph.parallel_config
        strategies = {one.strategy for one in configs}
        if len(strategies) > 1 and self.options.strategy is None:
            raise GraphError(
                f"branches of '{fan_out.source}' must share one strategy, not {', '.join(sorted(strategies))}"
            )
        flows = [
            Flow(
                edge.target,
                _edge_runner(self, graph, edge, scope),
                edge.target,
                safe_name(edge.target),
                own if own is not config else None,
            )
            for edge, own in zip(edges, configs, strict=True)
        ]
        states = BranchStates(base, lambda _: {}, len(flows))
        return self._planned(graph, flows, states, config, "edges", None)

    def _plan_data(self, graph: Graph, source: str, data: DataFanOut, base: State, scope: Scope) -> Plan:
        items = _items(graph, source, data, base, scope)
        config = data.config or graph.parallel_config
        if data.fail_fast is not None:
            config = replace(config, fail_fast=data.fail_fast)
        if data.strategy is not None:
            config = replace(config, strategy=data.strategy)
        size = data.chunk_size
        count = -(-len(items) // size)
        run_one = _item_runner(self, graph, source, data, scope, chunk=size > 1)
        flows = [Flow(source, run_one, source, safe_name(source)) for _ in range(count)]
        own: Callable[[int], State]
        if size > 1:
            own = lambda i: {CHUNK: items[i * size : (i + 1) * size], CHUNK_START: i * size}  # noqa: E731
        else:
            own = lambda i: data.overlay(items[i], i)  # noqa: E731
        plan = self._planned(graph, flows, BranchStates(base, own, count), config, data.kind, data.max_concurrency)
        plan.items, plan.chunk_size = items, size
        return plan

    def _planned(
        self,
        graph: Graph,
        flows: list[Flow],
        states: BranchStates,
        config: ParallelConfig,
        kind: str,
        limit: int | None,
    ) -> Plan:
        strategy = self.strategy(config.strategy)
        wanted = self.options.max_workers or config.max_workers or graph.max_workers
        caps = [number for number in (limit, graph.max_active_threads) if number is not None]
        if strategy == "thread" and wanted is None and limit is not None:
            wanted = limit
        workers = min([wanted, *caps]) if wanted is not None else None
        if workers is None and caps:
            workers = min(*caps, _default_workers(strategy)) if len(caps) else None
        return Plan(flows, states, replace(config, strategy=strategy), strategy, kind, workers)

    def strategy(self, wanted: str) -> str:
        """The strategy to use for the one that is wanted: that, or `thread` with a warning.

        Raises NotBuiltError for one that this version only knows by name, ValueError for an unknown one when strict.
        """
        wanted = self.options.strategy or wanted
        if self.options.nested and wanted == "workers":
            wanted = "process"  # a worker that waited for other workers could wait for ever
        if os.environ.get(SWITCH, "").strip().lower() in ("false", "0", "no", "off"):
            if wanted != "thread":
                self.options.warn(f"{SWITCH} is off: strategy 'thread' instead of '{wanted}'")
            return "thread"
        return known_strategy(wanted, self.options.strict, self.options.warn)

    # -- context ------------------------------------------------------------------------------------------------

    def _context(self, graph: Graph, fan_out: FanOut, plan: Plan, scope: Scope) -> FanOutContext:
        options = self.options
        context = FanOutContext(
            exit=fan_out.fan_in or "",
            graph_name=graph.name,
            callbacks=graph.callback_manager,
            breakers=graph.circuit_registry,
            breaker_name=fan_out.source if fan_out.data is not None else None,
            token=scope.token,
            progress=options.progress,
            warn=options.warn,
            on_result=self._listener(plan, scope),
            version=__version__,
            path=options.path,
        )
        if self._recorder is not None:
            self._record(graph, fan_out, plan, context, scope)
        elif plan.strategy != "thread":
            raise ValueError(f"strategy '{plan.strategy}' needs a spool; only 'thread' can do without")
        return context

    def _record(self, graph: Graph, fan_out: FanOut, plan: Plan, context: FanOutContext, scope: Scope) -> None:
        assert self._recorder is not None
        recorder = self._recorder()
        context.spool, context.journal = recorder.spool, recorder.journal
        context.sync, context.lease = recorder.sync, recorder.lease or LEASE
        if plan.strategy == "thread":
            _lend_lock(context)
        if graph.workflow is None:
            context.not_replayable = "its graph was built in Python; its functions are in no file"
        else:
            context.workflows = _subsets(graph, fan_out, plan)
        for flow in plan.flows:
            if flow.workflow not in context.workflows:
                flow.workflow = None
        if plan.strategy != "thread":
            _set_runner(context, graph, fan_out, plan, self.options, scope)
        context.fanout = recorder.fan_out(fan_out.source, _fanout_record(graph, fan_out, plan, context))
        _restore_circuits(context)

    def _listener(self, plan: Plan, scope: Scope) -> Callable[[int, ParallelFlowResult], None] | None:
        emit, on_result = scope.emit, self.options.on_result
        if emit is None and on_result is None:
            return None

        def listen(_index: int, result: ParallelFlowResult) -> None:
            if on_result is not None:
                on_result(result)
            if emit is not None:
                _emit(emit, plan, result)

        return listen

    def inside(self, job: JobFiles | None, scope: Scope, branch: str, token: CancellationToken) -> Scope:
        """The scope of a branch: its fan-outs are recorded inside its job."""
        recorder: Callable[[], Recorder] | None = None
        if job is not None and self._recorder is not None:
            recorder = functools.cache(functools.partial(self._recorder().inside, job))
        options = replace(self.options, progress=None, on_result=None, nested=True)
        return Scope(FanOuts(recorder, options), scope.config, token, scope.emit, branch)


def _lend_lock(context: FanOutContext) -> None:
    """Programs that branches start hold this process's lock: they are found, and ended, when it is killed."""
    assert context.spool is not None
    worker = this_worker(context.spool, lease=context.lease, version=context.version)
    if worker.lock_fd is not None:
        command.INHERIT_FDS.add(worker.lock_fd)


def _restore_circuits(context: FanOutContext) -> None:
    """The circuits of a fan-out that is taken up again, as they were."""
    assert context.fanout is not None
    try:
        kept = read_json(context.fanout.breaker).get("circuits") or []
        context.breakers.restore(kept)
    except FileNotFoundError:
        return
    except (SpoolError, KeyError, TypeError, ValueError):  # unreadable: closed circuits only find out again
        return


def known_strategy(wanted: str, strict: bool, warn: Callable[[str], None]) -> str:
    """`wanted` when it can be used, `thread` with a warning when nobody knows it.

    Raises NotBuiltError for one that this version only knows by name, ValueError for an unknown one when strict.
    """
    try:
        get_executor(wanted)
    except NotBuiltError:
        raise
    except ValueError as error:
        if strict:
            raise
        warn(f"{error}; running with strategy 'thread'")
        return "thread"
    return wanted


def _default_workers(strategy: str) -> int:
    cpus = os.cpu_count() or 1
    return min(32, cpus + 4) if strategy == "thread" else cpus


def _taken(graph: Graph, edge: Edge, base: State, scope: Scope) -> bool:
    """Whether a branch begins: a parallel edge may have a condition like any other."""
    if edge.cond is None:
        return True
    offered = {"state": base, "config": scope.config, "node": edge.source, "graph": graph}
    value = call(edge.cond, offered)
    return value is True if edge.cond_map is None else edge.cond_map.get(value) == edge.target


def _items(graph: Graph, source: str, data: DataFanOut, base: State, scope: Scope) -> list[Any]:
    offered = {"state": base, "config": scope.config, "node": source, "graph": graph}
    try:
        items = call(data.items, offered)
    except Exception as error:  # a template or function of the user's
        raise NodeFailure(source, error) from error
    if isinstance(items, (str, bytes, dict)) or not hasattr(items, "__iter__"):
        kind = type(items).__name__
        raise NodeFailure(
            source, TypeError(f"the items of '{source}' must be a list or another iterable, not {kind}")
        )
    return list(items)


# -- how a branch runs in this process ------------------------------------------------------------------------------


def _edge_runner(fan_outs: FanOuts, graph: Graph, edge: Edge, scope: Scope) -> Any:
    assert edge.fan_in is not None

    def run_edge(state: State, token: CancellationToken, job: JobFiles | None) -> State:
        inner = fan_outs.inside(job, scope, edge.target, token)
        return run_branch(graph, state, edge.target, edge.fan_in or "", inner)

    return run_edge


def _item_runner(fan_outs: FanOuts, graph: Graph, source: str, data: DataFanOut, scope: Scope, *, chunk: bool) -> Any:
    def run_item(state: State, token: CancellationToken, job: JobFiles | None) -> State:
        inner = fan_outs.inside(job, scope, source, token)
        if chunk:
            run_chunk(graph, source, data, state, inner)
        else:
            run_body(graph, source, data, state, inner)
        return state

    return run_item


def run_body(graph: Graph, source: str, data: DataFanOut, state: State, scope: Scope) -> None:
    """Run the body of a node that fans out over data, for the item that is in the state."""
    offered = {
        "state": state,
        "config": scope.config,
        "node": source,
        "graph": graph,
        "cancel_token": scope.token,
        "parallel_results": None,
        "scope": scope,
    }
    try:
        updates = call(data.body, offered)
    except Exception as error:  # user code
        raise NodeFailure(source, error) from error
    if updates:
        state.update(updates)
    if scope.emit is not None:
        scope.emit({"type": "parallel_state", "branch": source, "node": source, "state": state.copy()})


def run_chunk(graph: Graph, source: str, data: DataFanOut, state: State, scope: Scope) -> None:
    """Run the items of a chunk one after the other; each fails alone. Raises ChunkError when any did."""
    records = []
    for index, item in enumerate(state[CHUNK], state[CHUNK_START]):
        branch = BranchState(state, data.overlay(item, index))
        ran = run(lambda one: run_body(graph, source, data, one, scope), branch)
        records.append(chunk_record(index, ran.result, ran.changes))
    state[CHUNK_RESULTS] = records
    check_chunk(records)


def check_chunk(records: list[dict[str, Any]]) -> None:
    """Raises ChunkError when an item of a chunk failed: its job has failed then, and what succeeded stays in it."""
    failed = [record for record in records if not record["success"]]
    if failed:
        first = failed[0]
        raise ChunkError(
            f"{len(failed)} of {len(records)} items failed; first: item {first['index']}: "
            f"{first.get('error_type')}: {first.get('error')}"
        )


# -- how a branch runs elsewhere ------------------------------------------------------------------------------------


def _subsets(graph: Graph, fan_out: FanOut, plan: Plan) -> dict[str, bytes]:
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


def _set_runner(
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
    try:
        return bytes(cloudpickle.dumps(value))
    except Exception as error:  # a user's __reduce__ may raise anything
        raise PickleValidationError(what, 0, error, kind="functions") from error


def _fanout_record(graph: Graph, fan_out: FanOut, plan: Plan, context: FanOutContext) -> dict[str, Any]:
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


# -- results --------------------------------------------------------------------------------------------------------


def _slots(fan_out: FanOut, plan: Plan, results: Results) -> Iterator[ParallelFlowResult]:
    """One slot for each branch, in order; a chunk's job fills the slots of all its items."""
    data = fan_out.data
    for i, result in enumerate(results):
        if data is None:
            yield result
        elif plan.chunk_size > 1:
            yield from _chunk_slots(data, plan, i, result)
        else:
            yield _shaped(data, plan, i, result)


def _shaped(data: DataFanOut, plan: Plan, i: int, result: ParallelFlowResult) -> ParallelFlowResult:
    """A branch over data: `matrix` and `each` also show their index, and what they changed as `result`."""
    if data.kind != "dynamic" and result.state is not None:
        own = {**plan.states.base, **data.overlay((plan.items or [])[i], i)}
        changed = {k: v for k, v in result.state.items() if k not in own or v is not own[k]}
        result.state.setdefault("index", i)
        result.state.setdefault("result", changed)
    return result


def _chunk_slots(data: DataFanOut, plan: Plan, i: int, result: ParallelFlowResult) -> Iterator[ParallelFlowResult]:
    items = plan.items or []
    first = i * plan.chunk_size
    records = (result.state or {}).get(CHUNK_RESULTS)
    for k, item in enumerate(items[first : first + plan.chunk_size]):
        own = data.overlay(item, first + k)
        record = records[k] if isinstance(records, list) and k < len(records) else None
        slot = replace(result, state=None) if record is None else _item_slot(result, record)
        if record is not None:
            slot.state = {**plan.states.base, **own, **record["state"]}
        yield _shaped(data, plan, first + k, slot)


def _item_slot(result: ParallelFlowResult, record: dict[str, Any]) -> ParallelFlowResult:
    ok = bool(record["success"])
    errors = result.attempt_errors
    if not result.success:  # the chunk's error is not the item's
        own = {"attempt": result.retry_count, "error": record.get("error"), "error_type": record.get("error_type")}
        errors = [] if ok else [own]
    return replace(
        result,
        success=ok,
        attempt_errors=errors,
        outcome="succeeded" if ok else "failed",
        error=record.get("error"),
        error_type=record.get("error_type"),
        traceback=record.get("traceback"),
        exit_code=record.get("exit_code"),
        timing_ms=float(record.get("seconds") or 0.0) * 1000,
    )


def _emit(emit: Callable[[Event], None], plan: Plan, result: ParallelFlowResult) -> None:
    """Tell a listener of a branch's end; its nodes' states were told by the branch, if it ran in this process."""
    event = {"branch": result.branch, "node": result.branch, "state": result.state or {}}
    if not result.success:
        emit({"type": "parallel_error", **event, "error": result.error, "outcome": result.outcome})
    elif plan.strategy != "thread":
        emit({"type": "parallel_state", **event})
