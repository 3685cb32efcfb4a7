"""Runs and fan-outs: made by a coordinator, found by everybody.

One process drives a run: it holds `coordinator.lock`. The kernel frees the lock when that process dies, so nobody
ever has to remove it, and a second coordinator is told who the first is.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator
from typing import Any

from filelock import lock_descriptor

from spool import jsonio
from spool.claim import host_name, user_name
from spool.errors import RunBusyError, SpoolError, UnknownNameError
from spool.layout import FORMAT, TICKETS, FanOutFiles, JobFiles, RunFiles, SpoolFiles, fanout_name, is_name, safe_name
from spool.opened import listed, must_not_be_packed, open_run, packed_runs
from spool.publish import publish, read_bytes, read_json, replace, sweep

_FANOUT = re.compile(r"([0-9]{3,})-.+")


def open_spool(path: str) -> SpoolFiles:
    """The spool at a path, made where there is none.

    Raises SpoolError when the folder belongs to somebody else, others may write to it, or its format is another.
    """
    spool = SpoolFiles(os.path.abspath(path))
    os.makedirs(spool.path, 0o700, exist_ok=True)
    check_private(spool.path)
    try:
        record = read_json(spool.spool)
    except FileNotFoundError:
        record = {"format": FORMAT, "created": time.time()}
        os.makedirs(spool.runs, 0o700, exist_ok=True)
        os.makedirs(spool.workers, 0o700, exist_ok=True)
        try:
            publish(spool.spool, jsonio.pretty(record))
        except FileExistsError:
            record = read_json(spool.spool)
    if record.get("format") != FORMAT:
        raise SpoolError(
            f"{spool.spool}: format {record.get('format')!r}; this version reads format {FORMAT}: "
            "use the version of tea that wrote it, or another --spool"
        )
    return spool


def find_spool(path: str) -> SpoolFiles:
    """The spool at a path, which must exist. Raises SpoolError when it does not."""
    if not os.path.exists(SpoolFiles(path).spool):
        raise SpoolError(
            f"{path}: no spool here; name one with --spool DIR or TEA_SPOOL, or start one with `tea run`"
        )
    return open_spool(path)


def check_private(path: str) -> None:
    """Raises SpoolError unless a folder is this user's and only this user may write to it."""
    status = os.lstat(path)
    if not os.path.isdir(path) or (os.path.islink(path) and os.stat(path).st_uid != os.geteuid()):
        raise SpoolError(f"{path}: not a folder of yours")
    status = os.stat(path)
    if status.st_uid != os.geteuid():
        raise SpoolError(
            f"{path}: belongs to user {status.st_uid}, not to you ({os.geteuid()}); a spool is private, use another"
        )
    if status.st_mode & 0o022:
        raise SpoolError(f"{path}: others may write to it; `chmod go-w {path}` if you trust what is in it")


def create_run(spool: SpoolFiles, label: str, record: dict[str, Any], workflow: bytes) -> RunFiles:
    """Make a run: `20261124-053012-LABEL-7f3a`, so that names sort by time."""
    os.makedirs(spool.runs, 0o700, exist_ok=True)  # somebody may have removed all runs with their folder
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    while True:
        run = spool.run(f"{stamp}-{safe_name(label or 'run', 40)}-{secrets.token_hex(2)}")
        try:
            os.mkdir(run.path, 0o700)
            break
        except FileExistsError:
            continue
    os.mkdir(run.fanouts, 0o700)
    publish(run.workflow, workflow)
    publish(run.run, jsonio.pretty({"format": FORMAT, **record, "started": time.time()}))
    return run


def update_run(run: RunFiles, **fields: Any) -> dict[str, Any]:
    """Change members of run.json; only the run's coordinator may. Returns the new record."""
    record = {**read_json(run.run), **fields}
    replace(run.run, jsonio.pretty(record))
    return record


class CoordinatorLock:
    """Held by the one process that drives a run.

    Args:
        run: which. sign: whether to say who holds it; who only must have the run for itself a while does not.

    Raises RunBusyError when another process holds it, PackedRunError, SpoolError where locks are refused.
    """

    def __init__(self, run: RunFiles, *, sign: bool = True) -> None:
        must_not_be_packed(run)
        try:
            self._fd = os.open(run.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SpoolError(f"{run.lock}: cannot be opened ({error.strerror})") from error
        try:
            if not _take(self._fd):
                raise RunBusyError(run.name, coordinator(run))
        except OSError as error:
            os.close(self._fd)
            raise SpoolError(
                f"{run.lock}: this file system does not lock ({error.strerror}), so nobody can tell whether another "
                "process drives this run; put the spool on one that does, with --spool DIR"
            ) from error
        except BaseException:
            os.close(self._fd)
            raise
        if sign:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{user_name()}@{host_name()}:{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._fd)


def _take(fd: int) -> bool:
    """Whether a lock could be taken. Who asks whether anybody has it has it for a moment, so it is tried again."""
    for pause in (0.0, 0.001, 0.01, 0.1):
        time.sleep(pause)
        if lock_descriptor(fd, blocking=False):
            return True
    return False


def coordinator(run: RunFiles) -> str:
    """Who drives a run, or drove it last: `user@host:pid`."""
    try:
        return read_bytes(run.lock, 4096).decode("utf-8", "replace").strip()
    except (OSError, SpoolError):
        return ""


def runs(spool: SpoolFiles) -> list[RunFiles]:
    """The runs that have a folder, oldest first; a link to elsewhere is none, as nothing shall be done there."""
    try:
        with os.scandir(spool.runs) as found:
            names = sorted(one.name for one in found if is_name(one.name) and one.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
    return [spool.run(name) for name in names]


def run_names(spool: SpoolFiles) -> list[str]:
    """The names of all runs, packed ones among them, oldest first."""
    return sorted({run.name for run in runs(spool)} | set(packed_runs(spool)))


def readable(spool: SpoolFiles, name: str, *, lazily: bool = False) -> RunFiles:
    """A run of this name to read: its folder, or what is restored of its pack, as of `opened.open_run`."""
    run = spool.run(name)
    return run if os.path.lexists(run.path) else open_run(spool, name, lazily=lazily)


def find_run(spool: SpoolFiles, name: str | None = None, *, lazily: bool = False) -> RunFiles:
    """A run by name, an unambiguous part of its name, or a path; the newest without one.

    One that is packed is opened for reading, as of `opened.open_run`. Raises UnknownNameError.
    """
    return readable(spool, find_name(spool, name), lazily=lazily)


def find_name(spool: SpoolFiles, name: str | None = None) -> str:
    """The name of a run, as of `find_run`. Raises UnknownNameError."""
    known = run_names(spool)
    if not known:
        raise UnknownNameError(f"{spool.path}: no runs yet; start one with `tea run WORKFLOW`")
    if name is None:
        return known[-1]
    wanted = os.path.basename(name.rstrip("/"))
    found = [run for run in known if run == wanted] or [run for run in known if wanted in run]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} runs match '{name}'" if found else f"no run '{name}'"
    some = ", ".join((found or known)[-3:])
    raise UnknownNameError(
        f"{spool.path}: {what}; among them {some}" if found else f"{spool.path}: {what}; newest: {some}"
    )


# -- fan-outs ---------------------------------------------------------------------------------------------------


def fanouts(folder: str) -> list[FanOutFiles]:
    """The fan-outs in a `fanouts/` folder, in order."""
    try:
        names = sorted(
            (int(m[1]), name) for name in os.listdir(folder) if is_name(name) and (m := _FANOUT.fullmatch(name))
        )
    except FileNotFoundError:
        return []
    return [FanOutFiles(f"{folder}/{name}") for _, name in names]


def create_fanout(folder: str, number: int, source: str) -> FanOutFiles:
    """Make the folders of a fan-out, or complete those that a dead coordinator began."""
    fanout = FanOutFiles(f"{folder}/{fanout_name(number, source)}")
    os.makedirs(folder, 0o700, exist_ok=True)
    try:
        os.mkdir(fanout.path, 0o700)
    except FileExistsError:
        sweep(fanout.path)
        sweep(fanout.shared)
    for path in (fanout.shared, fanout.jobs, *(fanout.tickets(kind) for kind in TICKETS)):
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            continue
    return fanout


def all_fanouts(run: RunFiles) -> Iterator[FanOutFiles]:
    """The fan-outs of a run, those inside branches too, parents first."""
    pending = fanouts(run.fanouts)
    while pending:
        fanout = pending.pop(0)
        yield fanout
        for job in jobs_of(fanout):
            pending.extend(fanouts(job.fanouts))


def jobs_of(fanout: FanOutFiles) -> list[JobFiles]:
    """The jobs of a fan-out, in branch order."""
    try:
        packed = listed(fanout.jobs)
        names = sorted(name for name in (os.listdir(fanout.jobs) if packed is None else packed) if is_name(name))
    except FileNotFoundError:
        return []
    return [fanout.job(name) for name in names]
