"""Workers and whether they live.

A worker is a process. Its folder holds a lock that the kernel frees when the process and all children that inherited
the descriptor are dead, and a beat that it rewrites every third of its lease. An observer asks, in this order:

    another boot id on the worker's own machine   dead
    the same boot                                 the lock tells, within microseconds; a process that holds it
                                                  but is stopped (SIGSTOP) lives for a lease, as its beat tells; one
                                                  that is dead counts until its supervisor, if it lives, has said why
    the lock cannot be asked (ENOLCK, ENOSYS)     the beat
    another host                                  the beat: unchanged for a lease on the observer's own
                                                  monotonic clock is dead

Clocks of two machines are never compared, and a soft lock never takes a refused lock's place.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from filelock import lock_descriptor, unlock_descriptor

from spool import jsonio
from spool.claim import Claimant, claimed_by, host_name, user_name
from spool.errors import SpoolError
from spool.layout import JobFiles, SpoolFiles, WorkerFiles, is_name
from spool.logs import keep_logs
from spool.publish import is_there, publish, read_bytes, read_json, replace

LEASE = 30.0
"""Seconds without a beat after which a worker on another host counts as dead."""

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})


@lru_cache(maxsize=1)
def boot_id() -> str:
    """What tells this boot of this machine from others: the kernel's boot id.

    Elsewhere than on Linux it is the same for all boots, and the lock alone tells: no lock outlives a boot.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return "unknown"


@lru_cache(maxsize=1)
def machine_id() -> str:
    """What tells this machine from others of the same name; "" where there is nothing to tell it by.

    A digest, as the id itself is not for everybody to know: machine-id(5).
    """
    try:
        with open("/etc/machine-id", "rb") as file:
            number = file.read().strip()
    except OSError:
        return ""
    return hashlib.sha256(b"tea-spool:" + number).hexdigest()[:16] if number else ""


def is_here(record: Mapping[str, Any]) -> bool:
    """Whether a worker's record was written on this machine, in any boot. Two machines may bear one name."""
    return record.get("host") == host_name() and record.get("machine") in (None, "", machine_id())


class Worker:
    """This process as a worker of a spool: registered, locked, beating.

    Use as a context manager, or call `close`. The folder goes when the worker ends in order; it stays as evidence
    when the process was killed.
    """

    def __init__(
        self, spool: SpoolFiles, *, slots: int = 1, lease: float = LEASE, version: str = "", supervisor: str = ""
    ) -> None:
        self.claimant = Claimant(user_name(), host_name(), os.getpid(), secrets.token_hex(6))
        self.name = self.claimant.worker
        self.text = str(self.claimant)
        self.lease = lease
        self._spool = spool.path
        self.files: WorkerFiles = spool.worker(self.name)
        os.makedirs(spool.workers, 0o700, exist_ok=True)
        os.mkdir(self.files.path, 0o700)
        self.lock_fd: int | None = None
        self._beats = 0
        self._beating_since, self._back = float("inf"), 0.0
        self._closed = threading.Event()
        self._now_size = _NOW_SIZE
        try:
            self._register(slots, version, supervisor)
        except BaseException:
            if self.lock_fd is not None:
                os.close(self.lock_fd)
            shutil.rmtree(self.files.path, ignore_errors=True)
            raise
        self._pulsing = threading.Thread(target=self._pulse, name="tea-beat", daemon=True)
        self._pulsing.start()
        _beating[os.getpid(), spool.path] = self

    def _register(self, slots: int, version: str, supervisor: str) -> None:
        self.lock_fd = self._lock()
        record = self._record(slots, version)
        if supervisor:
            record["supervisor"] = supervisor
        publish(self.files.worker, jsonio.pretty(record))
        self._beat()
        self._now_fd = os.open(self.files.now, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _record(self, slots: int, version: str) -> dict[str, Any]:
        return {
            "host": self.claimant.host,
            "machine": machine_id(),
            "boot_id": boot_id(),
            "pid": self.claimant.pid,
            "user": self.claimant.user,
            "slots": slots,
            "tea": version,
            "lease": self.lease,
            "locked": self.lock_fd is not None,
            "started": time.time(),
        }

    def _lock(self) -> int | None:
        """Take the lock; None where the file system has no locks and the beat alone must do.

        The name is new, so whoever else holds it is an observer that asks whether anybody does: for microseconds.
        """
        fd = os.open(self.files.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            lock_descriptor(fd, poll_interval=0.001)
        except OSError as error:
            os.close(fd)
            if error.errno not in _NO_LOCKS:
                raise
            return None
        return fd

    def _beat(self) -> None:
        self._beats += 1
        replace(self.files.beat, f"{self._beats}\n".encode())

    def _pulse(self) -> None:
        while not self._closed.wait(self.lease / 3):
            self._beating_since = time.monotonic()
            with contextlib.suppress(OSError):  # a full disk, or the folder is gone: the lease runs out, as it should
                self._beat()
            self._back = self.back()
            self._beating_since = float("inf")

    def back(self) -> float:
        """Until when the file system kept this worker's own beat waiting, as far as is known; 0 for never."""
        now = time.monotonic()
        return now if now - self._beating_since > self.lease / 3 else self._back

    def doing(self, text: str) -> None:
        """Say what this worker does now (a line for each attempt, for people and for its supervisor)."""
        data = text.encode()
        self._now_size = max(self._now_size, len(data))  # what was written before must be covered
        os.pwrite(self._now_fd, data.ljust(self._now_size), 0)

    def close(self) -> None:
        """End in order: the lock is freed and the folder goes."""
        if self._closed.is_set() or os.getpid() != self.claimant.pid:  # a forked child is not this worker
            return
        self._closed.set()
        _beating.pop((os.getpid(), self._spool), None)
        self._pulsing.join(5)  # a beat that comes now would keep the folder
        with contextlib.suppress(OSError):  # first: without its lock, but with its record, it would look killed
            os.unlink(self.files.worker)
        shutil.rmtree(self.files.path, ignore_errors=True)
        os.close(self._now_fd)
        if self.lock_fd is not None:
            os.close(self.lock_fd)
        with contextlib.suppress(OSError):
            os.rmdir(self.files.path)  # over NFS, files that were open had kept it

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_beating: dict[tuple[int, str], Worker] = {}
"""The newest worker of this process in each spool: its own beat tells when the file system was away for all."""

_here: dict[tuple[int, str], Worker] = {}
_here_lock = threading.Lock()


def this_worker(spool: SpoolFiles, *, slots: int = 1, lease: float = LEASE, version: str = "") -> Worker:
    """This process as a worker of a spool: registered once, until the process ends."""
    key = (os.getpid(), spool.path)
    with _here_lock:
        worker = _here.get(key)
        if worker is None or not os.path.isdir(worker.files.path):  # the spool was removed and made anew
            worker = _here[key] = Worker(spool, slots=slots, lease=lease, version=version)
            atexit.register(worker.close)
        return worker


def leave(spool: SpoolFiles) -> None:
    """This process is no worker of a spool any more, if it was one: before the spool is removed."""
    with _here_lock:
        worker = _here.pop((os.getpid(), spool.path), None)
    if worker is not None:
        atexit.unregister(worker.close)
        worker.close()


_NOW_SIZE = 256
"""Bytes that what a worker does now is padded to; a longer text makes the file longer."""


def read_now(files: WorkerFiles) -> str:
    """What a worker does now; empty when nothing or unknown."""
    try:
        return read_bytes(files.now, 65536).decode("utf-8", "replace").strip()
    except (OSError, SpoolError):
        return ""


@dataclass(slots=True)
class _Pulse:
    """A beat as seen by this observer, and since when it has not changed."""

    beat: bytes
    since: float


class Observer:
    """Tells whether claimants live. Remembers beats between questions, so keep one for each process.

    Args:
        spool: the spool whose workers are asked about.
        clock: monotonic seconds; another one only in tests.
    """

    def __init__(self, spool: SpoolFiles, clock: Callable[[], float] = time.monotonic) -> None:
        self._spool, self._clock = spool, clock
        self._records: dict[str, dict[str, Any]] = {}
        self._pulses: dict[str, _Pulse] = {}

    def files(self, name: str) -> WorkerFiles:
        """The files of a worker of this spool."""
        return self._spool.worker(name)

    def dead_workers(self) -> list[str]:
        """Workers that left their folder behind: they were killed, and may have left a job too."""
        return [name for name in self._names() if not self._lives(self._spool.worker(name))]

    def inherit(self, job: JobFiles, attempt: int) -> None:
        """Keep what a dead worker's attempt had printed."""
        claimant = Claimant.parse(claimed_by(job, attempt) or "")
        if claimant is None:
            return
        files = self._spool.worker(claimant.worker)
        if f" {job.name} {attempt} " in read_now(files):
            keep_logs(files, job, attempt)

    def bury(self, only: Container[str] | None = None) -> None:
        """Remove the folders of workers of this host that were killed; a claimant without a folder is as dead.

        only: none but these, where they are dead.
        """
        for name in self.dead_workers():
            if only is not None and name not in only:
                continue
            files = self._spool.worker(name)
            if self.was_here(name):
                shutil.rmtree(files.path, ignore_errors=True)

    def was_here(self, name: str) -> bool:
        """Whether a worker that is dead was one of this host, and is none that is just being made."""
        record = self._records.get(name)
        if record is not None:
            return is_here(record)
        host, _, rest = name.rpartition("-")[0].rpartition("-")  # killed before it could write its record
        return host == host_name() and is_gone(rest)

    def orphaned(self) -> list[str]:
        """Workers of this boot of this host that are gone, but whose lock is held by something that they started."""
        here = f"{host_name()}-{os.getpid()}-"  # this process is not gone, so nothing need be asked
        others = [name for name in self._names() if not name.startswith(here)]
        return [name for name in others if self._is_orphaned(self._spool.worker(name))]

    def _is_orphaned(self, files: WorkerFiles) -> bool:
        record = self._record(files) or {}
        here = is_here(record) and record.get("boot_id") == boot_id()
        return here and "pid" in record and is_gone(record["pid"]) and bool(is_locked(files.lock))

    def live_workers(self) -> set[str]:
        """Workers that live, as far as can be known from here."""
        return {name for name in self._names() if self._lives(self._spool.worker(name))}

    def _names(self) -> list[str]:
        try:
            return [name for name in os.listdir(self._spool.workers) if is_name(name)]
        except FileNotFoundError:
            return []

    def is_alive(self, text: str) -> bool:
        """Whether the claimant with this text lives, as far as can be known from here."""
        claimant = Claimant.parse(text)
        if claimant is None:
            return False
        return self._lives(self._spool.worker(claimant.worker))

    def _lives(self, files: WorkerFiles) -> bool:
        record = self._record(files)
        if record is None:
            return False
        if is_here(record):
            if record.get("boot_id") != boot_id():
                return False
            held = is_locked(files.lock) if record.get("locked") else None
            if held is False:
                return self._is_being_settled(files, record)
            if held and not is_stopped(record.get("pid")):
                return True
        return self._beats(files, record)

    def _is_being_settled(self, files: WorkerFiles, record: dict[str, Any]) -> bool:
        """Whether a worker that is dead still counts, because its supervisor is about to say why it died.

        The supervisor publishes the verdict and then removes the folder; who claimed the next attempt before that
        would take a failure, or a timeout, for a loss. It has a lease to do so.
        """
        supervisor = record.get("supervisor")
        return isinstance(supervisor, str) and self.is_alive(supervisor) and self._beats(files, record)

    def _record(self, files: WorkerFiles) -> dict[str, Any] | None:
        """The worker's record; None when its folder is gone: it ended in order, after its last result."""
        try:
            os.stat(files.path)
        except FileNotFoundError:
            self._records.pop(files.name, None)
            self._pulses.pop(files.name, None)
            return None
        except OSError:  # a passing fault (ESTALE, EIO) is no death: the beat tells
            return {}
        record = self._records.get(files.name)
        if record is None:
            try:
                record = _read_record(files)
            except FileNotFoundError:  # just being made, or half removed: the lock or the beat tell
                return {"host": host_name(), "boot_id": boot_id(), "locked": True}
            except (SpoolError, OSError):
                return {}
            self._records[files.name] = record
        return record

    def _beats(self, files: WorkerFiles, record: dict[str, Any]) -> bool:
        lease = record.get("lease", LEASE)
        try:
            beat = read_bytes(files.beat, 64)
        except (OSError, SpoolError):
            beat = b""
        pulse = self._pulses.get(files.name)
        if pulse is None or pulse.beat != beat:
            self._pulses[files.name] = _Pulse(beat, self._clock())
            return True
        own = _beating.get((os.getpid(), self._spool.path))
        since = max(pulse.since, own.back()) if own else pulse.since
        return self._clock() - since < (lease if isinstance(lease, int | float) else LEASE)


def _read_record(files: WorkerFiles) -> dict[str, Any]:
    """What a worker says of itself. Whoever looked while the folder was being made need not, over NFS, see it yet."""
    try:
        return read_json(files.worker, 65536)
    except FileNotFoundError:
        if not is_there(files.worker):
            raise
        return read_json(files.worker, 65536)


def is_stopped(pid: Any) -> bool:
    """Whether a process of this host is stopped by a signal: it holds its lock, but does nothing."""
    try:
        with open(f"/proc/{int(pid)}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
    except (OSError, TypeError, ValueError, IndexError):
        return False


def is_gone(pid: Any) -> bool:
    """Whether a process of this host has ended; a zombie has. False where that cannot be told."""
    try:
        with open(f"/proc/{int(pid)}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return os.path.isdir("/proc/self")
    except (OSError, TypeError, ValueError, IndexError):
        return False


def is_locked(path: str) -> bool | None:
    """Whether a living process holds this lock; None when the file system cannot tell."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        if not lock_descriptor(fd, blocking=False):
            return True
        unlock_descriptor(fd)  # not only closed: a child forked meanwhile may have inherited it
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    finally:
        os.close(fd)
