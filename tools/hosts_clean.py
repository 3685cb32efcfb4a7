"""`tea hosts clean`: remove what runs have left on hosts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import click

from executors.remote.cleaning import KINDS, Swept, clean
from tea.cli.complete import workflows_and_hosts
from tea.cli.errors import EXIT_FAILED, say
from tea.cli.options import json_option
from tools.hosts import asking, host_options, targets
from tools.spans import seconds
from tools.text import columns, size

HELP = """Remove what runs have left in the work folders of the hosts of a WORKFLOW, or of HOSTs: folders of workers
that were killed, copies that `cleanup: false` has kept, programs of other versions of tea, copies that were never
finished. Without --yes nothing is removed: it says what would be.

\b
  tea hosts clean workflow.yaml
  tea hosts clean workflow.yaml --yes
  tea hosts clean user@server1 --workdir /scratch/tea --older-than 7d --yes

What a living worker uses stays, whoever sent it jobs. Exits with 1 when a host cannot be reached, or something cannot
be removed.
"""


@click.command("clean", help=HELP, short_help="Remove what runs have left on hosts.")
@click.argument("names", metavar="WORKFLOW|HOST...", nargs=-1, required=True, shell_complete=workflows_and_hosts)
@click.option("--older-than", metavar="AGE", callback=seconds, help="Only what has not changed for 12h, 7d, 2w.")
@click.option("--dry-run/--yes", "dry", default=True, help="Only say what would be removed (the default), or do it.")
@host_options
@json_option
def command(
    names: tuple[str, ...],
    older_than: float | None,
    dry: bool,
    workdir: str | None,
    python: str | None,
    as_json: bool,
) -> int:
    chosen, age = targets(names, workdir, python), older_than or 0.0
    with asking(sum(len(target.config.hosts) for target in chosen)):
        found = [
            one for target in chosen for one in clean(target.config, target.program(), older_than=age, remove=not dry)
        ]
    if as_json:
        click.echo(json.dumps(data(found, dry), indent=2))
    else:
        click.echo("\n".join(lines(found, dry)))
        for one in found:
            if one.error:
                say(f"host {one.host}: {one.error}{f'; {one.remedy}' if one.remedy else ''}")
    return EXIT_FAILED if any(one.error or any(left.error for left in one.found) for one in found) else 0


def lines(found: Sequence[Swept], dry: bool) -> Iterator[str]:
    """What was removed, or would be."""
    rows = []
    for one in found:
        for left in one.found:
            told = f"stays: {left.error}" if left.error else KINDS[left.kind]
            rows.append([one.host, left.path, f"{left.files:,} files", size(left.bytes), told])
        rows += [[one.host, path, "", "", "stays: a worker that lives"] for path in one.live]
    yield from columns(rows, "llrrl")
    gone = [left for one in found for left in one.found if not left.error]
    if not gone:
        yield "nothing to remove"
        return
    told = f"{sum(left.files for left in gone):,} files, {size(sum(left.bytes for left in gone))}"
    yield f"would remove {told}; --yes does it" if dry else f"removed {told}"


def data(found: Sequence[Swept], dry: bool) -> dict[str, Any]:
    """What was removed, or would be, for programs."""
    gone = [left for one in found for left in one.found if not left.error]
    return {
        "dry_run": dry,
        "hosts": [{**asdict(one), "error": one.error or None, "remedy": one.remedy or None} for one in found],
        "files": sum(left.files for left in gone),
        "bytes": sum(left.bytes for left in gone),
    }
