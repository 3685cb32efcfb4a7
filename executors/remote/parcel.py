"""What is copied to a host: the program, the user's files, what all jobs share, and the jobs."""

from __future__ import annotations

import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO, NamedTuple

from executors.bundle import bundle, digest
from executors.remote.frames import Frame
from executors.remote.settings import RemoteConfig
from spool import jsonio
from spool.errors import CorruptFileError
from spool.job import sha256
from spool.layout import FanOutFiles
from spool.making import INLINE_BASE
from spool.publish import read_bytes
from spool.queue import Claim
from spool.retry import given_input

CHUNK = 1 << 20


class Program(NamedTuple):
    """The zip application that a host runs, kept there under a name with its hash."""

    data: bytes
    sha256: str

    @property
    def name(self) -> str:
        return f"tea-{self.sha256[:16]}.pyz"


def program(config: RemoteConfig, folder: str) -> Program:
    """The program to copy. Raises ValueError when `basefile` cannot be read."""
    if config.basefile is None:
        data = bundle()
    else:
        path = os.path.join(folder, os.path.expanduser(config.basefile))
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            raise ValueError(
                f"basefile {path}: {error.strerror}; make it with `tea bundle -o {path}`, or leave `basefile` out"
            ) from None
    return Program(data, digest(data))


class Cargo:
    """The user's files as one archive, made once and sent to each host. Nothing when there are none."""

    def __init__(self, config: RemoteConfig, folder: str) -> None:
        self._file: BinaryIO | None = None
        if config.files:
            self._file = tempfile.TemporaryFile(prefix="tea-files-")  # noqa: SIM115 - lives as long as this
            with tarfile.open(fileobj=self._file, mode="w:gz", compresslevel=1, dereference=True) as archive:
                for name in config.files:
                    _add(archive, folder, name)
            self._file.flush()

    def frames(self) -> Iterator[Frame]:
        """The archive in pieces; the last one says so."""
        if self._file is None:
            return
        size, offset = os.fstat(self._file.fileno()).st_size, 0
        while offset < size:
            data = os.pread(self._file.fileno(), CHUNK, offset)
            offset += len(data)
            yield Frame({"op": "files", "last": offset >= size}, data)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class Listed(NamedTuple):
    """One of the user's `files`: how many files that are, and their bytes."""

    name: str
    files: int
    bytes: int


def listed(config: RemoteConfig, folder: str) -> list[Listed]:
    """What `Cargo` would hold, without making it. Raises ValueError as that does."""
    return [_listed(folder, name) for name in config.files]


def _listed(folder: str, name: str) -> Listed:
    _, path = _located(folder, name)
    if os.path.isfile(path):
        return Listed(name, 1, os.path.getsize(path))
    sizes = []
    for place, folders, files in os.walk(path, followlinks=True):
        folders[:] = [inside for inside in folders if inside not in _UNWANTED]
        paths = (os.path.join(place, file) for file in files if file not in _UNWANTED)
        sizes += [os.path.getsize(file) for file in paths if os.path.isfile(file)]
    return Listed(name, len(sizes), sum(sizes))


def _add(archive: tarfile.TarFile, folder: str, name: str) -> None:
    inside, path = _located(folder, name)
    archive.add(path, inside, filter=_wanted)


def _located(folder: str, name: str) -> tuple[str, str]:
    """One of the user's files: its path inside the folder, and its path. Raises ValueError when it is not there."""
    inside = os.path.normpath(name)
    if os.path.isabs(inside) or inside.split(os.sep)[0] == "..":
        raise ValueError(f"files: {name} is not inside the workflow's folder {folder}")
    path = os.path.join(folder, inside)
    if not os.path.exists(path):
        raise ValueError(f"files: {path} does not exist")
    return inside, path


_UNWANTED = ("__pycache__", ".tea", ".git")


def _wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if os.path.basename(member.name) in _UNWANTED or not (member.isfile() or member.isdir()):
        return None
    return member


class Sent(NamedTuple):
    """A claimed job as a host gets it. input_sha256: of the input it gets, which a result has to answer."""

    record: bytes
    input: bytes
    input_sha256: str


def packed(claim: Claim) -> Sent:
    """A claimed job, made one that a host can run from its two files alone.

    Retries are decided here and not on the host, so the copy allows none, and what is left of the total time. What a
    person gave the job when it was sent back stands in the copy's input, as a first attempt has no notes.
    Raises what `read_bytes` and `given_input` raise.
    """
    data, policy = claim.record.data, claim.record.policy
    total = policy.timeout_total
    left = None if total is None else max(total - claim.spent, 0.001)
    own, digest = read_bytes(claim.job.input), claim.record.input_sha256
    given = given_input(claim.job, claim.attempt) if claim.attempt > 1 else {}
    if given:
        if sha256(own) != digest:
            raise CorruptFileError(claim.job.input, "it is not what the coordinator wrote (sha256 differs)")
        own = jsonio.dumps({**jsonio.loads(own), **given})
        digest = sha256(own)
    allowed = replace(policy, max_retries=0, timeout_total=left).to_json()
    return Sent(jsonio.dumps({**data, "policy": allowed, "input_sha256": digest}), own, digest)


def job(claim: Claim, sent: Sent, delivery: int) -> Frame:
    """The message that brings a job to its host."""
    header: dict[str, Any] = {
        "op": "job",
        "job": claim.job.name,
        "delivery": delivery,
        "record": len(sent.record),
        "workflow": claim.record.data.get("workflow"),
        "base": "base_sha256" in claim.record.data,
    }
    return Frame(header, sent.record + sent.input)


def base(fanout: FanOutFiles) -> Iterator[Frame]:
    """The shared state that jobs link to, compressed, in pieces; none when each job has it in its input."""
    with open(fanout.state, "rb") as file:
        left = os.fstat(file.fileno()).st_size
        if left <= INLINE_BASE:
            return
        deflate = zlib.compressobj(1)
        while left > 0 and (data := file.read(CHUNK)):
            left -= len(data)
            yield Frame(
                {"op": "base", "last": left <= 0}, deflate.compress(data) + (deflate.flush() if left <= 0 else b"")
            )
