"""`tea spool doctor`: what is wrong with a spool or its folder, and how to mend it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

import click

from spool.doctor import examine, is_spool
from spool.finding import Finding, Findings, Severity
from tea.cli.errors import EXIT_FAILED
from tea.cli.options import json_option, spool_option, spool_path
from tools.text import clip, columns

TABLE = 72
"""Columns of a terminal from which on a table is easier to read than lines."""

SHOWN = 20
"""Findings of one kind that are shown; `--json` has all."""

HELP = """Examine the spool in DIR (.tea/spool by default), and whether its file system does what a spool needs.
DIR may be any folder: one that shall become a spool, too.

\b
  tea spool doctor
  tea spool doctor --fix
  tea spool doctor /mnt/shared --json
  tea spool doctor --quick

Each finding says what it is, which file it is about, what it means, and what to do. With --fix, what is safe to mend
is mended: tickets and accepted results, files that cannot be trusted (they are put aside, not removed), what dead
workers left. A live run is not disturbed. --quick looks at tickets and workers only.

Exits with 1 when something needs a person: an error that is not mended. Warnings alone give 0.
"""


@click.command("doctor", help=HELP, short_help="What is wrong with a spool or its folder, and how to mend it.")
@click.argument("folder", metavar="[DIR]", required=False)
@spool_option
@click.option("--fix", is_flag=True, help="Mend what is safe to mend.")
@click.option("--quick", is_flag=True, help="Look at tickets and workers, not into jobs and not at the file system.")
@json_option
def command(folder: str | None, spool: str | None, fix: bool, quick: bool, as_json: bool) -> int:
    path = os.path.abspath(spool_path(folder or spool))
    found = examine(path, fix=fix, quick=quick)
    if as_json:
        click.echo(json.dumps(data(path, found), indent=2))
    elif sys.stdout.isatty() and shutil.get_terminal_size().columns >= TABLE:
        _print_table(path, found)
    else:
        click.echo("\n".join(lines(path, found)))
    return EXIT_FAILED if any(finding.needs_person for finding in found) else 0


def data(path: str, found: Findings) -> dict[str, Any]:
    """What was found, for programs."""
    return {
        "path": path,
        "spool": is_spool(path),
        "ok": not any(finding.needs_person for finding in found),
        "looked_at": dict(found.counts),
        "findings": [{**asdict(finding), "needs_person": finding.needs_person} for finding in found],
    }


# -- for people -----------------------------------------------------------------------------------------------------


def lines(path: str, found: Findings) -> Iterator[str]:
    """What was found, as plain text: what is wrong first, then what is well."""
    yield head(path, found)
    for finding in chosen(found):
        yield ""
        yield f"{state(finding):<8} {finding.kind}  {place(path, finding)}"
        yield f"         {finding.text}"
        if advice(finding):
            yield f"         -> {advice(finding)}"
    yield from (("", text) if (text := omitted(found)) else ())
    yield ""
    yield from columns([["ok", finding.kind, clip(finding.text, 100)] for finding in well(found)], "lll")
    yield ""
    yield total(found)


def _print_table(path: str, found: Findings) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"error": "bold red", "warning": "yellow", "note": "cyan", "fixed": "green", "ok": "green"}
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in [*chosen(found), *well(found)]:
        text = Text(finding.text)
        if finding.severity is not Severity.OK:
            text = Text(f"{place(path, finding)}\n", style="bold").append(Text(finding.text, style="not bold"))
        if advice(finding):
            text.append(f"\n-> {advice(finding)}", style="not bold cyan")
        table.add_row(Text(state(finding), style=colours[state(finding)]), finding.kind, text)
    console = Console(highlight=False)
    console.print(Text(f"{head(path, found)}\n"))
    console.print(table)
    console.print(Text(f"\n{omitted(found)}{total(found)}"))


def head(path: str, found: Findings) -> str:
    """What was looked at."""
    if not is_spool(path):
        return f"{path}: a folder without a spool"
    looked = ", ".join(f"{number:,} {_plural(what, number)}" for what, number in found.counts.items() if number)
    return f"{path}: a spool with {looked or 'nothing in it'}"


def _plural(what: str, number: int) -> str:
    return what.removesuffix("s") if number == 1 else what


_ORDER = (Severity.ERROR, Severity.WARNING, Severity.NOTE)


def chosen(found: Iterable[Finding]) -> list[Finding]:
    """What is not simply well, the worst first, of each kind the first ones."""
    seen: Counter[tuple[str, bool]] = Counter()
    kept = []
    for finding in sorted((f for f in found if f.severity in _ORDER), key=lambda f: _ORDER.index(f.severity)):
        seen[finding.kind, finding.fixed] += 1
        if seen[finding.kind, finding.fixed] <= SHOWN:
            kept.append(finding)
    return kept


def well(found: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.severity is Severity.OK]


def omitted(found: Findings) -> str:
    """How many were left out."""
    number = sum(1 for finding in found if finding.severity in _ORDER) - len(chosen(found))
    return f"{number:,} more of the same kinds are not shown; --json has them all\n" if number else ""


def state(finding: Finding) -> str:
    return "fixed" if finding.fixed else finding.severity.value


def place(path: str, finding: Finding) -> str:
    """The file, from the folder on."""
    inside = finding.path.removeprefix(f"{path}/")
    return "." if inside == path else inside


def advice(finding: Finding) -> str:
    """What to do."""
    if finding.fixed:
        return ""
    if not finding.fixable:
        return finding.remedy
    return f"--fix mends it; or: {finding.remedy}" if finding.remedy else "--fix mends it"


def total(found: Findings) -> str:
    """The last line."""
    errors = [f for f in found if f.needs_person]
    warnings = [f for f in found if f.severity is Severity.WARNING and not f.fixed]
    fixed = sum(f.fixed for f in found)
    parts = [f"{len(errors):,} {_plural('errors', len(errors))}"] if errors else []
    parts += [f"{len(warnings):,} {_plural('warnings', len(warnings))}"] if warnings else []
    parts += [f"{fixed:,} mended"] if fixed else []
    mendable = sum(f.fixable for f in (*errors, *warnings))
    if mendable and not found.fix:
        parts.append(f"--fix mends {mendable:,}")
    return "; ".join(parts) or "all is well"
