"""One attempt of one job: call the branch, and say in a result what came of it.

This is the boundary behind which user code may do anything: raise, call `sys.exit`, recurse without end. Whatever it
does becomes the result of this attempt and leaves the others alone. (What kills the process is its supervisor's
business.)
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from executors.state import BranchState
from executors.travel import PickleValidationError, pack
from spool import jsonio
from spool.attempts import Outcome
from spool.claim import host_name
from spool.errors import TooLargeError
from spool.job import JobRecord, sha256
from spool.layout import JobFiles
from spool.publish import MAX_JSON, publish, read_bytes

Branch = Callable[[BranchState], Any]


class NodeFailure(RuntimeError):
    """A node of the workflow failed; `error` is what it raised."""

    def __init__(self, node: str, error: BaseException) -> None:
        self.node, self.error = node, error
        super().__init__(f"Error in node '{node}': {describe(error)}")


@dataclass(slots=True)
class Ran:
    """What came of an attempt: the members of its result, and the values that go with it as objects."""

    result: dict[str, Any]
    changes: dict[str, Any]
    removed: list[str]
    error: BaseException | None = None


def run(branch: Branch, state: BranchState, *, include_traceback: bool = True) -> Ran:
    """Call a branch with its state. Never raises."""
    started, clock = time.time(), time.perf_counter()
    try:
        final = branch(state)
        changes, removed = _changes(state, final)
    except BaseException as error:  # a job's boundary: sys.exit and KeyboardInterrupt in user code end here too
        seconds = time.perf_counter() - clock
        cause = error.error if isinstance(error, NodeFailure) else error
        return Ran(_failure(error, started, seconds, include_traceback), _partial(state), [], cause)
    seconds = time.perf_counter() - clock
    result = {"outcome": Outcome.SUCCEEDED.value, "success": True, "started": started, "seconds": seconds}
    return Ran(result, changes, removed)


def _changes(state: BranchState, final: Any) -> tuple[dict[str, Any], list[str]]:
    if final is state or final is None:
        return state.changes(), state.removed()
    if not isinstance(final, Mapping):
        raise TypeError(f"a branch must return its state, a dict, not {type(final).__name__}")
    in_place = state.changes()
    return {k: v for k, v in final.items() if k not in state or k in in_place or v is not dict.get(state, k)}, []


def _partial(state: BranchState) -> dict[str, Any]:
    """What the branch had changed when it failed; nothing when even that cannot be told."""
    try:
        return state.changes()
    except Exception:  # comparing a user's objects may raise anything
        return {}


def _failure(error: BaseException, started: float, seconds: float, include_traceback: bool) -> dict[str, Any]:
    node = error.node if isinstance(error, NodeFailure) else None
    cause = error.error if isinstance(error, NodeFailure) else error
    result: dict[str, Any] = {
        "outcome": Outcome.FAILED.value,
        "success": False,
        "error": describe(cause),
        "error_type": type(cause).__name__,
        "error_types": error_types(cause),
        "started": started,
        "seconds": seconds,
    }
    if node is not None:
        result["node"] = node
    if include_traceback:
        result["traceback"] = _traceback(cause)
    exit_code = getattr(cause, "exit_code", cause.code if isinstance(cause, SystemExit) else None)
    if isinstance(exit_code, int):
        result["exit_code"] = exit_code
    return result


def describe(error: BaseException) -> str:
    """An error in words, never empty and always encodable."""
    try:
        text = str(error)
    except Exception:  # a user's __str__ may raise anything
        text = ""
    if isinstance(error, SystemExit):
        text = f"the job called sys.exit({error.code!r})"
    return (text or type(error).__name__).encode("utf-8", "replace").decode()


def error_types(error: BaseException) -> list[str]:
    """The qualified names of an error's class and its bases, for `retry_on`."""
    return [f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__ if issubclass(cls, BaseException)]


TIMEOUT_TYPES = error_types(TimeoutError())
"""What a timeout is to `retry_on`, whoever ends the attempt."""


def _traceback(error: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(error, limit=-30))
    except Exception:  # formatting calls a user's __str__ and reads a user's files
        text = f"{type(error).__name__}: {describe(error)}\n"
    return text.encode("utf-8", "replace").decode()


def report(job: JobFiles, record: JobRecord, attempt: int, spent: float, ran: Ran, *, strict: bool) -> dict[str, Any]:
    """The result file of an attempt, as a dict; publishes the pickle beside it where one is needed.

    What was changed but can travel neither as JSON nor as a pickle fails the attempt when `strict`, as it would be
    lost on the way; otherwise it is only marked in the record.
    """
    try:
        state = _travelling(job, attempt, record, ran, strict)
    except PickleValidationError as error:
        ran.result = _failure(error, ran.result["started"], ran.result["seconds"], include_traceback=False)
        ran.changes, ran.error, state = {}, error, {"state": {}}
    result: dict[str, Any] = {
        "job": job.name,
        "attempt": attempt,
        "input_sha256": record.input_sha256,
        **ran.result,
        "spent": spent + ran.result["seconds"],
        "host": host_name(),
        "pid": os.getpid(),
        **state,
    }
    if ran.removed:
        result["removed"] = ran.removed
    return result


def _travelling(job: JobFiles, attempt: int, record: JobRecord, ran: Ran, strict: bool) -> dict[str, Any]:
    if jsonio.is_json(ran.changes):
        return {"state": ran.changes}
    branch = str(record.data.get("branch", job.name))
    try:
        parcel = pack(ran.changes, branch=branch)
    except PickleValidationError:
        if strict and ran.result["success"]:
            raise
        parcel = pack(ran.changes, carry=False)
    body: dict[str, Any] = {"state": jsonio.loads(parcel.shown)}
    if parcel.pickle is not None:
        body["pickle_sha256"] = sha256(_published(job.result_pickle(attempt), parcel.pickle))
    else:
        body["not_kept"] = list(parcel.marked)
    return body


def _published(path: str, data: bytes) -> bytes:
    """Publish a pickle; what is there already is ours, of this attempt, from before the disk refused its result."""
    if len(data) > MAX_JSON:
        raise TooLargeError(path, len(data), MAX_JSON)
    try:
        publish(path, data)
    except FileExistsError:
        return read_bytes(path)
    return data
