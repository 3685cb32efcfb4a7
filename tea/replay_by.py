"""A replay by another strategy: the job as the only branch of a fan-out in the replay's own spool.

Its limits of time and memory hold there, as they did in its run; it is not retried. `remote` takes the hosts of the
workflow's settings.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from executors.base import FanOutContext, Flow, WorkersFailedError, get_executor
from executors.policy import ParallelConfig
from executors.state import BranchStates
from spool import jsonio
from spool.attempts import Outcome
from spool.job import sha256
from spool.layout import JobFiles
from spool.publish import read_bytes, read_json
from tea.branches import check_chunk
from tea.dialect.subset import CHUNK_RESULTS
from tea.fanout import FanOuts
from tea.graph import END, START
from tea.plan import Options
from tea.record import Run
from tea.stategraph import StateGraph
from tea.version import __version__
from tea.walk import Scope, run_branch

_KEY = "job"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job is run again. branch: its name. config: of its fan-out, for limits and hosts.

    recorded: `options` of its fan-out.
    """

    strategy: str
    branch: str
    config: ParallelConfig
    recorded: Mapping[str, Any]


def run_by(
    place: Place,
    graph: StateGraph,
    text: bytes,
    state: Mapping[str, Any],
    run: Run,
    warn: Callable[[str], None],
) -> dict[str, Any]:
    """Run a job; its result, as `result.json` has it. What it printed goes to stderr afterwards.

    Raises ValueError or PickleValidationError, before it is run, when this strategy cannot run it.
    """
    recorder = run.recorder()
    folder = str(graph.workflow.folder)
    base = {key: state[key] for key in state}
    options = {"config": place.recorded["config"]} if place.recorded.get("config") else {}
    context = FanOutContext(
        spool=recorder.spool,
        exit=END,
        workflows={_KEY: text},
        runner="tea.job:WorkflowRunner",
        options=options,
        journal=recorder.journal,
        warn=warn,
        version=__version__,
        path=(folder,),
    )
    config = replace(
        place.config, strategy=place.strategy, retry_policy=None, circuit_breaker=None, fail_fast=False, max_lost=0
    )
    context.fanout = recorder.fan_out(place.branch, _record(place, config, context, base))
    scope = Scope(FanOuts(run.recorder, Options(nested=True, path=(folder,))), dict(options.get("config") or {}))
    flow = Flow(place.branch, _runner(graph, scope), START, _KEY)
    executor = get_executor(place.strategy, 1, context)
    try:
        (result,) = executor.execute([flow], BranchStates(base, lambda _: {}, 1), config)
    except WorkersFailedError as error:
        return {
            "outcome": Outcome.LOST.value,
            "success": False,
            "error": str(error),
            "error_type": type(error).__name__,
        }
    assert result.job is not None
    job = JobFiles(result.job)
    _show(job)
    return read_json(job.accepted)


def _show(job: JobFiles) -> None:
    """Pass on what a worker's job printed."""
    for log in (job.stdout(1), job.stderr(1)):
        if os.path.exists(log):
            sys.stderr.write(read_bytes(log).decode("utf-8", "replace"))


def _runner(graph: StateGraph, scope: Scope) -> Any:
    """How a thread of this process runs it."""

    def run_one(state: Any, token: Any, _job: Any) -> Any:
        run_branch(graph, state, START, END, replace(scope, token=token))
        if CHUNK_RESULTS in state:
            check_chunk(state[CHUNK_RESULTS])
        return state

    return run_one


def _record(place: Place, config: ParallelConfig, context: FanOutContext, base: Mapping[str, Any]) -> dict[str, Any]:
    """The members of fanout.json."""
    shown = {key: value for key, value in base.items() if jsonio.is_json(value)}
    return {
        "format": 1,
        "source": place.branch,
        "fan_in": END,
        "kind": "edges",
        "branches": [place.branch],
        "total": 1,
        "items": None,
        "chunk_size": 1,
        "strategy": place.strategy,
        "max_workers": 1,
        "config": config.to_json(),
        "runner": None if place.strategy == "thread" else context.runner,
        "options": context.options,
        "lease": context.lease,
        "durability": "process",
        "portable": True,
        "graph": "yaml",
        "nested": True,
        "input_sha256": sha256(jsonio.dumps([shown, None])),
    }
