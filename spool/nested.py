"""The fan-outs inside a branch, from the machine that has run it to the record of its run: packed there, taken here.

`packed` makes one compressed archive of a job's `fanouts/`; `take` checks it and puts what is in it into the job's
directory here, as if the branch had run here. Nothing of it is believed: names, kinds, links and sizes are those that
a record has, and a pickle is none of them. What a branch has ended with is told by its result alone.
"""

from __future__ import annotations

import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator

from spool.errors import CorruptFileError, SpoolError
from spool.layout import JobFiles, fanout_name, is_name
from spool.publish import unique
from spool.run import fanouts
from spool.tar import END, Entry, Kind, Reader, head_of, padding
from spool.tree import Tree, content, make

MAX_BYTES = 64 * 1024 * 1024
"""Bytes of a record that travels, before it is compressed; a larger one stays where it is."""

MAX_ENTRIES = 100_000
"""Files and folders of a record that travels."""

_TOP = "fanouts"
_SMALL = 1 << 20
_LINKS = re.compile(r"claim\.[0-9]+|result\.json")
"""What may be a symbolic link: a claim, and an accepted result where hard links are refused."""


class TooMuchError(SpoolError):
    """A record is too large to travel."""


# -- there ----------------------------------------------------------------------------------------------------------


def packed(job: JobFiles, workflow: Callable[[bytes], bytes]) -> bytes:
    """The fan-outs inside a job as an archive; nothing when there are none.

    workflow: makes of a subset, whose paths are those of this machine, one for the machine that it goes to.
    Raises TooMuchError, SpoolError for what no record has, OSError.
    """
    if not fanouts(job.fanouts):
        return b""
    parts: list[bytes] = []
    deflate, size, number = zlib.compressobj(6), 0, 0
    for entry, data in _entries(job, workflow):
        number, size = number + 1, size + entry.size
        if size > MAX_BYTES or number > MAX_ENTRIES:
            raise TooMuchError(f"the record of its own fan-outs is larger than {MAX_BYTES >> 20} MiB")
        parts.append(deflate.compress(head_of(entry)))
        parts += [deflate.compress(piece) for piece in data]
        parts.append(deflate.compress(padding(entry.size)))
    return b"".join([*parts, deflate.compress(END), deflate.flush()])


def _entries(job: JobFiles, workflow: Callable[[bytes], bytes]) -> Iterator[tuple[Entry, Iterator[bytes]]]:
    for entry in Tree(job.path).all():
        if not entry.path.startswith(f"{_TOP}/") or _why_refused(entry):
            continue
        path = f"{job.path}/{entry.path}"
        if entry.kind is Kind.FILE and path.endswith(".yaml"):
            text = workflow(b"".join(content(path, entry.size)))
            yield entry._replace(size=len(text)), iter([text])
        else:
            yield entry, content(path, entry.size) if entry.kind is Kind.FILE else iter(())


# -- here -----------------------------------------------------------------------------------------------------------


def take(job: JobFiles, archive: bytes, where: str) -> None:
    """Put the fan-outs of an archive into a job's directory, after those that it has: each attempt began anew.

    where: what errors call the archive. Raises CorruptFileError for what no record has; then nothing is put there.
    """
    os.makedirs(job.fanouts, 0o700, exist_ok=True)
    aside = f"{job.fanouts}/.tmp-{unique()}"
    os.mkdir(aside, 0o700)
    try:
        _restore(Reader(_Inflated(archive, where), where), aside, where)
        number = max((int(one.name.partition("-")[0]) for one in fanouts(job.fanouts)), default=0)
        for one in fanouts(aside):
            number += 1
            os.rename(one.path, f"{job.fanouts}/{fanout_name(number, one.name.partition('-')[2])}")
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _restore(reader: Reader, root: str, where: str) -> None:
    known: dict[str, Kind] = {"": Kind.FOLDER}
    for entry in reader:
        path, target = entry.path.removeprefix(f"{_TOP}/"), entry.target
        why = _why_refused(entry)
        if entry.kind is Kind.LINK:
            target = target.removeprefix(f"{_TOP}/")
            why = why or ("" if known.get(target) is Kind.FILE else f"a link to {target!r}, which is no file")
        if path in known or known.get(path.rpartition("/")[0]) is not Kind.FOLDER or len(known) > MAX_ENTRIES:
            why = why or "it has no place"
        if why:
            raise CorruptFileError(f"{where}: {entry.path}", why)
        known[path] = entry.kind
        plain = entry._replace(path=path, target=target, mode=0o700 if entry.kind is Kind.FOLDER else 0o600)
        make(plain, f"{root}/{path}", root, reader.content())


def _why_refused(entry: Entry) -> str:
    """Why an entry does not travel, beyond what `tar` refuses; nothing for one that does."""
    top, *names = entry.path.split("/")
    if top != _TOP or not names or not all(map(is_name, names)):
        return "a name that no record has"
    if names[-1].endswith(".pickle"):
        return "a pickle from another machine"
    if entry.kind is Kind.SYMLINK and not _LINKS.fullmatch(names[-1]):
        return "a symbolic link where none belongs"
    return ""


class _Inflated:
    """A compressed archive, which says in no more than so many bytes what it has to say."""

    def __init__(self, data: bytes, name: str) -> None:
        self._inflate, self._rest, self._name = zlib.decompressobj(), data, name
        self._buffer = bytearray()
        self._left = MAX_BYTES + 2048 * MAX_ENTRIES

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more(size)
        data = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        return data

    def _more(self, size: int) -> None:
        try:
            data = self._inflate.decompress(self._rest, max(size, _SMALL))
        except zlib.error as error:
            raise CorruptFileError(self._name, str(error)) from None
        self._rest, self._left = self._inflate.unconsumed_tail, self._left - len(data)
        if not data or self._left < 0:
            raise CorruptFileError(self._name, "it ends in the middle" if not data else "it is too large")
        self._buffer += data

    def finish(self) -> None:
        if self._buffer or not self._inflate.eof or self._inflate.unused_data:
            raise CorruptFileError(self._name, "something follows its end")
