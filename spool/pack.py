"""A packed run: one file, from which a single job can be read without reading all of it.

A pack is a zip archive in which nothing is compressed a second time, so its directory is the index:

    pack.json          which run this is, how it ended, its tickets and jobs by name, what is in each of the others
    000000.tar.xz      what is little even in a large run: records, states, what jobs share
    000001.tar.xz      tickets and empty job directories
    000002.tar.xz      what is in the first few hundred jobs; those inside branches count as jobs of their own
    ...

Unzipped and untarred one after the other in one folder, they are the run, without any program of ours. What is read
is checked as if somebody else had written it: owner, names, links (`tar.py`), and never more than was announced.
"""

from __future__ import annotations

import bisect
import lzma
import os
import stat
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

from spool import jsonio
from spool.errors import CorruptFileError, ForeignFileError, SpoolError
from spool.layout import RunFiles, is_name
from spool.publish import MAX_JSON, read_json
from spool.tar import END, PIECE, Entry, Kind, Reader, head_of, padding
from spool.tree import Tree, content, in_order, make

FORMAT = 1
CHUNK_JOBS = 256
CHUNK_BYTES = 4 << 20
"""A chunk is full when it has so many jobs, or so many bytes before they are compressed."""

_PRESET = 1
"""Of xz. 6 makes packs a quarter smaller, and takes nine times as long."""

_MEMORY = 64 << 20
"""Bytes that decompressing may take; what this module writes takes 2 MiB."""

_DAMAGED = (zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, RuntimeError, ValueError, OSError)
"""What reading a damaged archive may raise: RuntimeError where it says that it is encrypted, OSError where it leads
beyond the ends of the file."""

_DATED = (1980, 1, 1, 0, 0, 0)
_INDEX = "pack.json"


# -- writing --------------------------------------------------------------------------------------------------------


class _Chunk:
    """A compressed archive that is being written."""

    def __init__(self, out: zipfile.ZipFile, name: str) -> None:
        self._file: IO[bytes] = out.open(zipfile.ZipInfo(name, _DATED), "w", force_zip64=True)
        self._compressor = lzma.LZMACompressor(preset=_PRESET)
        self._waiting: list[bytes] = []
        self._held = self.bytes = self.files = 0

    def add(self, entry: Entry, root: str) -> None:
        self._write(head_of(entry))
        self.files += entry.kind in (Kind.FILE, Kind.SYMLINK)
        if entry.size:
            for piece in content(f"{root}/{entry.path}", entry.size):
                self._write(piece)
            self._write(padding(entry.size))

    def _write(self, data: bytes) -> None:
        self._waiting.append(data)
        self._held += len(data)
        self.bytes += len(data)
        if self._held >= PIECE:
            self._compress()

    def _compress(self) -> None:
        self._file.write(self._compressor.compress(b"".join(self._waiting)))
        self._waiting, self._held = [], 0

    def __enter__(self) -> _Chunk:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            if error is None:
                self._write(END)
                self._compress()
                self._file.write(self._compressor.flush())
        finally:
            self._file.close()


def write(run: RunFiles, file: IO[bytes], about: dict[str, Any]) -> None:
    """Write the pack of a run. about: members of its index beside those that are found here."""
    tree = Tree(run.path)
    chunks: list[dict[str, Any]] = []
    files = size = 0
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as out:
        for number, (first, entries) in enumerate(_chunks(tree)):
            with _Chunk(out, _name(number)) as chunk:
                for entry in entries(chunk):
                    chunk.add(entry, tree.root)
                    size += entry.size
            files += chunk.files
            chunks.append({"first": first, "bytes": chunk.bytes})
        index = {**about, "format": FORMAT, "run": run.name, "files": files, "bytes": size, "chunks": chunks}
        index["names"] = tree.listed
        out.writestr(zipfile.ZipInfo(_INDEX, _DATED), jsonio.dumps(index), zipfile.ZIP_DEFLATED)


def _name(number: int) -> str:
    return f"{number:06d}.tar.xz"


def _chunks(tree: Tree) -> Iterator[tuple[str, Callable[[_Chunk], Iterator[Entry]]]]:
    """The first job of each chunk, and what gives its entries as long as it has room."""
    yield "", lambda _chunk: tree.head()
    yield "", lambda _chunk: tree.index()
    position = 0

    def some(chunk: _Chunk) -> Iterator[Entry]:
        nonlocal position
        until = position + CHUNK_JOBS
        while position < min(until, len(tree.jobs)) and chunk.bytes < CHUNK_BYTES:
            yield from tree.job(tree.jobs[position])
            position += 1

    while position < len(tree.jobs):
        yield tree.jobs[position], some


# -- reading --------------------------------------------------------------------------------------------------------


class _Bounded:
    """What a chunk holds, as long as it is no more than was announced."""

    def __init__(self, file: IO[bytes], size: int, name: str) -> None:
        self._file, self._left, self._name = file, size, name
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
        info = self._zip.getinfo(_INDEX)
        if info.file_size > MAX_JSON or info.compress_size > MAX_JSON:
            raise CorruptFileError(self.path, "its index is unreasonably large")
        index = jsonio.loads(self._zip.read(info))
        if type(index) is not dict or index.get("format") != FORMAT:
            found = index.get("format") if type(index) is dict else None
            raise CorruptFileError(self.path, f"a pack of format {found!r}; this version reads format {FORMAT}")
        return index

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
        try:
            file = self._zip.open(_name(number))
        except (*_DAMAGED, KeyError) as error:
            raise CorruptFileError(self.path, f"damaged ({error})") from None
        name = f"{self.path}:{_name(number)}"
        return Reader(_Bounded(file, self._chunks[number][1], name), name)

    def small_files(self, number: int) -> dict[str, bytes]:
        """What is in the files of a chunk, by path, those excepted that are large."""
        found: dict[str, bytes] = {}
        reader = self.read(number)
        for entry in reader:
            if entry.kind is Kind.FILE and entry.size <= PIECE:
                found[entry.path] = b"".join(reader.content())
            elif entry.kind is Kind.LINK and entry.target in found:
                found[entry.path] = found[entry.target]
        return found


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


def about(run: RunFiles) -> dict[str, Any]:
    """What the index of a pack says of its run, so that nobody need look inside for it."""
    return {"record": read_json(run.run), "packed": time.time()}
