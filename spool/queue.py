"""A worker's view of one fan-out: which job may it take next?

Fresh jobs come from a listing of `todo/` and are claimed by trying; only a job that somebody else has, or that
failed before, is looked into. A job in somebody's hands is looked at again after `POLL` seconds; one that waits for
its back-off when that has passed, without anybody sleeping for it. Workers that died leave their folder behind, and
its `now` names their job: so a killed worker's job is found at once, also in a queue of 100,000.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from spool import job as jobs
from spool import tickets
from spool.attempts import Decision, Outcome, Policy, Verdict
from spool.claim import try_claim
from spool.errors import SpoolError
from spool.job import JobRecord
from spool.layout import FanOutFiles, JobFiles
from spool.worker import Observer, read_now

POLL = 0.1
"""Seconds after which a job in somebody else's hands is looked at again."""

DEAD_WORKERS = 0.4
"""Seconds between looks for workers that died."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that is ours: run it and finish this attempt. `spent` is what earlier attempts took, in seconds."""

    job: JobFiles
    record: JobRecord
    attempt: int
    spent: float = 0.0


class Queue:
    """Claims the jobs of one fan-out for one claimant.

    Args:
        fanout: where.
        claimant: the text of the claims.
        observer: tells who lives.
        slot, slots: this is worker `slot` of `slots` that were started together: each begins with every
            `slots`-th job, so that they rarely try the same. With `slots` 0 the start is at random.
        first: names to look at before all others.
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fanout, self._claimant, self._observer = fanout, claimant, observer
        self._slot, self._slots, self._clock = slot, slots, clock
        self._fresh: list[str] = []
        self._look_again: dict[str, float] = dict.fromkeys(first, 0.0)
        self._failed: dict[str, tuple[int, float]] = {}
        self._next_dead_look = clock() + DEAD_WORKERS
        self._next_known_look = 0.0
        self.remaining = -1
        """Tickets in `todo/` at the last listing; 0 tells that nothing is left, -1 that nobody has looked."""

    def take(self) -> Claim | None:
        """Claim a free attempt; None when there is none now. Raises OSError when the disk refuses claims."""
        now = self._clock()
        if now >= self._next_dead_look:
            self._find_dead_workers(now)
        if self._look_again and now >= self._next_known_look and (claim := self._take_known(now)):
            return claim
        while True:
            if not self._fresh and not self._refill(now):
                return None
            claim = self._take_fresh(self._fresh.pop())
            if claim is not None:
                return claim

    def _refill(self, now: float) -> bool:
        """List `todo/`: our share of what we have not looked at, else what others have not come to yet."""
        listed = tickets.names(self._fanout, "todo")
        self.remaining = len(listed)
        if self._look_again:
            present = set(listed)
            self._look_again = {name: due for name, due in self._look_again.items() if name in present}
        new = [name for name in listed if name not in self._look_again]
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
        try:
            if not try_claim(job, 1, self._claimant):
                self._look_again[name] = self._clock() + POLL
                return None
            return Claim(job, jobs.read_job(job), 1)
        except FileNotFoundError:
            return None  # the ticket of a job that somebody removed
        except SpoolError as error:
            self._refuse(job, 1, error)
            return None

    def _take_known(self, now: float) -> Claim | None:
        """Look into jobs that were claimed before, those that are due."""
        due = [name for name, at in self._look_again.items() if at <= now]
        for name in due:
            del self._look_again[name]
            claim = self._consider(name, now)
            if claim is not None:
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
            return None
        except SpoolError as error:
            self._refuse(job, 1, error)
            return None
        return self._act(job, record, decision, now)

    def _act(self, job: JobFiles, record: JobRecord, decision: Decision, now: float) -> Claim | None:
        match decision.verdict:
            case Verdict.RUNNING:
                self._later(job.name, now + POLL)
            case Verdict.WAITING:
                self._note_failure(job.name, decision, now)
            case Verdict.FREE:
                if try_claim(job, decision.attempt, self._claimant):
                    return Claim(job, record, decision.attempt, decision.spent)
                self._later(job.name, now + POLL)
            case Verdict.GIVEN_UP:
                self._give_up(job, record, decision)
            case Verdict.FINISHED:
                self._failed.pop(job.name, None)
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
            path, _, job = read_now(self._observer.files(name)).partition(" ")
            if job and path == self._fanout.path:
                self._later(job.partition(" ")[0], 0.0)
        self._next_dead_look = self._clock() + DEAD_WORKERS

    def _give_up(self, job: JobFiles, record: JobRecord, decision: Decision) -> None:
        """The job has lost more workers than it may: end it, as whoever claims this attempt."""
        if not try_claim(job, decision.attempt, self._claimant):
            return
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

    def _refuse(self, job: JobFiles, attempt: int, error: SpoolError) -> None:
        """A job whose own files cannot be trusted fails, with the reason, without being run."""
        refuse(self._fanout, job, self._claimant, error)

    @property
    def wait(self) -> float:
        """Seconds until something known may be due; POLL at most."""
        if not self._look_again:
            return POLL
        return min(max(min(self._look_again.values()) - self._clock(), 0.001), POLL)


def refuse(fanout: FanOutFiles, job: JobFiles, claimant: str, error: SpoolError) -> None:
    """Fail a job whose job.json cannot be read, as the first attempt that is free."""
    record = JobRecord({"id": job.name}, Policy(), "")
    for attempt in range(1, 1000):
        if try_claim(job, attempt, claimant):
            result = jobs.verdict_result(job, record, attempt, Outcome.FAILED, type(error).__name__, str(error))
            jobs.finish(fanout, job, record, attempt, result)
            return
        if jobs.trusted_result(job, record, attempt) is not None:
            return  # somebody refused it before us
