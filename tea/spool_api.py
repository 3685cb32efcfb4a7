"""A spool from Python: runs, jobs, what they read, printed and gave, and running one again.

    spool = tea.open_spool(".tea/spool")
    for job in spool.run().jobs(state="failed"):
        print(job.name, job.error, job.stderr())

Everything is read when it is asked for, so a live run shows what is there now. Nothing here changes a record.
In a notebook, spools, runs and lists of jobs show as tables.
"""

from __future__ import annotations

import html
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, SupportsIndex, TypeVar, overload

from executors.slot import Inputs
from spool import run as runs_
from spool import tickets
from spool.explain import explain
from spool.facts import facts_of, run_state
from spool.find import fanout_of, find_job, in_run, run_of, spool_of
from spool.inspect import fanouts_inside
from spool.job import read_job
from spool.jobview import AttemptView, attempts, job_line
from spool.layout import TICKETS, JobFiles, RunFiles, SpoolFiles
from spool.opened import fetch
from spool.output import Output, chosen_attempt
from spool.publish import read_quietly
from spool.worker import Observer
from tea.record import spool_path
from tea.replay import Changes, Replayed, replay

STATES = ("todo", "running", "done", "failed", "cancelled")

ROWS = 100
"""Rows of a table in a notebook."""

CELL = 300
"""Characters of a cell."""

T = TypeVar("T")


def open_spool(path: str | os.PathLike[str] | None = None) -> Spool:
    """The spool at a path; else the one that TEA_SPOOL names, or `.tea/spool` here.

    Raises SpoolError when there is none, or it cannot be trusted.
    """
    return Spool(runs_.find_spool(spool_path(None if path is None else os.fspath(path))))


class Table(list[T]):
    """A list that a notebook shows as a table: its first `ROWS` items, and how many more there are."""

    def __init__(self, items: Iterable[T], head: Sequence[str], row: Callable[[T], Sequence[Any]]) -> None:
        super().__init__(items)
        self._head, self._row = tuple(head), row

    @overload
    def __getitem__(self, index: SupportsIndex) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Table[T]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> T | Table[T]:
        if isinstance(index, slice):
            return Table(super().__getitem__(index), self._head, self._row)
        return super().__getitem__(index)

    def _repr_html_(self) -> str:
        return table(self._head, map(self._row, self[:ROWS]), len(self) - ROWS)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], more: int = 0) -> str:
    """An HTML table; whatever stands in a cell is text, and not too long. more: rows that are not shown."""
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(_text(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    foot = f"<p>and {more:,} more</p>" if more > 0 else ""
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>{foot}"


def _text(cell: Any) -> str:
    text = "" if cell is None else f"{cell:.3f}" if isinstance(cell, float) else str(cell)
    return text if len(text) <= CELL else f"{text[: CELL - 3]}..."


class Spool:
    """A spool. path: its folder."""

    def __init__(self, files: SpoolFiles) -> None:
        self._files = files
        self.path = files.path

    def runs(self) -> Table[SpoolRun]:
        """All runs, oldest first; packed ones too."""
        names = runs_.run_names(self._files)
        found = (SpoolRun(runs_.readable(self._files, name, lazily=True)) for name in names)
        return Table(found, ("run", "state", *TICKETS), lambda run: (run.name, run.state, *run.counts().values()))

    def run(self, name: str | None = None) -> SpoolRun:
        """A run by its name or a part of it; the newest without one. Raises UnknownNameError."""
        return SpoolRun(runs_.find_run(self._files, name, lazily=True))

    def job(self, name: str) -> Job:
        """A job by any tail of RUN/FANOUT/JOB that fits only one. Raises UnknownNameError."""
        return Job(find_job(self._files, name))

    def _repr_html_(self) -> str:
        return self.runs()._repr_html_()

    def __repr__(self) -> str:
        return f"<Spool {self.path}>"


class SpoolRun:
    """A run. name, path: of its folder; of one that is packed, of what is restored of it until this process ends."""

    def __init__(self, files: RunFiles) -> None:
        self._files = files
        self.name, self.path = files.name, files.path

    @property
    def record(self) -> Mapping[str, Any]:
        """What run.json says."""
        return read_quietly(self._files.run)

    @property
    def state(self) -> str:
        """`running`, `done`, `failed`, `cancelled`, `interrupted` or `stopped`."""
        return run_state(self._files)

    def counts(self) -> dict[str, int]:
        """How many jobs are to do (or running), done, failed and cancelled; not those inside branches."""
        every = [tickets.counts(fanout) for fanout in runs_.fanouts(self._files.fanouts)]
        return {kind: sum(counts[kind] for counts in every) for kind in TICKETS}

    def jobs(self, state: str | Iterable[str] | None = None, branch: str | None = None) -> Table[Job]:
        """The jobs in these states (all by default) and of this branch, those inside branches last.

        Raises ValueError for a state that is none of `todo`, `running`, `done`, `failed`, `cancelled`.
        """
        wanted = {state} if isinstance(state, str) else set(STATES if state is None else state)
        if unknown := sorted(wanted - set(STATES)):
            raise ValueError(f"no state {unknown[0]!r}; there are {', '.join(STATES)}")
        found = (job for job in self._jobs(wanted) if branch is None or job.branch == branch)
        return Table(found, ("job", "state", "seconds", "host", "error"), _row)

    def _jobs(self, wanted: set[str]) -> Iterator[Job]:
        observer = Observer(spool_of(self.path))
        pending = runs_.fanouts(self._files.fanouts)
        while pending:
            fanout = pending.pop(0)
            listed = sorted((name, kind) for kind in TICKETS for name in tickets.names(fanout, kind))
            for name, kind in listed:
                if kind in wanted or (kind == "todo" and "running" in wanted):
                    state = job_line(fanout, name, kind, observer).state if kind == "todo" else kind
                    if state in wanted:
                        yield Job(fanout.job(name))
            pending += fanouts_inside(fanout, [name for name, _ in listed])

    def _repr_html_(self) -> str:
        counts = ", ".join(f"{number:,} {kind}" for kind, number in self.counts().items() if number)
        head = f"{self.name}: {self.state}{f' ({counts})' if counts else ''}"
        return f"<p>{html.escape(head)}</p>{self.jobs()._repr_html_()}"

    def __repr__(self) -> str:
        return f"<SpoolRun {self.name}: {self.state}>"


class Job:
    """A job. name: FANOUT/JOB. path: of its directory."""

    def __init__(self, files: JobFiles) -> None:
        fetch(files)
        self._files = files
        self.name, self.path = in_run(files.path), files.path

    @property
    def run(self) -> SpoolRun:
        """The run it belongs to."""
        return SpoolRun(run_of(self.path))

    @property
    def record(self) -> Mapping[str, Any]:
        """What job.json says. Raises SpoolError when it cannot be trusted."""
        return read_job(self._files).data

    @property
    def branch(self) -> str:
        """The node in which its branch begins."""
        return str(read_quietly(self._files.job).get("branch", ""))

    @property
    def state(self) -> str:
        """`todo`, `running`, `done`, `failed` or `cancelled`."""
        fanout = fanout_of(self._files)
        kind = tickets.kind_of(fanout, self._files.name) or "todo"
        return job_line(fanout, self._files.name, kind, self._observer()).state

    @property
    def input(self) -> dict[str, Any]:
        """The state its next attempt begins with, what it shares with its siblings included. Raises SpoolError."""
        state = Inputs().state(self._files, read_job(self._files), sys.maxsize)
        return {key: state[key] for key in state}

    @property
    def result(self) -> Mapping[str, Any] | None:
        """Its accepted result as the record shows it; None while it has none."""
        return read_quietly(self._files.accepted) or None

    @property
    def error(self) -> str | None:
        """Why it failed, as `KIND: TEXT`; None when it did not, or has not ended."""
        result = self.result or {}
        if result.get("success") or not result.get("error"):
            return None
        kind = result.get("error_type")
        return f"{kind}: {result['error']}" if kind else str(result["error"])

    @property
    def attempts(self) -> Table[AttemptView]:
        """Its attempts, oldest first: number, claimant, claimed, result, alive, host, state."""
        found = attempts(self._files, self._observer())
        head = ("attempt", "state", "seconds", "host", "error")
        return Table(
            found, head, lambda a: (a.number, a.state, a.result.get("seconds"), a.host, a.result.get("error"))
        )

    def stdout(self, attempt: int | None = None) -> str:
        """What an attempt (the newest by default) has printed, also while it runs. Raises UnknownNameError."""
        return self._printed("stdout", attempt)

    def stderr(self, attempt: int | None = None) -> str:
        """What an attempt (the newest by default) has written to its standard error. Raises UnknownNameError."""
        return self._printed("stderr", attempt)

    def explain(self) -> str:
        """Why it is where it is, in sentences."""
        return "\n".join(explain(facts_of(self._files)).sentences)

    def replay(
        self,
        *,
        set: Mapping[str, Any] | None = None,
        input: Mapping[str, Any] | None = None,
        workflow: str | os.PathLike[str] | None = None,
        folder: str | os.PathLike[str] | None = None,
        strategy: str | None = None,
    ) -> Replayed:
        """Run it again, apart from its record; see `tea.replay.replay`.

        Args:
            set, input: values that take the place of those in its input; those of `set` win.
            workflow: a file to run instead of its own. folder: where the result goes.
            strategy: `process`, `remote`, ...; None runs it in this process.
        """
        changes = Changes({**(input or {}), **(set or {})}, None if workflow is None else os.fspath(workflow))
        return replay(self._files, changes, None if folder is None else os.fspath(folder), strategy)

    def _printed(self, stream: str, attempt: int | None) -> str:
        number = chosen_attempt(self._files, attempt)
        pieces = Output(self._files, number, (stream,)).more() if number else ()
        return b"".join(piece.data for piece in pieces).decode("utf-8", "replace")

    def _observer(self) -> Observer:
        return Observer(spool_of(self.path))

    def _repr_html_(self) -> str:
        return table(("job", "state", "seconds", "host", "error"), [_row(self)]) + self.attempts._repr_html_()

    def __repr__(self) -> str:
        return f"<Job {self.name}: {self.state}>"


def _row(job: Job) -> tuple[Any, ...]:
    result = job.result or {}
    return job.name, job.state, result.get("seconds"), result.get("host"), job.error
