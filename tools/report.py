"""`tea spool report`: one HTML page about a run, that needs nothing else."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import Any

import click

from spool import jsonio
from spool.find import run_at
from spool.publish import unique, write_exclusive
from spool.run import find_run, find_spool
from tea.cli.complete import run_names
from tea.cli.errors import say
from tea.cli.options import json_option, spool_option, spool_path
from tools.reporting.data import Limits, Report, as_json, make
from tools.reporting.page import BEGINNING, page
from tools.reporting.record import read_run
from tools.text import size

OUTPUT = "report.html"

HELP = """Write a page about RUN (the newest by default): summary, timeline, durations, failures, the workflow with
counts, and a table of all jobs with their details. One HTML file without anything from the network; open it in any
browser, mail it, keep it. Reads a live, a finished or a crashed run, and changes nothing.

\b
  tea spool report
  tea spool report 7f3a -o monday.html
  tea spool report --details 0          no inputs, results, output, command line in it
  tea spool report --json | jq .counts

A file that is there is replaced only when it is such a page. The page holds what the record holds: whoever may not
see inputs and output of the jobs should get one made with --details 0, or none.
"""


@click.command("report", help=HELP, short_help="One HTML page about a run: timeline, failures, all jobs.")
@click.argument("run", metavar="[RUN]", required=False, shell_complete=run_names)
@click.option("--output", "-o", metavar="FILE", help=f"Write it there instead of {OUTPUT}; - is stdout.")
@click.option(
    "--details",
    metavar="N",
    type=click.IntRange(min=0),
    default=Limits().details,
    show_default=True,
    help="Jobs whose input, result and output are in it, failures first.",
)
@spool_option
@json_option
def command(run: str | None, output: str | None, details: int, spool: str | None, as_json: bool) -> int:
    if as_json and output is not None:
        raise click.UsageError("--json prints to stdout; --output is for the page")
    target = output or OUTPUT
    if not as_json and target != "-":
        check_target(target)
    folder, name = run_at(spool_path(spool), run)
    files = find_spool(folder)
    report = make(read_run(files, find_run(files, name, lazily=True)), replace(Limits(), details=details))
    if as_json:
        _to_stdout(json_text(report))
    elif target == "-":
        _to_stdout(page(report))
    else:
        _tell(report, target, _write(target, page(report)))
    return 0


def json_text(report: Report) -> bytes:
    """The report as JSON, a line for each job."""
    found: dict[str, Any] = as_json(report)
    jobs = found.pop("jobs")
    head = jsonio.pretty(found).rstrip().removesuffix(b"}").rstrip()
    lines = b",\n    ".join(jsonio.dumps(job) for job in jobs)
    return head + b',\n  "jobs": [' + (b"\n    " + lines + b"\n  " if jobs else b"") + b"]\n}\n"


def check_target(path: str) -> None:
    """Raises click.UsageError when a page can't be written there, or something else would be lost."""
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise click.UsageError(f"{folder}: no such folder for the page")
    if os.path.isdir(path):
        raise click.UsageError(f"{path}: is a folder; name a file with --output FILE")
    if os.path.lexists(path) and not is_page(path):
        raise click.UsageError(f"{path}: is there, and no page of tea; remove it, or name another with --output FILE")


def is_page(path: str) -> bool:
    """Whether a file is a page that an earlier call has written, or empty."""
    try:
        with open(path, "rb") as file:
            beginning = file.read(len(BEGINNING))
    except OSError:
        return False
    return os.path.isfile(path) and beginning in (b"", BEGINNING)


def _write(path: str, data: bytes) -> int:
    """Put the page in its place when it is complete; how many bytes it has."""
    path = os.path.realpath(path)
    temporary = f"{os.path.dirname(path)}/.{os.path.basename(path)[:100]}-{unique()}"
    write_exclusive(temporary, data)
    try:
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return len(data)


def _tell(report: Report, path: str, length: int) -> None:
    say(f"{path}: {report.total:,} jobs of run {report.run.files.name}, {size(length)}")
    for line in report.left_out if len(report.details) < len(report.jobs) else ():
        say(f"left out: {line}")
    if report.run.damaged:
        say(f"warning: {len(report.run.damaged):,} damaged files; `tea spool doctor` knows what to do")


def _to_stdout(data: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
