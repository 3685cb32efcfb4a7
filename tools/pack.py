"""`tea spool pack`: runs that have ended, each as one compressed file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from spool.find import run_at
from spool.layout import SpoolFiles
from spool.opened import is_packed
from spool.packing import Packed, pack_run
from spool.run import find_name, find_spool
from tea.cli.complete import run_names
from tea.cli.options import json_option, spool_hint, spool_option, spool_path
from tools.text import size

HELP = """Pack RUN (the newest by default), which must have ended: its folder becomes one compressed file. status,
list, show, logs, explain, replay and report read it as before. What changes a run wants it unpacked first.

\b
  tea spool pack
  tea spool pack 7f3a 91c2
  tea spool pack 7f3a --keep
  tea spool unpack 7f3a

The pack is read again, all of it, and the folder must not have changed, before that goes. Killed at any moment, the
same command finishes.
"""


@click.command("pack", help=HELP, short_help="Runs that have ended, each as one compressed file.")
@click.argument("runs", metavar="[RUN]...", nargs=-1, shell_complete=run_names)
@click.option("--keep", is_flag=True, help="Keep the folder, too.")
@spool_option
@json_option
def command(runs: tuple[str, ...], keep: bool, spool: str | None, as_json: bool) -> int:
    done = []
    for text in runs or (None,):
        folder, wanted = run_at(spool_path(spool), text)
        files = find_spool(folder)
        name = find_name(files, wanted)
        if is_packed(files, name):
            click.echo(f"{name}: is packed already", err=True)
            continue
        one = pack_run(files, files.run(name), keep=keep)
        done.append(one)
        if not as_json:
            click.echo("\n".join(lines(files, one)))
    if as_json:
        click.echo(json.dumps([data(one) for one in done], indent=2))
    return 0


def lines(files: SpoolFiles, one: Packed) -> Iterator[str]:
    """What came of it, and the way back."""
    yield f"{one.run.name}: {one.files:,} files, {size(one.bytes)}, are {size(one.size)} now, in {one.path}"
    if one.folder:
        yield f"its folder is there, too: {one.run.path}"
    else:
        yield f"to unpack it:  tea spool unpack {one.run.name}{spool_hint(files.path)}"


def data(one: Packed) -> dict[str, Any]:
    """What came of it, for programs."""
    return {
        "run": one.run.name,
        "pack": one.path if one.pack else None,
        "folder": one.run.path if one.folder else None,
        "files": one.files,
        "bytes": one.bytes,
        "packed_bytes": one.size,
    }
