"""`tea run`: run a workflow."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from tea.cli.errors import say, warn
from tea.cli.options import outcome_options, progress_option

if TYPE_CHECKING:
    from spool.layout import RunFiles
    from tea.asked import Ended, RunOptions
    from tea.cli.drive import Wishes
    from tea.dialect import Workflow

HELP = """Run WORKFLOW from its start. The final state goes to stdout as JSON, everything else to stderr.

\b
  tea run workflow.yaml
  tea run workflow.yaml --input '{"files": ["a", "b"]}' --output final.json
  tea run workflow.yaml --input base.json --input '{"limit": 10}'
  tea run workflow.yaml --strategy process --max-workers 8
  tea run workflow.yaml --dry-run
  tea run jobs/0007-scale/workflow.yaml --input jobs/0007-scale/input.json

Every branch of a fan-out leaves a directory in the spool: `tea spool status` shows how far the run is, `tea resume`
goes on with one that was stopped.
"""


@click.command(help=HELP, short_help="Run a workflow; its final state goes to stdout.")
@click.argument("workflow", metavar="WORKFLOW")
@click.option(
    "--input",
    "inputs",
    metavar="JSON|FILE",
    multiple=True,
    help="The state to begin with: a JSON object, or a file with one. Of several, later keys win.",
)
@click.option("--entry-point", metavar="NODE", help="Begin at this node.")
@click.option("--exit-point", metavar="NODE", help="End where this node would begin.")
@click.option("--spool", metavar="DIR", help="The spool; else $TEA_SPOOL, else what WORKFLOW says, else .tea/spool.")
@click.option("--no-spool", is_flag=True, help="Keep no record (`thread` only).")
@click.option("--resume", "resume_run", metavar="RUN", help="Go on with this run of WORKFLOW, as `tea resume` does.")
@click.option("--dry-run", is_flag=True, help="Check everything, print what would be done, and do nothing.")
@outcome_options
@progress_option
def run(workflow: str, output: str | None, fail_on_branch_errors: bool, progress: str, **given: Any) -> int:
    _refuse_contradictions(given)
    _warm_up(workflow, given)
    from tea.cli.drive import Wishes, drive

    wishes = Wishes(progress, output, fail_on_branch_errors)
    if given["resume_run"] is not None:
        return _resume(workflow, wishes, given)
    if given["dry_run"]:
        return _dry_run(workflow, given)
    options = _options(given)
    return drive(lambda: _start(workflow, given["inputs"], options), options, wishes)


def _start(workflow: str, inputs: Sequence[str], options: RunOptions) -> Ended:
    from tea.dialect import load_file
    from tea.given import load_input
    from tea.session import run as start

    return start(load_file(workflow), load_input(inputs), options)


def _warm_up(workflow: str, given: dict[str, Any]) -> None:
    """Let the server of worker processes import what it needs while we do: both need nearly the same."""
    if not given["dry_run"] and given["resume_run"] is None and _names_processes(workflow, given["strategy"]):
        from executors.server import warm_up

        warm_up("tea.job")


def _names_processes(workflow: str, strategy: str | None) -> bool:
    """A guess at whether worker processes will be needed, as good as can be had before the workflow is understood."""
    if strategy is not None:
        return strategy == "process"
    with contextlib.suppress(OSError), open(workflow, "rb") as file:
        return re.search(rb"strategy['\"]?\s*:\s*['\"]?process\b", file.read()) is not None
    return False


def _dry_run(workflow: str, given: dict[str, Any]) -> int:
    from tea.cli.plan import tell_plan
    from tea.dialect import load_file
    from tea.given import load_input

    tell_plan(load_file(workflow), load_input(given["inputs"]), _options(given))
    return 0


def _refuse_contradictions(given: dict[str, Any]) -> None:
    if given["no_spool"] and given["spool"]:
        raise click.UsageError("--no-spool and --spool contradict each other")
    if given["no_spool"] and given["strategy"] not in (None, "thread"):
        raise click.UsageError(f"--no-spool works with the strategy 'thread' only, not with '{given['strategy']}'")
    if given["resume_run"] is not None:
        wrong = [name for name in ("inputs", "entry_point", "exit_point", "no_spool", "dry_run") if given[name]]
        if wrong:
            names = {"inputs": "--input"}
            option = names.get(wrong[0], "--" + wrong[0].replace("_", "-"))
            raise click.UsageError(f"{option} says how a run begins; it can't be given with --resume")


def _options(given: dict[str, Any]) -> RunOptions:
    from tea.asked import RunOptions

    return RunOptions(
        spool=given["spool"],
        record=not given["no_spool"],
        strategy=given["strategy"],
        max_workers=given["max_workers"],
        entry=given["entry_point"],
        exit=given["exit_point"],
        strict=given["strict"],
        argv=tuple(sys.argv),
        warn=warn,
    )


def _resume(workflow: str, wishes: Wishes, given: dict[str, Any]) -> int:
    """`tea run WORKFLOW --resume RUN`: the run goes on with the workflow that it began with."""
    from spool.run import find_run, find_spool
    from tea.cli.drive import drive
    from tea.dialect import load_file
    from tea.record import spool_path
    from tea.resume import resume as go_on

    loaded = load_file(workflow)
    spool = find_spool(spool_path(given["spool"], loaded.spool.dir))
    files = find_run(spool, given["resume_run"], lazily=True)
    _compare(loaded, files)
    options = _options(given)
    return drive(lambda: go_on(spool.path, files.name, options), options, wishes)


def _compare(loaded: Workflow, run: RunFiles) -> None:
    from spool.publish import read_bytes, read_json

    record = read_json(run.run)
    begun_with = record.get("workflow")
    if begun_with and loaded.path and os.path.realpath(str(begun_with)) != os.path.realpath(loaded.path):
        raise click.UsageError(f"run {run.name} is a run of {begun_with}, not of {loaded.path}")
    if read_bytes(run.workflow) != loaded.text.encode():
        say(f"warning: {loaded.path} has changed; the run goes on with what it began with, {run.workflow}")
