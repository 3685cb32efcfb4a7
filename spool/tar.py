"""Tar archives of a run, written and read strictly: folders, files, symbolic links, hard links, and nothing else.

What is written is the POSIX format of 2001 ("pax", IEEE Std 1003.1), so any `tar` unpacks it: one 512-byte header an
entry, before it a record with what the header cannot hold, which is always the time in nanoseconds. What is read is
only what is written here. A device, a path that leads outside, a link to elsewhere, a bit too much in a mode is
refused before anything is made of it. (The library's `tarfile` takes several times as long for this, and reads more
than is wanted.)
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from enum import Enum
from functools import lru_cache
from typing import NamedTuple, Protocol

from spool.errors import CorruptFileError

BLOCK = 512
PIECE = 1 << 20
"""Bytes of a large file that are held at once."""

_ZERO = b"\0" * BLOCK
_LONGEST = 4096
_RECORDS = frozenset({"path", "linkpath", "size", "mtime"})
_RECORD = re.compile(rb"([1-9][0-9]{0,4}) ([a-z]+)=")
_MAGIC = b"ustar\x0000"
_OUTSIDE = re.compile(r"(?:^|/)\.{0,2}(?:/|$)")
"""An empty part of a path, `.` or `..`."""


class Kind(Enum):
    """What an entry is; the value is its type in a header."""

    FILE = b"0"
    LINK = b"1"
    SYMLINK = b"2"
    FOLDER = b"5"


_KINDS = {kind.value: kind for kind in Kind}


class Entry(NamedTuple):
    """A name in a run. path: below the run's folder, `.` for that itself. mtime: nanoseconds since the epoch.

    target: what a symbolic link holds, or the path of the entry that a hard link is another name of; mode, mtime and
    size are 0 for a hard link, as they are those of its target.
    """

    path: str
    kind: Kind
    mode: int = 0
    mtime: int = 0
    size: int = 0
    target: str = ""


class Stream(Protocol):
    """Where an archive is read from."""

    def read(self, size: int) -> bytes:
        """Exactly so many bytes, or an error."""
        ...

    def finish(self) -> None:
        """Nothing may follow, or there is an error."""
        ...


# -- writing --------------------------------------------------------------------------------------------------------


def head_of(entry: Entry) -> bytes:
    """What stands before the content of an entry."""
    path, target = _raw(entry.path), _raw(entry.target)
    records = b""
    if entry.kind is not Kind.LINK:
        records += _record(b"mtime", b"%d.%09d" % divmod(entry.mtime, 10**9))
    if len(path) > 100:
        records += _record(b"path", path)
    if len(target) > 100:
        records += _record(b"linkpath", target)
    if entry.size >= 8**11:
        records += _record(b"size", b"%d" % entry.size)
    size = entry.size if entry.size < 8**11 else 0
    head = _header(path, entry.mode, size, max(0, entry.mtime // 10**9), entry.kind.value, target)
    if not records:
        return head
    return _records_of(len(records)) + records + padding(len(records)) + head


def padding(size: int) -> bytes:
    """What fills the last block of so many bytes."""
    return _ZERO[: -size % BLOCK]


END = _ZERO * 2
"""What ends an archive."""


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _record(key: bytes, value: bytes) -> bytes:
    """`27 mtime=1795514506.123456789` and a newline: the number counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


_FORM = b"%b%07o\0%s%011o\0%011o\0        %b%bustar\x0000%s"
_NOBODY = b"0000000\0" * 2
_TAIL = b"\0" * 64 + b"0000000\0" * 2 + b"\0" * 167


def _header(path: bytes, mode: int, size: int, mtime: int, kind: bytes, target: bytes) -> bytes:
    name, link = path[:100].ljust(100, b"\0"), target[:100].ljust(100, b"\0")
    head = _FORM % (name, mode, _NOBODY, size, mtime, kind, link, _TAIL)
    return head[:148] + b"%06o\0 " % sum(head) + head[156:]


@lru_cache(16)
def _records_of(size: int) -> bytes:
    """The header of a record; nearly all have one size."""
    return _header(b"pax", 0, size, 0, b"x", b"")


# -- reading --------------------------------------------------------------------------------------------------------


class Reader:
    """The entries of an archive, one after the other.

    Args:
        stream: the archive. name: what errors call it.
    """

    def __init__(self, stream: Stream, name: str) -> None:
        self._stream, self._name = stream, name
        self._left = self._fill = 0

    def __iter__(self) -> Iterator[Entry]:
        """Each entry; its content may be read before the next is asked for. Raises CorruptFileError."""
        while True:
            for _ in self.content():
                pass
            block = self._stream.read(BLOCK)
            if block == _ZERO:
                if self._stream.read(BLOCK) != _ZERO:
                    raise self._bad("it ends in the middle")
                return self._stream.finish()
            records: dict[str, bytes] = {}
            if block[156:157] == b"x":
                records, block = self._records(block), self._stream.read(BLOCK)
            entry = self._entry(block, records)
            self._left, self._fill = entry.size, -entry.size % BLOCK
            yield entry

    def content(self) -> Iterator[bytes]:
        """What is left of the content of the entry that came last, in pieces."""
        while self._left:
            piece = self._stream.read(min(self._left, PIECE))
            self._left -= len(piece)
            yield piece
        if self._fill:
            self._fill -= len(self._stream.read(self._fill))

    def _bad(self, why: str) -> CorruptFileError:
        return CorruptFileError(self._name, why)

    def _number(self, field: bytes) -> int:
        text = field.rstrip(b"\0 ")
        try:
            return int(text if text.isdigit() else b"none", 8)
        except ValueError:
            raise self._bad("a header that is none") from None

    def _check(self, block: bytes) -> None:
        """That it is a header. Its checksum says no more than those of the compression around it."""
        if block[257:265] != _MAGIC:
            raise self._bad("a header that is none")

    def _records(self, block: bytes) -> dict[str, bytes]:
        size = self._number(block[124:136])
        if block != _records_of(size):
            self._check(block)
        if size > 4 * _LONGEST:
            raise self._bad("a header of unreasonable size")
        data = self._stream.read(size + -size % BLOCK)[:size]
        found: dict[str, bytes] = {}
        while data:
            match = _RECORD.match(data)
            length = int(match[1]) if match else 0
            if match is None or not match.end() < length <= len(data) or data[length - 1 : length] != b"\n":
                raise self._bad("a header that is none")
            found[match[2].decode()] = data[match.end() : length - 1]
            data = data[length:]
        if not found.keys() <= _RECORDS:
            raise self._bad(f"a header with {', '.join(sorted(found.keys() - _RECORDS))}, which no run has")
        return found

    def _entry(self, block: bytes, records: dict[str, bytes]) -> Entry:
        self._check(block)
        kind = _KINDS.get(block[156:157])
        path = self._text(records.get("path", block[:100].rstrip(b"\0")))
        target = self._text(records.get("linkpath", block[157:257].rstrip(b"\0")))
        if kind is None:
            raise self._bad(f"{path}: neither a file, a folder nor a link")
        size = self._integer(records["size"]) if "size" in records else self._number(block[124:136])
        mode = self._number(block[100:108])
        mtime = self._time(records["mtime"]) if "mtime" in records else 0
        entry = Entry(path, kind, mode, mtime, size, target)
        if why := why_refused(entry):
            raise self._bad(f"{path!r}: {why}")
        return entry

    def _text(self, data: bytes) -> str:
        return data.decode("utf-8", "surrogateescape")

    def _integer(self, data: bytes) -> int:
        if not data.isdigit():
            raise self._bad("a header that is none")
        return int(data)

    def _time(self, data: bytes) -> int:
        whole, _, part = data.partition(b".")
        if not whole.removeprefix(b"-").isdigit() or not part.isdigit() or len(part) != 9:
            raise self._bad("a header that is none")
        return int(whole) * 10**9 + int(part)


def why_refused(entry: Entry) -> str | None:
    """Why no run has such an entry; None for one that it may have."""
    if entry.path != "." and not _is_inside(entry.path):
        return "a path that leads outside"
    if entry.mode & ~0o777 or (entry.kind is Kind.FOLDER and entry.mode & 0o700 != 0o700):
        return f"mode {entry.mode:o}"
    if entry.kind is Kind.SYMLINK and (not entry.target or "/" in entry.target or entry.target in (".", "..")):
        return f"a symbolic link to {entry.target!r}, outside its folder"
    if entry.kind is Kind.LINK and not _is_inside(entry.target):
        return f"a link to {entry.target!r}, which leads outside"
    if entry.size and entry.kind is not Kind.FILE:
        return "content where none belongs"
    return None


def _is_inside(path: str) -> bool:
    return "\0" not in path and len(path) <= _LONGEST and not _OUTSIDE.search(path)


def kind_of(mode: int) -> Kind | None:
    """What a file of this `st_mode` is; None for what no run holds."""
    kinds = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.FOLDER, stat.S_IFLNK: Kind.SYMLINK}
    return kinds.get(stat.S_IFMT(mode))
