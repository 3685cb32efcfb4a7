"""`tea spool cancel`: end a run, or some of its jobs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click

from spool.cancel import Cancelled, ask, cancel_jobs, cancel_run
from spool.errors import RunBusyError
from spool.facts import run_state
from spool.find import fanout_of, in_run, spool_of
from spool.inspect import is_driven
from spool.layout import JobFiles, RunFiles
from spool.publish import read_quietly
from spool.run import all_fanouts, coordinator
from spool.tickets import kind_of, names
from tea.cli.complete import open_names
from tea.cli.errors import EXIT_FAILED, say
from tea.cli.options import json_option, spool_hint, spool_option, spool_path
from tools.chosen import Chosen, chosen

SHOWN = 20
"""Jobs that a dry run names."""

HELP = """End a RUN, or the JOBs that are named: what waits does not begin, what runs is ended, what has finished is
kept. A run that a living process drives is asked to end, and this waits until it has; of one that nobody drives, all
jobs that have not finished get cancelled results.

\b
  tea spool cancel 7f3a
  tea spool cancel 001-split/0007-scale
  tea spool cancel 7f3a --dry-run
  tea spool list --state todo --quiet | xargs tea spool cancel

Cancelled jobs run again with `tea resume --retry-failed`, or after `tea spool retry`. Exits with 1 when something
could not be cancelled, or the run has not ended yet.
"""


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it for one run. asked: whether its coordinator had to be asked; state: of the run afterwards.

    dry: whether nothing was done, and this is what would be.
    """

    whole: bool
    asked: bool
    state: str
    cancelled: Cancelled
    dry: bool = False


@click.command("cancel", help=HELP, short_help="End a run, or some of its jobs.")
@click.argument("targets", metavar="RUN|JOB...", nargs=-1, required=True, shell_complete=open_names)
@click.option(
    "--wait",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="How long to wait for a run that was asked to end.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be cancelled.")
@spool_option
@json_option
def command(targets: tuple[str, ...], wait: float, dry_run: bool, spool: str | None, as_json: bool) -> int:
    found = chosen(spool_path(spool), targets, newest=False)
    done = [_foreseen(one) if dry_run else _cancel(one, wait) for one in found]
    if as_json:
        click.echo(json.dumps([data(one) for one in done], indent=2))
    else:
        click.echo("\n".join(line for one in done for line in lines(one)))
    for one in done:
        for job, why in one.cancelled.refused:
            say(f"{in_run(job.path)} stays as it is: {why}")
    return EXIT_FAILED if any(_is_open(one) for one in done) else 0


def _is_open(one: Done) -> bool:
    return bool(one.cancelled.refused) or (one.whole and one.state == "running" and not one.dry)


def _cancel(one: Chosen, wait: float) -> Done:
    if not one.whole:
        return Done(False, False, run_state(one.run), _cancel_jobs(one.run, one.jobs))
    if is_driven(one.run) is not False:
        return _ask(one.run, wait)
    try:
        cancelled = cancel_run(one.run)
    except RunBusyError:  # somebody took it up just now
        return _ask(one.run, wait)
    return Done(True, False, run_state(one.run), cancelled)


def _foreseen(one: Chosen) -> Done:
    """What would come of it, as things are now."""
    driven = is_driven(one.run) is not False
    would = Cancelled(one.run)
    jobs = one.jobs
    if one.whole:
        jobs = [fanout.job(name) for fanout in all_fanouts(one.run) for name in sorted(names(fanout, "todo"))]
    for job in jobs:
        if (kind := kind_of(fanout_of(job), job.name)) not in (None, "todo"):
            would.refused.append((job, f"it has ended already ({kind})"))
        elif driven and not one.whole and _in_threads(job):
            would.refused.append((job, _of_threads(one.run)))
        else:
            would.jobs.append(job)
    return Done(one.whole, driven and one.whole, run_state(one.run), would, dry=True)


def _ask(run: RunFiles, wait: float) -> Done:
    """Ask the run's coordinator, and wait until it has gone."""
    ask(run)
    deadline = time.monotonic() + wait
    while (state := run_state(run)) in ("running", "unknown") and time.monotonic() < deadline:
        time.sleep(0.2)
    return Done(True, True, state, Cancelled(run))


def _cancel_jobs(run: RunFiles, jobs: list[JobFiles]) -> Cancelled:
    """Cancel jobs; threads of a living coordinator take no orders for single ones."""
    driven = is_driven(run) is not False
    threads = [job for job in jobs if driven and _in_threads(job)]
    done = cancel_jobs(run, [job for job in jobs if job not in threads])
    done.refused += [(job, _of_threads(run)) for job in threads]
    return done


def _of_threads(run: RunFiles) -> str:
    return f"it belongs to threads of {coordinator(run)}; only the whole run can be cancelled: {run.name}"


def _in_threads(job: JobFiles) -> bool:
    return read_quietly(fanout_of(job).fanout).get("strategy") == "thread"


def lines(one: Done) -> Iterator[str]:
    """What came of it, and what to type next."""
    name, jobs = one.cancelled.run.name, one.cancelled.jobs
    if one.dry:
        yield from _would(one)
        return
    if one.asked and one.state == "running":
        yield f"{name}: {coordinator(one.cancelled.run)} was asked to cancel it, and has not ended yet;"
        yield "  it ends after the node that runs now"
        return
    if one.asked:
        yield f"{name}: {one.state}"
    elif jobs:
        yield f"{name}: {len(jobs)} {'job' if len(jobs) == 1 else 'jobs'} cancelled"
    else:
        yield f"{name}: nothing was cancelled{f'; it is {one.state}' if one.whole else ''}"
    for job, who in one.cancelled.going_on:
        yield f"  {in_run(job.path)}: what {who} brings of it does not count any more"
    if jobs or one.state == "cancelled":
        yield f"to run again:  tea resume {name} --retry-failed{spool_hint(spool_of(one.cancelled.run.path).path)}"


def _would(one: Done) -> Iterator[str]:
    jobs = one.cancelled.jobs
    number = f"{len(jobs):,} {'job' if len(jobs) == 1 else 'jobs'}"
    if one.asked:
        yield f"{one.cancelled.run.name}: {coordinator(one.cancelled.run)} would be asked to cancel it; now {number}"
        yield "  of it wait or run, and more may follow"
    else:
        yield f"{one.cancelled.run.name}: {number if jobs else 'nothing'} would be cancelled"
    yield from (f"  {in_run(job.path)}" for job in jobs[:SHOWN])
    if len(jobs) > SHOWN:
        yield f"  and {len(jobs) - SHOWN:,} more; --json names them all"


def data(one: Done) -> dict[str, Any]:
    """What came of it, for programs."""
    return {
        "run": one.cancelled.run.name,
        "whole": one.whole,
        "asked": one.asked,
        "dry_run": one.dry,
        "state": one.state,
        "jobs": [in_run(job.path) for job in one.cancelled.jobs],
        "going_on": [{"job": in_run(job.path), "claimant": who} for job, who in one.cancelled.going_on],
        "refused": [{"job": in_run(job.path), "why": why} for job, why in one.cancelled.refused],
    }
