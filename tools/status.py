"""`tea spool status`: how far a run is, who works on it, what failed first, and what to do next."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import click

from spool import inspect
from spool.claim import Claimant
from spool.find import in_run, run_at
from spool.hosts import HostView, hosts
from spool.inspect import FanOutView, RunView, WorkerView
from spool.layout import SpoolFiles
from spool.opened import home, is_opened
from spool.pause import paused
from spool.run import find_run, find_spool
from spool.worker import Observer
from tea.cli.complete import run_names
from tea.cli.options import json_option, spool_hint, spool_option, spool_path
from tea.progress import duration, speed
from tools.text import ago, clip, columns

WATCH_INTERVAL = 1.0
"""Seconds between two looks of `--watch`."""

SHOWN = 5
"""Failures that are named."""

ENDED = ("done", "cancelled")
"""States in which it does not matter whether a run was paused."""

HELP = """How far RUN is (the newest by default): branches by outcome, who works on it, rate and time left, the first
failures. Reads a live, a finished or a crashed run, and changes nothing.

\b
  tea spool status
  tea spool status 7f3a --watch
  tea spool status --json
"""


@click.command("status", help=HELP, short_help="How far a run is, who works on it, what failed first.")
@click.argument("run", metavar="[RUN]", required=False, shell_complete=run_names)
@spool_option
@json_option
@click.option("--watch", is_flag=True, help="Look again every second until the run has ended.")
def command(run: str | None, spool: str | None, as_json: bool, watch: bool) -> int:
    folder, name = run_at(spool_path(spool), run)
    status = Status(find_spool(folder), name)
    if watch:
        _watch(status, as_json)
    elif as_json:
        click.echo(json.dumps(status.json(), indent=2))
    else:
        click.echo("\n".join(status.lines()))
    return 0


class Status:
    """One run, looked at again and again; remembers what is needed for a rate and for who lives."""

    def __init__(self, spool: SpoolFiles, name: str | None) -> None:
        self.spool, self.run = spool, find_run(spool, name, lazily=True)
        self._observer = Observer(spool)
        self._before: dict[str, tuple[float, int]] = {}
        self.view: RunView
        self.workers: list[WorkerView] = []
        self.paused: Mapping[str, Any] = {}
        self.look()

    def look(self) -> None:
        """Look now."""
        self.workers = inspect.workers(self.spool, self._observer)
        self.view = inspect.look_at_run(self.spool, self.run, SHOWN, self._observer)
        self.hosts = hosts(self.view, self.workers)
        self.paused = paused(self.run) if self.view.state not in ENDED else {}

    # -- text -----------------------------------------------------------------------------------------------

    def lines(self) -> Iterator[str]:
        """The status for people."""
        yield from self._head()
        yield from columns(self._fanout_rows(), "lrrrrrl")
        if not self.view.searched:
            yield "(not all branches were searched for fan-outs inside them)"
        yield from self._worker_lines()
        yield from self._host_lines()
        yield from self._failure_lines()
        yield from self._next_lines()

    def _head(self) -> Iterator[str]:
        view, record = self.view, self.view.record
        yield f"run       {self.run.name}"
        if record.get("copy_of"):
            yield f"copy of   {record['copy_of']}"
        else:
            yield f"workflow  {record.get('workflow') or record.get('$unreadable') or 'a graph built in Python'}"
        started, finished = record.get("started"), record.get("finished")
        text = view.state
        if isinstance(started, int | float):
            text += f", started {ago(started)}"
            if isinstance(finished, int | float) and view.state != "running":
                text += f", took {duration(max(0.0, finished - started))}"
        yield f"state     {text}{self._driver()}"
        if self.paused:
            since = f", {ago(self.paused['at'])}" if self.paused["at"] is not None else ""
            yield f"paused    by {self.paused['by']}{since}: nothing new begins"
        if view.state not in ("running", "done") and record.get("error"):
            where = f" in node '{record['node']}'" if record.get("node") else ""
            yield f"error     {clip(str(record['error']), 200)}{where}"

    def _driver(self) -> str:
        view = self.view
        if view.alive:
            return f", driven by {view.coordinator or 'a process'}"
        if view.alive is None:
            return f"; whether {view.coordinator or 'its coordinator'} lives can't be told from here"
        if is_opened(self.run.path):
            return f"; packed in {self.spool.pack(self.run.name)}"
        return "; its coordinator is gone" if view.state == "stopped" else ""

    def _fanout_rows(self) -> list[list[str]]:
        if not self.view.fanouts:
            return []
        rows = [["fan-out", "done", "failed", "cancelled", "running", "to do", ""]]
        for group in self.view.fanouts:
            counts = group.counts
            numbers = (counts["done"], counts["failed"], counts["cancelled"], group.running, group.todo)
            rows.append([group.name, *(f"{number:,}" if number else "-" for number in numbers), self._speed(group)])
        return [[], *rows]

    def _speed(self, group: FanOutView) -> str:
        parts = [f"of {group.total:,}"]
        if group.folders > 1:
            parts.append(f"in {group.folders:,} fan-outs")
        parts.append(str(group.record.get("strategy") or ""))
        rate = group.rate(time.time() if self.view.alive and group.finished < group.total else None)
        if rate:
            parts.append(speed(rate))
        if self.view.alive and rate and group.finished < group.total and not self.paused:
            parts.append(f"{duration((group.total - group.finished) / rate)} left")
        return ", ".join(part for part in parts if part)

    def _worker_lines(self) -> Iterator[str]:
        processes = [worker for worker in self.workers if not worker.record.get("serves")]
        inside = [worker for worker in processes if worker.running and worker.alive]
        mine = [worker for worker in inside if worker.running and self._is_mine(worker.running.job.path)]
        idle = sum(1 for worker in processes if worker.alive and not self._drives(worker)) - len(inside)
        dead = sum(1 for worker in processes if not worker.alive)
        rows = [self._running_row(one) for one in self.view.running[:20]]
        if rows:
            yield ""
            yield from columns([["running", "attempt", "for", "worker"], *rows], "lrrl")
            if len(self.view.running) > len(rows):
                yield f"and {len(self.view.running) - len(rows):,} more"
        other = len(inside) - len(mine)
        notes = [(idle, "idle"), (other, "on other runs"), (dead, "dead")]
        told = ", ".join(f"{number} {what}" for number, what in notes if number)
        if told and (self.view.alive or dead):
            yield f"workers   {told}"

    def _host_lines(self) -> Iterator[str]:
        rows = [["host", "state", "slots", "running", ""]] if self.hosts else []
        for host in self.hosts:
            numbers = [f"{number}" if number else "-" for number in (host.slots, len(host.running))]
            rows.append([host.host, host.state, *numbers, clip(host.error.removeprefix(f"host {host.host}: "), 200)])
        if rows:
            yield ""
            yield from columns(rows, "llrrl")

    def _drives(self, worker: WorkerView) -> bool:
        """Whether this is a coordinator or a supervisor, which is a worker, too: it ends jobs, or runs threads."""
        if worker.record.get("slots") == 0:
            return True
        return self.view.coordinator.endswith(f"@{worker.record.get('host')}:{worker.record.get('pid')}")

    def _is_mine(self, path: str) -> bool:
        return path.startswith(f"{self.run.path}/")

    def _running_row(self, one: inspect.Running) -> list[str]:
        claimant = Claimant.parse(one.claimant)
        who = f"{claimant.user}@{claimant.host}:{claimant.pid}" if claimant else one.claimant or "?"
        who = f"host {one.host}" if one.host else who
        return [in_run(one.job.path), str(one.attempt), duration(max(0.0, time.time() - one.started)), who]

    def _failure_lines(self) -> Iterator[str]:
        rows = [[in_run(failure.job.path), clip(reason(failure.result), 160)] for failure in self.view.failures]
        if rows:
            yield ""
            yield from columns([["first failures", ""], *rows], "ll")

    def _next_lines(self) -> Iterator[str]:
        hint = spool_hint(self.spool.path)
        commands = []
        if self.paused:
            commands.append(f"tea spool unpause {self.run.name}{hint}")
        if self.view.failures:
            commands.append(f"tea spool show {in_run(self.view.failures[0].job.path)}{hint}")
        if self.view.record.get("copy_of"):
            pass  # what goes on, goes on where the copy is from
        elif self.view.state in ("stopped", "interrupted", "failed"):
            commands.append(f"tea resume {self.run.name}{hint}")
        elif (self.view.failures or self.view.state == "cancelled") and not self.view.alive:
            if is_opened(self.run.path):
                commands.append(f"tea spool unpack {self.run.name}{hint}")
            commands.append(f"tea resume {self.run.name} --retry-failed{hint}")
        if commands:
            yield ""
            yield from columns([["" if number else "next", line] for number, line in enumerate(commands)], "ll")

    # -- data -----------------------------------------------------------------------------------------------

    def json(self) -> dict[str, Any]:
        """The status for programs."""
        view = self.view
        return {
            "run": self.run.name,
            "path": home(self.run.path),
            "state": view.state,
            "paused": dict(self.paused) or None,
            "coordinator": view.coordinator or None,
            "coordinator_alive": view.alive,
            "record": dict(view.record),
            "fanouts": [self._group_json(group) for group in view.fanouts],
            "all_branches_searched": view.searched,
            "running": [
                {
                    "job": in_run(one.job.path),
                    "attempt": one.attempt,
                    "claimant": one.claimant,
                    "started": one.started,
                    "host": one.host or None,
                }
                for one in view.running
            ],
            "workers": [
                {"name": worker.name, "alive": worker.alive, **dict(worker.record)} for worker in self.workers
            ],
            "hosts": [_shown_host(host) for host in self.hosts],
            "failures": [
                {"job": in_run(failure.job.path), "path": home(failure.job.path), **_shown_failure(failure.result)}
                for failure in view.failures
            ],
        }

    def _group_json(self, group: FanOutView) -> dict[str, Any]:
        now = time.time() if self.view.alive and group.finished < group.total else None
        rate = group.rate(now)
        left = (group.total - group.finished) / rate if rate and now else None
        return {
            "name": group.name,
            "fanouts": group.folders,
            "total": group.total,
            "done": group.counts["done"],
            "failed": group.counts["failed"],
            "cancelled": group.counts["cancelled"],
            "running": group.running,
            "todo": group.todo,
            "strategy": group.record.get("strategy"),
            "started": group.record.get("started"),
            "per_second": round(rate, 3),
            "seconds_left": None if left is None else round(left, 1),
        }


def _shown_host(host: HostView) -> dict[str, Any]:
    return {
        "host": host.host,
        "state": host.state,
        "since": host.since,
        "error": host.error or None,
        "slots": host.slots,
        "running": [in_run(one.job.path) for one in host.running],
        **host.record,
    }


def reason(result: Any) -> str:
    """Why a job failed, in one line."""
    if "$unreadable" in result:
        return f"its result is {result['$unreadable']}"
    kind, error = result.get("error_type"), str(result.get("error") or "no reason known").strip()
    text = (error.splitlines() or [""])[0]
    if kind and kind not in text:
        text = f"{kind}: {text}"
    return text if result.get("outcome") in (None, "failed") else f"{result['outcome'].replace('_', ' ')}: {text}"


def _shown_failure(result: Any) -> dict[str, Any]:
    members = ("outcome", "error", "error_type", "attempt", "seconds", "host", "$unreadable")
    return {name: result[name] for name in members if name in result}


def _watch(status: Status, as_json: bool) -> None:
    """Look again until the run has ended; on a terminal in place, else only when something has changed."""
    try:
        if as_json or not sys.stdout.isatty():
            _watch_lines(status, as_json)
        else:
            _watch_live(status)
    except KeyboardInterrupt:  # the way to leave
        return


def _watch_lines(status: Status, as_json: bool) -> None:
    told: Any = None
    while True:
        counts = [(group.name, group.counts, group.running) for group in status.view.fanouts]
        now = (status.view.state, json.dumps(counts))
        if now != told:
            click.echo(json.dumps(status.json()) if as_json else "\n".join([*status.lines(), ""]))
            told = now
        if not status.view.alive:
            return
        time.sleep(WATCH_INTERVAL)
        status.look()


def _watch_live(status: Status) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    def picture() -> Text:
        return Text("\n".join(status.lines()), no_wrap=True, overflow="ellipsis")

    with Live(picture(), console=Console(highlight=False), auto_refresh=False, vertical_overflow="crop") as live:
        while status.view.alive:
            time.sleep(WATCH_INTERVAL)
            status.look()
            live.update(picture(), refresh=True)
