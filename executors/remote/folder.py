"""A session's folder on a host: the spool and the user's files, removed with the session."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import secrets
import shutil

PREFIX = "fan-out-"

LINK = "link"
"""The file in a folder that says under which other name it is known."""


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
        self.path = os.path.join(self.workdir, PREFIX + secrets.token_hex(6))
        try:
            os.mkdir(self.path, 0o700)
            self._lock = os.open(os.path.join(self.path, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
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

    def link(self, name: str) -> None:
        """Have another name, a path that is the same on other hosts. Raises Refused when somebody else has it."""
        with open(os.path.join(self.path, LINK), "w") as file:
            file.write(name)
        try:
            if os.path.lexists(name):
                _make_way(name)
            os.symlink(self.path, name)
        except OSError as error:
            raise Refused("workdir", f"cannot make {name}: {error.strerror}") from None

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        _remove_link(self.path)
        if not self.keep:
            shutil.rmtree(self.path, ignore_errors=True)


def _make_way(name: str) -> None:
    """Remove what an earlier session of the same fan-out has left under this name, or what was brought in between."""
    if os.lstat(name).st_uid != os.geteuid():
        raise PermissionError(errno.EACCES, "it belongs to somebody else", name)
    if os.path.islink(name):
        os.unlink(name)
    else:
        shutil.rmtree(name)


def _remove_link(path: str) -> None:
    with contextlib.suppress(OSError):
        with open(os.path.join(path, LINK)) as file:
            name = file.read()
        if os.readlink(name) == path:
            os.unlink(name)


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
                _remove_link(path)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
