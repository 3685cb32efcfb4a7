"""A session's folder on a host: the spool and the user's files, removed with the session."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import secrets
import shutil

from executors.bundle import running_bundle
from executors.remote.transit import remove_unused

PREFIX = "fan-out-"

TRANSIT = "transit"
"""The file in a folder that names the one where its batches came in; see `transit`."""


class Refused(Exception):
    """This host cannot do the work. kind: see `failures.of_refusal`."""

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        super().__init__(text)


class Folder:
    """The session's folder in the workdir: the spool and the user's files. Locked, so that a later session knows
    which folders nobody uses any more.
    """

    def __init__(self) -> None:
        self.workdir = os.getcwd()
        self.keep = False
        self._serial = itertools.count()
        _remove_abandoned(self.workdir)
        try:
            self.path, self._lock = _new_folder(self.workdir)
            os.write(self._lock, f"{os.path.basename(running_bundle() or '')}\n".encode())  # not to be removed now
            os.mkdir(self.files, 0o700)
        except OSError as error:
            raise Refused("disk", f"cannot write to its workdir {self.workdir}: {error.strerror}") from None

    @property
    def files(self) -> str:
        return os.path.join(self.path, "files")

    @property
    def spool(self) -> str:
        return os.path.join(self.path, "spool")

    def aside(self) -> str:
        """A new name outside the spool, for what is being made or removed."""
        return os.path.join(self.path, f"aside-{next(self._serial)}")

    def uses(self, transit: str) -> None:
        """Note that this session also has a part in a folder elsewhere, for those who clear up after it."""
        with open(os.path.join(self.path, TRANSIT), "w") as file:
            file.write(transit)

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.keep:
            shutil.rmtree(self.path, ignore_errors=True)


def _new_folder(workdir: str) -> tuple[str, int]:
    """A folder that is ours: its path, and its lock. Raises OSError."""
    while True:
        path = os.path.join(workdir, PREFIX + secrets.token_hex(6))
        os.mkdir(path, 0o700)
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(os.path.join(path, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.exists(os.path.join(path, "lock")):
                return path, lock
            os.close(lock)  # another session took the folder for abandoned, and removed it, before it was locked


def _leave_transit(path: str) -> None:
    with contextlib.suppress(FileNotFoundError), open(os.path.join(path, TRANSIT)) as file:
        remove_unused(file.read())


def _remove_abandoned(workdir: str) -> None:
    """Remove folders of sessions that were killed; the kernel has freed their locks."""
    for name in os.listdir(workdir):
        path = os.path.join(workdir, name)
        if not name.startswith(PREFIX) or not os.path.isdir(path) or os.path.islink(path):
            continue
        with contextlib.suppress(OSError):
            if os.path.exists(os.path.join(path, "keep")):
                continue
            lock = os.open(os.path.join(path, "lock"), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _leave_transit(path)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
