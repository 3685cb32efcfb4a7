"""Running a job again, from its own directory into another folder; the record stays as it is.

job.json, input.json (+ base.json), workflow.yaml  --changes-->  the same walk as a worker's, in this process
                                                                      |
result.json of the record  --compare-->  what differs      replay folder: input, workflow, result, lineage

What is not the same as in a worker: no time or memory limit, no retries, and fan-outs inside the branch are recorded
in a spool of the replay's own. With a strategy, the job runs where that runs branches, within its limits; see
`replay_by`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from executors import attempt as attempts
from executors.attempt import NodeFailure
from executors.base import available_strategies
from executors.policy import ParallelConfig
from executors.slot import Inputs
from executors.state import BranchState
from executors.travel import pack
from spool import jsonio
from spool.attempts import Outcome
from spool.errors import SpoolError
from spool.find import fanout_of, in_run, run_of, spool_of
from spool.job import JobRecord, read_accepted, read_job, sha256
from spool.layout import RESULT, JobFiles, ReplayFiles
from spool.publish import publish, read_bytes, read_quietly
from tea.branches import check_chunk
from tea.dialect import Workflow, build, load_file, load_text
from tea.dialect.navigate import is_data_fan_out
from tea.dialect.subset import CHUNK_RESULTS
from tea.fanout import FanOuts
from tea.graph import END, START, nearest
from tea.plan import Options
from tea.record import Run, who
from tea.replay_by import Place, run_by
from tea.stategraph import StateGraph
from tea.walk import Scope, run_branch


class ReplayError(ValueError):
    """The job cannot be run again from its record; nothing was started."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a replay has otherwise than the record.

    input: values that take the place of those in the job's input. workflow: a workflow file to take instead of the
    job's own: a changed copy of that, or a whole workflow with the job's nodes in it.
    source: where `input` came from, for the lineage.
    """

    input: Mapping[str, Any] = field(default_factory=dict)
    workflow: str | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A new result beside the recorded one.

    verdict: `same`, `differs`, `fixed`, `still fails`, `fails otherwise`, `fails now`, or `nothing to compare with`.
    changed: keys whose value differs, with the recorded and the new one. missing, added: keys of only one of them.
    """

    verdict: str
    changed: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Replayed:
    """A replay that has ended. error: what its branch raised. recorded: the result that it was compared with."""

    files: ReplayFiles
    result: Mapping[str, Any]
    recorded: Mapping[str, Any]
    compared: Comparison
    error: BaseException | None = None

    @property
    def success(self) -> bool:
        return bool(self.result["success"])

    @property
    def cause(self) -> BaseException | None:
        """The error itself, where a node raised it."""
        return self.error.error if isinstance(self.error, NodeFailure) else self.error


def replay(
    job: JobFiles, changes: Changes | None = None, folder: str | None = None, strategy: str | None = None
) -> Replayed:
    """Run a job again, in the folder in which its run was started.

    Args:
        folder: where the result goes, new or empty; None takes the next one under `replays/` of the spool.
        strategy: what runs it, as it runs branches; None runs it in this process.

    Raises ReplayError, SpoolError, WorkflowError or OSError when it cannot be, before anything is run.
    """
    changes = changes or Changes()
    record = read_job(job)
    workflow = _workflow(job, record, changes)  # all of these may refuse: no folder is made before
    graph = _graph(workflow)
    state = _state(job, record, changes)
    place = None if strategy is None else _place(job, record, changes, graph, strategy)
    if strategy == "remote" and not jsonio.is_json(dict(state.items())):
        raise ReplayError(f"{job.path}: only JSON travels to a host, and JSON cannot hold its input")
    files = ReplayFiles(_new_folder(job, folder))
    publish(files.workflow, (workflow.text or workflow.dump(workflow.raw)).encode())
    shown = pack(dict(state.items()), carry=False).shown
    publish(files.input, shown)
    recorded = _recorded(job, record)
    lineage = {**_lineage(job, record, changes, recorded), "strategy": strategy}
    attempt = int(lineage["attempt"] or 1)
    result, error = _run(job, attempt, graph, workflow, state, files, place)
    result = {**result, "job": job.name, "attempt": attempt, "input_sha256": sha256(shown)}
    publish(files.result, jsonio.dumps(result))
    compared = compare(recorded, result)
    publish(files.replay, jsonio.pretty({**lineage, "outcome": result["outcome"], "verdict": compared.verdict}))
    return Replayed(files, result, recorded, compared, error)


# -- before it runs -------------------------------------------------------------------------------------------------


def _workflow(job: JobFiles, record: JobRecord, changes: Changes) -> Workflow:
    """What to run: the job's subset, or that of a file, made anew where the file is a whole workflow."""
    if why := record.data.get("not_replayable"):
        raise ReplayError(f"{job.path}: the record alone can't run this job: {why}")
    if changes.workflow is None:
        if not os.path.exists(job.workflow):
            raise ReplayError(f"{job.workflow}: missing, so there is nothing to run; give a workflow with --workflow")
        return load_text(read_bytes(job.workflow).decode(), job.workflow)
    given = load_file(changes.workflow)
    entry, exit = str(record.data["entry"]), str(record.data.get("exit") or "")
    if entry not in given.plan.nodes:
        raise ReplayError(f"{changes.workflow}: it has no node '{entry}'{nearest(entry, list(given.plan.nodes))}")
    plan = read_quietly(fanout_of(job).fanout)
    if plan.get("kind") == "edges":
        return _loaded(given, given.subset(entry, exit)) if exit in given.plan.nodes else given
    if not is_data_fan_out(given.plan.nodes[entry]):
        return given  # it is a changed copy of the job's own: its node runs one item
    return _loaded(given, given.subset_item(entry, chunk=int(plan.get("chunk_size") or 1) > 1))


def _loaded(given: Workflow, mapping: dict[str, Any]) -> Workflow:
    return load_text(given.dump(mapping), given.path)


def _graph(workflow: Workflow) -> StateGraph:
    """The workflow's folder comes first on `sys.path`, so that its own modules win."""
    folder = str(workflow.folder)
    sys.path[:] = [folder, *(entry for entry in sys.path if entry != folder)]
    graph = build(workflow, StateGraph)
    assert isinstance(graph, StateGraph)
    graph.check()
    return graph


def _state(job: JobFiles, record: JobRecord, changes: Changes) -> BranchState:
    recorded = Inputs().state(job, record, sys.maxsize)  # with what was given when it was sent back
    if not changes.input:
        return recorded
    base = {key: recorded[key] for key in recorded}
    return BranchState(base, dict(changes.input))


def _new_folder(job: JobFiles, folder: str | None) -> str:
    if folder is not None:
        path = os.path.abspath(folder)
        os.makedirs(path, 0o700, exist_ok=True)
        if os.listdir(path):
            raise ReplayError(f"{path}: not empty; a replay goes into a folder of its own")
        return path
    above = spool_of(job.path).replays_of(run_of(job.path).name)
    for made in (os.path.dirname(above), above):  # the mode is for the last folder only
        os.makedirs(made, 0o700, exist_ok=True)
    stem, number = in_run(job.path).replace("/", "_"), 1
    while True:
        path = f"{above}/{stem}-{number}"
        try:
            os.mkdir(path, 0o700)
            return path
        except FileExistsError:
            number += 1


def _lineage(job: JobFiles, record: JobRecord, changes: Changes, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Where a replay comes from: which job, with what changes, when and by whom."""
    return {
        "format": 1,
        "run": run_of(job.path).name,
        "job": in_run(job.path),
        "path": job.path,
        "attempt": recorded.get("attempt"),
        "recorded_outcome": recorded.get("outcome"),
        "input_sha256": record.input_sha256,
        "changes": jsonio.loads(pack(dict(changes.input), carry=False).shown),
        "changes_from": changes.source,
        "workflow": os.path.abspath(changes.workflow) if changes.workflow else None,
        "at": time.time(),
        "by": who(),
    }


# -- running --------------------------------------------------------------------------------------------------------


def _place(job: JobFiles, record: JobRecord, changes: Changes, graph: StateGraph, strategy: str) -> Place:
    """Where to run it: with the settings of its fan-out, or of the workflow that is given instead.

    Raises ReplayError for a strategy that cannot run a single job, or settings that cannot be read.
    """
    known = [name for name in available_strategies() if name != "workers"]  # who would work on a replay?
    if strategy not in known:
        raise ReplayError(f"no strategy '{strategy}' for a replay; there are {', '.join(known)}")
    plan = read_quietly(fanout_of(job).fanout)
    config = graph.parallel_config
    if changes.workflow is None and isinstance(recorded := plan.get("config"), dict):
        try:
            config = ParallelConfig.from_json({**recorded, "remote_config": recorded.get("remote_config")})
        except (ValueError, TypeError, KeyError) as error:
            raise ReplayError(f"{fanout_of(job).fanout}: its config cannot be used: {error}") from None
        if config.remote_config is None:
            config = replace(config, remote_config=graph.parallel_config.remote_config)
    if strategy == "remote" and config.remote_config is None:
        raise ReplayError(
            "strategy 'remote' takes its hosts from settings.parallel.remote of the workflow: none there"
        )
    return Place(strategy, str(record.data["branch"]), config, plan.get("options") or {})


def _run(
    job: JobFiles,
    attempt: int,
    graph: StateGraph,
    workflow: Workflow,
    state: BranchState,
    files: ReplayFiles,
    place: Place | None,
) -> tuple[Mapping[str, Any], BaseException | None]:
    """Run it; its result, and the error itself where that was raised in this process."""
    text = (workflow.text or workflow.dump(workflow.raw)).encode()
    run = Run(files.spool, workflow.name, text, lambda: who(replay_of=job.path, folder=str(workflow.folder)))
    before, outcome = os.getcwd(), "failed"
    os.chdir(_folder_of_run(job) or before)
    try:
        if place is None:
            record = read_job(job)
            ran = _run_here(job, record, graph, state, run)
            error = ran.error
            result = attempts.report(JobFiles(files.path), record, attempt, 0.0, ran, strict=False)
        else:
            result, error = run_by(place, graph, text, state, run, _warn), None
        outcome = "done" if result["success"] else "failed"
        return result, error
    finally:
        os.chdir(before)
        run.end(outcome)
        run.close()


def _run_here(job: JobFiles, record: JobRecord, graph: StateGraph, state: BranchState, run: Run) -> attempts.Ran:
    options = Options(nested=True, path=(str(graph.workflow.folder),), warn=_warn)
    config = (read_quietly(fanout_of(job).fanout).get("options") or {}).get("config") or {}
    scope = Scope(FanOuts(run.recorder, options), config, branch=str(record.data["branch"]))

    def branch(one: BranchState) -> BranchState:
        run_branch(graph, one, START, END, scope)
        if CHUNK_RESULTS in one:
            check_chunk(one[CHUNK_RESULTS])
        return one

    ran = attempts.run(branch, state)
    if isinstance(ran.error, KeyboardInterrupt):
        raise ran.error
    return ran


def _warn(text: str) -> None:
    print(f"tea: warning: {text}", file=sys.stderr)


def _folder_of_run(job: JobFiles) -> str | None:
    """Where the run was started: relative paths in nodes mean files there."""
    folder = read_quietly(run_of(job.path).run).get("cwd")
    return folder if isinstance(folder, str) and os.path.isdir(folder) else None


# -- comparing ------------------------------------------------------------------------------------------------------


def _recorded(job: JobFiles, record: JobRecord) -> Mapping[str, Any]:
    """The job's accepted result, else that of its newest attempt that has one; empty when none has."""
    try:
        accepted = read_accepted(job, record.input_sha256)
    except (SpoolError, OSError) as error:
        _warn(f"{error}; the new result is compared with that of the newest attempt")
        accepted = None
    if accepted is not None:
        return accepted
    numbers = sorted(int(match[1]) for name in os.listdir(job.path) if (match := RESULT.fullmatch(name)))
    results = [read_quietly(job.result(number)) for number in reversed(numbers)]
    return next((result for result in results if "outcome" in result), {})


def compare(recorded: Mapping[str, Any], new: Mapping[str, Any]) -> Comparison:
    """How a new result differs from the recorded one."""
    if recorded.get("outcome") not in (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.TIMED_OUT):
        return Comparison("nothing to compare with")
    old, now = recorded.get("state") or {}, new.get("state") or {}
    changed = {key: (old[key], now[key]) for key in old if key in now and old[key] != now[key]}
    missing = tuple(sorted(old.keys() - now.keys()))
    added = tuple(sorted(now.keys() - old.keys()))
    return Comparison(_verdict(recorded, new, bool(changed or missing or added)), changed, missing, added)


def _verdict(recorded: Mapping[str, Any], new: Mapping[str, Any], differs: bool) -> str:
    if recorded["outcome"] == Outcome.SUCCEEDED:
        return "fails now" if not new["success"] else "differs" if differs else "same"
    if new["success"]:
        return "fixed"
    members = ("error_type", "error")
    return "still fails" if all(recorded.get(m) == new.get(m) for m in members) else "fails otherwise"
