"""What is known of a job, read at one moment and without changing it: what `explain` decides from.

`job.look` and `job.judge` mend what they find half done, and put aside what cannot be trusted. Here nothing is moved:
what those would put aside is told as such.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spool import inspect, tickets
from spool.attempts import Attempt, Ended, Policy
from spool.claim import Claimant, host_name
from spool.errors import CorruptFileError, SpoolError
from spool.find import fanout_of, in_run, run_of, spool_of
from spool.hosts import host_of
from spool.job import check_result, ended, read_accepted, read_job
from spool.jobview import AttemptView, attempts
from spool.layout import QUARANTINED, JobFiles, RunFiles, SpoolFiles
from spool.pause import paused
from spool.publish import read_quietly
from spool.run import coordinator
from spool.worker import LEASE, Observer, is_stopped


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt of a job.

    claimed: seconds since the epoch. result: empty where there is none that can be trusted; distrusted: why not.
    alive: whether its worker lives, None when it has a result. silent: seconds after which a worker of another host
    counts as dead, None for one of this host. stopped: its process is stopped by a signal.
    """

    number: int
    claimant: str
    claimed: float = 0.0
    result: Mapping[str, Any] = field(default_factory=dict)
    distrusted: str | None = None
    alive: bool | None = None
    silent: float | None = None
    stopped: bool = False
    sent_back: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ended(self) -> Ended | None:
        return ended(dict(self.result)) if self.result else None

    @property
    def attempt(self) -> Attempt:
        """As `attempts.decide` wants it: whoever wrote a result that cannot be trusted has the attempt no more."""
        return Attempt(self.number, "" if self.distrusted else self.claimant, self.ended)


@dataclass(frozen=True, slots=True)
class Facts:
    """A job at one moment.

    ticket: its folder, "" for none. trouble: why its job.json cannot be trusted. accepted: its result, if it has one.
    quarantined: names of files that were put aside. run_state: as of `tea spool status`. driver: who drives the run.
    host: the one that the job was sent to, while it runs there.
    workers: live workers of the spool, the coordinator included. waited: seconds since the newest result was written.
    paused: who holds the run and since when, as of `pause.paused`; empty when that does not hold this job.
    """

    name: str
    run: str
    ticket: str = "todo"
    policy: Policy = field(default_factory=Policy)
    tries: tuple[Try, ...] = ()
    accepted: Mapping[str, Any] | None = None
    trouble: str | None = None
    accepted_trouble: str | None = None
    quarantined: tuple[str, ...] = ()
    run_state: str = "running"
    driver: str = ""
    strategy: str = "process"
    host: str = ""
    workers: int = 0
    waited: float = 0.0
    paused: Mapping[str, Any] = field(default_factory=dict)
    now: float = 0.0

    @property
    def forgiven(self) -> int:
        """The newest attempt that a person has sent back, 0 for none."""
        return max((one.number for one in self.tries if one.sent_back), default=0)

    @property
    def driven(self) -> bool:
        return self.run_state == "running"


def facts_of(job: JobFiles, observer: Observer | None = None) -> Facts:
    """Look at a job. Raises FileNotFoundError when it is gone."""
    spool, run, fanout = spool_of(job.path), run_of(job.path), fanout_of(job)
    observer = observer or Observer(spool)
    policy, sha, trouble = _record(job)
    tries = tuple(_try(spool, job, view, sha) for view in attempts(job, observer))
    accepted, accepted_trouble = _accepted(job, sha)
    strategy = str(read_quietly(fanout.fanout).get("strategy") or "")
    return Facts(
        name=in_run(job.path),
        run=run.name,
        ticket=tickets.kind_of(fanout, job.name) or "",
        policy=policy,
        tries=tries,
        accepted=accepted,
        trouble=trouble,
        accepted_trouble=accepted_trouble,
        quarantined=tuple(sorted(name for name in os.listdir(job.path) if ".corrupt" in name)),
        run_state=run_state(run),
        driver=coordinator(run),
        strategy=strategy,
        host=host_of(spool, job, observer) if strategy == "remote" else "",
        workers=len(observer.live_workers()),
        waited=_waited(job, tries),
        paused={} if "/" in in_run(fanout.path) else paused(run),
        now=time.time(),
    )


def run_state(run: RunFiles) -> str:
    """`running`, the outcome that run.json tells, or `stopped`; as of `RunView.state`."""
    return inspect.RunView(run, read_quietly(run.run), "", inspect.is_driven(run)).state


def _record(job: JobFiles) -> tuple[Policy, str | None, str | None]:
    """The policy of a job, the SHA-256 of its input, and what is wrong with its job.json."""
    try:
        record = read_job(job)
    except SpoolError as error:
        return Policy(), None, str(error)
    return record.policy, record.input_sha256, None


def _try(spool: SpoolFiles, job: JobFiles, view: AttemptView, sha: str | None) -> Try:
    distrusted = _distrusted(job, view, sha)
    result = {} if distrusted else view.result
    claimant = Claimant.parse(view.claimant)
    silent, stopped = None, False
    if not result and claimant is not None:
        record = read_quietly(spool.worker(claimant.worker).worker)
        here = claimant.host == host_name()
        silent = None if here else float(record.get("lease") or LEASE)
        stopped = here and bool(view.alive) and is_stopped(claimant.pid)
    alive = None if result else bool(view.alive) and not distrusted
    return Try(view.number, view.claimant, view.claimed, result, distrusted, alive, silent, stopped, view.sent_back)


def _distrusted(job: JobFiles, view: AttemptView, sha: str | None) -> str | None:
    """Why the result of an attempt cannot be trusted; None for one that can, and where there is none."""
    path = job.result(view.number)
    if not view.result:
        aside = (QUARANTINED.fullmatch(name) for name in os.listdir(job.path))
        spoiled = any(match and int(match[1]) == view.number for match in aside)
        return f"{path} could not be trusted, and was put aside" if spoiled else None
    if "$unreadable" in view.result:
        return f"{path}: {view.result['$unreadable']}"
    try:
        check_result(path, dict(view.result), job.name, view.number, sha)
    except CorruptFileError as error:
        return str(error)
    return None


def _accepted(job: JobFiles, sha: str | None) -> tuple[Mapping[str, Any] | None, str | None]:
    try:
        return read_accepted(job, sha), None
    except (SpoolError, OSError) as error:
        return None, str(error)


def _waited(job: JobFiles, tries: tuple[Try, ...]) -> float:
    """Seconds since the newest result was written, as the clock here and that of the file system tell."""
    try:
        return max(0.0, time.time() - os.lstat(job.result(tries[-1].number)).st_mtime) if tries else 0.0
    except OSError:
        return 0.0
