"""A run from start to end, as the command line drives it; `tea.resume` goes on with one.

workflow, input --> a new run in the spool --> the walk --> how it ended
"""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from executors import capture
from executors.result import ParallelFlowResult
from executors.travel import PickleValidationError
from spool import jsonio
from spool.job import sha256
from spool.layout import RunFiles
from spool.patience import patiently
from spool.publish import publish, replace
from tea.asked import Ended, RunOptions
from tea.cancel import Listener, RunCancelledError
from tea.checkpoint import FAN_OUTS, Checkpoint, keep_interrupt
from tea.dialect import Workflow, build
from tea.fanout import FanOuts, known_strategy
from tea.given import InputError, final_json, shown
from tea.graph import END, START, FanOut, Graph, nearest
from tea.plan import Options
from tea.record import Run, begun, spool_path, who
from tea.stategraph import StateGraph
from tea.walk import Results, Scope, State

FAILURES = 20
"""Failed branches of which a run remembers more than their number."""


def run(workflow: Workflow, state: State, options: RunOptions) -> Ended:
    """Run a workflow from the start.

    Raises ValueError (WorkflowError, InputError and others) for wrong input, before anything has started.
    """
    session = Session(options)
    graph = session.graph(workflow)
    start, until = session.ends(graph)
    record = session.record(workflow, state) if options.record else None
    return session.drive(graph, Checkpoint(dict(state), start, when="fresh"), until, record)


class Session:
    """A run that is begun or gone on with: what is wanted of it, and how it ends."""

    def __init__(self, options: RunOptions) -> None:
        self.options = options
        self.ended = Ended(None)

    def warn(self, text: str) -> None:
        if text not in self.ended.warnings:
            self.ended.warnings.append(text)
            if self.options.warn is not None:
                self.options.warn(text)

    def graph(self, workflow: Workflow) -> StateGraph:
        """Build and check; the workflow's folder comes first on `sys.path`, so that its own modules win."""
        for problem in workflow.problems:
            self.warn(str(problem))
        folder = str(workflow.folder)
        sys.path[:] = [folder, *(entry for entry in sys.path if entry != folder)]
        graph = build(workflow, StateGraph, strategy=self.options.strategy)
        assert isinstance(graph, StateGraph)
        graph.check()
        self.check_strategies(graph)
        return graph

    def check_strategies(self, graph: Graph) -> None:
        """Every strategy that the graph will want is asked for now: an error in the night is too late."""
        wanted = [self.options.strategy] if self.options.strategy else [one for one, _config in graph.configs()]
        usable = [known_strategy(strategy, self.options.strict, self.warn) for strategy in dict.fromkeys(wanted)]
        if "remote" in usable:
            self._check_hosts(graph)
        if "process" in usable:
            from executors.server import warm_up  # not needed, and not cheap, for threads

            warm_up("tea.job")

    def _check_hosts(self, graph: Graph) -> None:
        """The settings of the strategy `remote` can be used. Raises ValueError."""
        from executors.remote import RemoteConfig

        for strategy, config in graph.configs():
            if (self.options.strategy or strategy) == "remote":
                RemoteConfig.usable(config.remote_config)

    def ends(self, graph: Graph) -> tuple[str, str]:
        for name in (self.options.entry, self.options.exit):
            if name is not None and name not in graph.nodes:
                raise InputError(f"there is no node '{name}'{nearest(name, list(graph.nodes))}")
        return self.options.entry or START, self.options.exit or END

    def record(self, workflow: Workflow, state: State) -> Run:
        text = (workflow.text or workflow.dump(workflow.raw)).encode()
        path = spool_path(self.options.spool, workflow.spool.dir)

        def members() -> dict[str, Any]:
            return who(
                argv=self.options.argv,
                workflow=str(workflow.path.absolute()) if workflow.path else None,
                folder=str(workflow.folder),
                sha256=sha256(text),
                entry=self.options.entry,
                exit=self.options.exit,
                strategy=self.options.strategy,
                max_workers=self.options.max_workers,
                warnings=list(self.ended.warnings),
            )

        run = Run(path, workflow.name, text, members)
        run.sync, run.lease = workflow.spool.durability == "power", workflow.spool.lease_duration
        run.recorder()
        assert run.files is not None
        publish(run.files.input, jsonio.dumps(shown(state)))
        return run

    def take_over(self, record: dict[str, Any]) -> None:
        """A resumed run goes on as it was started, unless the user says otherwise."""
        self.options.strategy = self.options.strategy or record.get("strategy")
        self.options.max_workers = self.options.max_workers or record.get("max_workers")

    def drive(self, graph: StateGraph, start: Checkpoint, until: str, record: Run | None) -> Ended:
        """Walk to the end, whatever it is."""
        ended = self.ended
        ended.run = record.files if record is not None else None
        if ended.run is not None and self.options.on_run is not None:
            self.options.on_run(ended.run)
        fan_outs = FanOuts(record.recorder if record is not None else None, self._fan_out_options(graph))
        scope = Scope(fan_outs)
        outcome = "interrupted"
        try:
            with capture.install(), _logged(self.warn), Listener(ended.run, scope.token) as listener:
                scope.fan_out = _listening(fan_outs, listener)
                for event in graph.events(start, scope, until=until):
                    listener.check()
                    outcome = self._take(event) or outcome
                    if event["type"] == "interrupt" and ended.run is not None:
                        self._keep_interrupt(ended.run, event)
            if ended.state is not None and ended.run is not None:
                self._keep_output(ended.run, ended.state)
        except RunCancelledError:
            outcome, ended.cancelled_by = "cancelled", listener.by
        except BaseException as error:
            outcome = "interrupted" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "failed"
            raise
        finally:
            if record is not None:
                self._close(record, outcome)
        return ended

    def _fan_out_options(self, graph: Graph) -> Options:
        return Options(
            strategy=self.options.strategy,
            max_workers=self.options.max_workers,
            strict=self.options.strict,
            warn=self.warn,
            progress=self.options.progress,
            on_result=self._on_result,
            path=(str(graph.workflow.folder),),
        )

    def _on_result(self, result: ParallelFlowResult) -> None:
        if not result.success:
            self.ended.failed += 1
            if len(self.ended.failures) < FAILURES:
                self.ended.failures.append(result)

    def _take(self, event: dict[str, Any]) -> str | None:
        """Note how the walk ended; the outcome, None for an event that ends nothing."""
        ended = self.ended
        match event["type"]:
            case "final":
                ended.state = event["state"]
                return "done"
            case "error":
                ended.error, ended.node = f"{event['error_type']}: {event['error']}", event["node"]
                ended.traceback = _traceback(event["exception"])
                return "failed"
            case "interrupt":
                ended.interrupted_at = event["node"]
                return "interrupted"
        return None

    def _close(self, record: Run, outcome: str) -> None:
        fields: dict[str, Any] = {"failed": self.ended.failed, "warnings": self.ended.warnings}
        if self.ended.error is not None:
            fields.update(error=self.ended.error, node=self.ended.node)
        if self.ended.cancelled_by is not None:
            fields.update(cancelled_by=self.ended.cancelled_by)
        try:
            record.end(outcome, **fields)
        except OSError as error:  # the run is over all the same; one that is not marked as done can be resumed
            self.warn(f"cannot write how the run ended: {error}")
        finally:
            record.close()

    def _keep_interrupt(self, run: RunFiles, event: dict[str, Any]) -> None:
        """Where the workflow wanted to be interrupted, so that a resumed run goes on from there."""
        try:
            stop = Checkpoint(event["state"], event["node"], {FAN_OUTS: len(begun(run))}, event["when"])
            patiently(lambda: keep_interrupt(run, stop), "cannot keep the state", self.warn)
        except PickleValidationError as error:
            self.warn(f"the run cannot go on from node '{event['node']}': {error}")

    def _keep_output(self, run: RunFiles, state: State) -> None:
        data = final_json(state)
        patiently(lambda: replace(run.output, data), "cannot keep the final state", self.warn)


@contextlib.contextmanager
def _logged(warn: Callable[[str], None]) -> Iterator[None]:
    """What tea itself logs during a run (a loop that was cut off) is a warning of the run."""
    logger, handler = logging.getLogger("tea"), _Warnings(warn)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Warnings(logging.Handler):
    """Tells log records as warnings; those of a branch go to its own output."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        print(text, file=sys.stderr) if capture.is_captured() else self._tell(text)


def _listening(fan_outs: FanOuts, listener: Listener) -> Callable[[Graph, FanOut, State, Scope], Results]:
    """Fan-outs after which a run that was cancelled is over: its fan-in does not run."""

    def fan_out(graph: Graph, one: FanOut, state: State, scope: Scope) -> Results:
        results = fan_outs(graph, one, state, scope)
        listener.check()
        return results

    return fan_out


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
