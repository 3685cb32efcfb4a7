"""`StateGraph`: a graph that can be run from Python."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from executors.attempt import NodeFailure
from executors.breaker import CircuitBreakerRegistry
from executors.callbacks import CallbackManager, ParallelFlowCallback
from executors.cancel import CancellationToken
from executors.policy import ParallelConfig
from tea import checkpoint as checkpoints
from tea.cancel import Listener, RunCancelledError
from tea.checkpoint import Checkpoint
from tea.fanout import FanOuts
from tea.graph import END, START, FanOut, Graph, GraphError, nearest
from tea.plan import Options
from tea.record import Run, spool_path, who
from tea.walk import Event, Results, Scope, State, run_branch, walk

FanOutRunner = Callable[[Graph, FanOut, State, Scope], Results]


class StateGraph(Graph):
    """A graph of nodes over a shared state, built in Python or from YAML.

    Example:
        >>> graph = StateGraph({"value": int})
        >>> graph.add_node("double", run=lambda state: {"value": state["value"] * 2})
        >>> graph.set_entry_point("double")
        >>> graph.set_finish_point("double")
        >>> list(graph.compile().invoke({"value": 21}))[-1]["state"]["value"]
        42

    Where the graph fans out, every branch becomes a job directory in a spool: `config={"spool": DIR}` of `invoke`,
    TEA_SPOOL, the workflow's `settings.spool.dir`, or `.tea/spool`. `config={"spool": False}` keeps no record
    (strategy `thread` only).
    """

    def compile(
        self,
        interrupt_before: Sequence[str] = (),
        interrupt_after: Sequence[str] = (),
        checkpoint_dir: str | None = None,
        checkpointer: Any = None,
        parallel_config: ParallelConfig | None = None,
        parallel_callbacks: Sequence[ParallelFlowCallback] | CallbackManager | None = None,
        max_active_threads: int | None = None,
        circuit_breaker_scope: str = "graph",
    ) -> StateGraph:
        """Check the graph and settle how it runs; returns the graph itself.

        Args:
            interrupt_before, interrupt_after: nodes to stop at.
            checkpoint_dir: folder for the checkpoints of interrupts. checkpointer: keeps them instead, for
                instance a `MemoryCheckpointer`.
            parallel_config: the default for parallel edges. parallel_callbacks: objects with `on_flow_...` methods.
            max_active_threads: an upper limit on branches at once.
            circuit_breaker_scope: "graph", or "global" to share circuits by name between graphs.

        Raises GraphError (a ValueError) when the graph cannot be run.
        """
        for name in (*interrupt_before, *interrupt_after):
            if name not in self.nodes:
                raise GraphError(f"interrupt at node '{name}', which does not exist{nearest(name, list(self.nodes))}")
            if name in self._inside_branches():
                raise GraphError(f"interrupt at node '{name}', which is in a branch; branches can't be interrupted")
        self.interrupt_before, self.interrupt_after = list(interrupt_before), list(interrupt_after)
        self.checkpoint_dir, self.checkpointer = checkpoint_dir, checkpointer
        if parallel_config is not None:
            self.parallel_config = parallel_config
        if isinstance(parallel_callbacks, CallbackManager):
            self.callback_manager = parallel_callbacks
        elif parallel_callbacks:
            self.callback_manager = CallbackManager(list(parallel_callbacks))
        self.max_active_threads = max_active_threads
        self.circuit_registry = CircuitBreakerRegistry(scope=circuit_breaker_scope)
        self.check()
        return self

    def check(self) -> None:
        """Raises GraphError for a fan-in that is none, or branches that never reach it."""
        for source, edges in self.edges.items():
            for edge in edges:
                if edge.fan_in is not None and not self.nodes[edge.fan_in].fan_in:
                    raise GraphError(
                        f"'{edge.fan_in}', the fan-in of '{source}' -> '{edge.target}', is not a fan-in node; "
                        "add it with add_fanin_node (in YAML, `fan_in: true`)"
                    )
                if edge.fan_in is not None and not self._ends_at(edge.target, edge.fan_in):
                    raise GraphError(f"the branch from '{edge.target}' never reaches its fan-in '{edge.fan_in}'")

    def _inside_branches(self) -> set[str]:
        branches = (edge for edges in self.edges.values() for edge in edges if edge.fan_in is not None)
        return {name for edge in branches for name in self.reachable(edge.target, until=edge.fan_in)}

    def _ends_at(self, entry: str, fan_in: str) -> bool:
        names = self.reachable(entry, until=fan_in)
        return any(target == fan_in for name in names for target in self._ways_from(name))

    def _ways_from(self, name: str) -> list[str]:
        data = self.nodes[name].fan_out
        fan_ins = [edge.fan_in for edge in self.edges.get(name, []) if edge.fan_in]
        return [*self.successors(name), *fan_ins, *([data.fan_in] if data and data.fan_in else [])]

    # -- running ------------------------------------------------------------------------------------------------

    def invoke(
        self,
        input_state: State | None = None,
        config: dict[str, Any] | None = None,
        checkpoint: str | None = None,
    ) -> Iterator[Event]:
        """Run the graph; yields `interrupt`, `error` and, last, `{"type": "final", "state": ...}`.

        Args:
            input_state: where to start from; None goes on from `checkpoint`. With both, it updates the checkpoint's.
            config: handed to node functions that ask for it. Read here: `spool` (a folder, or False for no record),
                `max_workers`, and `cancel_token`, a `CancellationToken` that ends the branches that run.
            checkpoint: what an `interrupt` event gave as `checkpoint_path`.

        Raises RuntimeError where a node fails and `raise_exceptions` is set, ValueError without any input.
        """
        yield from self._run(input_state, config, checkpoint, stream=False)

    def stream(
        self,
        input_state: State | None = None,
        config: dict[str, Any] | None = None,
        checkpoint: str | None = None,
    ) -> Iterator[Event]:
        """Run like `invoke`, and also yield `state`, `parallel_state` and `parallel_error` as they happen."""
        yield from self._run(input_state, config, checkpoint, stream=True)

    def _run(
        self, input_state: State | None, config: dict[str, Any] | None, checkpoint: str | None, *, stream: bool
    ) -> Iterator[Event]:
        config = dict(config or {})
        start = self._start(input_state, checkpoint)
        config = {**start.config, **config}
        run = self._record(config)
        scope = self._scope(run, config, stream)
        with _Ending(run) as ending:
            for event in self.events(start, scope):
                ending.outcome = _OUTCOMES.get(event["type"], ending.outcome)
                if event["type"] != "state" or stream:
                    yield event

    def events(self, start: Checkpoint, scope: Scope, until: str = END) -> Iterator[Event]:
        """The events of one walk up to END or `until`, closing with `final`, `error` or `interrupt`."""
        state, when = start.state, start.when
        walked = walk(self, state, start.node, scope, until=until, entered=when == "before", left=when == "after")
        try:
            for event in walked:
                if event["type"] == "interrupt":
                    yield self._interrupted(event, scope)
                    return
                yield event
        except NodeFailure as failure:
            if self.raise_exceptions:
                raise RuntimeError(str(failure)) from failure.error
            yield {
                "type": "error",
                "node": failure.node,
                "error": str(failure.error),
                "error_type": type(failure.error).__name__,
                "exception": failure.error,
                "state": state.copy(),
            }
            return
        yield {"type": "final", "state": state.copy()}

    def _start(self, input_state: State | None, checkpoint: str | None) -> Checkpoint:
        if checkpoint is None:
            if input_state is None:
                raise ValueError("invoke(None) goes on from an interrupt: give its checkpoint, checkpoint='...'")
            return Checkpoint(dict(input_state), START, when="fresh")
        found = self.load_checkpoint(checkpoint)
        found.state.update(input_state or {})
        return found

    def _record(self, config: dict[str, Any]) -> Run | None:
        """The run that fan-outs are recorded in; it is made when the first one needs it."""
        wanted = config.get("spool")
        if wanted is False:
            return None
        settings = self.workflow.spool if self.workflow is not None else None
        path = spool_path(None if wanted is None else os.fspath(wanted), settings and settings.dir)
        label = self.name or "graph"
        text = self.workflow.text or self.workflow.dump(self.workflow.raw) if self.workflow is not None else ""
        source = str(self.workflow.path) if self.workflow is not None and self.workflow.path else None
        run = Run(path, label, text.encode(), lambda: who(workflow=source, python_graph=self.workflow is None))
        if settings is not None:
            run.sync, run.lease = settings.durability == "power", settings.lease_duration
        return run

    def _scope(self, run: Run | None, config: dict[str, Any], stream: bool) -> Scope:
        options = Options(
            max_workers=config.get("max_workers"),
            warn=self.logger.warning,
            actions=getattr(self, "actions", {}),
            path=(str(self.workflow.folder),) if self.workflow is not None else (),
        )
        fan_outs = FanOuts(run.recorder if run is not None else None, options)
        fan_out = _listening(fan_outs, run) if run is not None else fan_outs
        token = config.get("cancel_token") or CancellationToken()
        return Scope(fan_out, config, token, (lambda _event: None) if stream else None)

    def execute_scoped(
        self,
        initial_state: State,
        entry_point: str = START,
        exit_point: str = END,
        config: dict[str, Any] | None = None,
        scope: Scope | None = None,
    ) -> State:
        """Run from one node up to, and not including, another; gives the state there.

        Raises ValueError for a node that does not exist, RuntimeError where a node fails, RunCancelledError when
        somebody cancels the run (`tea spool cancel`).
        """
        for name in (entry_point, exit_point):
            if name not in self.nodes:
                raise ValueError(f"Node '{name}' does not exist in the graph{nearest(name, list(self.nodes))}.")
        config = dict(config or {})
        run = self._record(config) if scope is None else None
        with _Ending(run) as ending:
            scope = scope or self._scope(run, config, False)
            state = run_branch(self, dict(initial_state), entry_point, exit_point, scope)
            ending.outcome = "done"
        return state

    # -- checkpoints --------------------------------------------------------------------------------------------

    def _interrupted(self, event: Event, scope: Scope) -> Event:
        path = None
        if self.checkpointer is not None:
            path = checkpoints.new_key(event["node"])
            config = {key: value for key, value in scope.config.items() if key != "cancel_token"}
            self.checkpointer.save(path, event["state"], event["node"], config)
            self._whens()[path] = event["when"]
        elif self.checkpoint_dir is not None:
            path = f"{self.checkpoint_dir}/{checkpoints.new_key(event['node'])}.json"
            checkpoints.save(path, Checkpoint(event["state"], event["node"], scope.config, event["when"]))
        return {**event, "checkpoint_path": path}

    def _whens(self) -> dict[str, str]:
        """Whether the nodes of interrupts had been run, for checkpointers that keep only state, node and config."""
        whens: dict[str, str] = self.__dict__.setdefault("_interrupts", {})
        return whens

    def save_checkpoint(self, file_path: str, state: State, node: str, config: dict[str, Any] | None = None) -> None:
        """Write a checkpoint from which `invoke(None, checkpoint=file_path)` runs `node`."""
        checkpoints.save(file_path, Checkpoint(dict(state), node, dict(config or {})))

    def load_checkpoint(self, checkpoint: str) -> Checkpoint:
        """A checkpoint by its file path, or by its key in the checkpointer.

        Raises FileNotFoundError or KeyError.
        """
        if self.checkpointer is not None and not os.path.exists(checkpoint):
            kept = self.checkpointer.load(checkpoint)
            when = self._whens().get(checkpoint) or kept.get("when", "before")
            return Checkpoint(kept["state"], kept["node"], dict(kept.get("config") or {}), when)
        return checkpoints.load(checkpoint)

    def resume_from_checkpoint(
        self, checkpoint: str, config: dict[str, Any] | None = None, state_update: State | None = None
    ) -> Iterator[Event]:
        """Go on from a checkpoint; the same as `invoke(state_update, config, checkpoint)`."""
        yield from self.invoke(state_update, config, checkpoint)

    # -- circuits -----------------------------------------------------------------------------------------------

    def reset_circuit(self, name: str | None = None) -> None:
        """Close one circuit, or all."""
        self.circuit_registry.reset_circuit(name)

    def get_circuit_states(self) -> dict[str, dict[str, Any]]:
        """The state of every circuit, by the name of its branch."""
        return self.circuit_registry.get_circuit_states()


def _listening(fan_out: FanOutRunner, run: Run) -> FanOutRunner:
    """Fan-outs that end, and with them the walk, when somebody asks to cancel the run (`tea spool cancel`)."""

    def listening(graph: Graph, one: FanOut, state: State, scope: Scope) -> Results:
        run.recorder()  # makes the run, so that there is something to listen to
        with Listener(run.files, scope.token, anew=False) as listener:
            results = fan_out(graph, one, state, scope)
        listener.check()
        return results

    return listening


class _Ending:
    """Around a walk: writes how it ended into its run, if it is recorded."""

    def __init__(self, run: Run | None) -> None:
        self._run = run
        self.outcome = "interrupted"

    def __enter__(self) -> _Ending:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, Exception):
            self.outcome = "cancelled" if isinstance(error, RunCancelledError) else "failed"
        if self._run is not None:
            try:
                self._run.end(self.outcome)
            finally:
                self._run.close()


_OUTCOMES = {"final": "done", "error": "failed", "interrupt": "interrupted"}
