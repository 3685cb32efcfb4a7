"""Every file name of a spool, in one place. Nobody else joins paths.

Paths are plain strings: a fan-out of 100,000 jobs names a million of them.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

FORMAT = 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
TICKETS = ("todo", "done", "failed", "cancelled")
CLAIM = re.compile(r"claim\.([1-9][0-9]{0,8})")
RETRY = re.compile(r"retry\.([1-9][0-9]{0,8})")
RESULT = re.compile(r"result\.([1-9][0-9]{0,8})\.json")
QUARANTINED = re.compile(r"result\.([1-9][0-9]{0,8})\.json\.corrupt(\.[0-9]+)?")
TEMPORARY = re.compile(r"\.tmp-([1-9][0-9]{0,9})-[0-9a-f]{8}-[0-9]+")
"""What `publish` writes before it has a name: `.tmp-PID-TOKEN-SERIAL`."""
RESERVED = re.compile(r"\.reserved-(.+)")
"""What stands for a name where links are refused: `.reserved-NAME`."""
REMOVED = re.compile(r"\.removed-(.+)")
"""A run that is being removed: `.removed-RUN`."""
UNPACKING = re.compile(r"\.unpacking-(.+)")
"""A run that is being unpacked: `.unpacking-RUN`."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def is_name(text: str) -> bool:
    """Whether this may be the name of a run, fan-out, job or worker."""
    return NAME.fullmatch(text) is not None


def safe_name(text: str, length: int = 60) -> str:
    """A name that is safe on every file system, readable, and different for different texts.

    >>> safe_name("branch_c")
    'branch_c'
    >>> safe_name("../étc")
    'tc-00c223'
    """
    name = _UNSAFE.sub("_", text).strip("._-")[:length]
    if name and name == text:
        return name
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{name.strip('._-')}-{digest}" if name else f"x-{digest}"


class JobFiles(NamedTuple):
    """The files of one job directory."""

    path: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def job(self) -> str:
        return f"{self.path}/job.json"

    @property
    def input(self) -> str:
        return f"{self.path}/input.json"

    @property
    def base(self) -> str:
        return f"{self.path}/base.json"

    @property
    def base_pickle(self) -> str:
        return f"{self.path}/base.pickle"

    @property
    def pickle(self) -> str:
        return f"{self.path}/input.pickle"

    @property
    def workflow(self) -> str:
        return f"{self.path}/workflow.yaml"

    @property
    def accepted(self) -> str:
        return f"{self.path}/result.json"

    def claim(self, attempt: int) -> str:
        return f"{self.path}/claim.{attempt}"

    def result(self, attempt: int) -> str:
        return f"{self.path}/result.{attempt}.json"

    def result_pickle(self, attempt: int) -> str:
        return f"{self.path}/result.{attempt}.pickle"

    def retry(self, attempt: int) -> str:
        return f"{self.path}/retry.{attempt}"

    def retired(self, attempt: int) -> str:
        return f"{self.path}/retired.{attempt}.json"

    def stdout(self, attempt: int) -> str:
        return f"{self.path}/stdout.{attempt}.log"

    def stderr(self, attempt: int) -> str:
        return f"{self.path}/stderr.{attempt}.log"

    @property
    def fanouts(self) -> str:
        return f"{self.path}/fanouts"


class FanOutFiles(NamedTuple):
    """The files of one fan-out."""

    path: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def fanout(self) -> str:
        return f"{self.path}/fanout.json"

    @property
    def state(self) -> str:
        return f"{self.path}/state.json"

    @property
    def state_pickle(self) -> str:
        return f"{self.path}/state.pickle"

    @property
    def breaker(self) -> str:
        return f"{self.path}/breaker.json"

    @property
    def joblog(self) -> str:
        return f"{self.path}/parallel.joblog"

    @property
    def shared(self) -> str:
        return f"{self.path}/shared"

    @property
    def runtime(self) -> str:
        return f"{self.path}/shared/runtime.pickle"

    @property
    def blank(self) -> str:
        return f"{self.path}/shared/ticket"

    def workflow(self, key: str) -> str:
        return f"{self.path}/shared/{key}.yaml"

    @property
    def jobs(self) -> str:
        return f"{self.path}/jobs"

    def job(self, name: str) -> JobFiles:
        return JobFiles(f"{self.path}/jobs/{name}")

    def tickets(self, kind: str) -> str:
        return f"{self.path}/{kind}"

    def ticket(self, kind: str, name: str) -> str:
        return f"{self.path}/{kind}/{name}"


class RunFiles(NamedTuple):
    """The files of one run."""

    path: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def run(self) -> str:
        return f"{self.path}/run.json"

    @property
    def workflow(self) -> str:
        return f"{self.path}/workflow.yaml"

    @property
    def lock(self) -> str:
        return f"{self.path}/coordinator.lock"

    @property
    def cancel(self) -> str:
        return f"{self.path}/cancel.json"

    @property
    def paused(self) -> str:
        return f"{self.path}/paused.json"

    @property
    def events(self) -> str:
        return f"{self.path}/events.jsonl"

    @property
    def input(self) -> str:
        return f"{self.path}/input.json"

    @property
    def output(self) -> str:
        return f"{self.path}/output.json"

    def interrupt(self, number: int) -> str:
        return f"{self.path}/interrupt.{number}.json"

    @property
    def fanouts(self) -> str:
        return f"{self.path}/fanouts"


class WorkerFiles(NamedTuple):
    """The files of one worker."""

    path: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def worker(self) -> str:
        return f"{self.path}/worker.json"

    @property
    def lock(self) -> str:
        return f"{self.path}/lock"

    @property
    def beat(self) -> str:
        return f"{self.path}/beat"

    @property
    def now(self) -> str:
        return f"{self.path}/now"

    @property
    def stdout(self) -> str:
        return f"{self.path}/stdout"

    @property
    def stderr(self) -> str:
        return f"{self.path}/stderr"


class SpoolFiles(NamedTuple):
    """The files of a spool."""

    path: str

    @property
    def spool(self) -> str:
        return f"{self.path}/spool.json"

    @property
    def runs(self) -> str:
        return f"{self.path}/runs"

    @property
    def workers(self) -> str:
        return f"{self.path}/workers"

    @property
    def packed(self) -> str:
        return f"{self.path}/packed"

    def pack(self, run: str) -> str:
        return f"{self.path}/packed/{run}.zip"

    @property
    def packing_lock(self) -> str:
        return f"{self.path}/packed/.lock"

    def unpacking(self, run: str) -> str:
        return f"{self.path}/runs/.unpacking-{run}"

    def removed(self, run: str) -> str:
        return f"{self.path}/runs/.removed-{run}"

    @property
    def replays(self) -> str:
        return f"{self.path}/replays"

    def replays_of(self, run: str) -> str:
        return f"{self.path}/replays/{run}"

    def run(self, name: str) -> RunFiles:
        return RunFiles(f"{self.path}/runs/{name}")

    def worker(self, name: str) -> WorkerFiles:
        return WorkerFiles(f"{self.path}/workers/{name}")


class ReplayFiles(NamedTuple):
    """The files of a replay: a job that was run again, apart from its record."""

    path: str

    @property
    def replay(self) -> str:
        return f"{self.path}/replay.json"

    @property
    def input(self) -> str:
        return f"{self.path}/input.json"

    @property
    def workflow(self) -> str:
        return f"{self.path}/workflow.yaml"

    @property
    def result(self) -> str:
        return f"{self.path}/result.json"

    @property
    def spool(self) -> str:
        return f"{self.path}/spool"


def fanout_name(number: int, source: str) -> str:
    """`001-split`."""
    return f"{number:03d}-{safe_name(source)}"


def job_name(index: int, total: int, branch: str) -> str:
    """`0002-branch_c`; as many digits as the fan-out needs, so that names sort like indexes."""
    return f"{index:0{max(4, len(str(max(total - 1, 0))))}d}-{safe_name(branch)}"
