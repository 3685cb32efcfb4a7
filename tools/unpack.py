"""`tea spool unpack`: the folder of a run that was packed."""

from __future__ import annotations

import json
import os

import click

from spool.find import run_at
from spool.layout import SpoolFiles
from spool.packing import Packed, unpack_run
from spool.run import find_name, find_spool, open_spool
from tea.cli.complete import pack_names
from tea.cli.options import json_option, spool_option, spool_path
from tools.pack import data
from tools.text import size

HELP = """Make the folder of a packed RUN (the newest by default) again, as it was to the last byte, and remove its
pack. FILE is a pack from elsewhere: it is unpacked into the spool, and stays where it is.

\b
  tea spool unpack 7f3a
  tea spool unpack 7f3a --keep
  tea spool unpack /backup/20261124-053012-analyze-7f3a.zip --spool .tea/spool

What is in a pack is checked, but it is as trustworthy as where it came from: a run that is resumed or replayed
executes what is in it, like a workflow.
"""


@click.command("unpack", help=HELP, short_help="The folder of a run that was packed.")
@click.argument("packs", metavar="[RUN|FILE]...", nargs=-1, shell_complete=pack_names)
@click.option("--keep", is_flag=True, help="Keep the pack, too.")
@spool_option
@json_option
def command(packs: tuple[str, ...], keep: bool, spool: str | None, as_json: bool) -> int:
    done = [_unpack(spool_path(spool), text, keep) for text in packs or (None,)]
    if as_json:
        click.echo(json.dumps([data(one) for one in done], indent=2))
        return 0
    for one in done:
        click.echo(f"{one.run.name}: {one.files:,} files, {size(one.bytes)}, in {one.run.path}")
        if one.pack:
            click.echo(f"its pack is there, too: {one.path}")
    return 0


def _unpack(spool: str, text: str | None, keep: bool) -> Packed:
    if text is not None and text.endswith(".zip") and os.path.lexists(text):
        return unpack_run(open_spool(spool), os.path.abspath(text), keep=keep)
    folder, wanted = run_at(spool, text)
    files = find_spool(folder)
    name = find_name(files, wanted)
    return unpack_run(files, _pack_of(files, name), keep=keep)


def _pack_of(files: SpoolFiles, name: str) -> str:
    if not os.path.lexists(files.pack(name)):
        raise click.UsageError(f"run {name} is not packed; its folder is {files.run(name).path}")
    return files.pack(name)
