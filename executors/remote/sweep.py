"""What is left in a host's work folder, and its removal. Runs there on top of `bootstrap`, instead of a worker.

    WORKDIR/fan-out-TOKEN/     a session's folder. Locked: its worker lives. Not locked: the worker was killed
                               (`left`), or the folder was kept on purpose (`kept`)
    WORKDIR/tea-HASH.pyz       a program; `old` when it is none of this version, and no living worker runs from it
    WORKDIR/tea-HASH.pyz.TOKEN   a copy that was never finished (`unfinished`)
    /tmp/tea-TOKEN/            where GNU Parallel brings batches to (`batches`); locked while a worker takes them

What a living worker uses stays, whoever's it is; what is a minute young may just be coming into being, and stays too.
"""

import fcntl
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from executors.remote.bootstrap import Refusal, folder, place, read_line, say

YOUNG = 60.0
"""Seconds that something is left alone after it has changed."""

TRANSIT = "/tmp"
"""Where the folders of batches are, whatever the work folder is."""

_FOLDER = re.compile(r"fan-out-[0-9a-f]{12}")
_PROGRAM = re.compile(r"tea-[0-9a-f]{16}\.pyz")
_UNFINISHED = re.compile(r"tea-[0-9a-f]{16}\.pyz\.[0-9a-f]{8}")
_BATCHES = re.compile(r"tea-[0-9a-f]{16}")


class Sweep:
    """One look at a work folder. found: what may go. live: folders of workers that live."""

    def __init__(self, workdir: str, keep: str, older_than: float) -> None:
        self.workdir, self.keep, self.limit = workdir, keep, time.time() - max(older_than, YOUNG)
        self.found: list[dict[str, Any]] = []
        self.live: list[str] = []
        self._locks: dict[str, int] = {}
        self._used: set[str] = set()

    def look(self) -> None:
        names = sorted(os.listdir(self.workdir))
        for name in names:
            if _FOLDER.fullmatch(name):
                self._folder(os.path.join(self.workdir, name))
        for name in names:
            path = os.path.join(self.workdir, name)
            if _PROGRAM.fullmatch(name) and name != self.keep and not self._is_used(name):
                self._add("old", path)
            elif _UNFINISHED.fullmatch(name):
                self._add("unfinished", path)
        for name in sorted(os.listdir(TRANSIT)):
            path = os.path.join(TRANSIT, name)
            if _BATCHES.fullmatch(name) and self._lock(os.path.join(path, "lock")) is not False:
                self._add("batches", path)

    def _folder(self, path: str) -> None:
        if self._lock(os.path.join(path, "lock")) is False:
            self.live.append(path)
            self._used.add(_text(os.path.join(path, "lock")).strip())
        else:
            self._add("kept" if os.path.exists(os.path.join(path, "keep")) else "left", path)

    def _lock(self, path: str) -> bool | None:
        """Take a worker's lock until this program ends; False when it lives, None when there is no lock."""
        if path in self._locks:
            return True
        try:
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self._locks[path] = fd
        return True

    def _is_used(self, program: str) -> bool:
        """Whether a living worker runs from a program; one that does not say which one may run from any."""
        return program in self._used or "" in self._used

    def _add(self, kind: str, path: str) -> None:
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return
        if status.st_uid == os.geteuid() and status.st_mtime <= self.limit:
            files, size = _size(path)
            self.found.append({"kind": kind, "path": path, "files": files, "bytes": size, "at": status.st_mtime})

    def remove(self) -> None:
        """Remove what was found; what cannot be removed says why."""
        for one in self.found:
            path = one["path"]
            try:
                if os.path.isdir(path) and not os.path.islink(path):
                    shutil.rmtree(path)
                else:
                    os.unlink(path)
            except OSError as error:
                one["error"] = error.strerror


def _text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read(200)
    except OSError:
        return ""


def _size(path: str) -> tuple[int, int]:
    """Files, and the bytes that they take on the disk."""
    files = size = 0
    for status in _all(path):
        files, size = files + 1, size + status.st_blocks * 512
    return files, size


def _all(path: str) -> Iterator[os.stat_result]:
    yield os.lstat(path)
    if os.path.isdir(path) and not os.path.islink(path):
        for place, folders, names in os.walk(path):
            for name in folders + names:
                try:
                    yield os.lstat(os.path.join(place, name))
                except FileNotFoundError:
                    continue


def sweep(asked: dict[str, Any]) -> dict[str, Any]:
    """Look, remove when that is asked for, and tell. Raises Refusal."""
    path = place(asked.get("workdir"))
    one = Sweep(path, asked["keep"], asked["older_than"])
    try:
        if os.path.lexists(path):
            folder(path)
            one.look()
        if asked["remove"]:
            one.remove()
    except OSError as error:
        raise Refusal("workdir", f"cannot read {error.filename}: {error.strerror}") from None
    return {"workdir": path, "found": one.found, "live": one.live}


if __name__ == "__main__":
    _asked = read_line()
    try:
        say(_asked["mark"], sweep(_asked))
    except Refusal as _refusal:
        say(_asked["mark"], {"refused": _refusal.kind, "text": str(_refusal)})
    sys.exit(0)
