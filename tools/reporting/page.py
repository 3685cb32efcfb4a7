"""From a report to one HTML page that needs nothing else.

Text of jobs gets into the page in two ways only: escaped by the template, or as JSON in which no `<` is left. The
page's own script puts text into text nodes, and its policy (Content-Security-Policy) lets no other script run, and
nothing be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shlex
import time
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from itertools import islice
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from spool import jsonio
from spool.opened import home
from tea.version import __version__
from tools.reporting import totals
from tools.reporting.bars import bars
from tools.reporting.data import Report, columns
from tools.reporting.drawing import drawing
from tools.reporting.record import STATES
from tools.reporting.spans import clock, iso, span
from tools.reporting.text import visible
from tools.text import clip

SCRIPTS = ("page.js", "timeline.js", "table.js", "detail.js")

HISTOGRAMS = 6
"""Fan-outs that have a histogram of their own."""

WORTH_IT = 8
"""Jobs of which a histogram shows more than a list."""

BEGINNING = b'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="generator" content="tea '
"""How every page begins, so that it is known as one."""


def page(report: Report) -> bytes:
    """The page of a report."""
    script = "(() => {\n'use strict';\n" + "\n".join(_file(name) for name in SCRIPTS) + "})();"
    run, picture = report.run, drawing(report.run)
    text: str = _template().render(
        report=report,
        run=run,
        place=home(run.files.path),
        limits=report.limits,
        version=__version__,
        zone=time.strftime("%Z"),
        style=Markup(_file("page.css")),
        script=Markup(script),
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        data=Markup(in_script(jsonio.dumps(columns(report)))),
        picture=Markup(visible(picture[0])),
        no_picture=picture[1],
        **_figures(report),
    )
    return text.encode("utf-8", "backslashreplace")


def in_script(json: bytes) -> str:
    """JSON that nothing in it can end the script element of, nor begin a comment or another element."""
    text = json.decode("utf-8", "backslashreplace")
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _figures(report: Report) -> dict[str, Any]:
    counts = report.counts
    shares = ", ".join(f"{number:,} {_words(state)}" for state, number in counts.items() if number)
    seen = Counter(one.outcome for job in report.run.jobs for one in job.attempts)
    histograms = list(_histograms(report))
    return {
        "failed": sum(len(group.jobs) for group in report.failures),
        "shares_text": f"Of {report.total:,} jobs: {shares}",
        "shown_states": [state for state in STATES if counts[state]],
        "outcomes": [state for state in (*STATES, "unreadable") if seen[state]],
        "attempts": seen.total(),
        "facts": list(_facts(report)),
        "fanouts": list(_fanouts(report)),
        "histograms": histograms[:HISTOGRAMS],
        "hidden_histograms": len(report.by_fanout) - len(histograms[:HISTOGRAMS]),
    }


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    """What run.json tells, in words."""
    record = report.run.record
    yield "workflow", str(record.get("workflow") or "a graph built in Python")
    words = record.get("argv")
    if isinstance(words, list) and words and report.limits.details:
        program = os.path.basename(str(words[0]))
        yield "command", clip(shlex.join(["tea" if program == "__main__.py" else program, *map(str, words[1:])]), 600)
    yield "folder", str(record.get("cwd") or record.get("folder") or "")
    if record.get("user") or record.get("host"):
        yield "by", f"{record.get('user', '?')} on {record.get('host', '?')}"
    if report.run.driver and report.run.state == "running":
        yield "driven by", report.run.driver
    yield "versions", f"tea {record.get('tea', '?')}, Python {record.get('python', '?')}"
    limits = [f"{name} {record[key]}" for key, name in _WISHES if record.get(key) is not None]
    if limits:
        yield "asked for", ", ".join(limits)
    if record.get("sha256"):
        yield "SHA-256", f"{str(record['sha256'])[:16]}... of the workflow"
    warnings = record.get("warnings")
    for warning in warnings if isinstance(warnings, list) else []:
        yield "warning", str(warning)


_WISHES = (("strategy", "strategy"), ("max_workers", "workers"), ("entry", "from"), ("exit", "up to"))


def _fanouts(report: Report) -> Iterator[dict[str, Any]]:
    for fanout, jobs in islice(zip(report.run.fanouts, report.by_fanout, strict=True), report.limits.fanouts):
        counts = totals.counts(jobs, fanout.unmade)
        durations = totals.durations(seconds for seconds, _ in totals.timed(jobs))
        yield {"fanout": fanout, "counts": counts, "total": sum(counts.values()), "durations": durations}


def _histograms(report: Report) -> Iterator[dict[str, Any]]:
    """One for each fan-out in which enough jobs have ended for a shape; without any such, for the largest."""
    every = [totals.timed(jobs) for jobs in report.by_fanout]
    most = max(map(len, every), default=0)
    for place, values in enumerate(every):
        if values and len(values) >= min(WORTH_IT, most):
            found = totals.histogram(values)
            title = report.run.fanouts[place].name
            yield {
                "title": title,
                "fanout": place if len(report.by_fanout) > 1 else None,
                "total": len(values),
                "histogram": found,
                "svg": Markup(bars(found, title, place)),
            }


# -- the template -----------------------------------------------------------------------------------------------


def _file(name: str) -> str:
    return (files("tools.reporting") / name).read_text("utf-8")


@lru_cache(maxsize=1)
def _template() -> Any:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters.update(
        words=_words,
        text=lambda value: visible(str(value)),
        count=lambda number: f"{number:,}",
        code=lambda text: Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text)))),
        span=span,
        clock=clock,
        iso=iso,
    )
    return environment.from_string(_file("page.html"))


def _words(state: str) -> str:
    return state.replace("_", " ")
