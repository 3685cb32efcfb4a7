"""Hosts that the jobs of a run are sent to: how each is, as the journal tells, and what runs there.

A coordinator that sends jobs elsewhere writes an event `host` whenever the state of one changes, and registers itself
as a worker for each that works, with the host's name under `serves`.

    connecting   not ready yet
    ready        works
    half-open    was out, is tried again with one job at a time
    lost         the connection is gone, and is made again
    out          is left out: for good, or until it is tried again
    ended        the fan-out is over
    not used     the fan-out was over before it was ready
    stopped      whoever sent it jobs was killed, and the jobs there have ended with that
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spool.inspect import Running, RunView, WorkerView
from spool.inspect import workers as find_workers
from spool.journal import read_journal
from spool.layout import JobFiles, SpoolFiles
from spool.worker import Observer


@dataclass(frozen=True, slots=True)
class HostView:
    """A host. since: of its state, seconds since the epoch. error: why it is lost or out. slots: None when unknown.
    record: what it has said of itself: `python`, `workdir`, `name`.
    """

    host: str
    state: str
    since: float
    error: str
    slots: int | None
    record: Mapping[str, Any]
    running: tuple[Running, ...] = ()


def hosts(view: RunView, workers: Iterable[WorkerView]) -> list[HostView]:
    """The hosts of the fan-out that last sent jobs to any, in the order of its settings."""
    if not any(group.record.get("strategy") == "remote" for group in view.fanouts):
        return []
    inside = f"{view.files.path}/"
    busy: dict[str, tuple[Running, ...]] = {}
    for worker in workers:
        if worker.alive and (serves := worker.record.get("serves")):
            mine = tuple(one for one in worker.attempts if one.job.path.startswith(inside))
            busy[str(serves)] = (*busy.get(str(serves), ()), *mine)
    events = _last(read_journal(view.files, ("host", "resumed")))
    return [_view(name, told, view.alive, busy.get(name, ())) for name, told in events.items()]


def host_of(spool: SpoolFiles, job: JobFiles, observer: Observer | None = None) -> str:
    """The host that a job was sent to, while it runs there; else empty."""
    running = (one for worker in find_workers(spool, observer) if worker.alive for one in worker.attempts)
    return next((one.host for one in running if one.host and one.job == job), "")


def _last(events: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The events of each host, of the newest fan-out that has any, and of its last coordinator."""
    found: dict[str, list[dict[str, Any]]] = {}
    fanout, resumed = None, False
    for event in events:
        if event["event"] == "resumed":
            resumed = True
            continue
        if resumed or event.get("fanout") != fanout:
            found, fanout, resumed = {}, event.get("fanout"), False
        found.setdefault(str(event.get("host")), []).append(event)
    return found


def _view(name: str, told: Sequence[dict[str, Any]], alive: bool | None, running: tuple[Running, ...]) -> HostView:
    newest = told[-1]
    state = str(newest.get("state"))
    if alive is False and state in ("connecting", "ready", "half-open", "lost"):
        state = "stopped"
    known: dict[str, Any] = {}
    for event in told:
        known.update({key: event[key] for key in ("slots", "python", "workdir", "name") if key in event})
    slots, at = known.pop("slots", None), newest.get("at")
    since = float(at) if isinstance(at, int | float) else 0.0
    return HostView(name, state, since, str(newest.get("error") or ""), slots, known, running)
