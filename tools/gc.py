"""`tea spool gc`: remove old runs and what dead workers left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from spool.gc import (
    OUTCOMES,
    OldRun,
    Size,
    Wishes,
    bury,
    clear_up,
    dead_workers,
    old_runs,
    remove_run,
)
from spool.inspect import WorkerView
from spool.layout import SpoolFiles
from spool.run import find_spool
from spool.worker import Observer
from tea.cli.options import json_option, spool_option, spool_path
from tools.spans import seconds
from tools.text import ago, columns, size

HELP = """Remove runs that ended some time ago, packed or not, with their replays, and the folders of workers that
were killed. Without --yes nothing is removed: it says what would be.

\b
  tea spool gc
  tea spool gc --older-than 30d --yes
  tea spool gc --keep 10 --outcome done --yes
  tea spool gc --older-than 0s --outcome failed --json

A run that is driven, whose lock is held, that is paused, or in which a worker is at a job stays.
"""


@click.command("gc", help=HELP, short_help="Remove old runs and what dead workers left.")
@click.option("--older-than", metavar="AGE", callback=seconds, help="Ended so long ago: 12h, 7d (the default), 2w.")
@click.option(
    "--keep", metavar="N", type=click.IntRange(min=0), help="Keep the N newest runs; of any age the others go."
)
@click.option("--outcome", "outcomes", type=click.Choice(OUTCOMES), multiple=True, help="Only runs that ended so.")
@click.option("--dry-run/--yes", "dry", default=True, help="Only say what would be removed (the default), or do it.")
@spool_option
@json_option
def command(
    older_than: float | None, keep: int | None, outcomes: tuple[str, ...], dry: bool, spool: str | None, as_json: bool
) -> int:
    files = find_spool(spool_path(spool))
    age = older_than if older_than is not None else Wishes().older_than if keep is None else 0.0
    found = list(old_runs(files, Wishes(age, keep or 0, outcomes or OUTCOMES)))
    dead = dead_workers(files)
    if not dry:
        _remove(files, found, dead)
    if as_json:
        click.echo(json.dumps(data(found, dead, dry), indent=2))
    else:
        click.echo("\n".join(lines(found, dead, dry)))
    return 0


def _remove(files: SpoolFiles, found: list[OldRun], dead: list[tuple[WorkerView, Size]]) -> None:
    observer = Observer(files)
    for worker, _ in dead:  # first: what their jobs had printed may belong to runs that stay
        bury(files, worker, observer)
    for one in found:
        if one.kept is None:
            remove_run(files, one)
    clear_up(files)


def _total(found: list[OldRun], dead: list[tuple[WorkerView, Size]]) -> Size:
    return sum([one.size for one in found if one.kept is None] + [held for _, held in dead], Size())


def lines(found: list[OldRun], dead: list[tuple[WorkerView, Size]], dry: bool) -> Iterator[str]:
    """What was removed, or would be."""
    going = [one for one in found if one.kept is None]
    rows = [
        [one.files.name, _state(one), ago(one.ended), f"{one.size.files:,} files", size(one.size.bytes)]
        for one in going
    ]
    yield from columns(rows, "lllrr")
    yield from (f"{one.files.name}  stays: {one.kept}" for one in found if one.kept is not None)
    yield from (f"dead worker {worker.name}" for worker, _ in dead)
    total = _total(found, dead)
    runs, workers = _count(len(going), "run"), _count(len(dead), "dead worker")
    told = f"{runs} and {workers}: {total.files:,} files, {size(total.bytes)}"
    if not going and not dead:
        yield "nothing to remove"
    elif dry:
        yield f"would remove {told}; --yes does it"
    else:
        yield f"removed {told}"


def _state(one: OldRun) -> str:
    return f"{one.state}, packed" if one.packed else one.state


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def data(found: list[OldRun], dead: list[tuple[WorkerView, Size]], dry: bool) -> dict[str, Any]:
    """What was removed, or would be, for programs."""
    total = _total(found, dead)
    return {
        "dry_run": dry,
        "runs": [
            {
                "run": one.files.name,
                "state": one.state,
                "packed": one.packed,
                "ended": one.ended,
                "files": one.size.files,
                "bytes": one.size.bytes,
            }
            for one in found
            if one.kept is None
        ],
        "kept": [{"run": one.files.name, "why": one.kept} for one in found if one.kept is not None],
        "workers": [worker.name for worker, _ in dead],
        "files": total.files,
        "bytes": total.bytes,
    }
