"""The undertaker: a process that ends what a coordinator leaves behind when it is killed.

Slots end themselves when their parent goes away, but not all can: one that is stopped (SIGSTOP) or stuck in C code
does nothing, one that was just being started has not begun to watch, and what left its process group (`setsid`) is
out of its reach. So the server that slots are forked from begins with a process that waits for the coordinator's end
and then kills everything that descends from the server, and removes the folder of its socket.

Descendants are known by what all of them have: `TEA_SERVER` in the environment, of forks from the server's start, of
programs from the slot that started them. Only Linux can wait for a process that is no child and shows environments;
elsewhere there is no undertaker, and the slots' own watch is all.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable

SERVER = "TEA_SERVER"
"""Environment variable that tells servers apart: `PID:TOKEN:FOLDER`, of the coordinator; the folder goes with it."""

NAME = "tea-undertaker"
"""What `ps` and `top` call it."""

_PATIENCE = 10.0
_STEP = 0.01
_LOOKS = 100


def start() -> None:
    """Leave an undertaker, in a server that is just starting; anywhere else, and where there can be none, nothing."""
    mark = os.environ.get(SERVER, "")
    pid, _, rest = mark.partition(":")
    if sys.platform != "linux" or not pid.isdecimal() or int(pid) != os.getppid():
        return
    try:
        coordinator = os.pidfd_open(int(pid))
    except OSError:
        return
    _detached(lambda: _bury(coordinator, mark, rest.partition(":")[2]))
    os.close(coordinator)


def _detached(task: Callable[[], None]) -> None:
    """Run a task in a grandchild, which the server need not wait for."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:
            task()
    finally:
        os._exit(0)


def _bury(coordinator: int, mark: str, folder: str) -> None:
    _hold_nothing_but(coordinator)
    with open("/proc/self/comm", "w") as file:
        file.write(NAME)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    select.select([coordinator], [], [])
    end(mark, _PATIENCE)
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


def end(mark: str, patience: float) -> None:
    """Kill all other processes that carry a mark, for at most `patience` seconds; only Linux knows them."""
    if sys.platform != "linux":
        return
    deadline = time.monotonic() + patience
    while _kill_all(f"{SERVER}={mark}".encode()) and time.monotonic() < deadline:
        time.sleep(_STEP)


def _hold_nothing_but(fd: int) -> None:
    """Whoever waits for the end of an output of ours, or of a pipe, shall not wait for the undertaker."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    os.closerange(3, fd)
    os.closerange(fd + 1, 65536)


def _kill_all(entry: bytes) -> bool:
    """KILL to all processes with this entry in their environment, without this one; False when there was none.

    It looks until there is nobody new: what forks and ends all the time has always made the next one already.
    """
    known, found = {os.getpid()}, False
    for _ in range(_LOOKS):
        new = {int(name) for name in os.listdir("/proc") if name.isdecimal()} - known
        for pid in new:
            if entry in _environment(pid):
                _kill(pid)
                found = True
        known |= new
        if not new:
            break
    return found


def _environment(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:  # another user's, or gone while we look
        return []


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


start()
