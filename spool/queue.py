"""A worker's view of one fan-out: which job may it take next?

Fresh jobs come from a listing of `todo/` and are claimed by trying; only a job that somebody else has, or that
failed before, is looked into. A job in somebody's hands is looked at again after `POLL` seconds; one that waits for
its back-off when that has passed, without anybody sleeping for it. Workers that died leave their folder behind, and
its `now` names their job: so a killed worker's job is found at once, also in a queue of 100,000.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Container, Iterable
from typing import NamedTuple

from spool import job as jobs
from spool import tickets
from spool.attempts import Decision, Outcome, Verdict
from spool.claim import claimed_by, try_claim
from spool.errors import SpoolError
from spool.job import JobRecord
from spool.layout import FanOutFiles, JobFiles, is_name
from spool.pause import Gate
from spool.worker import Observer, read_now

POLL = 0.1
"""Seconds after which a job in somebody else's hands is looked at again."""

DEAD_WORKERS = 0.4
"""Seconds between looks for workers that died."""

TROUBLE = 1.0
"""Seconds after which a job is looked at again whose files could not be read or written."""


class Claim(NamedTuple):
    """A job that is ours: run it and finish this attempt. `spent` is what earlier attempts took, in seconds."""

    job: JobFiles
    record: JobRecord
    attempt: int
    spent: float = 0.0


class Queue:
    """Claims the jobs of one fan-out for one claimant.

    A claimant belongs to one queue, and takes the next job when it has done with the last: a claim of its own that
    has no result is taken to be its to run.

    Args:
        fanout: where.
        claimant: the text of the claims.
        observer: tells who lives.
        slot, slots: this is worker `slot` of `slots` that were started together: each begins with every
            `slots`-th job, so that they rarely try the same. With `slots` 0 the start is at random.
        first: names to look at before all others.
        held: names that are passed over: a claimant that has several jobs at once keeps what it has in it.
    """

    def __init__(
        self,
        fanout: FanOutFiles,
        claimant: str,
        observer: Observer,
        *,
        slot: int = 0,
        slots: int = 1,
        first: Iterable[str] = (),
        held: Container[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fanout, self._claimant, self._observer = fanout, claimant, observer
        self._slot, self._slots, self._clock, self._held = slot, slots, clock, held
        self._fresh: list[str] = []
        self._look_again: dict[str, float] = dict.fromkeys(first, 0.0)
        self._failed: dict[str, tuple[int, float]] = {}
        self._next_dead_look = clock() + DEAD_WORKERS
        self._next_known_look = 0.0
        self._trouble: OSError | None = None
        self._gate = Gate(fanout, clock)
        self.remaining = -1
        """Tickets in `todo/` at the last listing; 0 tells that nothing is left, -1 that nobody has looked."""

    def take(self) -> Claim | None:
        """Claim a free attempt; None when there is none now, or the run is paused.

        Raises OSError when the disk refuses claims, or a job's files, while there is no other job to take.
        """
        now = self._clock()
        if self._gate.closed(now):
            return None
        if now >= self._next_dead_look:
            self._find_dead_workers(now)
        if self._look_again and now >= self._next_known_look and (claim := self._take_known(now)):
            return claim
        while True:
            if not self._fresh and not self._refill(now):
                self._tell_trouble()
                return None
            claim = self._take_fresh(self._fresh.pop())
            if claim is not None:
                return claim

    def _tell_trouble(self) -> None:
        error, self._trouble = self._trouble, None
        if error is not None:
            raise error

    def _refill(self, now: float) -> bool:
        """List `todo/`: our share of what we have not looked at, else what others have not come to yet."""
        listed = tickets.names(self._fanout, "todo")
        self.remaining = len(listed)
        if self._look_again:
            present = set(listed)
            self._look_again = {name: due for name, due in self._look_again.items() if name in present}
        new = [name for name in listed if name not in self._look_again and name not in self._held]
        own = [name for name in new if self._is_own(name)]
        self._fresh = sorted(own, reverse=True) if own else sorted(new)
        if self._slots == 0 and self._fresh:
            cut = random.randrange(len(self._fresh))
            self._fresh = self._fresh[cut:] + self._fresh[:cut]
        return bool(self._fresh)

    def _is_own(self, name: str) -> bool:
        if self._slots < 2:
            return True
        number = name.partition("-")[0]
        return number.isdecimal() and int(number) % self._slots == self._slot

    def _take_fresh(self, name: str) -> Claim | None:
        """Try the first attempt without looking."""
        job = self._fanout.job(name)
        self._later(name, self._clock() + POLL)
        try:
            if not try_claim(job, 1, self._claimant, anew=True):
                return None
            record = jobs.read_job(job)
        except FileNotFoundError:
            return None
        except SpoolError as error:
            jobs.refuse(self._fanout, job, self._claimant, error)
            return None
        del self._look_again[name]
        return Claim(job, record, 1)

    def _take_known(self, now: float) -> Claim | None:
        """Look into jobs that were claimed before, those that are due."""
        due = [name for name, at in self._look_again.items() if at <= now]
        for name in due:
            self._look_again[name] = now + POLL
            try:
                claim = self._consider(name, now)
            except OSError as error:  # one job in trouble does not hold up the others
                self._look_again[name] = now + TROUBLE
                self._trouble = error
                continue
            if claim is not None:
                del self._look_again[name]
                return claim
        self._next_known_look = min(self._look_again.values(), default=0.0)
        return None

    def _consider(self, name: str, now: float) -> Claim | None:
        job = self._fanout.job(name)
        try:
            record = jobs.read_job(job)
            waited = self._waited(name, now)
            decision = jobs.judge(self._fanout, job, record, self._observer.is_alive, waited)
        except FileNotFoundError:
            tickets.drop_stray(self._fanout, job)
            return None
        except SpoolError as error:
            jobs.refuse(self._fanout, job, self._claimant, error)
            return None
        return self._act(job, record, decision, now)

    def _act(self, job: JobFiles, record: JobRecord, decision: Decision, now: float) -> Claim | None:
        match decision.verdict:
            case Verdict.RUNNING:
                if (
                    claimed_by(job, decision.attempt) == self._claimant
                ):  # something failed between claiming and running
                    return Claim(job, record, decision.attempt, decision.spent)
            case Verdict.WAITING:
                self._note_failure(job.name, decision, now)
            case Verdict.FREE:
                if decision.delay and self._failed.get(job.name, (0,))[0] != decision.attempt:
                    self._note_failure(job.name, decision, now)  # what we waited for was an earlier failure
                elif try_claim(job, decision.attempt, self._claimant):
                    self._observer.inherit(job, decision.attempt - 1)
                    jobs.clear_up(job, decision.attempt - 1)
                    return Claim(job, record, decision.attempt, decision.spent)
            case Verdict.GIVEN_UP:
                self._give_up(job, record, decision)
            case Verdict.FINISHED:
                self._failed.pop(job.name, None)
                del self._look_again[job.name]
        return None

    def _later(self, name: str, at: float) -> None:
        self._look_again[name] = at
        self._next_known_look = min(self._next_known_look, at)

    def _waited(self, name: str, now: float) -> float:
        """Seconds since we learned of the newest failure; 0 when we do not know of one."""
        return now - self._failed[name][1] if name in self._failed else 0.0

    def _note_failure(self, name: str, decision: Decision, now: float) -> None:
        known = self._failed.get(name)
        if known is None or known[0] != decision.attempt:
            self._failed[name] = (decision.attempt, now)
        self._later(name, self._failed[name][1] + decision.delay)

    def failed(self, name: str) -> None:
        """An attempt of ours failed and the job may be retried: look at it again."""
        self._failed.pop(name, None)
        self._later(name, 0.0)

    def _find_dead_workers(self, now: float) -> None:
        """Jobs of workers that died are worth a look before all others."""
        for name in self._observer.dead_workers():
            for line in read_now(self._observer.files(name)).splitlines():
                path, *job = line.rsplit(" ", 4)
                if path == self._fanout.path and job and is_name(job[0]):
                    self._later(job[0], 0.0)
        self._next_dead_look = self._clock() + DEAD_WORKERS

    def _give_up(self, job: JobFiles, record: JobRecord, decision: Decision) -> None:
        """The job has lost more workers than it may: end it, as whoever claims this attempt."""
        if not try_claim(job, decision.attempt, self._claimant):
            return
        self._observer.inherit(job, decision.attempt - 1)
        jobs.clear_up(job, decision.attempt - 1)
        error = (
            f"its worker died {decision.lost} times (max_lost is {record.policy.max_lost}); "
            "the job may be killing its workers"
        )
        jobs.finish(
            self._fanout,
            job,
            record,
            decision.attempt,
            jobs.verdict_result(job, record, decision.attempt, Outcome.LOST, "WorkerLost", error, decision.spent),
        )

    @property
    def wait(self) -> float:
        """Seconds until something known may be due; POLL at most."""
        if not self._look_again:
            return POLL
        return min(max(min(self._look_again.values()) - self._clock(), 0.001), POLL)
