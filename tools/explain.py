"""`tea spool explain`: why a job is where it is, and what to type next."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from typing import Any

import click

from spool.explain import Explanation, explain
from spool.facts import Facts, Try, facts_of
from spool.find import job_at, spool_of
from spool.layout import JobFiles
from spool.opened import home, is_opened
from tea.cli.complete import job_names
from tea.cli.options import json_option, spool_hint, spool_option, spool_path
from tools.reporting.text import visible
from tools.text import columns

WIDTH = 100

HELP = """Why a job waits, runs, was retried, was lost, timed out, failed or was cancelled: who claimed each attempt,
what came of it, what its policy allows, and what to type next. Reads, and changes nothing.

\b
  tea spool explain 7
  tea spool explain 001-split/0007-scale
  tea spool explain 7 --json
"""


@click.command("explain", help=HELP, short_help="Why a job waits, runs, failed or was lost, and what to do.")
@click.argument("job", metavar="JOB", shell_complete=job_names)
@spool_option
@json_option
def command(job: str, spool: str | None, as_json: bool) -> int:
    files = job_at(spool_path(spool), job)
    facts = facts_of(files)
    found = explain(facts)
    if is_opened(files.path):
        found = replace(found, next=tuple(_unpacked_first(facts.run, found.next)))
    hint = spool_hint(spool_of(files.path).path)
    if as_json:
        click.echo(json.dumps(data(files, facts, found, hint), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(lines(facts, found, hint)))
    return 0


def _unpacked_first(run: str, commands: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """What may be typed where the run is packed: what changes it comes after unpacking it."""
    reading = ("tea spool logs", "tea spool replay", "tea spool doctor")
    changing = [one for one in commands if not one[0].startswith(reading)]
    yield from (one for one in commands if one not in changing)
    if changing:
        yield f"tea spool unpack {run}", "make its folder again"
        yield from changing


def typed(found: Explanation, hint: str) -> list[tuple[str, str]]:
    """What to type next, with the spool where it must be named."""
    return [(text + (hint if text.startswith("tea ") else ""), purpose) for text, purpose in found.next]


def lines(facts: Facts, found: Explanation, hint: str) -> Iterator[str]:
    """The explanation for people."""
    yield f"{facts.name}: {found.state.replace('_', ' ')}"
    head, *story = map(visible, found.sentences)
    yield from textwrap.wrap(head, WIDTH)
    if story:
        yield ""
    for sentence in story:
        wrapped = textwrap.wrap(sentence, WIDTH - 2, break_long_words=False, break_on_hyphens=False)
        yield from textwrap.indent("\n".join(wrapped), "  ").splitlines()
    if found.next:
        yield ""
        rows = [["" if n else "next", *row] for n, row in enumerate(typed(found, hint))]
        yield from columns(rows, "lll")


def data(job: JobFiles, facts: Facts, found: Explanation, hint: str) -> dict[str, Any]:
    """The explanation for programs."""
    return {
        "job": facts.name,
        "path": home(job.path),
        "run": facts.run,
        "run_state": facts.run_state,
        "state": found.state,
        "ticket": facts.ticket or None,
        "sentences": list(found.sentences),
        "next": [{"type": text, "to": purpose} for text, purpose in typed(found, hint)],
        "back_off": round(found.back_off, 3),
        "retries_left": found.retries_left,
        "losses_left": found.losses_left,
        "policy": asdict(facts.policy),
        "forgiven": facts.forgiven,
        "quarantined": list(facts.quarantined),
        "attempts": [_attempt(one) for one in facts.tries],
    }


def _attempt(one: Try) -> dict[str, Any]:
    return {
        "attempt": one.number,
        "claimant": one.claimant,
        "claimed": one.claimed,
        "alive": one.alive,
        "outcome": one.result.get("outcome"),
        "error": one.result.get("error"),
        "distrusted": one.distrusted,
        "sent_back": dict(one.sent_back) or None,
    }
