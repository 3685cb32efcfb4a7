"""Writing a packed run: what `pack.py` reads. One chunk after the other, each as small as memory likes."""

from __future__ import annotations

import hashlib
import lzma
import time
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from typing import IO, Any

from spool import jsonio
from spool.brief import LONGEST, brief_of
from spool.layout import RunFiles
from spool.pack import FORMAT, INDEX, Seal, briefs_name, chunk_name
from spool.publish import read_json
from spool.tar import END, PIECE, Entry, Kind, head_of, padding
from spool.tree import Tree, content, whole

CHUNK_JOBS = 256
CHUNK_BYTES = 4 << 20
"""A chunk is full when it has so many jobs, or so many bytes before they are compressed."""

_PRESET = 1
"""Of xz. 6 makes packs a quarter smaller, and takes nine times as long."""

AHEAD = 2
"""Pieces that may wait to be compressed."""

_DATED = (1980, 1, 1, 0, 0, 0)


class _Chunk:
    """A compressed archive that is being written; a thread compresses what another one reads."""

    def __init__(self, out: zipfile.ZipFile, name: str, thread: Executor) -> None:
        self._thread, self._under_way = thread, deque[Future[None]]()
        self._file: IO[bytes] = out.open(zipfile.ZipInfo(name, _DATED), "w", force_zip64=True)
        self._compressor = lzma.LZMACompressor(preset=_PRESET)
        self._digest = hashlib.sha256()
        self._waiting: list[bytes] = []
        self._held = self._entries = self.bytes = self.files = 0
        self.briefs: dict[str, Any] = {}

    def add(self, entry: Entry, root: str) -> bytes:
        """Add an entry; what it holds, where that is little."""
        self._entries = hash((self._entries, entry))
        self._write(head_of(entry))
        self.files += entry.kind in (Kind.FILE, Kind.SYMLINK)
        if not entry.size:
            return b""
        if entry.size <= LONGEST:
            data = whole(f"{root}/{entry.path}", entry.size)
            self._write(data + padding(entry.size))
            return data
        for piece in content(f"{root}/{entry.path}", entry.size):
            self._write(piece)
        self._write(padding(entry.size))
        return b""

    def add_job(self, path: str, entries: Iterable[Entry], root: str) -> None:
        """Add what is in a job directory."""
        files = [(entry, self.add(entry, root)) for entry in entries]
        if (brief := brief_of(path.rpartition("/")[2], files)) is not None:
            self.briefs[path] = brief

    def _write(self, data: bytes) -> None:
        self._waiting.append(data)
        self._held += len(data)
        self.bytes += len(data)
        if self._held >= PIECE:
            self._compress()

    def _compress(self) -> None:
        self._under_way.append(self._thread.submit(self._compressed, b"".join(self._waiting)))
        self._waiting, self._held = [], 0
        if len(self._under_way) > AHEAD:
            self._under_way.popleft().result()

    def _compressed(self, data: bytes) -> None:
        self._digest.update(data)
        self._file.write(self._compressor.compress(data))

    @property
    def seal(self) -> Seal:
        """Of all that has been written."""
        return Seal(self._digest.digest(), self._entries)

    def __enter__(self) -> _Chunk:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            if error is None:
                self._write(END)
                self._compress()
                for piece in self._under_way:
                    piece.result()
                self._file.write(self._compressor.flush())
        finally:
            wait(self._under_way)
            self._file.close()


def write(tree: Tree, run: RunFiles, file: IO[bytes], about: dict[str, Any]) -> list[Seal]:
    """Write the pack of a run, whose folder is a tree; the seals of its chunks.

    about: members of its index beside those that are found here.
    """
    chunks: list[dict[str, Any]] = []
    seals: list[Seal] = []
    files = size = 0
    with ThreadPoolExecutor(1) as thread, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as out:
        for number, (first, fill) in enumerate(_chunks(tree)):
            with _Chunk(out, chunk_name(number), thread) as chunk:
                size += fill(chunk)
            files += chunk.files
            seals.append(chunk.seal)
            chunks.append({"first": first, "bytes": chunk.bytes})
            if chunk.briefs:
                _add(out, briefs_name(number), chunk.briefs)
        index = {**about, "format": FORMAT, "run": run.name, "files": files, "bytes": size, "chunks": chunks}
        _add(out, INDEX, {**index, "names": tree.listed})
    return seals


def _add(out: zipfile.ZipFile, name: str, value: dict[str, Any]) -> None:
    out.writestr(zipfile.ZipInfo(name, _DATED), jsonio.dumps(value), zipfile.ZIP_DEFLATED)


def _chunks(tree: Tree) -> Iterator[tuple[str, Callable[[_Chunk], int]]]:
    """The first job of each chunk, and what fills it as long as it has room; that tells how many bytes it took."""

    def few(entries: Iterator[Entry], chunk: _Chunk) -> int:
        size = 0
        for entry in entries:
            chunk.add(entry, tree.root)
            size += entry.size
        return size

    yield "", lambda chunk: few(tree.head(), chunk)
    yield "", lambda chunk: few(tree.index(), chunk)
    position = 0

    def some(chunk: _Chunk) -> int:
        nonlocal position
        size, until = 0, min(position + CHUNK_JOBS, len(tree.jobs))
        while position < until and chunk.bytes < CHUNK_BYTES:
            path = tree.jobs[position]
            entries = list(tree.job(path))
            chunk.add_job(path, entries, tree.root)
            size += sum(entry.size for entry in entries)
            position += 1
        return size

    while position < len(tree.jobs):
        yield tree.jobs[position], some


def about(run: RunFiles) -> dict[str, Any]:
    """What the index of a pack says of its run, so that nobody need look inside for it."""
    return {"record": read_json(run.run), "packed": time.time()}
