"""The folder on a host that GNU Parallel brings batches to, and fetches results from.

It has the same path on every host, `/tmp/tea-TOKEN`, as GNU Parallel knows only one. Hosts that are one machine
under two names share it: each session has a door of its own in it. The last session that leaves removes it; what
killed ones have left, the next one with the same workdir.

    courier-1.py                   the basefile of a run of GNU Parallel
    0007.batch  0007.result        one batch, while it is here
    door-4fd1c9a02b7e              the socket of a session's worker, named after the host as GNU Parallel knows it
    python                         the Python of the session that came first
    lock                           locked (shared) by every session that lives
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import sys
import time

from executors.remote.courier import door


class Transit:
    """A session's part in it.

    Raises OSError when it cannot be made, or is somebody else's.
    """

    def __init__(self, path: str, host: str) -> None:
        self.path = path
        self._lock = _enter(path)
        with contextlib.suppress(FileExistsError):
            os.symlink(sys.executable, self.file("python"))
        self.door = self.file(door(host))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.door)  # of a session with this host that was killed

    def file(self, name: str) -> str:
        return f"{self.path}/{name}"

    def leave(self, late: float) -> None:
        """The session is over. late: seconds in which logins that were cut may still begin what they were told.

        The door stays: a session that has taken over from this one has put its own in its place.
        """
        os.close(self._lock)
        deadline = time.monotonic() + late
        remove_unused(self.path)
        while time.monotonic() < deadline:
            time.sleep(0.1)
            remove_unused(self.path)


def _enter(path: str) -> int:
    """Make the folder, or find it made by another session or by GNU Parallel; hold it."""
    while True:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        with contextlib.suppress(FileNotFoundError):  # another session that ends has removed it just now
            status = os.lstat(path)
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                raise FileExistsError(f"{path} is not this user's folder")
            os.chmod(path, 0o700)
            lock = _open_lock(path)
            fcntl.flock(lock, fcntl.LOCK_SH)
            with contextlib.suppress(FileNotFoundError):  # or between our opening and locking
                if os.path.samestat(os.fstat(lock), os.stat(f"{path}/lock")):
                    return lock
            os.close(lock)


def _open_lock(path: str) -> int:
    return os.open(f"{path}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def remove_unused(path: str) -> None:
    """Remove the folder when no session holds it any more; also one without a lock, made by a login that came late.

    Whoever enters it meanwhile waits for the same lock, and sees that it is gone.
    """
    with contextlib.suppress(OSError):
        lock = _open_lock(path)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), os.stat(f"{path}/lock")):  # else it is somebody's new one by now
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(lock)
