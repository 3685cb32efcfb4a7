"""`tea spool unpause`: let a run go on that was paused."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click

from spool.find import spool_of
from tea.cli.complete import run_names
from tea.cli.options import json_option, spool_hint, spool_option
from tools.pause import Held, chosen, data, let_go

HELP = """Let RUN (the newest by default) go on that was paused: its workers take jobs again, within a second.

\b
  tea spool unpause
  tea spool unpause 7f3a

A run that nobody drives any more goes on with `tea resume`, which does this, too.
"""


@click.command("unpause", help=HELP, short_help="Let a run go on that was paused.")
@click.argument("names", metavar="[RUN]...", nargs=-1, shell_complete=run_names)
@spool_option
@json_option
def command(names: tuple[str, ...], spool: str | None, as_json: bool) -> int:
    done = [let_go(run) for run in chosen(names, spool)]
    if as_json:
        click.echo(json.dumps([data(one) for one in done], indent=2))
    else:
        click.echo("\n".join(line for one in done for line in lines(one)))
    return 0


def lines(one: Held) -> Iterator[str]:
    """What came of it, and what to type next."""
    if not one.changed:
        yield f"{one.run.name}: was not paused"
    else:
        yield f"{one.run.name}: goes on, {one.todo:,} {'job waits' if one.todo == 1 else 'jobs wait'}"
    if one.state == "stopped":
        hint = spool_hint(spool_of(one.run.path).path)
        yield f"nobody drives it; to go on:  tea resume {one.run.name}{hint}"
