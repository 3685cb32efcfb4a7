"""How a worker process runs a job: the runners that `executors.slot` loads by name.

`WorkflowRunner` needs nothing but the job directory: it builds the graph from the subset in it. `GraphRunner` runs
branches of a graph that was built in Python and came pickled from the process that built it.
"""

from __future__ import annotations

import pickle
import sys
from typing import Any

from executors.attempt import Branch
from executors.cancel import CancellationToken
from executors.slot import SlotSetup
from executors.state import BranchState
from spool.errors import SpoolError
from spool.job import JobRecord
from spool.layout import JobFiles, SpoolFiles
from spool.publish import read_bytes
from tea.branches import check_chunk, run_body, run_chunk
from tea.dialect import build, load_text
from tea.dialect.subset import CHUNK_RESULTS
from tea.fanout import FanOuts
from tea.graph import END, START, Graph
from tea.nodes import command
from tea.plan import Options
from tea.record import Recorder
from tea.stategraph import StateGraph
from tea.walk import Scope, run_branch


class _Runner:
    """What both runners share: the scope of a branch in this process."""

    def __init__(self, setup: SlotSetup, runtime: dict[str, Any]) -> None:
        command.OWN_GROUP = False  # a worker that is ended takes the programs of its job along
        if setup.lock_fd is not None:
            command.INHERIT_FDS.add(setup.lock_fd)
        self._setup = setup
        self._spool = SpoolFiles(setup.spool)
        self._token = CancellationToken()  # never cancelled: a job in a process is ended with it
        self._config: dict[str, Any] = runtime.get("config") or setup.options.get("config") or {}
        self._options = Options(
            strategy=setup.options.get("strategy"),
            max_workers=setup.options.get("max_workers"),
            actions=runtime.get("actions") or {},
            nested=True,
            path=setup.path,
            warn=_warn,
        )

    def scope(self, job: JobFiles, branch: str) -> Scope:
        return Scope(FanOuts(_Later(self, job), self._options), self._config, self._token, None, branch)

    def recorder(self, job: JobFiles) -> Recorder:
        recorder = Recorder(self._spool, job.fanouts)
        recorder.sync, recorder.lease = self._setup.sync, self._setup.lease
        return recorder


class _Later:
    """The recorder of a job's own fan-outs, made when it has one."""

    __slots__ = ("job", "made", "runner")

    def __init__(self, runner: _Runner, job: JobFiles) -> None:
        self.runner, self.job = runner, job
        self.made: Recorder | None = None

    def __call__(self) -> Recorder:
        if self.made is None:
            self.made = self.runner.recorder(self.job)
        return self.made


def _warn(text: str) -> None:
    print(f"tea: warning: {text}", file=sys.stderr)


class WorkflowRunner(_Runner):
    """Runs jobs from the subset in their directory; each subset becomes a graph once."""

    def __init__(self, setup: SlotSetup) -> None:
        super().__init__(setup, pickle.loads(setup.runtime) if setup.runtime else {})
        self._graphs: dict[str, Graph] = {}

    def branch(self, job: JobFiles, record: JobRecord) -> Branch:
        """The branch of a job. Raises SpoolError when it has no subset, WorkflowError when that is wrong."""
        key = record.data.get("workflow")
        if key is None or record.data.get("not_replayable"):
            raise SpoolError(f"{job.path}: {record.data.get('not_replayable') or 'it has no workflow.yaml'}")
        graph = self._graphs.get(key)
        if graph is None:
            graph = self._graphs[key] = self._build(job)
        scope = self.scope(job, str(record.data["branch"]))

        def run(state: BranchState) -> BranchState:
            run_branch(graph, state, START, END, scope)
            if CHUNK_RESULTS in state:
                check_chunk(state[CHUNK_RESULTS])
            return state

        return run

    def _build(self, job: JobFiles) -> Graph:
        workflow = load_text(read_bytes(job.workflow).decode(), job.workflow)
        folder = str(workflow.folder)
        if folder not in sys.path:
            sys.path.insert(0, folder)
        return build(workflow, StateGraph, self._options.actions, functions=False)


class GraphRunner(_Runner):
    """Runs branches of a pickled graph."""

    def __init__(self, setup: SlotSetup) -> None:
        runtime: dict[str, Any] = pickle.loads(setup.runtime) if setup.runtime else {}
        super().__init__(setup, runtime)
        self._graph: Graph = runtime["graph"]
        self._exit: str | None = setup.options.get("exit")
        self._data: str | None = setup.options.get("data")
        self._chunk = bool(setup.options.get("chunk"))

    def branch(self, job: JobFiles, record: JobRecord) -> Branch:
        """The branch of a job."""
        scope = self.scope(job, str(record.data["branch"]))
        if self._data is None:
            entry, exit = str(record.data["entry"]), self._exit or END
            return lambda state: run_branch(self._graph, state, entry, exit, scope)
        source, data = self._data, self._graph.nodes[self._data].fan_out
        assert data is not None
        run_one = run_chunk if self._chunk else run_body

        def run(state: BranchState) -> BranchState:
            run_one(self._graph, source, data, state, scope)
            return state

        return run
