"""`tea spool retry`: send failed jobs back, so that `tea resume` runs them again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import click

from spool.find import in_run, spool_of
from spool.retry import OUTCOMES, SentBack, retry_jobs, retry_run
from tea.cli.complete import failed_names
from tea.cli.errors import EXIT_FAILED, say
from tea.cli.options import json_option, spool_hint, spool_option, spool_path
from tea.given import load_input
from tools.chosen import Chosen, chosen

SHOWN = 20
"""Jobs that are named."""

HELP = """Send jobs back that failed, timed out, were lost or cancelled: all of a RUN (of the newest by default), or
the JOBs that are named. Nothing runs yet: `tea resume` runs them and goes on through the fan-in.

\b
  tea spool retry
  tea spool retry 7f3a --state timed_out --state lost
  tea spool retry 001-split/0007-scale 001-split/0009-scale
  tea spool retry 7 --with-input '{"limit": 10}'
  tea spool list --state failed --quiet | head -1 | xargs tea spool retry

What a job had is kept: its results, its output, and who sent it back. A run that a living process drives is refused.
A job inside a branch takes the branch along, also when that succeeded. Exits with 1 when a job that was named could
not be sent back.
"""


@click.command("retry", help=HELP, short_help="Send failed jobs back; `tea resume` then runs them.")
@click.argument("targets", metavar="[RUN|JOB]...", nargs=-1, shell_complete=failed_names)
@click.option("--state", "states", type=click.Choice(OUTCOMES), multiple=True, help="Only jobs that ended so.")
@click.option(
    "--with-input",
    "inputs",
    metavar="JSON|FILE",
    multiple=True,
    help="Other values in their input, as an object: a JSON object, or a file with one.",
)
@spool_option
@json_option
def command(
    targets: tuple[str, ...], states: tuple[str, ...], inputs: tuple[str, ...], spool: str | None, as_json: bool
) -> int:
    outcomes, given = states or OUTCOMES, load_input(inputs)
    done = [_send_back(one, outcomes, given) for one in chosen(spool_path(spool), targets)]
    if as_json:
        click.echo(json.dumps([data(one) for one in done], indent=2))
    else:
        click.echo("\n".join(line for one in done for line in lines(one)))
    for one in done:
        for job, why in one.refused:
            say(f"{in_run(job.path)} stays as it is: {why}")
    return EXIT_FAILED if any(one.refused for one in done) else 0


def _send_back(one: Chosen, outcomes: Sequence[str], given: dict[str, Any]) -> SentBack:
    return retry_run(one.run, outcomes, given) if one.whole else retry_jobs(one.run, one.jobs, given)


def lines(one: SentBack) -> Iterator[str]:
    """What was sent back, and what to type next."""
    if not one.jobs:
        yield f"{one.run.name}: nothing was sent back"
        return
    yield f"{one.run.name}: {len(one.jobs)} {'job' if len(one.jobs) == 1 else 'jobs'} sent back"
    yield from (f"  {in_run(job.path)}" for job in one.jobs[:SHOWN])
    if len(one.jobs) > SHOWN:
        yield f"  and {len(one.jobs) - SHOWN} more"
    yield from (f"  {in_run(job.path)}, which is around it" for job in one.around)
    yield f"to run them:  tea resume {one.run.name}{spool_hint(spool_of(one.run.path).path)}"


def data(one: SentBack) -> dict[str, Any]:
    """What was sent back, for programs."""
    return {
        "run": one.run.name,
        "jobs": [in_run(job.path) for job in one.jobs],
        "around": [in_run(job.path) for job in one.around],
        "refused": [{"job": in_run(job.path), "why": why} for job, why in one.refused],
    }
