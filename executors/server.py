"""The server that worker processes are forked from: one thread, and all that they need imported.

As quick as a fork, without its danger in a process with threads. It is multiprocessing's, with what worker processes
need beside it: they do not import the user's main script, their exit code is read by two, and all that descends from
a server bears its mark (see `undertaker`).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import sys
import tempfile
import threading
from multiprocessing import connection, forkserver, parent_process, popen_forkserver, resource_tracker
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.forkserver import set_forkserver_preload
from multiprocessing.util import get_temp_dir
from types import ModuleType
from typing import Any

from executors.undertaker import SERVER

_LONGEST_FOLDER = 70
"""Bytes. A socket's name has at most 107 (103 on other systems), and `/pymp-12345678/listener-12345678` follows."""

_UNKNOWN = 255
"""What multiprocessing gives as the exit code of a process whose server has died."""


class _ForkedPopen(popen_forkserver.Popen):
    """Reads the exit code once: the pool's thread and the supervisor ask at the same time.

    Without that, whoever comes second finds the pipe empty and takes the server for dead.
    """

    def __init__(self, process_obj: Any) -> None:
        self._reading = threading.Lock()
        super().__init__(process_obj)
        self.server: int | None = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        if self.returncode is None:
            if not connection.wait([self.sentinel], 0 if flag == os.WNOHANG else None):
                return None
            with self._reading:
                return super().poll(os.WNOHANG)
        return self.returncode


class ForkedProcess(ForkServerProcess):
    """A process that does not import the user's main script: a script need not guard itself for us."""

    @property
    def exit_code(self) -> int | None:
        """How the process ended. Where the server that it was forked from died before, nobody knows: as if killed."""
        from executors.ending import lives  # the server shall start before this is imported

        code, server = self.exitcode, self._popen.server  # type: ignore[attr-defined]
        if code == _UNKNOWN and server is not None and not lives(server):
            return -signal.SIGKILL
        return code

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            return _ForkedPopen(process_obj)
        finally:
            sys.modules["__main__"] = main


class ForkContext(ForkServerContext):
    """Remembers the processes that a pool starts, as the pool does not tell how they end."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[ForkedProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> ForkedProcess:  # type: ignore[override]
        process = ForkedProcess(*args, **kwargs)
        self.started.append(process)
        return process


def warm_up(*modules: str) -> None:
    """Start the server that slots fork from, with these modules imported: it gets ready while others do other things.

    Does nothing when it runs already.
    """
    ours = ["executors.undertaker", "executors.slot", "executors.held_slot"]
    set_forkserver_preload([*ours, *modules, "executors.warm"])
    start_server()


def is_warm() -> bool:
    """Whether the server has imported everything, so that it forks at once; also where that cannot be told."""
    server: int | None = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    return parent_process() is not None or server is None or os.path.exists(_sign(_socket_folder(), server))


def tell_warm() -> None:
    """Leave the sign that everything is imported, in the server itself; see `warm`."""
    coordinator, _, rest = os.environ.get(SERVER, "").partition(":")
    folder = rest.partition(":")[2]
    if folder and coordinator == str(os.getppid()):
        with contextlib.suppress(OSError):  # the folder goes when the coordinator does
            os.close(os.open(_sign(folder, os.getpid()), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _sign(folder: str, server: int) -> str:
    return f"{folder}/warm-{server}"


def start_server() -> None:
    """Start the server if there is none, or it was killed. All that descends from it bears its mark."""
    resource_tracker.ensure_running()  # before the mark, for it shall outlive what the undertaker ends
    before = os.environ.get(SERVER)
    os.environ[SERVER] = server_mark()
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ[SERVER]
        else:
            os.environ[SERVER] = before


def server_mark() -> str:
    """What this process's server, and all that descends from it, has in its environment.

    It names the folder of the server's socket, but not a slot's: that is its coordinator's, and goes with it.
    """
    folder = _socket_folder() if parent_process() is None else ""
    return f"{os.getpid()}:{secrets.token_hex(8)}:{folder}"


def _socket_folder() -> str:
    """Where multiprocessing puts the server's socket; in `/tmp` where TMPDIR is too long for the name of a socket."""
    before = tempfile.gettempdir()  # finds it by writing a file there, once, if it may remember it
    if len(os.fsencode(before)) > _LONGEST_FOLDER and os.access("/tmp", os.W_OK):
        tempfile.tempdir = "/tmp"
    try:
        return get_temp_dir()
    finally:
        tempfile.tempdir = before
