"""What branches print when they are threads of one process: told apart by context, not by descriptor.

`install` puts a proxy in the place of `sys.stdout` and `sys.stderr`. While a branch runs under `captured`, what it
prints through them goes to a buffer of its own; everything else goes where it went before. What a branch's child
processes or C code print cannot be told apart and is not captured.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, TextIO

from spool.layout import JobFiles
from spool.publish import publish

_log = logging.getLogger("tea.spool")

MAX_PRINTED = 8 * 1024 * 1024
"""Characters that are kept of what one attempt prints; the first ones."""

_NAMES = ("stdout", "stderr")
_buffers: ContextVar[dict[str, _Buffer] | None] = ContextVar("tea_output", default=None)


class _Buffer(io.StringIO):
    """A text buffer that does not grow without bound."""

    dropped = 0

    def write(self, text: str) -> int:
        room = MAX_PRINTED - self.tell()
        if len(text) > room:
            self.dropped += len(text) - max(room, 0)
        super().write(text[: max(room, 0)])
        return len(text)

    def text(self) -> str:
        note = f"\n[tea: {self.dropped} more characters were dropped]\n" if self.dropped else ""
        return self.getvalue() + note


class _Routed(io.TextIOBase):
    """Writes to the buffer of the branch that prints, or to the stream whose place it has."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self._name, self._stream = name, stream

    def _target(self) -> Any:
        buffers = _buffers.get()
        return self._stream if buffers is None else buffers[self._name]

    def write(self, text: str) -> int:
        return int(self._target().write(text))

    def flush(self) -> None:
        self._target().flush()

    def close(self) -> None:
        """Does nothing: the stream is everybody's, and a handler of `logging` may outlive what is below."""

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return _buffers.get() is None and self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding


@contextlib.contextmanager
def install() -> Iterator[None]:
    """Route `sys.stdout` and `sys.stderr` by branch, until the end of the block."""
    before = {name: getattr(sys, name) for name in _NAMES}
    for name, stream in before.items():
        setattr(sys, name, _Routed(name, stream))
    try:
        yield
    finally:
        for name, stream in before.items():
            setattr(sys, name, stream)


def is_captured() -> bool:
    """Whether what is printed here belongs to a branch."""
    return _buffers.get() is not None


@contextlib.contextmanager
def captured(job: JobFiles, attempt: int) -> Iterator[None]:
    """Keep what this context prints as the logs of an attempt. Does nothing where nothing is routed."""
    if not isinstance(sys.stdout, _Routed):
        yield
        return
    buffers = {name: _Buffer() for name in _NAMES}
    token = _buffers.set(buffers)
    try:
        yield
    finally:
        _buffers.reset(token)
        for buffer, log in zip(buffers.values(), (job.stdout(attempt), job.stderr(attempt)), strict=True):
            if text := buffer.text():
                _keep(log, text.encode("utf-8", "backslashreplace"))


def _keep(log: str, data: bytes) -> None:
    """Publish a log. On a disk that refuses it is lost, as the branch's result matters more."""
    try:
        publish(log, data)
    except FileExistsError:
        pass
    except OSError as error:
        _log.warning("%s: what the branch printed is lost: %s", log, error.strerror)
