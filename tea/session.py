"""A run from start to end, as the command line drives it: `run`, `resume`, `work`.

run      workflow, input --> a new run in the spool --> the walk --> how it ended
resume   a run in the spool --> its last fan-out and the state there --> the walk --> how it ended
work     a spool --> jobs that others made, claimed and run here
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from executors import capture
from executors.policy import ParallelConfig
from executors.result import ParallelFlowResult
from executors.travel import is_marked, mark, unpack_pickle
from spool import jsonio, tickets
from spool import run as runs
from spool.job import sha256
from spool.layout import FanOutFiles, JobFiles, RunFiles, SpoolFiles
from spool.patience import patiently
from spool.pause import paused, unpause
from spool.publish import publish, read_bytes, read_json, replace
from spool.retry import given_input
from spool.retry import retry_failed as send_failed_back
from tea.asked import Ended, RunOptions
from tea.cancel import Listener, RunCancelledError
from tea.checkpoint import Checkpoint
from tea.dialect import Workflow, build, load_text
from tea.fanout import FanOuts, known_strategy
from tea.graph import END, START, FanOut, Graph, nearest
from tea.plan import Options
from tea.record import Run, spool_path, who
from tea.stategraph import StateGraph
from tea.walk import RESULTS, Results, Scope, State

_FAILURES = 20


class InputError(ValueError):
    """The input is wrong; nothing was started."""


# -- input and output -----------------------------------------------------------------------------------------------


def load_input(texts: Sequence[str]) -> State:
    """The state that `--input` options describe: JSON objects or files with one, later keys win.

    The `input.json` of a job directory brings the state that its job shares with others.
    Raises InputError.
    """
    state: State = {}
    for text in texts:
        state.update(_one_input(text))
    return state


def _one_input(text: str) -> State:
    if text.lstrip().startswith("{"):
        return _parsed(text.encode(), "--input")
    path = text.removeprefix("@")
    try:
        data = Path(path).read_bytes() if path != "-" else sys.stdin.buffer.read()
    except OSError as error:
        raise InputError(f"--input {text}: {error.strerror}; give a JSON object or the name of a file") from None
    own = _parsed(data, path)
    job = JobFiles(os.path.dirname(os.path.abspath(path)))
    if os.path.abspath(path) == job.input and os.path.isfile(job.job):
        shared = _shared_input(job)
        own = {key: value for key, value in own.items() if not (key in shared and is_marked(value))}
        return {**shared, **own, **given_input(job, sys.maxsize)}
    return own


def _parsed(data: bytes, where: str) -> State:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise InputError(f"{where}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f'{where}: a JSON {type(value).__name__}, but a state is an object like {{"key": 1}}')
    return value


def _shared_input(job: JobFiles) -> State:
    """What a job's input.json leaves to the files beside it: the shared state, and what JSON could not carry."""
    record = read_json(job.job)
    state: State = read_json(job.base) if "base_sha256" in record else {}
    for path, digest in ((job.base_pickle, "base_pickle_sha256"), (job.pickle, "pickle_sha256")):
        if digest in record:
            data = read_bytes(path)
            if sha256(data) != record[digest]:
                raise InputError(f"{path}: it is not what the coordinator wrote (sha256 differs)")
            state.update(unpack_pickle(data))
    if "not_replayable" in record:
        raise InputError(f"{job.path}: the record alone can't run this job: {record['not_replayable']}")
    return state


def final_json(state: State) -> bytes:
    """A final state as JSON: without the results of branches, with marks for what JSON cannot hold."""
    shown = {key: value for key, value in state.items() if key != RESULTS}
    return jsonio.pretty(_shown(shown))


def _shown(value: Any) -> Any:
    if isinstance(value, ParallelFlowResult):
        return _shown(value.to_dict())
    if jsonio.is_json(value):
        return value
    if isinstance(value, dict):
        return {key if isinstance(key, str) else repr(key): _shown(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(item) for item in value]
    return mark(value)


# -- run ------------------------------------------------------------------------------------------------------------


def run(workflow: Workflow, state: State, options: RunOptions) -> Ended:
    """Run a workflow from the start.

    Raises ValueError (WorkflowError, InputError and others) for wrong input, before anything has started.
    """
    session = _Session(options)
    graph = session.graph(workflow)
    start, until = session.ends(graph)
    record = session.record(workflow, state) if options.record else None
    return session.drive(graph, Checkpoint(dict(state), start, when="fresh"), until, record)


def resume(spool: str, run: str | None, options: RunOptions, retry_failed: bool = False) -> Ended:
    """Go on with a run: from its last fan-out, with the results that are there.

    Raises UnknownNameError, RunBusyError or InputError when it cannot be.
    """
    session = _Session(options)
    files = runs.find_spool(spool)
    found = runs.find_run(files, run, lazily=True)
    record = _record_of(found)
    if record.get("python_graph"):  # also when it is done: its final state is only in that program
        raise InputError(f"run {found.name} came from a graph built in Python; resume it from that program")
    over = record.get("outcome") == "done" and not (retry_failed and _has_failures(found))
    if record.get("executor"):
        return _go_on_with_calls(files, found, record, session, retry_failed, over)
    if over:
        return Ended(found, _kept_output(found))
    workflow = _recorded_workflow(found, record)
    graph = session.graph(workflow)
    session.take_over(record)
    driven = Run.resume(files, found, sync=workflow.spool.durability == "power", lease=workflow.spool.lease_duration)
    try:
        if (note := paused(found)) and unpause(found):
            session.warn(f"the run was paused by {note['by']}; it goes on now")
        fanout = _fan_out_to_resume(found, retry_failed)
        if fanout is not None:
            driven.go_back_to(fanout)
        start = _start_of(found, fanout)
        driven.note("resumed", by=f"{who()['user']}@{who()['host']}:{os.getpid()}")
    except BaseException:
        driven.close()
        raise
    return session.drive(graph, start, record.get("exit") or END, driven)


def _go_on_with_calls(
    files: SpoolFiles, found: RunFiles, record: dict[str, Any], session: _Session, retry_failed: bool, over: bool
) -> Ended:
    """The jobs that a `SpoolExecutor` has left are run; there is nothing after them, so the end is their number."""
    from tea.go_on import go_on

    session.take_over(record)
    workers = session.options.max_workers
    failures = [] if over else go_on(files, found, workers=workers, retry_failed=retry_failed, warn=session.warn)
    counts = [tickets.counts(fanout) for fanout in runs.fanouts(found.fanouts)]
    state = {kind: sum(one[kind] for one in counts) for kind in tickets.FINISHED}
    return Ended(found, state, failures=failures[:_FAILURES], failed=len(failures))


def _record_of(found: RunFiles) -> dict[str, Any]:
    """The record of a run. Raises InputError for one whose coordinator was killed while it made it."""
    try:
        return read_json(found.run)
    except FileNotFoundError:
        raise _unmade(found) from None


def _unmade(found: RunFiles) -> InputError:
    return InputError(
        f"run {found.name} was stopped while it was being made, nothing of it has run; start it again with `tea run`"
    )


def _has_failures(found: RunFiles) -> bool:
    return any(tickets.names(f, kind) for f in runs.fanouts(found.fanouts) for kind in ("failed", "cancelled"))


def _kept_output(found: RunFiles) -> State:
    try:
        return read_json(found.output)
    except FileNotFoundError:  # killed between the last node and the output
        return {}


def _recorded_workflow(found: RunFiles, record: dict[str, Any]) -> Workflow:
    text = read_bytes(found.workflow).decode()
    return load_text(text, record.get("workflow") or found.workflow, record.get("folder"))


def _fan_out_to_resume(found: RunFiles, retry_failed: bool) -> FanOutFiles | None:
    """The first fan-out that has jobs to do, among them those that were sent back; else the last that was begun.

    What follows it is walked again. Its fan-outs are taken up as they are where their input is the same.
    """
    begun = [fanout for fanout in runs.fanouts(found.fanouts) if os.path.exists(fanout.state)]
    for fanout in begun if retry_failed else ():
        send_failed_back(fanout)
    return next((fanout for fanout in begun if tickets.names(fanout, "todo")), begun[-1] if begun else None)


def _start_of(found: RunFiles, fanout: FanOutFiles | None) -> Checkpoint:
    """Where a resumed run starts again: at its last fan-out, or from the beginning when there was none."""
    if fanout is None:
        if not os.path.exists(found.input):
            raise _unmade(found)
        record = read_json(found.run)
        return Checkpoint(read_json(found.input), record.get("entry") or START, when="fresh")
    source = read_json(fanout.fanout)["source"]
    state = {key: value for key, value in read_json(fanout.state).items() if not is_marked(value)}
    if os.path.exists(fanout.state_pickle):
        state.update(unpack_pickle(read_bytes(fanout.state_pickle)))
    return Checkpoint(state, source, when="after")


class _Session:
    """One call of `run` or `resume`."""

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
        graph = build(workflow, StateGraph)
        assert isinstance(graph, StateGraph)
        graph.check()
        self.check_strategies(graph)
        return graph

    def check_strategies(self, graph: Graph) -> None:
        """Every strategy that the graph will want is asked for now: an error in the night is too late."""
        wanted = [self.options.strategy] if self.options.strategy else _strategies(graph)
        usable = [known_strategy(strategy, self.options.strict, self.warn) for strategy in dict.fromkeys(wanted)]
        if "remote" in usable:
            self._check_hosts(graph)
        if "process" in usable:
            from executors.server import warm_up  # not needed, and not cheap, for threads

            warm_up("tea.job")

    def _check_hosts(self, graph: Graph) -> None:
        """The settings of the strategy `remote` can be used. Raises ValueError."""
        from executors.remote import RemoteConfig

        for strategy, config in _configs(graph):
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
        publish(run.files.input, jsonio.dumps(_shown(state)))
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
            with capture.install(), Listener(ended.run, scope.token) as listener:
                scope.fan_out = _listening(fan_outs, listener)
                for event in graph.events(start, scope, until=until):
                    listener.check()
                    outcome = self._take(event) or outcome
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
            if len(self.ended.failures) < _FAILURES:
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

    def _keep_output(self, run: RunFiles, state: State) -> None:
        data = final_json(state)
        patiently(lambda: replace(run.output, data), "cannot keep the final state", self.warn)


def work(spool: str, *, slots: int = 1, until_empty: bool = True, warn: Callable[[str], None] | None = None) -> int:
    """Run jobs that others made; see `tea.worker.work`."""
    from tea.worker import work as work_here

    return work_here(spool, slots=slots, until_empty=until_empty, warn=warn)


def _listening(fan_outs: FanOuts, listener: Listener) -> Callable[[Graph, FanOut, State, Scope], Results]:
    """Fan-outs after which a run that was cancelled is over: its fan-in does not run."""

    def fan_out(graph: Graph, one: FanOut, state: State, scope: Scope) -> Results:
        results = fan_outs(graph, one, state, scope)
        listener.check()
        return results

    return fan_out


def _strategies(graph: Graph) -> Iterator[str]:
    return (strategy for strategy, _config in _configs(graph))


def _configs(graph: Graph) -> Iterator[tuple[str, ParallelConfig]]:
    """The strategy and the configuration of every fan-out."""
    for node in graph.nodes.values():
        if node.fan_out is not None:
            config = node.fan_out.config or graph.parallel_config
            yield node.fan_out.strategy or config.strategy, config
    for edges in graph.edges.values():
        for edge in edges:
            if edge.parallel:
                config = edge.config or graph.parallel_config
                yield config.strategy, config


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


__all__ = ["InputError", "final_json", "load_input", "resume", "run", "work"]
