"""Where a walk keeps its record: the run of a workflow, or the job of the branch that fans out again.

A `Recorder` makes numbered fan-outs in one `fanouts/` folder. A run is made when its first fan-out needs it, or at
once where the caller wants a record in any case.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from spool import jsonio
from spool.attempts import Outcome
from spool.claim import host_name, user_name
from spool.journal import Journal
from spool.layout import RESULT, FanOutFiles, JobFiles, RunFiles, SpoolFiles
from spool.publish import publish, read_json, sweep
from spool.run import CoordinatorLock, create_fanout, create_run, fanouts, open_spool, update_run
from tea.version import __version__

DEFAULT = ".tea/spool"


class Recorder:
    """Makes the fan-outs of one folder.

    Args:
        spool: the spool it is in. folder: the `fanouts/` folder. journal: where events go, if anywhere.
        number: the number of the last fan-out that is over.
    """

    def __init__(self, spool: SpoolFiles, folder: str, journal: Journal | None = None, number: int = 0) -> None:
        self.spool, self.folder, self.journal = spool, folder, journal
        self.sync = False
        self.lease: float | None = None
        self.number = number

    def fan_out(self, source: str, record: dict[str, Any]) -> FanOutFiles:
        """The next fan-out: a new one, or the one that an earlier process began over the same input.

        A fan-out of this number over another input (a branch that was run again and took another way) is left as
        it is, and the next free number is taken.
        """
        number = self.number
        while True:
            number += 1
            fanout = create_fanout(self.folder, number, source)
            try:
                publish(fanout.fanout, jsonio.pretty({**record, "started": time.time()}))
                break
            except FileExistsError:
                known = read_json(fanout.fanout)
                if all(known.get(key) == record.get(key) for key in ("source", "total", "input_sha256")):
                    break
        self.number = number  # not before: a disk that refuses is asked again
        return fanout

    def inside(self, job: JobFiles) -> Recorder:
        """The recorder of the fan-outs inside a branch.

        An attempt takes up what an earlier one began, unless that one was given up (its thread runs on, and cancels
        its branches): then it begins anew beside it.
        """
        begun = fanouts(job.fanouts)
        recorder = Recorder(self.spool, job.fanouts, self.journal, len(begun) if begun and given_up(job) else 0)
        recorder.sync, recorder.lease = self.sync, self.lease
        return recorder


def given_up(job: JobFiles) -> bool:
    """Whether an attempt of this job ended although what it had begun went on: it ran out of time."""
    results = (job.result(int(match[1])) for name in os.listdir(job.path) if (match := RESULT.fullmatch(name)))
    return any(read_json(path).get("outcome") == Outcome.TIMED_OUT.value for path in results)


def begun(run: RunFiles) -> list[FanOutFiles]:
    """The fan-outs of a run that a resume could go on from."""
    return [fanout for fanout in fanouts(run.fanouts) if os.path.exists(fanout.state)]


class Run:
    """A run of a workflow, driven by this process.

    Args:
        path: the spool's folder. label: for the run's name. workflow: text of the workflow.
        record: members of run.json. now: make it at once, not at its first fan-out.
    """

    def __init__(
        self, path: str, label: str, workflow: bytes, record: Callable[[], dict[str, Any]], *, now: bool = False
    ) -> None:
        self._path, self._label, self._workflow, self._record = path, label, workflow, record
        self.files: RunFiles | None = None
        self.sync = False
        self.lease: float | None = None
        self._lock: CoordinatorLock | None = None
        self._recorder: Recorder | None = None
        if now:
            self.recorder()

    def recorder(self) -> Recorder:
        """The recorder of the run's fan-outs. Raises SpoolError or OSError when the spool cannot be used."""
        if self._recorder is None:
            spool = open_spool(self._path)
            files = create_run(spool, self._label, self._record(), self._workflow)
            self._begin(spool, files, 0)
        assert self._recorder is not None
        return self._recorder

    def _begin(self, spool: SpoolFiles, files: RunFiles, number: int) -> None:
        self._lock = CoordinatorLock(files)
        self.files = files
        self._recorder = Recorder(spool, files.fanouts, Journal(files), number)
        self._recorder.sync, self._recorder.lease = self.sync, self.lease

    @classmethod
    def resume(cls, spool: SpoolFiles, files: RunFiles, *, sync: bool = False, lease: float | None = None) -> Run:
        """Drive a run on. Raises RunBusyError when another process drives it."""
        run = cls(spool.path, "", b"", dict)
        run.sync, run.lease = sync, lease
        run._begin(spool, files, 0)
        sweep(files.path)
        return run

    def go_back_to(self, fanout: FanOutFiles) -> None:
        """Take up this fan-out again: it is the next that the walk comes to."""
        assert self.files is not None
        self.recorder().number = fanouts(self.files.fanouts).index(fanout)

    def go_on_after(self, number: int) -> None:
        """The first `number` fan-outs are over: the next that the walk comes to follows them."""
        self.recorder().number = number

    def note(self, event: str, **fields: Any) -> None:
        """Write to the journal, if there is one yet."""
        if self._recorder is not None and self._recorder.journal is not None:
            self._recorder.journal.write(event, **fields)

    def end(self, outcome: str, **fields: Any) -> None:
        """Say how the run ended. Does nothing when there never was a record."""
        if self.files is None:
            return
        update_run(self.files, outcome=outcome, finished=time.time(), **fields)
        self.note("ended", outcome=outcome)

    def close(self) -> None:
        """Let go of the run, whether it has ended or not."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        if self._recorder is not None and self._recorder.journal is not None:
            self._recorder.journal.close()
            self._recorder.journal = None


def who(**more: Any) -> dict[str, Any]:
    """Who runs, where: for run.json."""
    return {
        "argv": list(more.pop("argv", None) or sys.argv),
        "cwd": os.getcwd(),
        "tea": __version__,
        "python": sys.version.split()[0],
        "host": host_name(),
        "user": user_name(),
        "pid": os.getpid(),
        **more,
    }


def spool_path(explicit: str | None = None, configured: str | None = None) -> str:
    """The spool to use: named by the caller, by TEA_SPOOL, by the workflow, or `.tea/spool` here."""
    return os.path.abspath(explicit or os.environ.get("TEA_SPOOL") or configured or DEFAULT)
