"""Removing what is over: old runs with their packs and replays, and the folders of dead workers.

A run is removed under its coordinator's lock, so nobody can take it up meanwhile, and is renamed first, so nobody
sees half of it; what a crash leaves of that is removed the next time. A run that is driven, whose lock is held, or in
which a living worker is at a job is kept.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from spool import inspect
from spool.errors import SpoolError
from spool.facts import run_state
from spool.find import run_of
from spool.inspect import WorkerView
from spool.layout import REMOVED, UNPACKING, RunFiles, SpoolFiles
from spool.opened import is_packed
from spool.pack import Pack
from spool.packing import alone, remove_folder, remove_pack
from spool.pause import paused
from spool.publish import read_quietly
from spool.run import CoordinatorLock, run_names
from spool.worker import Observer

OUTCOMES = ("done", "failed", "cancelled", "interrupted", "stopped")
"""The states of runs that may be removed."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """Which runs shall go: those that ended so, at least `older_than` seconds ago, but for the `keep` newest."""

    older_than: float = 7 * 86400.0
    keep: int = 0
    outcomes: Collection[str] = OUTCOMES


@dataclass(slots=True)
class Size:
    """How much a folder holds; a file with several names counts once."""

    files: int = 0
    bytes: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(self.files + other.files, self.bytes + other.bytes)


@dataclass(slots=True)
class OldRun:
    """A run that may go. ended: seconds since the epoch. kept: why it stays in spite of that; None when it goes.

    packed: whether it has no folder, only a pack.
    """

    files: RunFiles
    state: str
    ended: float
    packed: bool = False
    size: Size = field(default_factory=Size)
    kept: str | None = None


def old_runs(spool: SpoolFiles, wishes: Wishes, now: float | None = None) -> Iterator[OldRun]:
    """The runs that shall go, oldest first, and those that would but for being in use."""
    now = time.time() if now is None else now
    known = run_names(spool)
    busy = {run_of(one.running.job.path).path for one in inspect.workers(spool) if one.alive and one.running}
    for name in known[: max(0, len(known) - wishes.keep)]:
        one = _packed(spool, name) if is_packed(spool, name) else _with_folder(spool.run(name), busy)
        if now - one.ended < wishes.older_than or (one.kept is None and one.state not in wishes.outcomes):
            continue
        if one.kept is None:
            one.size = sum(map(size_of, (one.files.path, spool.pack(name), spool.replays_of(name))), Size())
        yield one


def _with_folder(run: RunFiles, busy: Collection[str]) -> OldRun:
    one = OldRun(run, run_state(run), ended_at(run))
    if one.state in ("running", "unknown"):
        one.kept = "a coordinator drives it" if one.state == "running" else "whether it is driven can't be told"
    elif run.path in busy:
        one.kept = "a worker is at one of its jobs"
    elif one.state == "stopped" and (note := paused(run)):
        one.kept = f"it is paused by {note['by']}"
    return one


def _packed(spool: SpoolFiles, name: str) -> OldRun:
    """A run that has ended, or it would not be packed; what its pack says of it, without looking inside."""
    run = spool.run(name)
    try:
        with Pack(spool.pack(name)) as pack:
            record = pack.index["record"]
            finished = record.get("finished")
            ended = float(finished) if isinstance(finished, int | float) else os.stat(pack.path).st_mtime
            return OldRun(run, str(record.get("outcome")), ended, packed=True)
    except (SpoolError, OSError) as error:
        return OldRun(run, "unknown", 0.0, packed=True, kept=str(error))


def ended_at(run: RunFiles) -> float:
    """When a run ended: as run.json says, else when its folder was changed last."""
    finished = read_quietly(run.run).get("finished")
    if isinstance(finished, int | float):
        return float(finished)
    times = [0.0]
    for path in (run.path, run.run, run.events, run.lock, run.fanouts):
        try:
            times.append(os.lstat(path).st_mtime)
        except OSError:
            continue
    return max(times)


def size_of(path: str) -> Size:
    """What is in a folder, or what a file has; nothing when there is none."""
    size, seen = Size(), set()
    if os.path.isfile(path):
        return Size(1, os.lstat(path).st_size)
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                status = os.lstat(f"{folder}/{name}")
            except OSError:
                continue
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                size.files += 1
                size.bytes += status.st_size
    return size


def remove_run(spool: SpoolFiles, one: OldRun) -> None:
    """Remove a run, its pack and its replays; `kept` says why when it could not be.

    Raises OSError when the disk refuses.
    """
    if one.packed and not os.path.lexists(one.files.path):
        return _remove_rest(spool, one.files.name)
    try:
        lock = CoordinatorLock(one.files)
    except SpoolError as error:  # somebody took it up since we looked
        one.kept = str(error)
        return None
    try:
        with alone(spool):
            remove_folder(spool, one.files)
        _remove_rest(spool, one.files.name)
    finally:
        lock.release()


def _remove_rest(spool: SpoolFiles, name: str) -> None:
    remove_pack(spool, name)
    shutil.rmtree(spool.replays_of(name), ignore_errors=True)


def clear_up(spool: SpoolFiles) -> None:
    """Remove what earlier calls that were killed have left: half-removed and half-made runs and packs."""
    if any(REMOVED.fullmatch(name) or UNPACKING.fullmatch(name) for name in os.listdir(spool.runs)):
        with alone(spool):
            pass


def dead_workers(spool: SpoolFiles) -> list[tuple[WorkerView, Size]]:
    """The workers of this host that were killed and left their folder, and what is in it."""
    observer = Observer(spool)
    dead = [one for one in inspect.workers(spool, observer) if not one.alive and observer.was_here(one.name)]
    return [(one, size_of(spool.worker(one.name).path)) for one in dead]


def bury(spool: SpoolFiles, worker: WorkerView, observer: Observer) -> None:
    """Remove the folder of a dead worker; what its job had printed goes to the job, where that still is."""
    if worker.running is not None and os.path.isdir(worker.running.job.path):
        observer.inherit(worker.running.job, worker.running.attempt)
    observer.bury({worker.name})
