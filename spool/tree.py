"""What the folder of a run holds, as entries of an archive, and the way back.

The order is that of a pack (`pack.py`): first what is little even in a large run, then the tickets and the job
directories, then what is in them, job by job. A file with several names is written with the first of them, and is a
link in the others; a job's own files link only to each other and to what stands before all jobs.
"""

from __future__ import annotations

import os
import re
import stat
from array import array
from collections.abc import Iterator

from spool.errors import SpoolError
from spool.layout import TICKETS
from spool.tar import KIND_OF, PIECE, Entry, Kind, why_refused

FORMAT = 0o170000
"""The bits of a mode that say what a file is, `S_IFMT`."""

_FLAT = re.compile(rf"(?:fanouts/[^/]+/jobs/[^/]+/)*fanouts/[^/]+/(jobs|{'|'.join(TICKETS)})")
"""The folders of a fan-out that have a name for each job."""


class Tree:
    """The entries of a run's folder, in the order in which a pack has them. Raises SpoolError for what it can't have.

    Args:
        root: the folder.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.jobs: list[str] = []
        """Paths of job directories, in order, when `head` has been read."""
        self.listed: dict[str, list[str]] = {}
        """The names in each folder of tickets or jobs, when `head` has been read."""
        self.newest = 0
        """When something was changed last, of all that has been read: nanoseconds on the file system's clock."""
        self._folders: list[str] = []
        self._marks = array("q")
        """Of each folder that was listed, what tells whether anything in it has changed."""
        self._empty: list[str] = []
        self._inodes: dict[tuple[int, int], str] = {}

    def head(self) -> Iterator[Entry]:
        """Everything but tickets, job directories without fan-outs inside, and what is in job directories."""
        yield self._entry(".", os.lstat(self.root), self._inodes)
        yield from self._inside("", self._inodes)
        self.jobs.sort(key=in_order)

    def index(self) -> Iterator[Entry]:
        """Tickets, and job directories without fan-outs inside."""
        for job in self._empty:
            yield self._entry(job, os.lstat(f"{self.root}/{job}"), self._inodes)
        for folder, names in self.listed.items():
            if not folder.endswith("/jobs"):
                for name in names:
                    yield self._entry(f"{folder}/{name}", os.lstat(f"{self.root}/{folder}/{name}"), self._inodes)

    def job(self, path: str) -> Iterator[Entry]:
        """What is in a job directory, fan-outs inside of it excepted."""
        inodes: dict[tuple[int, int], str] = {}
        for name, status in self._names(path):
            if name != "fanouts":
                entry = self._entry(f"{path}/{name}", status, inodes)
                yield entry
                if entry.kind is Kind.FOLDER:
                    yield from self._inside(entry.path, inodes)

    def all(self) -> Iterator[Entry]:
        """Everything, in the order of a pack."""
        yield from self.head()
        yield from self.index()
        for job in self.jobs:
            yield from self.job(job)

    def changed(self) -> str | None:
        """A folder in which something is no longer as it was when it was read; None when all is, as far as the times
        of the last change tell, which nobody can set: not where that was the moment in which it was read.
        """
        for folder, mark in zip(self._folders, self._marks, strict=True):
            try:
                if _mark(_listing(f"{self.root}/{folder}")) != mark:
                    return folder or "."
            except FileNotFoundError:
                return folder or "."
        return None

    def _inside(self, path: str, inodes: dict[tuple[int, int], str]) -> Iterator[Entry]:
        flat = _FLAT.fullmatch(path)
        if flat is not None and flat[1] == "jobs":
            yield from self._jobs_in(path)
            return
        for name, status in self._names(path):
            inside = f"{path}/{name}" if path else name
            if flat is not None and not stat.S_ISDIR(status.st_mode):
                self.listed.setdefault(path, []).append(name)
                continue
            entry = self._entry(inside, status, inodes)
            yield entry
            if entry.kind is Kind.FOLDER:
                yield from self._inside(inside, inodes)

    def _jobs_in(self, path: str) -> Iterator[Entry]:
        for name, status in self._names(path):
            job = f"{path}/{name}"
            if not stat.S_ISDIR(status.st_mode):
                yield self._entry(job, status, self._inodes)
                continue
            self.jobs.append(job)
            self.listed.setdefault(path, []).append(name)
            inside = f"{job}/fanouts"
            if not os.path.isdir(f"{self.root}/{inside}"):
                self._empty.append(job)
                continue
            yield self._entry(job, status, self._inodes)
            yield self._entry(inside, os.lstat(f"{self.root}/{inside}"), self._inodes)
            yield from self._inside(inside, self._inodes)

    def _names(self, path: str) -> list[tuple[str, os.stat_result]]:
        found = _listing(f"{self.root}/{path}")
        self._folders.append(path)
        self._marks.append(_mark(found))
        self.newest = max(self.newest, max((status.st_ctime_ns for _, status in found), default=0))
        return found

    def _entry(self, path: str, status: os.stat_result, inodes: dict[tuple[int, int], str]) -> Entry:
        mode = status.st_mode
        kind = KIND_OF.get(mode & FORMAT)
        if kind is None:
            full = f"{self.root}/{path}"
            raise SpoolError(f"{full}: neither a file nor a folder, so its run cannot be packed; remove it first")
        if kind is Kind.FILE and status.st_nlink > 1:
            inode = (status.st_dev, status.st_ino)
            known = self._inodes.get(inode) or inodes.get(inode)
            if known is not None:
                return Entry(path, Kind.LINK, target=known)
            inodes[inode] = path
        if kind is Kind.SYMLINK:
            entry = Entry(path, kind, 0o777, status.st_mtime_ns, 0, os.readlink(f"{self.root}/{path}"))
        else:
            size = status.st_size if kind is Kind.FILE else 0
            entry = Entry(path, kind, mode & 0o7777, status.st_mtime_ns, size)
        if why := why_refused(entry):
            raise SpoolError(f"{self.root}/{path}: {why}; its run cannot be packed so")
        return entry


def _listing(folder: str) -> list[tuple[str, os.stat_result]]:
    with os.scandir(folder) as found:
        return sorted((one.name, one.stat(follow_symlinks=False)) for one in found)


def _mark(found: list[tuple[str, os.stat_result]]) -> int:
    return hash(tuple((name, one.st_ino, one.st_mode, one.st_size, one.st_ctime_ns) for name, one in found))


def in_order(path: str) -> list[str]:
    """What jobs are sorted by."""
    return path.split("/")


def whole(path: str, size: int) -> bytes:
    """What a small file holds. Raises SpoolError when it is no longer of this size."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        data = os.read(fd, size + 1)
    finally:
        os.close(fd)
    return data if len(data) == size else b"".join(content(path, size))


def content(path: str, size: int) -> Iterator[bytes]:
    """What a file holds, in pieces. Raises SpoolError when it is no longer of this size."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as file:
        left = size
        while left:
            piece = file.read(min(left, PIECE))
            if not piece:
                raise SpoolError(f"{path}: it changes while it is packed")
            left -= len(piece)
            yield piece


def make(entry: Entry, path: str, root: str, pieces: Iterator[bytes]) -> None:
    """Make an entry at a path; a folder gets its time and mode from the caller, when it is full.

    Raises FileExistsError, FileNotFoundError or NotADirectoryError where it has no place.
    """
    match entry.kind:
        case Kind.FOLDER:
            if entry.path != ".":
                os.mkdir(path, 0o700)
        case Kind.SYMLINK:
            os.symlink(entry.target, path)
            os.utime(path, ns=(entry.mtime, entry.mtime), follow_symlinks=False)
        case Kind.LINK:
            _link(f"{root}/{entry.target}", path)
        case Kind.FILE:
            _file(path, entry, pieces)


def _link(source: str, path: str) -> None:
    try:
        os.link(source, path, follow_symlinks=False)
    except (FileExistsError, FileNotFoundError, NotADirectoryError):
        raise
    except OSError:  # this file system refuses links where the other one did not
        status = os.lstat(source)
        if not stat.S_ISREG(status.st_mode):
            raise
        entry = Entry("", Kind.FILE, stat.S_IMODE(status.st_mode), status.st_mtime_ns, status.st_size)
        _file(path, entry, content(source, status.st_size))


def _file(path: str, entry: Entry, pieces: Iterator[bytes]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb", buffering=0) as file:
        for piece in pieces:
            while piece:
                piece = piece[file.write(piece) :]
        if entry.mode != 0o600:
            os.fchmod(fd, entry.mode)
        os.utime(fd, ns=(entry.mtime, entry.mtime))
