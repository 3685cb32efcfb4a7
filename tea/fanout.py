"""From a fan-out in the graph to an executor's call and back: plan the branches, run them, fill the slots.

FanOut, state --plan--> flows (one a branch or chunk) + states --executor--> results --slots--> one a branch
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from executors.attempt import NodeFailure
from executors.base import FanOutContext, Flow, NotBuiltError, WorkersFailedError, get_executor
from executors.cancel import CancellationToken
from executors.policy import ParallelConfig
from executors.result import ParallelFlowResult
from executors.state import BranchStates
from spool.errors import SpoolError
from spool.layout import JobFiles, safe_name
from spool.patience import patiently
from spool.publish import read_json
from spool.worker import LEASE, this_worker
from tea.branches import run_body, run_chunk
from tea.call import call
from tea.dialect.subset import CHUNK, CHUNK_START
from tea.graph import DataFanOut, Edge, FanOut, Graph, GraphError
from tea.nodes import command
from tea.plan import Options, Plan, fanout_record, set_runner, subsets
from tea.record import Recorder
from tea.slots import emit_end, slots_of
from tea.version import __version__
from tea.walk import RESULTS, Results, Scope, State, run_branch

SWITCH = "TEA_PARALLEL_STRATEGY_ENABLED"


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
        executor = get_executor(plan.strategy, plan.max_workers, context)
        try:
            results = executor.execute(plan.flows, plan.states, plan.config)
        except WorkersFailedError as error:
            raise NodeFailure(fan_out.source, error) from error
        return list(slots_of(fan_out, plan, results))

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
        if self.options.nested and wanted in ("workers", "remote"):
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
            context.workflows = subsets(graph, fan_out, plan)
        for flow in plan.flows:
            if flow.workflow not in context.workflows:
                flow.workflow = None
        if plan.strategy != "thread":
            set_runner(context, graph, fan_out, plan, self.options, scope)
        record = fanout_record(graph, fan_out, plan, context)
        what = f"cannot begin the fan-out of '{fan_out.source}' in {recorder.folder}"
        context.fanout = patiently(lambda: recorder.fan_out(fan_out.source, record), what, self.options.warn)
        _restore_circuits(context)

    def _listener(self, plan: Plan, scope: Scope) -> Callable[[int, ParallelFlowResult], None] | None:
        emit, on_result = scope.emit, self.options.on_result
        if emit is None and on_result is None:
            return None

        def listen(_index: int, result: ParallelFlowResult) -> None:
            if on_result is not None:
                on_result(result)
            if emit is not None:
                emit_end(emit, plan, result)

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
    except (SpoolError, KeyError, TypeError, ValueError) as error:  # closed circuits only find out again
        why = str(error) if isinstance(error, SpoolError) else f"{context.fanout.breaker}: it holds no circuits"
        context.warn(f"{why}; all circuits are closed")


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
