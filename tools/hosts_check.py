"""`tea hosts check`: whether jobs could run on hosts, and what to do where they could not."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import click

from executors.remote import RemoteConfig
from executors.remote.examine import Examined, examine
from tea.cli.complete import workflows_and_hosts
from tea.cli.errors import EXIT_FAILED
from tea.cli.options import json_option
from tea.version import __version__
from tools.hosts import Target, asking, host_options, targets
from tools.text import columns, size

HELP = """Log in to the hosts of a WORKFLOW, or to HOSTs as ssh knows them, all at once, and look whether jobs could
run there: login, host key, Python, work folder, room on the disk, the clock, and what GNU Parallel needs where the
workflow asks for it. tea is copied there, where it is not there yet, and started once.

\b
  tea hosts check workflow.yaml
  tea hosts check user@server1 user@server2:2222
  tea hosts check workflow.yaml --json

Each host that will not do says why, and what to do. Exits with 1 when there is one, with 2 when what is named is
wrong.
"""


@click.command("check", help=HELP, short_help="Whether jobs could run on hosts, and what to do where not.")
@click.argument("names", metavar="WORKFLOW|HOST...", nargs=-1, required=True, shell_complete=workflows_and_hosts)
@host_options
@json_option
def command(names: tuple[str, ...], workdir: str | None, python: str | None, as_json: bool) -> int:
    chosen = targets(names, workdir, python)
    with asking(sum(len(target.config.hosts) for target in chosen)):
        found = [one for target in chosen for one in _examine(target)]
    if as_json:
        click.echo(json.dumps(data(found), indent=2))
    elif sys.stdout.isatty():
        _print_table(found)
    else:
        click.echo("\n".join(lines(found)))
    return EXIT_FAILED if any(one.error for one in found) else 0


def _examine(target: Target) -> Sequence[Examined]:
    return examine(RemoteConfig.usable(target.config), target.program(), __version__)


def data(found: Sequence[Examined]) -> dict[str, Any]:
    """What was found, for programs."""
    hosts = []
    for one in found:
        members = {**asdict(one), "ok": not one.error, "error": one.error or None, "remedy": one.remedy or None}
        hosts.append({**members.pop("facts"), **members})
    return {"ok": not any(one.error for one in found), "hosts": hosts}


# -- for people -----------------------------------------------------------------------------------------------------

HEAD = ("host", "", "login", "python", "slots", "free", "clock", "tea", "work folder")
ALIGN = "llllrrrll"


def cells(one: Examined) -> list[str]:
    """What a host is like, under `HEAD`."""
    facts = one.facts
    if not facts:
        return [one.host, state(one)]
    return [
        one.host,
        state(one),
        f"{facts['user']}@{facts['name']}, {facts['login_seconds']:.1f} s",
        str(facts["python"]),
        str(facts["slots"]),
        size(facts["free"]),
        f"{facts['clock_offset']:+.1f} s" if facts["clock_offset"] else "right",
        facts.get("tea", "-"),
        str(facts["workdir"]),
    ]


def state(one: Examined) -> str:
    return "fails" if one.error else "warning" if one.warnings else "ok"


def notes(one: Examined) -> Iterator[str]:
    """What is wrong with a host, and what to do."""
    if one.error:
        yield one.error
        if one.remedy:
            yield f"-> {one.remedy}"
    yield from one.warnings


def lines(found: Sequence[Examined]) -> Iterator[str]:
    """What was found, as plain text."""
    table = columns([HEAD, *(cells(one) for one in found)], ALIGN)
    yield next(table)
    for one, line in zip(found, table, strict=True):
        yield line
        yield from (f"    {note}" for note in notes(one))
    yield total(found)


def _print_table(found: Sequence[Examined]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"ok": "green", "warning": "yellow", "fails": "bold red"}
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False)
    for name, align in zip(HEAD, ALIGN, strict=True):
        table.add_column(name, justify="right" if align == "r" else "left", overflow="fold")
    for one in found:
        host, told, *rest = (Text(cell) for cell in cells(one))
        told.stylize(colours[str(told)])
        table.add_row(host, told, *rest)
    console.print(table)
    for one in found:
        for number, note in enumerate(notes(one)):
            text = Text(f"{one.host}: ", style=colours[state(one)]) if not number else Text("    ")
            console.print(text.append(note, style="cyan" if note.startswith("->") else "not bold default"))
    console.print(Text(total(found)))


def total(found: Sequence[Examined]) -> str:
    """The last line."""
    good = [one for one in found if not one.error]
    slots = sum(one.facts["slots"] for one in good)
    bad = len(found) - len(good)
    text = f"{len(good)} of {len(found)} hosts can be used, with {slots} slots"
    return f"{text}; {bad} cannot" if bad else text
