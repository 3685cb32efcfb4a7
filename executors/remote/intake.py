"""Where batches come in on a host that GNU Parallel brings them to, and how their results go back.

    GNU Parallel   --- 0007.batch --->   the folder that is the same on every host; see `transit`
    courier        "0007.batch 0007.result"   --- socket --->   the worker: asks the coordinator which jobs of it
                                                                still count, runs them, writes into 0007.result
                   done               <---------------------    when the last result is written
    GNU Parallel   <-- 0007.result ---

When nobody fetches the file, as its courier has gone or the coordinator says that it did not come, what is in it goes
over the session, and so does what comes later: no job is done again because of that. Results do not wait long for
others of their batch either, and failures not at all: what follows from one must not be late.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from executors.remote.folder import Refused
from executors.remote.frames import Frame, FrameReader, FrameWriter
from executors.remote.transit import Transit

PATIENCE = 5.0
"""Seconds that a result waits for the other jobs of its batch."""

_ORDER = re.compile(r"([0-9]+)\.batch \1\.result\n")


@dataclass(slots=True)
class Batch:
    """One batch. left: its jobs that have no result yet. since: when the first result in its file was written, on the
    monotonic clock.
    """

    name: str
    courier: socket.socket
    left: set[str] = field(default_factory=set)
    results: FrameWriter | None = None
    fd: int = -1
    since: float | None = None

    def close(self) -> None:
        self.courier.close()
        if self.fd >= 0:
            os.close(self.fd)


class Intake:
    """The batches of one session.

    Args:
        transit: where they come in. say: tells the coordinator.
    """

    def __init__(self, transit: Transit, say: Callable[[dict[str, Any], bytes], None]) -> None:
        self._say = say
        self._transit = transit
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.bind(transit.door)
        self._socket.listen(16)
        self._batches: dict[str, Batch] = {}
        self._finished: dict[str, Batch] = {}
        self._of: dict[str, Batch] = {}

    @property
    def ends(self) -> list[socket.socket]:
        """What to wait on: something comes, or a courier goes."""
        return [self._socket, *(batch.courier for batch in self._batches.values())]

    def close(self, late: float) -> None:
        """The session is over. late: see `Transit.leave`."""
        self._socket.close()
        for batch in [*self._batches.values(), *self._finished.values()]:
            batch.close()
        self._transit.leave(late)

    # -- couriers -----------------------------------------------------------------------------------------------

    def come(self) -> Iterator[str]:
        """The names of batches that have come in."""
        with contextlib.suppress(BlockingIOError):
            while True:
                courier, _ = self._socket.accept()
                courier.settimeout(5.0)  # what it says is one short line, sent at once
                try:
                    order = _ORDER.fullmatch(courier.recv(256).decode("ascii", "replace"))
                except OSError:
                    order = None
                if order is None or order[1] in self._batches:
                    courier.close()
                    continue
                courier.setblocking(False)
                self._batches[order[1]] = Batch(order[1], courier)
                yield order[1]

    def look(self) -> None:
        """Take over from couriers that have gone, and send what has waited long enough."""
        for batch in list(self._batches.values()):
            try:
                left = batch.courier.recv(16) == b""
            except BlockingIOError:
                left = False
            except OSError:
                left = True
            if left:
                self.resend(batch.name)
            elif batch.since is not None and time.monotonic() - batch.since > PATIENCE:
                self._send(batch)

    # -- jobs and results ---------------------------------------------------------------------------------------

    def open(self, name: str, wanted: set[str], take: Callable[[Frame], None]) -> None:
        """Take those jobs of a batch that are wanted. Raises Refused for a file that is no batch, OSError."""
        batch = self._batches.get(name)
        if batch is None or batch.results is not None:
            return None
        if not os.path.exists(self._transit.file(f"{name}.batch")):
            return self.resend(name)  # its courier tells, and GNU Parallel tries again
        path = self._transit.file(f"{name}.result")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # of another session on this machine, which may still write into it
        batch.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        batch.results = FrameWriter(batch.fd)
        for frame in self._frames(batch):
            job = str(frame.header.get("job"))
            if job in wanted:
                batch.left.add(job)
                self._of[job] = batch
                take(frame)
        return self._finish(batch)

    def _frames(self, batch: Batch) -> Iterator[Frame]:
        fd = os.open(self._transit.file(f"{batch.name}.batch"), os.O_RDONLY | os.O_NOFOLLOW)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Refused("worker", f"{batch.name}.batch is no file")
            reader = FrameReader(fd)
            while (frame := reader.read(None)) is not None:
                yield frame
        finally:
            os.close(fd)

    def result(self, job: str, header: dict[str, Any], payload: bytes) -> bool:
        """Write the result of a job into its batch's file; False when it has none any more."""
        batch = self._of.get(job)
        if batch is None or batch.results is None:
            return False
        batch.results.write(header, payload)
        batch.since = batch.since or time.monotonic()
        self.drop(job)
        return True

    def drop(self, job: str) -> None:
        """A job is done with, or not to be done here."""
        batch = self._of.pop(job, None)
        if batch is not None:
            batch.left.discard(job)
            self._finish(batch)

    def _finish(self, batch: Batch) -> None:
        """When nothing of a batch is left: the word that its results are complete, and its courier may go."""
        if batch.left or batch.results is None:
            return
        batch.results.write({"op": "finish"})
        self._finished[batch.name] = self._batches.pop(batch.name)
        self._say({"op": "complete", "batch": batch.name}, b"")
        with contextlib.suppress(OSError):
            batch.courier.sendall(b"done\n")
        batch.courier.close()

    def received(self, name: str) -> None:
        """The coordinator has the results of a batch."""
        batch = self._finished.pop(name, None)
        if batch is not None:
            batch.close()

    def resend(self, name: str) -> None:
        """Nobody fetches the results of a batch."""
        batch = self._batches.pop(name, None) or self._finished.pop(name, None)
        if batch is None:
            return
        for job in batch.left:
            self._of.pop(job, None)
        self._send(batch)
        batch.close()

    def _send(self, batch: Batch) -> None:
        """Send the results in a batch's file over the session instead."""
        if batch.since is None:
            return
        os.lseek(batch.fd, 0, os.SEEK_SET)
        reader = FrameReader(batch.fd)
        while (frame := reader.read(None)) is not None:
            if frame.op == "result":
                self._say(*frame)
        os.lseek(batch.fd, 0, os.SEEK_SET)
        os.ftruncate(batch.fd, 0)
        batch.since = None
