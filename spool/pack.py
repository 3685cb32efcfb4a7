"""A packed run: one file, from which a single job can be read without reading all of it.

A pack is a zip archive in which nothing is compressed a second time, so its directory is the index:

    pack.json          which run this is, how it ended, its tickets and jobs by name, what is in each of the others
    000000.tar.xz      what is little even in a large run: records, states, what jobs share
    000001.tar.xz      tickets and empty job directories
    000002.tar.xz      what is in the first few hundred jobs; those inside branches count as jobs of their own
    000002.json        these jobs in brief, for who wants to know a little of many (`brief.py`)
    ...

Unzipped and untarred one after the other in one folder, they are the run, without any program of ours. What is read
is checked as if somebody else had written it: owner, names, links (`tar.py`), and never more than was announced.
"""

from __future__ import annotations

import bisect
import hashlib
import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Any, NamedTuple

from spool import jsonio
from spool.brief import Brief, read_brief
from spool.errors import CorruptFileError, ForeignFileError, SpoolError
from spool.layout import is_name
from spool.publish import MAX_JSON
from spool.tar import PIECE, Entry, Kind, Reader
from spool.tree import Tree, content, in_order, make

FORMAT = 1
_MEMORY = 64 << 20
"""Bytes that decompressing may take; what this module writes takes 2 MiB."""

_DAMAGED = (zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, RuntimeError, ValueError, OSError)
"""What reading a damaged archive may raise: RuntimeError where it says that it is encrypted, OSError where it leads
beyond the ends of the file."""

INDEX = "pack.json"


def chunk_name(number: int) -> str:
    """The archive of a chunk."""
    return f"{number:06d}.tar.xz"


def briefs_name(number: int) -> str:
    """The jobs of a chunk in brief."""
    return f"{number:06d}.json"


class Seal(NamedTuple):
    """What tells whether a chunk is read as it was written: the SHA-256 of its archive, and a hash of its entries."""

    digest: bytes
    entries: int


class _Bounded:
    """What a chunk holds, as long as it is no more than was announced."""

    def __init__(self, file: IO[bytes], size: int, name: str) -> None:
        self._file, self._left, self._name = file, size, name
        self.digest = hashlib.sha256()
        self._decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, _MEMORY)
        self._data, self._at = b"", 0

    def read(self, size: int) -> bytes:
        data = self._data[self._at : self._at + size]
        self._at += size
        while len(data) < size:
            self._data = self._more()
            if not self._data:
                raise CorruptFileError(self._name, "it ends in the middle")
            self._at = size - len(data)
            data += self._data[: self._at]
        return data

    def finish(self) -> None:
        """All has been read: only now is it known that all is as it was written."""
        if self._at < len(self._data) or self._more() or self._rest():
            raise CorruptFileError(self._name, "something follows its end")

    def _rest(self) -> bytes:
        try:
            return self._file.read(1) or self._decompressor.unused_data
        except _DAMAGED as error:
            raise CorruptFileError(self._name, f"damaged ({error})") from None

    def _more(self) -> bytes:
        """The next piece; nothing at the end."""
        data = b""
        try:
            while not data and not self._decompressor.eof:
                packed = self._file.read(1 << 16) if self._decompressor.needs_input else b""
                if not packed and self._decompressor.needs_input:
                    return b""
                data = self._decompressor.decompress(packed, PIECE)
        except _DAMAGED as error:
            raise CorruptFileError(self._name, f"damaged ({error})") from None
        self._left -= len(data)
        if self._left < 0:
            raise CorruptFileError(self._name, "it holds more than it announces")
        self.digest.update(data)
        return data


class Pack:
    """A packed run, open for reading; a context manager.

    Raises FileNotFoundError, ForeignFileError for one that is not ours to trust, CorruptFileError for what is none.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.file = _open(path)
        try:
            self._zip = zipfile.ZipFile(self.file)
            self._members = frozenset(self._zip.namelist())
            self.index: dict[str, Any] = self._read_index()
            self.name, self.files, self.bytes = (self.index[key] for key in ("run", "files", "bytes"))
            self.names: dict[str, list[str]] = {folder: list(names) for folder, names in self.index["names"].items()}
            self._chunks = [(str(one["first"]), int(one["bytes"])) for one in self.index["chunks"]]
            if not is_name(self.name) or any(size < 0 for _, size in self._chunks):
                raise ValueError("its index is of no run")
        except (*_DAMAGED, KeyError, TypeError, AttributeError) as error:
            self.file.close()
            raise CorruptFileError(path, f"no packed run ({error})") from None
        except BaseException:
            self.file.close()
            raise
        self._firsts = [in_order(first) for first, _ in self._chunks[2:]]

    def __enter__(self) -> Pack:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()
        self.file.close()

    def _read_index(self) -> dict[str, Any]:
        index = self._json(INDEX)
        if type(index) is not dict or index.get("format") != FORMAT:
            found = index.get("format") if type(index) is dict else None
            raise CorruptFileError(self.path, f"a pack of format {found!r}; this version reads format {FORMAT}")
        return index

    def _json(self, name: str) -> Any:
        info = self._zip.getinfo(name)
        if info.file_size > MAX_JSON or info.compress_size > MAX_JSON:
            raise CorruptFileError(self.path, f"{name} in it is unreasonably large")
        return jsonio.loads(self._zip.read(info))

    @property
    def numbers(self) -> range:
        """The chunks; 0 is what every reader needs."""
        return range(len(self._chunks))

    def chunk_of(self, job: str) -> int:
        """The chunk that has a job, by its path below the run."""
        return bisect.bisect_right(self._firsts, in_order(job)) + 1

    def announced(self, numbers: Iterable[int]) -> int:
        """Bytes of chunks before they were compressed."""
        return sum(self._chunks[number][1] for number in numbers)

    def read(self, number: int) -> Reader:
        """The entries of a chunk."""
        return Reader(self._chunk(number), f"{self.path}:{chunk_name(number)}")

    def _chunk(self, number: int) -> _Bounded:
        try:
            file = self._zip.open(chunk_name(number))
        except (*_DAMAGED, KeyError) as error:
            raise CorruptFileError(self.path, f"damaged ({error})") from None
        return _Bounded(file, self._chunks[number][1], f"{self.path}:{chunk_name(number)}")

    def seal(self, number: int) -> Seal:
        """Of a chunk, read to its end."""
        stream, entries = self._chunk(number), 0
        for entry in Reader(stream, f"{self.path}:{chunk_name(number)}"):
            entries = hash((entries, entry))
        return Seal(stream.digest.digest(), entries)

    def briefs(self, number: int) -> dict[str, Brief]:
        """Jobs of a chunk in brief, by path below the run; those that are out of the ordinary are not among them."""
        try:
            found = self._json(briefs_name(number)) if briefs_name(number) in self._members else {}
            briefs = {str(path): read_brief(value) for path, value in found.items()}
        except (*_DAMAGED, KeyError, AttributeError) as error:
            raise CorruptFileError(f"{self.path}:{briefs_name(number)}", f"damaged ({error})") from None
        return {path: brief for path, brief in briefs.items() if brief is not None}


def _open(path: str) -> IO[bytes]:
    try:
        file = open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")  # noqa: SIM115
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ForeignFileError(path, f"it cannot be opened ({error.strerror})") from None
    status = os.fstat(file.fileno())
    why = None
    if not stat.S_ISREG(status.st_mode):
        why = "not a regular file"
    elif status.st_uid != os.geteuid():
        why = f"it belongs to user {status.st_uid}, not to you ({os.geteuid()})"
    elif status.st_mode & 0o022:
        why = "others may write to it; `chmod go-w` it if it is yours"
    if why is not None:
        file.close()
        raise ForeignFileError(path, why)
    return file


# -- comparing and restoring ----------------------------------------------------------------------------------------


def difference(pack: Pack, root: str) -> str | None:
    """What a folder has otherwise than a pack says: the first of it; None when they are the same, to the last byte.

    Raises CorruptFileError for a pack that is damaged, SpoolError for a folder that cannot be packed.
    """
    found = Tree(root).all()
    for number in pack.numbers:
        reader = pack.read(number)
        for packed in reader:
            real = next(found, None)
            if real != packed:
                return packed.path if real is None or packed.path <= real.path else real.path
            if packed.size and not _same(reader.content(), content(f"{root}/{packed.path}", packed.size)):
                return packed.path
    rest = next(found, None)
    return rest.path if rest is not None else None


def _same(one: Iterator[bytes], other: Iterator[bytes]) -> bool:
    """Whether two streams of the same length hold the same; their pieces need not have the same length."""
    left = right = b""
    while True:
        left, right = left or next(one, b""), right or next(other, b"")
        size = min(len(left), len(right))
        if not size:
            return not left and not right
        if left[:size] != right[:size]:
            return False
        left, right = left[size:], right[size:]


def restore(pack: Pack, numbers: Iterable[int], root: str, *, parents: bool = False) -> None:
    """Make what is in chunks of a pack again, in a folder that is ours and in which it is not yet.

    parents: whether folders are made in which something has its place and that are in other chunks.

    Raises SpoolError when there is no room, CorruptFileError, OSError.
    """
    numbers = list(numbers)
    _must_fit(pack, numbers, root)
    folders: list[tuple[str, Entry]] = []
    last = ""
    for number in numbers:
        reader = pack.read(number)
        for entry in reader:
            path = f"{root}/{entry.path}" if entry.path != "." else root
            around = path if entry.kind is Kind.FOLDER else os.path.dirname(path)
            try:
                if parents and around != last:
                    os.makedirs(around, 0o700, exist_ok=True)
                    last = around
                if not parents or entry.kind is not Kind.FOLDER:
                    make(entry, path, root, reader.content())
            except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
                raise CorruptFileError(f"{pack.path}: {entry.path}", f"it has no place ({error.strerror})") from None
            if entry.kind is Kind.FOLDER:
                folders.append((path, entry))
    for path, entry in reversed(folders):
        if entry.mode != 0o700:
            os.chmod(path, entry.mode)
        os.utime(path, ns=(entry.mtime, entry.mtime))


def _must_fit(pack: Pack, numbers: list[int], root: str) -> None:
    disk = os.statvfs(root)
    needed, free = pack.announced(numbers), disk.f_bavail * disk.f_frsize
    if needed > free:
        raise SpoolError(f"{pack.path}: it may take {needed:,} bytes, and {root} has {free:,} left")
