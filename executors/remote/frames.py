"""Messages on a pipe: a line of JSON, and as many bytes as its member `size` says.

    {"op": "job", "job": "0007-scale", "size": 812}\\n<812 bytes>

Both sides bound what they take. A reader waits at most as long as it is told to.
"""

from __future__ import annotations

import json
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

MAX_HEADER = 256 * 1024
MAX_PAYLOAD = 640 * 1024 * 1024
"""Bytes of a payload: the largest result (`spool.publish.MAX_JSON`), with what it printed."""

MAX_NOISE = 1024 * 1024
"""Bytes that a host may say before tea does: greetings, what a .bashrc prints."""


class FrameError(Exception):
    """What came is no message."""


class Frame(NamedTuple):
    """A message."""

    header: dict[str, Any]
    payload: bytes = b""

    @property
    def op(self) -> str:
        return str(self.header.get("op"))


class FrameReader:
    """Reads messages from a descriptor.

    Args:
        active: when something last went the other way, on the monotonic clock; patience begins there, too.
    """

    def __init__(self, fd: int, active: Callable[[], float] = lambda: 0.0) -> None:
        self._fd, self._buffer, self._active = fd, bytearray(), active

    def read(self, patience: float | None) -> Frame | None:
        """The next message; None when the other side has ended.

        Raises TimeoutError when nothing moves for `patience` seconds, FrameError for what is no message.
        """
        line = self._line(patience, MAX_HEADER)
        if line is None:
            return None
        header = _header(line)
        size = header.get("size", 0)
        if type(size) is not int or not 0 <= size <= MAX_PAYLOAD:
            raise FrameError(f"a message of {size!r} bytes is refused")
        while len(self._buffer) < size:
            if not self._more(patience):
                return None
        payload = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        return Frame(header, payload)

    def skip_to(self, mark: str, patience: float) -> dict[str, Any] | None:
        """The JSON after `mark` in the first line that begins with it; None when the other side has ended.

        All lines before it are dropped. Raises TimeoutError after `patience` seconds.
        """
        deadline, noise = time.monotonic() + patience, 0
        while True:
            line = self._line(max(0.0, deadline - time.monotonic()), MAX_NOISE)
            if line is None:
                return None
            if line.startswith(mark.encode()):
                return _header(line[len(mark) :])
            noise += len(line)
            if noise > MAX_NOISE:
                raise FrameError("it says too much before it answers")

    def _line(self, patience: float | None, limit: int) -> bytes | None:
        start = 0
        while (end := self._buffer.find(b"\n", start)) < 0:
            start = len(self._buffer)
            if start > limit:
                raise FrameError("a line without an end")
            if not self._more(patience):
                return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _more(self, patience: float | None) -> bool:
        poll, began = select.poll(), time.monotonic()
        poll.register(self._fd, select.POLLIN)
        while not poll.poll(None if patience is None else min(patience, 1.0) * 1000):
            if patience is not None and time.monotonic() - max(began, self._active()) >= patience:
                raise TimeoutError(f"nothing came for {patience:.0f} s")
        data = os.read(self._fd, 1 << 20)
        self._buffer += data
        return bool(data)


def _header(line: bytes) -> dict[str, Any]:
    try:
        header = json.loads(line)
    except ValueError:
        raise FrameError(f"no message: {line[:80]!r}") from None
    if type(header) is not dict:
        raise FrameError(f"no message: {line[:80]!r}")
    return header


def encode(header: dict[str, Any], payload: bytes = b"") -> bytes:
    """The bytes before a payload."""
    return json.dumps({**header, "size": len(payload)} if payload else header).encode() + b"\n"


class FrameWriter:
    """Writes messages to a descriptor, from any thread. `moved` is when it last wrote, on the monotonic clock."""

    def __init__(self, fd: int) -> None:
        self._fd, self._lock = fd, threading.Lock()
        self.moved = time.monotonic()

    def write(self, header: dict[str, Any], payload: bytes = b"") -> None:
        """Write a message. Raises OSError when nobody reads any more."""
        with self._lock:
            head = encode(header, payload)
            if len(payload) < 65536:
                self._write(head + payload)
            else:
                self._write(head)
                self._write(payload)

    def raw(self, data: bytes) -> None:
        """Write what is no message."""
        with self._lock:
            self._write(data)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view[: 1 << 20]) :]
            self.moved = time.monotonic()
