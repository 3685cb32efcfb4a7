"""Tar archives of a run, written and read strictly: folders, files, symbolic links, hard links, and nothing else.

What is written is the POSIX format of 2001 ("pax", IEEE Std 1003.1), so any `tar` unpacks it: one 512-byte header an
entry, before it a record with what the header cannot hold, like a long path. The nanoseconds of a time stand where
the numbers of a device would (`devmajor`: milliseconds, `devminor`: the rest), which every `tar` passes over for what
is no device: a record for each would double what is to be compressed. What is read is only what is written here. A
device, a path that leads outside, a link to elsewhere, a bit too much in a mode is refused before anything is made of
it. (The library's `tarfile` takes several times as long for this, and reads more than is wanted.)
"""

from __future__ import annotations

import re
import stat
import struct
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

    __hash__ = object.__hash__  # there is one of each; that of Enum takes several times as long


_KINDS = {kind.value: kind for kind in Kind}
_LETTERS = {kind: kind.value for kind in Kind}


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
    path, target = _raw(entry.path), _raw(entry.target) if entry.target else b""
    if len(path) <= 100 and len(target) <= 100 and entry.size < _MOST and 0 <= entry.mtime < _LATEST:
        return _header(path, entry.mode, entry.size, entry.mtime, _LETTERS[entry.kind], target)
    records = b""
    size, mtime = entry.size, entry.mtime
    if not 0 <= mtime < _LATEST:
        records, mtime = _record(b"mtime", b"%d.%09d" % divmod(mtime, 10**9)), 0
    if len(path) > 100:
        records += _record(b"path", path)
    if len(target) > 100:
        records += _record(b"linkpath", target)
    if size >= _MOST:
        records, size = records + _record(b"size", b"%d" % size), 0
    head = _header(path, entry.mode, size, mtime, _LETTERS[entry.kind], target)
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


_MOST = 8**11
"""A header has room for eleven octal digits of a size, and of seconds."""
_LATEST = _MOST * 10**9

_HEAD = struct.Struct("100s8s16s24s8sc100s8s64s16s167s")
_NOBODY = b"0000000\0" * 2
_BLANK = b" " * 8


def _header(path: bytes, mode: int, size: int, mtime: int, kind: bytes, target: bytes) -> bytes:
    seconds, nanoseconds = divmod(mtime, 10**9)
    name, link = path[:100], target[:100]
    numbers = b"%07o\0%011o\0%011o\0" % (mode, size, seconds)
    rest = b"%07o\0%07o\0" % divmod(nanoseconds, 10**6)
    total = b"%06o\0 " % (sum(b"%b%b%b%b%b" % (name, numbers, kind, link, rest)) + _OTHERS)
    return _HEAD.pack(name, numbers[:8], _NOBODY, numbers[8:], total, kind, link, _MAGIC, b"", rest, b"")


_OTHERS = sum(_NOBODY + _BLANK + _MAGIC)
"""What the other bytes of a header add to its checksum, for which the checksum itself counts as blanks."""


@lru_cache(16)
def _records_of(size: int) -> bytes:
    """The header of a record; nearly all have one size."""
    return _header(b"pax", 0, size, 0, b"x", b"")


# -- reading --------------------------------------------------------------------------------------------------------


_FIELDS = struct.Struct("100s8s16x12s12s8xc100s8s64x8s8s167x")
_LINK = _LETTERS[Kind.LINK]


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
        number = _octal(field)
        if number is None:
            raise self._bad("a header that is none")
        return number

    def _fields(self, block: bytes) -> tuple[bytes, ...]:
        """Path, mode, size, seconds, kind, target, milliseconds and the nanoseconds beside them.

        That it is a header is told by its beginning. Its checksum says no more than those of the compression around.
        """
        fields = _FIELDS.unpack(block)
        if fields[6] != _MAGIC:
            raise self._bad("a header that is none")
        return fields

    def _records(self, block: bytes) -> dict[str, bytes]:
        size = self._number(self._fields(block)[2])
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
        path_, mode, size_, seconds, letter, target_, _, milliseconds, rest = self._fields(block)
        path, target = self._text(path_.rstrip(b"\0")), self._text(target_.rstrip(b"\0"))
        kind = _KINDS.get(letter)
        if kind is None:
            raise self._bad(f"{path}: neither a file, a folder nor a link")
        size = self._number(size_)
        mtime = 0
        if letter != _LINK:
            mtime = self._number(seconds) * 10**9 + self._upto(milliseconds, 10**3) * 10**6 + self._upto(rest, 10**6)
        if records:
            path = self._text(records["path"]) if "path" in records else path
            target = self._text(records["linkpath"]) if "linkpath" in records else target
            size = self._integer(records["size"]) if "size" in records else size
            mtime = self._time(records["mtime"]) if "mtime" in records else mtime
        entry = Entry(path, kind, self._number(mode), mtime, size, target)
        if why := why_refused(entry):
            raise self._bad(f"{path!r}: {why}")
        return entry

    def _upto(self, field: bytes, limit: int) -> int:
        number = self._number(field)
        if number >= limit:
            raise self._bad("a header that is none")
        return number

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


@lru_cache(4096)
def _octal(field: bytes) -> int | None:
    """A number in a header; None for what is none. Most stand in many headers."""
    text = field.rstrip(b"\0 ")
    try:
        return int(text, 8) if text.isdigit() else None
    except ValueError:
        return None


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


KIND_OF = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.FOLDER, stat.S_IFLNK: Kind.SYMLINK}
"""What a file of this `S_IFMT` is; whatever is not here, no run holds."""
