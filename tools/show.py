"""`tea spool show`: one job, as its directory tells it: input, attempts, result, output, fan-outs inside."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import click

from spool.find import fanout_of, find_job, in_run, run_of, spool_of
from spool.jobview import AttemptView, attempts, ticket_of
from spool.layout import JobFiles, SpoolFiles
from spool.opened import home, is_opened
from spool.publish import read_quietly
from spool.run import fanouts, find_spool
from spool.tickets import counts
from spool.worker import Observer
from tea.cli.complete import job_names
from tea.cli.options import json_option, spool_hint, spool_option, spool_path
from tea.progress import duration
from tools.text import clip, clock, columns, shown, size

TAIL = 10
"""Lines of output that are shown."""

ROOMS = ("tea", "executors", "spool")
"""Whose frames of a traceback are left out."""

KEYS = 30
"""Keys of an input or result that are shown."""

HELP = """One job: what it began with, who ran it when and for how long, what it changed or why it failed, the end of
what it printed, and the fan-outs inside it.

\b
  tea spool show 001-split/0007-scale
  tea spool show 7
  tea spool show .tea/spool/runs/RUN/fanouts/001-split/jobs/0007-scale --json

JOB is a path, RUN/FANOUT/JOB, or any tail of it that fits only one job of the newest run that has one.
"""


@click.command("show", help=HELP, short_help="One job: input, attempts, result, output.")
@click.argument("job", metavar="JOB", shell_complete=job_names)
@spool_option
@json_option
def command(job: str, spool: str | None, as_json: bool) -> int:
    files = SpoolFiles(spool_path(spool))
    known = find_spool(files.path) if os.path.exists(files.spool) else None
    view = look(find_job(known, job))
    if as_json:
        click.echo(json.dumps(data(view), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(lines(view)))
    return 0


@dataclass(frozen=True, slots=True)
class View:
    """A job, read once."""

    job: JobFiles
    ticket: str
    record: Mapping[str, Any]
    own: dict[str, Any]
    shared: dict[str, Any]
    attempts: list[AttemptView]
    result: Mapping[str, Any]


def look(job: JobFiles) -> View:
    """Read a job."""
    own, shared = split_input(job)
    tries = attempts(job, Observer(spool_of(job.path)))
    return View(job, ticket_of(job), read_quietly(job.job), own, shared, tries, read_quietly(job.accepted))


def split_input(job: JobFiles) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a branch has of its own, and what it shares with its siblings.

    A small shared state is written into each input: it is what equals the state at the fan-out.
    """
    own, shared = read_quietly(job.input), read_quietly(job.base)
    if not shared:
        state = read_quietly(fanout_of(job).state)
        shared = {key: value for key, value in own.items() if key in state and state[key] == value}
        own = {key: value for key, value in own.items() if key not in shared}
    return own, shared


# -- text -------------------------------------------------------------------------------------------------------


def lines(view: View) -> Iterator[str]:
    """The job for people."""
    record = view.record
    yield f"job       {in_run(view.job.path)}"
    yield f"path      {home(view.job.path)}"
    yield f"run       {run_of(view.job.path).name}"
    yield f"state     {state(view)}"
    ends = f"from {record.get('entry') or '?'} to {record.get('exit') or 'its end'}"
    yield f"branch    {record.get('branch', '?')}, {ends}"
    if record.get("$unreadable"):
        yield f"job.json  {record['$unreadable']}"
    if record.get("not_replayable"):
        yield f"replay    not from the record alone: {record['not_replayable']}"
    yield from _section("input", [*_values(view.own), *_shared(view)])
    own = f'"{view.job.path}/'  # its own files are known by their names
    yield from _section("attempts", [line.replace(own, '"') for one in view.attempts for line in _attempt(one)])
    yield from _section("changed", _changes(view))
    for one in view.attempts[-1:]:
        yield from _output("stdout", view.job.stdout(one.number))
        yield from _output("stderr", view.job.stderr(one.number))
    yield from _section("fan-outs inside", _inside(view.job))
    yield from _next(view)


def _shared(view: View) -> list[str]:
    """The keys that a job has of the shared state."""
    if not view.shared:
        return []
    where = " (base.json)" if os.path.exists(view.job.base) else ""
    return [f"{'and, ' if view.own else ''}shared with its siblings{where}: {clip(', '.join(view.shared), 160)}"]


def state(view: View) -> str:
    """The state of a job in words."""
    if view.ticket in ("done", "failed", "cancelled"):
        outcome = str(view.result.get("outcome") or "")
        return view.ticket if outcome in ("", "succeeded", view.ticket) else f"{view.ticket} ({outcome})"
    if not view.attempts:
        return "to do" if view.ticket else "being made, or without a ticket"
    newest = view.attempts[-1]
    if newest.state == "running":
        return f"running (attempt {newest.number})"
    return f"to do; attempt {newest.number} {newest.state.replace('_', ' ')}"


def _section(title: str, content: list[str]) -> Iterator[str]:
    if content:
        yield ""
        yield title
        yield from (f"  {line}" for line in content)


def _values(values: Mapping[str, Any]) -> list[str]:
    some = {clip(key, 100): value for key, value in list(values.items())[:KEYS]}
    width = max((len(key) for key in some), default=0)
    found = [f"{key:<{min(width, 24)}}  {shown(value)}" for key, value in some.items()]
    return found + ([f"and {len(values) - KEYS} more keys"] if len(values) > KEYS else [])


def _attempt(one: AttemptView) -> Iterator[str]:
    result = one.result
    seconds = result.get("seconds")
    took = f" after {duration(seconds)}" if isinstance(seconds, int | float) else ""
    who = one.claimant or result.get("host") or "?"
    yield f"{one.number}  {one.state.replace('_', ' ')}{took}  {clock(one.claimed)}  {who}"
    if result.get("$unreadable"):
        yield f"   its result is {result['$unreadable']}"
    if result.get("error"):
        kind = f"{result['error_type']}: " if result.get("error_type") else ""
        node = f" (node '{result['node']}')" if result.get("node") else ""
        code = f" (exit code {result['exit_code']})" if result.get("exit_code") is not None else ""
        yield f"   {kind}{clip(str(result['error']), 300)}{node}{code}"
    yield from (f"   {_printable(line)}" for line in users_traceback(str(result.get("traceback") or "")))
    if one.sent_back:
        given = f", with another {', '.join(one.sent_back['input'])}" if one.sent_back.get("input") else ""
        yield f"   sent back by {one.sent_back.get('by')}, {clock(float(one.sent_back.get('at') or 0))}{given}"


_FRAME = re.compile(r'  File "(?P<file>[^"]*)", line ')
_OURS = tuple(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), room, "") for room in ROOMS)


def users_traceback(text: str) -> list[str]:
    """The last lines of a traceback without the frames of tea itself."""
    kept, ours = [], False
    for line in text.rstrip().splitlines():
        frame = _FRAME.match(line)
        if frame or not line.startswith("    "):
            ours = frame is not None and frame["file"].startswith(_OURS)
        if not ours:
            kept.append(line)
    return kept[:-1][-2 * TAIL :] if len(kept) > 2 else []


def _changes(view: View) -> list[str]:
    result = view.result or (view.attempts[-1].result if view.attempts else {})
    changed = result.get("state")
    found = _values(changed) if isinstance(changed, dict) else []
    removed = result.get("removed")
    return found + ([f"removed: {clip(', '.join(map(str, removed)), 160)}"] if removed else [])


def _output(name: str, path: str) -> Iterator[str]:
    found = tail(path)
    if found is None:
        return
    bytes_, last = found
    more = f", the last {len(last)} lines" if bytes_ > sum(len(line.encode()) + 1 for line in last) else ""
    yield from _section(f"{name} ({size(bytes_)}{more})", last)


def tail(path: str, count: int = TAIL) -> tuple[int, list[str]] | None:
    """The size of a log in bytes and its last lines, read from the end; None when there is none."""
    try:
        with open(path, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 64 * 1024))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    return end, [_printable(line)[:400] for line in text.splitlines()[-count:]]


def _printable(text: str) -> str:
    """Without escape sequences: a job's output may not move the reader's cursor."""
    return "".join(letter if letter.isprintable() or letter == "\t" else "?" for letter in text)


def _inside(job: JobFiles) -> list[str]:
    found = []
    for fanout in fanouts(job.fanouts):
        numbers = ", ".join(f"{number} {kind}" for kind, number in counts(fanout).items() if number)
        found.append(f"{in_run(fanout.path)}: {numbers or 'no jobs yet'}")
    return found


def _next(view: View) -> Iterator[str]:
    """What to type next."""
    rows = []
    run, hint = run_of(view.job.path).name, spool_hint(spool_of(view.job.path).path)
    if is_opened(view.job.path):
        rows.append([f"tea spool unpack {run}{hint}", "to change it"])
    if os.path.exists(view.job.workflow) and not view.record.get("not_replayable"):
        rows.append([f"tea spool replay {run}/{in_run(view.job.path)}{hint}", "run it alone, apart from the record"])
    if view.ticket == "failed":
        rows.append([f"tea resume {run} --retry-failed{hint}", "when its cause is removed: run again what failed"])
    yield from _section("next", list(columns(rows, "ll")))


# -- data -------------------------------------------------------------------------------------------------------


def data(view: View) -> dict[str, Any]:
    """The job for programs."""
    newest = view.attempts[-1].number if view.attempts else 0
    return {
        "job": in_run(view.job.path),
        "path": home(view.job.path),
        "run": run_of(view.job.path).name,
        "state": view.ticket or None,
        "record": dict(view.record),
        "input": view.own,
        "shared": sorted(view.shared),
        "attempts": [_attempt_data(one) for one in view.attempts],
        "result": dict(view.result) or None,
        "stdout": _tail_data(view.job.stdout(newest)),
        "stderr": _tail_data(view.job.stderr(newest)),
        "fanouts": [{"name": in_run(one.path), **counts(one)} for one in fanouts(view.job.fanouts)],
    }


def _attempt_data(one: AttemptView) -> dict[str, Any]:
    return {
        "attempt": one.number,
        "state": one.state,
        "claimant": one.claimant,
        "claimed": one.claimed,
        "alive": one.alive,
        "sent_back": dict(one.sent_back) or None,
        "result": dict(one.result) or None,
    }


def _tail_data(path: str) -> dict[str, Any] | None:
    found = tail(path)
    return None if found is None else {"path": home(path), "bytes": found[0], "tail": found[1]}
