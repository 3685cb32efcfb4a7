"""Ending a worker together with everything that its job has started.

A worker leads a process group, which a signal reaches at once. What left the group (`setsid`, double forks) is found
by what every descendant has: the worker's lock, inherited by a fork, or its mark in the environment, inherited by an
exec. Only Linux shows both (`/proc`); elsewhere the group is what can be reached.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial

from spool.layout import SpoolFiles, WorkerFiles
from spool.worker import Observer, is_gone

MARK = "TEA_WORKER"
"""Environment variable that names the worker to whatever its jobs start."""

_STEP = 0.01
_PATIENCE = 5.0
_LOOKS = 100


def processes_of(worker: WorkerFiles) -> Iterator[int]:
    """The processes of this user that hold the worker's lock or bear its mark, each as it is found; never this one.

    It looks until there is nobody new: what forks and ends all the time has always made the next one already.
    """
    mark = f"{MARK}={worker.name}".encode()
    known = {str(os.getpid())}
    for _ in range(_LOOKS):
        new = _all_processes() - known
        yield from (int(pid) for pid in new if _belongs(pid, mark, worker.lock))
        known |= new
        if not new:
            return


def _all_processes() -> set[str]:
    try:
        return {name for name in os.listdir("/proc") if name.isdecimal()}
    except FileNotFoundError:
        return set()


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
    """KILL to whatever is left of a worker, until nothing is.

    One signal ends a whole group, also one that forks all the time: the kernel lets no fork through meanwhile. What
    leaves its group again and again has to be found before it has made the next one and ended.
    """
    _until_nobody_is_left(lambda: bool(_signal_all(pid, worker, signal.SIGKILL)) or _group_lives(pid))


def reap(spool: SpoolFiles) -> None:
    """End what workers of this machine that are dead have left running.

    It holds the lock of its worker, so that its job would not run again as long as it lives.
    """
    for name in Observer(spool).orphaned():
        _until_nobody_is_left(partial(_signal_each, spool.worker(name), signal.SIGKILL))


def _until_nobody_is_left(kill: Callable[[], object]) -> None:
    """Call what kills and says whether it found anybody, until it finds nobody; after some seconds it gives up."""
    deadline = time.monotonic() + _PATIENCE
    while kill() and time.monotonic() < deadline:
        time.sleep(_STEP)


def _signal_all(pid: int, worker: WorkerFiles | None, number: int) -> set[int]:
    signal_group(pid, number)
    return _signal_each(worker, number) if worker is not None else set()


def _signal_each(worker: WorkerFiles, number: int) -> set[int]:
    """Signal what a worker's job has started, each as soon as it is found."""
    found = set()
    for pid in processes_of(worker):
        _signal(pid, number)
        found.add(pid)
    return found


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
    """Whether anything runs in a process group; zombies do not, but can be signalled."""
    return signal_group(pid, 0) and (lives(pid) or not os.path.isdir("/proc/self") or any(map(lives, _members(pid))))


def _members(group: int) -> Iterator[int]:
    for pid in map(int, _all_processes()):
        try:
            if os.getpgid(pid) == group:
                yield pid
        except ProcessLookupError:  # it has just ended
            pass


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def lives(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    return not is_gone(pid)
