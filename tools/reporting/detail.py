"""What a reader may want to know of one job: what it began with, what came of each attempt, what it printed.

Of everything only so much as `Sizes` says, and where that is not all of it, the text says so. A file that is too
large to be read whole, or does not parse, is shown as it begins.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from spool import jsonio
from spool.errors import SpoolError
from spool.find import fanout_of
from spool.layout import JobFiles
from spool.making import INLINE_BASE
from spool.opened import home
from spool.publish import read_bytes, read_quietly
from tools.reporting.record import Attempt, Job
from tools.reporting.text import head, visible
from tools.show import users_traceback
from tools.text import size


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of a job is shown. parsed: bytes of a file that is read whole. The others are characters or bytes."""

    parsed: int = 512 * 1024
    value: int = 4_000
    error: int = 2_000
    output: int = 3_000
    attempts: int = 20


class Reader:
    """Reads the details of jobs; what jobs of a fan-out share is read once.

    Args:
        sizes: how much of each.

    cut: how many texts were longer than that.
    """

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes
        self.cut = 0
        self._shared: dict[str, Mapping[str, Any]] = {}

    def read(self, job: Job) -> dict[str, Any]:
        """The details of a job; members that have nothing to tell are left out."""
        files = JobFiles(job.path)
        record = read_quietly(files.job)
        told = {
            "path": visible(home(job.path)),
            "entry": record.get("entry"),
            "exit": record.get("exit"),
            "policy": record.get("policy") or None,
            "not_replayable": record.get("not_replayable"),
            "job_json": record.get("$unreadable"),
            "input": self._input(files),
            "shared": self._shared_note(files),
            "result": self._result(files, job),
            "attempts": [self._attempt(files, one) for one in job.attempts[-self._sizes.attempts :]],
        }
        for name, path in self._logs(files, job):
            told[name] = self._tail(path)
        return {name: _clean(value) for name, value in told.items() if value not in (None, "", [], {})}

    # -- values ---------------------------------------------------------------------------------------------

    def _input(self, files: JobFiles) -> str:
        value = self._value(files.input)
        if isinstance(value, str):
            return value
        shared = self._state(files)
        return self._shown({key: item for key, item in value.items() if key not in shared or shared[key] != item})

    def _state(self, files: JobFiles) -> Mapping[str, Any]:
        """The shared state that stands in each input: only a small one does."""
        path = fanout_of(files).state
        if path not in self._shared:
            small = _bytes(path) <= INLINE_BASE
            self._shared[path] = read_quietly(path) if small else {}
        return self._shared[path]

    def _shared_note(self, files: JobFiles) -> str:
        base = _bytes(files.base)
        if base:
            return f"and base.json, {size(base)}, which it shares with its siblings"
        names = ", ".join(key for key in self._state(files) if not key.startswith("$"))
        return f"and, shared with its siblings: {head(names, 300)}" if names else ""

    def _value(self, path: str) -> dict[str, Any] | str:
        """A JSON object; as text what is too large or is none."""
        try:
            data = read_bytes(path, self._sizes.parsed)
        except FileNotFoundError:
            return ""
        except (SpoolError, OSError) as error:
            beginning = _part(path, 0, self._sizes.value)
            return f"({getattr(error, 'why', error)})" + (f"\n{visible(beginning)}" if beginning else "")
        try:
            value = jsonio.loads(data)
        except ValueError as error:
            return f"(not JSON: {error})\n{self._head(visible(data.decode('utf-8', 'replace')), self._sizes.value)}"
        return value if isinstance(value, dict) else self._shown(value)

    def _shown(self, value: Any) -> str:
        return self._head(visible(jsonio.pretty(value).decode("utf-8", "replace").rstrip()), self._sizes.value)

    # -- attempts -------------------------------------------------------------------------------------------

    def _result(self, files: JobFiles, job: Job) -> str:
        """What the job changed."""
        if job.counted is None:
            return ""
        value = self._value(files.result(job.counted.number))
        if isinstance(value, str):
            return value
        changed = {key: value[key] for key in ("state", "removed", "not_kept") if value.get(key)}
        return self._shown(changed.get("state") if list(changed) == ["state"] else changed) if changed else ""

    def _attempt(self, files: JobFiles, one: Attempt) -> dict[str, Any]:
        """What the results know beyond what `Attempt` has."""
        told: dict[str, Any] = {"attempt": one.number}
        value = self._value(files.result(one.number))
        if isinstance(value, str):
            told["error"] = value
        else:
            told["type"] = value.get("error_type")
            told["error"] = (
                self._head(visible(str(value["error"])), self._sizes.error) if value.get("error") else None
            )
            told["node"], told["exit_code"] = value.get("node"), value.get("exit_code")
            trace = visible("\n".join(users_traceback(str(value.get("traceback") or ""))))
            told["traceback"] = trace[-2 * self._sizes.error :]
        note = read_quietly(files.retry(one.number))
        told["sent_back"] = str(note["by"]) if note.get("by") else None
        return {name: value for name, value in told.items() if value not in (None, "")}

    # -- output ---------------------------------------------------------------------------------------------

    def _logs(self, files: JobFiles, job: Job) -> Iterator[tuple[str, str]]:
        if job.counted is not None:
            yield "stdout", files.stdout(job.counted.number)
            yield "stderr", files.stderr(job.counted.number)

    def _tail(self, path: str) -> str:
        limit, whole = self._sizes.output, _bytes(path)
        text = visible(_part(path, max(0, whole - limit), limit)).rstrip("\n")
        if whole <= limit:
            return text
        self.cut += 1
        return f"... the last {size(limit)} of {size(whole)}\n{text}"

    def _head(self, text: str, limit: int) -> str:
        self.cut += len(text) > limit
        return head(text, limit)


def _clean(value: Any) -> Any:
    """The same with nothing in it that JSON, or an eye, would stumble over."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {visible(str(key)): _clean(item) for key, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list) else value


def _bytes(path: str) -> int:
    try:
        status = os.lstat(path)
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _part(path: str, position: int, length: int) -> str:
    """A part of a file; nothing of what is no regular file, or may not be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.pread(fd, length, position).decode("utf-8", "replace") if stat.S_ISREG(os.fstat(fd).st_mode) else ""
    except OSError:
        return ""
    finally:
        os.close(fd)
