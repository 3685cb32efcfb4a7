"""What a job finds around it in a worker process: its output, folder, environment, memory.

A job may change all that; the next one finds it as it was.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Iterator
from typing import TextIO

from spool.layout import JobFiles
from spool.logs import keep_log
from spool.worker import Worker


class Output:
    """What jobs print: descriptors 1 and 2 point to scratch files in the worker's folder, moved to the job after it.

    Two files for a worker, not two for a job: most jobs print nothing, and a file costs as much as a claim. A job may
    close or replace what it prints to; the next one finds it as it was.
    """

    def __init__(self, worker: Worker) -> None:
        self._streams = [_Stream("stdout", 1, worker.files.stdout), _Stream("stderr", 2, worker.files.stderr)]

    def collect(self, job: JobFiles, attempt: int) -> None:
        """Give the job what was printed since the last call."""
        for stream, log in zip(self._streams, (job.stdout, job.stderr), strict=True):
            if stream.settle():
                keep_log(stream.path, log(attempt))
                os.ftruncate(stream.kept, 0)


class _Stream:
    """One descriptor that jobs print to, the `sys` stream over it, and its scratch file."""

    def __init__(self, name: str, fd: int, path: str) -> None:
        self.name, self.fd, self.path = name, fd, path
        self.kept = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._file = os.fstat(self.kept)
        os.dup2(self.kept, fd)
        self._text = self._open()
        setattr(sys, name, self._text)

    def _open(self) -> TextIO:
        return os.fdopen(self.fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)

    def settle(self) -> int:
        """Flush, undo what a job did to the stream, and tell how many bytes have been printed."""
        text = getattr(sys, self.name)
        try:
            text.flush()
        except (ValueError, OSError, AttributeError):  # closed, or something else put in its place
            pass
        if text is not self._text or self._text.closed:
            self._text = self._open() if self._text.closed else self._text
            setattr(sys, self.name, self._text)
        try:
            status = os.fstat(self.fd)
        except OSError:  # closed
            status = None
        if status is None or status.st_ino != self._file.st_ino or status.st_dev != self._file.st_dev:
            os.dup2(self.kept, self.fd)
            status = os.fstat(self.kept)
        return status.st_size


class Surroundings:
    """What a job finds around it. It may change it; the next one finds it as it was.

    What a job adds to `sys.path` stays, for a module that did so is not imported again.
    """

    def __init__(self) -> None:
        self._folder = os.getcwd()
        self._held = os.open(self._folder, getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC)
        self._path = list(sys.path)
        self._live = getattr(os.environ, "_data", os.environ)  # comparing what it holds encoded takes a twentieth
        self._environment = dict(self._live)
        self._mask = os.umask(0o077)
        os.umask(self._mask)

    def put_back(self) -> None:
        try:
            os.chdir(self._folder)
        except FileNotFoundError:  # a job removed it: that is no reason for the others to fail
            os.fchdir(self._held)
        os.umask(self._mask)
        if self._live != self._environment:
            self._put_back_environment()
        if sys.path != self._path and (missing := [entry for entry in self._path if entry not in sys.path]):
            sys.path.extend(missing)
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _put_back_environment(self) -> None:
        os.environ.clear()
        for name, value in self._environment.items():
            os.environ[os.fsdecode(name)] = os.fsdecode(value)


@contextlib.contextmanager
def memory_limit(limit: int) -> Iterator[None]:
    """Let this process, and what it starts, have no more than `limit` bytes of memory of its own."""
    kind = resource.RLIMIT_DATA if sys.platform == "linux" else resource.RLIMIT_AS
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))
