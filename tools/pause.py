"""`tea spool pause`: a run's workers end what they run and take nothing new, until `tea spool unpause`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import click

from spool import inspect
from spool.errors import SpoolError
from spool.find import run_at, spool_of
from spool.layout import RunFiles
from spool.opened import must_not_be_packed
from spool.pause import pause, paused, unpause
from spool.publish import read_quietly
from spool.run import find_run, find_spool
from tea.cli.complete import run_names
from tea.cli.options import json_option, spool_hint, spool_option, spool_path

HELP = """Hold RUN (the newest by default): what runs goes on to its end, nothing new begins, on no machine. It stays
so, also when its coordinator is killed, until `tea spool unpause` or `tea resume`.

\b
  tea spool pause
  tea spool pause 7f3a
  tea spool unpause 7f3a

Only jobs of fan-outs are held, those inside a branch that runs are not: they are part of it. Time limits of jobs that
run go on.
"""


@dataclass(frozen=True, slots=True)
class Held:
    """A run after it was paused or let go on. changed: False when it was so already. by, at: as of `paused`."""

    run: RunFiles
    changed: bool
    by: str | None
    at: float | None
    state: str
    running: int
    todo: int


@click.command("pause", help=HELP, short_help="Start no further jobs of a run; what runs ends.")
@click.argument("names", metavar="[RUN]...", nargs=-1, shell_complete=run_names)
@spool_option
@json_option
def command(names: tuple[str, ...], spool: str | None, as_json: bool) -> int:
    done = [hold(run) for run in _open(chosen(names, spool), "pause")]
    if as_json:
        click.echo(json.dumps([data(one) for one in done], indent=2))
    else:
        click.echo("\n".join(line for one in done for line in lines(one)))
    return 0


def chosen(names: Sequence[str], spool: str | None) -> list[RunFiles]:
    """The runs that are named; the newest when none is. Raises UnknownNameError, PackedRunError."""
    found = []
    for text in names or (None,):
        folder, name = run_at(spool_path(spool), text)
        run = find_run(find_spool(folder), name, lazily=True)
        must_not_be_packed(run)
        found.append(run)
    return list(dict.fromkeys(found))


def _open(runs: list[RunFiles], what: str) -> list[RunFiles]:
    """The runs, none of which has ended. Raises SpoolError for one that has."""
    for run in runs:
        outcome = read_quietly(run.run).get("outcome")
        if outcome in ("done", "cancelled") and not inspect.is_driven(run):
            raise SpoolError(f"run {run.name} has ended ({outcome}): there is nothing to {what}")
    return runs


def hold(run: RunFiles) -> Held:
    """Pause a run, and look at what it still does."""
    changed = pause(run)
    return _held(run, changed, paused(run))


def let_go(run: RunFiles) -> Held:
    """Look at what waits in a run, and let it go on."""
    held = _held(run, False, paused(run))
    return replace(held, changed=unpause(run))


def _held(run: RunFiles, changed: bool, note: Mapping[str, Any]) -> Held:
    view = inspect.look_at_run(spool_of(run.path), run, 0)
    todo = sum(group.todo for group in view.fanouts)
    return Held(run, changed, note.get("by"), note.get("at"), view.state, len(view.running), todo)


def lines(one: Held) -> Iterator[str]:
    """What came of it, and what to type next."""
    if not one.changed:
        yield f"{one.run.name}: was paused already, by {one.by}"
    else:
        yield f"{one.run.name}: paused"
    what = f"{one.running} {'job runs' if one.running == 1 else 'jobs run'} to the end, {one.todo:,} wait"
    yield f"  {what}" if one.state == "running" else f"  it is {one.state}; workers of the spool take no job of it"
    yield f"to let it go on:  tea spool unpause {one.run.name}{spool_hint(spool_of(one.run.path).path)}"


def data(one: Held) -> dict[str, Any]:
    """What came of it, for programs."""
    return {
        "run": one.run.name,
        "changed": one.changed,
        "by": one.by,
        "at": one.at,
        "state": one.state,
        "running": one.running,
        "todo": one.todo,
    }
