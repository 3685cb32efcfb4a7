"""What an attempt has printed, also while it prints: from its log, or from the scratch files of its worker.

A worker writes what its job prints to two scratch files of its own; when the attempt ends they become the job's logs.
So whoever follows a job reads the scratch files first and the logs in the end, and goes on where it was. Threads of a
coordinator have no scratch files: what they print can be read when their attempt has ended.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from spool.claim import Claimant, claimed_by
from spool.errors import UnknownNameError
from spool.find import fanout_of, in_run, short_path, spool_of
from spool.layout import CLAIM, JobFiles, WorkerFiles
from spool.worker import Observer, read_now

STREAMS = ("stdout", "stderr")
CHUNK = 1 << 20
"""Bytes that are read at once."""

PAUSE = 0.1
"""Seconds between two looks at what a running attempt prints."""

_DROPPED = re.compile(rb"\[tea: the first ([0-9]+) bytes were dropped\]\n")


class Piece(NamedTuple):
    """Something that an attempt printed. stream: `stdout` or `stderr`."""

    attempt: int
    stream: str
    data: bytes


def attempts_of(job: JobFiles) -> list[int]:
    """The attempts of a job that were claimed, oldest first. Raises FileNotFoundError when the job is gone."""
    return sorted(int(match[1]) for name in os.listdir(job.path) if (match := CLAIM.fullmatch(name)))


def chosen_attempt(job: JobFiles, wanted: int | None) -> int:
    """The attempt that a person wants to see: this one, or the newest; 0 when the job has not begun.

    Raises UnknownNameError when there is no such attempt.
    """
    known = attempts_of(job)
    if wanted is None:
        return known[-1] if known else 0
    if wanted not in known:
        there = f"it has {', '.join(map(str, known))}" if known else "it has not begun"
        raise UnknownNameError(f"{in_run(job.path)}: no attempt {wanted}; {there}")
    return wanted


class Output:
    """What one attempt prints, each byte once.

    Args:
        job, attempt: whose. streams: which of `stdout` and `stderr`.
    """

    def __init__(self, job: JobFiles, attempt: int, streams: Sequence[str] = STREAMS) -> None:
        self.job, self.attempt, self._streams = job, attempt, streams
        self._read = dict.fromkeys(streams, 0)

    def more(self) -> Iterator[Piece]:
        """What was printed since the last call. Raises OSError when a file cannot be read."""
        for stream in self._streams:
            for data in self._new(stream):
                yield Piece(self.attempt, stream, data)

    def _new(self, stream: str) -> Iterator[bytes]:
        log = self._log(stream)
        if not os.path.exists(log):
            scratch = self._scratch(stream)
            data = _from(scratch, self._read[stream]) if scratch else b""
            # The worker may have gone on to another job while we read: what it runs is asked again.
            if data and self._scratch(stream) and not os.path.exists(log):
                self._read[stream] += len(data)
                yield data
                return
        yield from self._from_log(stream, log)

    def _from_log(self, stream: str, log: str) -> Iterator[bytes]:
        """A very long output lost its beginning when it became a log; positions count from what was printed."""
        try:
            shift = _dropped(log)
        except FileNotFoundError:
            return
        while data := _from(log, max(0, self._read[stream] - shift)):
            self._read[stream] = max(self._read[stream], shift) + len(data)
            yield data

    def _log(self, stream: str) -> str:
        return self.job.stdout(self.attempt) if stream == "stdout" else self.job.stderr(self.attempt)

    def _scratch(self, stream: str) -> str | None:
        """The scratch file of the worker that runs this attempt, or died with it; None when none does."""
        worker = worker_of(self.job, self.attempt)
        if worker is None or not _runs(worker, self.job, self.attempt):
            return None
        return worker.stdout if stream == "stdout" else worker.stderr


def worker_of(job: JobFiles, attempt: int) -> WorkerFiles | None:
    """The worker that claimed an attempt; None for a claim that is none of ours."""
    claimant = Claimant.parse(claimed_by(job, attempt) or "")
    return spool_of(job.path).worker(claimant.worker) if claimant else None


def _runs(worker: WorkerFiles, job: JobFiles, attempt: int) -> bool:
    """Whether a worker is at this attempt. On its host the spool may be mounted elsewhere: names are compared."""
    try:
        path, name, number, _, _ = read_now(worker).rsplit(" ", 4)
        same = short_path(path) == short_path(fanout_of(job).path)
    except (ValueError, UnknownNameError):
        return False
    return same and name == job.name and number == str(attempt)


def _from(path: str, position: int) -> bytes:
    """At most `CHUNK` bytes of a file from a position; none when it is not there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        return os.pread(fd, CHUNK, position)
    finally:
        os.close(fd)


def _dropped(log: str) -> int:
    """By how much positions in a log are less than positions in what was printed."""
    fd = os.open(log, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        match = _DROPPED.match(os.pread(fd, 100, 0))
    finally:
        os.close(fd)
    return int(match[1]) - len(match[0]) if match else 0


def follow(job: JobFiles, observer: Observer, attempt: int, streams: Sequence[str] = STREAMS) -> Iterator[Piece]:
    """What a job prints from an attempt on (0: from its first, when it comes), as it prints it; waits between.

    Ends when the job has a result, or when no worker lives that could give it one.
    Raises FileNotFoundError when the job is removed.
    """
    output = Output(job, attempt, streams)
    while True:
        finished, ended = os.path.lexists(job.accepted), has_ended(job, output.attempt, observer)
        yield from output.more()  # asked after that, so that nothing is missed
        later = [number for number in attempts_of(job) if number > output.attempt]
        if ended and later:
            output = Output(job, later[0], streams)
        elif ended and (finished or not observer.live_workers()):
            return
        else:
            time.sleep(PAUSE)


def has_ended(job: JobFiles, attempt: int, observer: Observer) -> bool:
    """Whether an attempt has a result or lost its worker; attempt 0 is over before it began."""
    return (
        not attempt or os.path.lexists(job.result(attempt)) or not observer.is_alive(claimed_by(job, attempt) or "")
    )
