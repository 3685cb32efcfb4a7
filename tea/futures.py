"""The future of a job, and how a job's result becomes what `concurrent.futures` gives: a value or an exception."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor, CancelledError, Future
from typing import TYPE_CHECKING, Any, TypeVar

from executors.travel import unpack_pickle
from spool.attempts import Outcome
from spool.errors import CorruptFileError
from spool.job import sha256
from spool.layout import JobFiles
from spool.publish import read_bytes
from tea import calls

if TYPE_CHECKING:
    from tea.pool import Pool
    from tea.spool_api import Job


T = TypeVar("T")


class PoolBrokenError(BrokenExecutor):
    """The executor cannot go on: its workers do not start, or its spool cannot be used."""


class JobError(RuntimeError):
    """A job failed, and what it raised could not come back: its type does not pickle, or its worker died.

    job: the job directory. outcome: `failed`, `timed_out` or `lost`. kind: name of the error's type.
    """

    def __init__(self, message: str, job: str = "", outcome: str = "failed", kind: str = "") -> None:
        super().__init__(message)
        self.job, self.outcome, self.kind = job, outcome, kind


class WorkerDiedError(JobError):
    """The job ended its worker process, or lost it again and again; other jobs go on."""


class JobTimeoutError(JobError, TimeoutError):
    """The job had more time than its limits gave it, and was ended."""


class RemoteTraceback(Exception):
    """The traceback that an exception had in another process, as its cause."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class JobFuture(Future[T]):
    """The future of a job.

    files: of its job; None when there is none. sha: SHA-256 of its input.
    """

    def __init__(self, pool: Pool | None = None, files: JobFiles | None = None, sha: str = "") -> None:
        super().__init__()
        self._pool, self.files, self.sha = pool, files, sha

    @property
    def job(self) -> Job | None:
        """The job: its input, result, attempts, what it printed; see `tea.open_spool`.

        None when there is none, because the call could not travel.
        """
        from tea.spool_api import Job

        return None if self.files is None else Job(self.files)

    def cancel(self) -> bool:
        """Cancel the job if no worker has claimed it; whether it is cancelled now."""
        return super().cancel() if self._pool is None else self._pool.cancel(self)

    def running_now(self) -> None:
        """A worker has begun it."""
        with self._condition:  # whoever gives it up meanwhile comes before or after
            if not self.running() and not self.done():
                self.set_running_or_notify_cancel()

    def give_up(self, reason: str) -> None:
        """It will not run any more, or what it brings does not count."""
        if self.done():
            return
        if super().cancel():
            self.set_running_or_notify_cancel()
        else:
            self.set_exception(CancelledError(reason))


def error_of(raw: dict[str, Any], changes: dict[str, Any], job: str, *, remote: bool) -> BaseException:
    """The exception of a job that failed: the one it raised, if that could come back.

    One from another process gets its traceback as cause, as that does not travel.
    """
    error = changes.get(calls.EXCEPTION)
    if not isinstance(error, BaseException):
        error = _substitute(raw, job)
    if remote and raw.get("traceback"):
        error.__cause__ = RemoteTraceback(str(raw["traceback"]))
    return error


def _substitute(raw: dict[str, Any], job: str) -> JobError:
    kind, outcome, text = str(raw.get("error_type")), str(raw["outcome"]), str(raw.get("error"))
    if outcome == Outcome.TIMED_OUT.value:
        return JobTimeoutError(f"{text}; see {job}", job, outcome, kind)
    if kind in ("WorkerDied", "WorkerLost"):
        return WorkerDiedError(f"{text}; see {job}", job, outcome, kind)
    return JobError(f"{kind}: {text}; see {job}", job, outcome, kind)


def unpickled(job: JobFiles, raw: dict[str, Any]) -> dict[str, Any]:
    """What came back of a job, with what JSON could not carry put back.

    Raises SpoolError or FileNotFoundError when the pickle is not what the worker wrote; unpickling may raise more.
    """
    changes = raw.get("state")
    if not isinstance(changes, dict):
        changes = {}
    digest = raw.get("pickle_sha256")
    if digest is None:
        return changes
    path = job.result_pickle(raw["attempt"])
    data = read_bytes(path)
    if sha256(data) != digest:
        raise CorruptFileError(path, "its sha256 is not the one in the result")
    return {**changes, **unpack_pickle(data)}
