"""`tea spool list`: the jobs of a run, by state."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any

import click

from spool import tickets
from spool.find import run_at
from spool.inspect import fanouts_inside
from spool.jobview import JobLine, job_line
from spool.layout import TICKETS, FanOutFiles, RunFiles
from spool.opened import home
from spool.run import fanouts, find_run, find_spool
from spool.worker import Observer
from tea.cli.complete import run_names
from tea.cli.options import json_option, spool_option, spool_path
from tea.progress import duration
from tools.spans import seconds
from tools.text import clip

STATES = ("todo", "running", "done", "failed", "cancelled")

HELP = """The jobs of RUN (the newest by default), one a line, those of fan-outs inside branches after those around
them.

\b
  tea spool list
  tea spool list --state failed
  tea spool list 7f3a --state todo --state running --json
  tea spool list --state failed --quiet | head -1
  tea spool list --error 'no space' --host 'node*' --csv > jobs.csv
  tea spool list --slower-than 10s --sort seconds --limit 5

What is given holds together: a job is listed that fits all of it. A job that failed and will be tried again is
`todo`.
"""


SORTS: dict[str, Callable[[JobLine], Any]] = {
    "job": lambda line: line.name,
    "seconds": lambda line: -(line.seconds or 0.0),
    "attempt": lambda line: -line.attempt,
    "host": lambda line: (line.host, line.name),
    "state": lambda line: (STATES.index(line.state), line.name),
    "error": lambda line: (line.error is None, line.error or "", line.name),
}
"""What jobs may be sorted by: numbers from the largest, everything else from a to z."""

COLUMNS = ("job", "state", "outcome", "attempt", "seconds", "host", "error", "path")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to list: jobs that fit everything that is given.

    names: only names are wanted, so nothing needs to be opened. branch, host: patterns as of the shell.
    error: a part of the error, in any case. slower_than: seconds.
    """

    states: frozenset[str]
    names: bool = False
    branch: str | None = None
    host: str | None = None
    error: str | None = None
    slower_than: float | None = None

    def fits_name(self, name: str) -> bool:
        """Whether a job of this name may be wanted."""
        return self.branch is None or fnmatchcase(name.partition("-")[2], self.branch)

    def fits(self, line: JobLine) -> bool:
        """Whether a job is wanted, as far as its name does not tell."""
        return (
            line.state in self.states
            and (self.host is None or fnmatchcase(line.host, self.host))
            and (self.error is None or self.error.lower() in (line.error or "").lower())
            and (self.slower_than is None or (line.seconds or 0.0) > self.slower_than)
        )

    @property
    def by_name_alone(self) -> bool:
        return self.names and self.host is None and self.error is None and self.slower_than is None


@click.command("list", help=HELP, short_help="The jobs of a run, by state.")
@click.argument("run", metavar="[RUN]", required=False, shell_complete=run_names)
@click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="Only jobs in this state.")
@click.option("--branch", metavar="NAME", help="Only jobs of this branch; * and ? stand for others.")
@click.option("--host", metavar="NAME", help="Only jobs that ran on this host; * and ? as well.")
@click.option("--error", metavar="TEXT", help="Only jobs with this in their error, in any case.")
@click.option("--slower-than", metavar="TIME", callback=seconds, help="Only jobs that took longer: 10s, 5m, 2h.")
@click.option("--sort", type=click.Choice(list(SORTS)), help="Sort; by seconds and attempt from the largest.")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="Only the first N.")
@click.option("--quiet", "-q", is_flag=True, help="Only names, as other commands take them.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, for spreadsheets.")
@spool_option
@json_option
def command(
    run: str | None,
    states: tuple[str, ...],
    sort: str | None,
    limit: int | None,
    quiet: bool,
    as_csv: bool,
    spool: str | None,
    as_json: bool,
    **filters: Any,
) -> int:
    if as_csv and as_json:
        raise click.UsageError("--csv and --json contradict each other")
    folder, name = run_at(spool_path(spool), run)
    files = find_spool(folder)
    names = quiet and not as_json and not as_csv and sort in (None, "job")
    found = find_run(files, name, lazily=True)
    lines = jobs(found, Wanted(frozenset(states or STATES), names, **filters), Observer(files))
    chosen = islice(sorted(lines, key=SORTS[sort]) if sort else lines, limit)
    if as_json:
        _print_json(chosen)
    elif as_csv:
        _print_csv(chosen)
    else:
        for line in chosen:
            print(line.name if quiet else text(line))
    return 0


def jobs(run: RunFiles, wanted: Wanted, observer: Observer) -> Iterator[JobLine]:
    """The jobs of a run in the states that are wanted, in branch order, each looked at when it is asked for."""
    pending = fanouts(run.fanouts)
    while pending:
        fanout = pending.pop(0)
        listed = sorted((name, kind) for kind in TICKETS for name in tickets.names(fanout, kind))
        for name, kind in listed:
            line = _line(fanout, name, kind, wanted, observer)
            if line is not None:
                yield line
        pending += fanouts_inside(fanout, [name for name, _ in listed])


def _line(fanout: FanOutFiles, name: str, kind: str, wanted: Wanted, observer: Observer) -> JobLine | None:
    if not wanted.fits_name(name) or (kind != "todo" and kind not in wanted.states):
        return None
    if kind == "todo" and wanted.states.isdisjoint(("todo", "running")):
        return None
    if wanted.by_name_alone and (kind != "todo" or wanted.states >= {"todo", "running"}):
        return JobLine(fanout.job(name), kind)
    line = job_line(fanout, name, kind, observer)
    return line if wanted.fits(line) else None


def text(line: JobLine) -> str:
    """A job in one line."""
    state, outcome = line.state, line.outcome
    if outcome is not None and outcome not in ("succeeded", "failed"):
        state = outcome.replace("_", " ")
    told = f"{state:<9}  {line.name:<30}  {'' if line.seconds is None else duration(line.seconds):>9}"
    if line.host:
        told += f"  {line.host}"
    if line.attempt > 1:
        told += f"  attempt {line.attempt}"
    return f"{told}  {clip(line.error, 160)}" if line.error else told.rstrip()


def _print_json(lines: Iterable[JobLine]) -> None:
    """A JSON list, written as it is read."""
    print("[", end="")
    for number, line in enumerate(lines):
        print("," if number else "", "\n  ", json.dumps(data(line)), sep="", end="")
    print("\n]")


def _print_csv(lines: Iterable[JobLine]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in lines:
        found = data(line)
        writer.writerow(["" if found[column] is None else found[column] for column in COLUMNS])


def data(line: JobLine) -> dict[str, Any]:
    """A job as JSON."""
    return {
        "job": line.name,
        "path": home(line.job.path),
        "state": line.state,
        "outcome": line.outcome,
        "attempt": line.attempt,
        "seconds": line.seconds,
        "host": line.host or None,
        "error": line.error,
    }
