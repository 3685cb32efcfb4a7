"""`tea spool list`: the jobs of a run, by state."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click

from spool import tickets
from spool.find import in_run, run_at
from spool.inspect import JobLine, fanouts_inside, job_line
from spool.layout import TICKETS, FanOutFiles, RunFiles
from spool.run import fanouts, find_run, find_spool
from spool.worker import Observer
from tea.cli.options import json_option, spool_option, spool_path
from tea.progress import duration
from tools.text import clip

STATES = ("todo", "running", "done", "failed", "cancelled")

HELP = """The jobs of RUN (the newest by default), one a line, those of fan-outs inside branches after those around
them.

\b
  tea spool list
  tea spool list --state failed
  tea spool list 7f3a --state todo --state running --json
  tea spool list --state failed --quiet | head -1

A job that failed and will be tried again is `todo`.
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to list. names: only names are wanted, so nothing needs to be opened."""

    states: frozenset[str]
    names: bool


@click.command("list", help=HELP, short_help="The jobs of a run, by state.")
@click.argument("run", metavar="[RUN]", required=False)
@click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="Only jobs in this state.")
@click.option("--quiet", "-q", is_flag=True, help="Only names, as other commands take them.")
@spool_option
@json_option
def command(run: str | None, states: tuple[str, ...], quiet: bool, spool: str | None, as_json: bool) -> int:
    folder, name = run_at(spool_path(spool), run)
    files = find_spool(folder)
    found = find_run(files, name)
    lines = jobs(found, Wanted(frozenset(states or STATES), quiet and not as_json), Observer(files))
    if as_json:
        _print_json(lines)
    else:
        for line in lines:
            print(in_run(line.job.path) if quiet else text(line))
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
    if kind != "todo" and kind not in wanted.states:
        return None
    if kind == "todo" and wanted.states.isdisjoint(("todo", "running")):
        return None
    if wanted.names and (kind != "todo" or wanted.states >= {"todo", "running"}):
        return JobLine(fanout.job(name), kind)
    line = job_line(fanout, name, kind, observer)
    return line if line.state in wanted.states else None


def text(line: JobLine) -> str:
    """A job in one line."""
    seconds = duration(line.seconds) if isinstance(line.seconds, int | float) else ""
    attempt = f"attempt {line.attempt}" if line.attempt > 1 else ""
    state = line.outcome.replace("_", " ") if line.outcome not in (None, "succeeded", "failed") else line.state
    parts = [f"{state:<9}", f"{in_run(line.job.path):<30}", f"{seconds:>9}", line.host, attempt]
    parts.append(clip(line.error, 160) if line.error else "")
    return "  ".join(part for part in parts if part).rstrip()


def _print_json(lines: Iterator[JobLine]) -> None:
    """A JSON list, written as it is read."""
    print("[", end="")
    for number, line in enumerate(lines):
        print("," if number else "", "\n  ", json.dumps(data(line)), sep="", end="")
    print("\n]")


def data(line: JobLine) -> dict[str, Any]:
    """A job as JSON."""
    return {
        "job": in_run(line.job.path),
        "path": line.job.path,
        "state": line.state,
        "outcome": line.outcome,
        "attempt": line.attempt,
        "seconds": line.seconds,
        "host": line.host or None,
        "error": line.error,
    }
