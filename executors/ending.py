"""Ending a worker together with everything that its job has started.

A worker leads a process group, which a signal reaches at once. What left the group (`setsid`, double forks) is found
by what every descendant has: the worker's lock, inherited by a fork, or its mark in the environment, inherited by an
exec. Only Linux shows both (`/proc`); elsewhere the group is what can be reached.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from spool.layout import SpoolFiles, WorkerFiles
from spool.worker import Observer, is_gone

MARK = "TEA_WORKER"
"""Environment variable that names the worker to whatever its jobs start."""

_STEP = 0.01


def processes_of(worker: WorkerFiles) -> set[int]:
    """The processes of this user that hold the worker's lock or bear its mark; this process is never one."""
    mark = f"{MARK}={worker.name}".encode()
    try:
        names = os.listdir("/proc")
    except FileNotFoundError:
        return set()
    found = {int(name) for name in names if name.isdecimal() and _belongs(name, mark, worker.lock)}
    return found - {os.getpid()}


def _belongs(pid: str, mark: bytes, lock: str) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            if mark in file.read().split(b"\0"):
                return True
        folder = f"/proc/{pid}/fd"
        return any(os.readlink(f"{folder}/{fd}") == lock for fd in os.listdir(folder))
    except OSError:  # another user's, or gone while we look
        return False


def end_worker(pid: int, worker: WorkerFiles | None, grace: float, wait: Callable[[float], object]) -> None:
    """TERM to a worker, its group and what escaped from it; KILL to what is left after `grace` seconds.

    wait: waits for the worker itself, at most so many seconds.
    """
    deadline = time.monotonic() + grace
    others = _signal_all(pid, worker, signal.SIGTERM)
    while time.monotonic() < deadline and (_group_lives(pid) or any(map(lives, others))):
        wait(_STEP)
        time.sleep(_STEP / 2)
    kill_rest(pid, worker)


def kill_rest(pid: int, worker: WorkerFiles | None) -> None:
    """KILL to whatever is left of a worker, until nothing is: what is killed may have just started something."""
    for _ in range(10):
        others = _signal_all(pid, worker, signal.SIGKILL)
        if not others and not _group_lives(pid):
            return
        time.sleep(_STEP)


def reap(spool: SpoolFiles) -> None:
    """End what workers of this machine that are dead have left running.

    It holds the lock of its worker, so that its job would not run again as long as it lives.
    """
    for name in Observer(spool).orphaned():
        for _ in range(10):
            left = processes_of(spool.worker(name))
            if not left:
                break
            for pid in left:
                _signal(pid, signal.SIGKILL)
            time.sleep(_STEP)


def _signal_all(pid: int, worker: WorkerFiles | None, number: int) -> set[int]:
    others = processes_of(worker) if worker is not None else set()
    signal_group(pid, number)
    for other in others:
        _signal(other, number)
    return {other for other in others if lives(other)}


def signal_group(pid: int, number: int) -> bool:
    """Send a signal to a process group; False when nobody is in it."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # only zombies are left, on some systems
        return False
    return True


def _group_lives(pid: int) -> bool:
    return signal_group(pid, 0)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def lives(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    return not is_gone(pid)
