"""`tea bundle`: tea as one file."""

from __future__ import annotations

import os

import click

from executors.bundle import bundle, digest
from spool.publish import unique
from tea.cli.errors import say

HELP = """Write tea as one file, a zip application that any Python from 3.11 on runs without installing anything. It
is made from this installation, needs no network, and is the same bytes each time.

\b
  tea bundle
  tea bundle -o tools/tea
  python3 ./tea --version
"""


@click.command("bundle", help=HELP, short_help="Write tea as one file that any Python from 3.11 on runs.")
@click.option("--output", "-o", metavar="FILE", default="./tea", show_default=True, help="Where to write it.")
def command(output: str) -> int:
    data = bundle()
    write(output, data)
    say(f"wrote {output}: {len(data):,} bytes, sha256 {digest(data)}")
    return 0


def write(path: str, data: bytes) -> None:
    """Write an executable file, complete or not at all. Raises IsADirectoryError where a folder stands."""
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder; name another file with --output")
    temporary = f"{os.path.abspath(path)}.{unique()}"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
        os.chmod(temporary, 0o755)
        os.replace(temporary, path)
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)
