"""What a job printed: from the scratch files of its worker into the job directory.

A worker writes to two scratch files of its own, not to two files for each job. Whoever ends an attempt (the worker,
its supervisor, or the worker that takes the job over from a dead one) publishes what is in them as its logs.
"""

from __future__ import annotations

import contextlib
import logging
import os

from spool.layout import JobFiles, WorkerFiles
from spool.publish import publish

_log = logging.getLogger("tea.spool")

MAX_LOG = 64 * 1024 * 1024
"""Bytes of stdout, and of stderr, that are kept of one attempt; the last ones."""


def keep_log(scratch: str, log: str) -> None:
    """Publish a scratch file as the log of an attempt; only the end of a very long one."""
    with open(scratch, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - MAX_LOG))
        data = file.read(MAX_LOG)
    if size > MAX_LOG:
        data = f"[tea: the first {size - MAX_LOG} bytes were dropped]\n".encode() + data
    if data:
        with contextlib.suppress(FileExistsError):
            publish(log, data)


def keep_logs(worker: WorkerFiles, job: JobFiles, attempt: int) -> None:
    """Publish what a worker that is dead has left of an attempt's output."""
    for scratch, log in ((worker.stdout, job.stdout(attempt)), (worker.stderr, job.stderr(attempt))):
        try:
            keep_log(scratch, log)
        except FileNotFoundError:  # nothing was printed yet, or the job's folder is gone
            pass
        except OSError as error:  # the job matters more
            _log.warning("%s: what the job printed is lost: %s", log, error.strerror)
