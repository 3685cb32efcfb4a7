"""`tea resume`: go on with a run."""

from __future__ import annotations

import sys
from typing import Any

import click

from tea.cli.complete import run_names
from tea.cli.errors import warn
from tea.cli.options import outcome_options, progress_option, spool_option, spool_path

HELP = """Go on with RUN (the newest one by default) from its last fan-out: results that are there are kept, what is
missing runs. A run that is driven by a living process is refused.

\b
  tea resume
  tea resume 20261124-053012-analyze-7f3a
  tea resume 7f3a --retry-failed

With --retry-failed, branches that failed for good run again.
"""


@click.command(help=HELP, short_help="Go on with a run that was stopped, killed or has failed branches.")
@click.argument("run", metavar="[RUN]", required=False, shell_complete=run_names)
@click.option("--retry-failed", is_flag=True, help="Run branches again that failed for good.")
@spool_option
@outcome_options
@progress_option
def resume(
    run: str | None,
    retry_failed: bool,
    spool: str | None,
    strategy: str | None,
    max_workers: int | None,
    strict: bool,
    **wishes: Any,
) -> int:
    from spool.find import run_at
    from tea.asked import RunOptions
    from tea.cli.drive import Wishes, drive
    from tea.resume import resume as go_on

    folder, name = run_at(spool_path(spool), run)
    options = RunOptions(strategy=strategy, max_workers=max_workers, strict=strict, argv=tuple(sys.argv), warn=warn)
    return drive(lambda: go_on(folder, name, options, retry_failed=retry_failed), options, Wishes(**wishes))
