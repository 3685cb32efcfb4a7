"""`tea worker`: run jobs of a spool."""

from __future__ import annotations

import click

from tea.cli.errors import say, warn
from tea.cli.options import spool_option, spool_path

HELP = """Claim jobs of SPOOL and run them, beside the workers that are there already, from any machine that mounts
it.

\b
  tea worker                                       until nothing is left
  tea worker /mnt/shared/spool --slots 8 --follow  and wait for more

When it is stopped, other workers take up its jobs. A worker whose standard input is a pipe ends with it, so that
none outlives the process that started it.
"""


@click.command(help=HELP, short_help="Run jobs of a spool, beside those that run already.")
@click.argument("folder", metavar="[SPOOL]", required=False)
@spool_option
@click.option("--slots", metavar="N", type=click.IntRange(min=1), default=1, show_default=True, help="Jobs at once.")
@click.option(
    "--until-empty/--follow",
    default=True,
    help="End when nothing is left to do (the default), or wait for more.",
)
def worker(folder: str | None, spool: str | None, slots: int, until_empty: bool) -> int:
    from tea.worker import work

    ran = work(spool_path(folder or spool), slots=slots, until_empty=until_empty, warn=warn)
    say(f"ran {ran} {'job' if ran == 1 else 'jobs'}")
    return 0
