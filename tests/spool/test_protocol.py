"""The protocol as a whole: workers that claim, finish, die and come back at any point, in any order.

Real directories, simulated workers: a worker here is a claimant and a queue, and lives as long as the test says so.
A frozen worker is dead for all others, and may wake up at any later time and go on where it stopped, also between
the two checks of `accept`. Whatever happens, each job ends with one accepted result, which never changes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from spool import job as jobs
from spool import tickets
from spool.attempts import TICKET_OF, Outcome, Policy, Verdict
from spool.claim import claimed_by, try_claim
from spool.job import JobRecord
from spool.layout import CLAIM, JobFiles
from spool.queue import POLL, Claim, Queue
from spool.worker import Observer
from tests.spool.kit import Bench, result
from tests.spool.test_worker import Clock

JOBS, WORKERS = 4, 3
outcomes = st.sampled_from([Outcome.SUCCEEDED, Outcome.FAILED, Outcome.TIMED_OUT])
FAR = ("nothing", "published", "checked", "accepted", "done")


@dataclass
class Fake:
    """A worker: who it is, how it finds jobs, what it runs, and how far it has come with finishing that."""

    text: str
    queue: Queue
    claim: Claim | None = None
    outcome: Outcome = Outcome.SUCCEEDED
    far: str = "nothing"
    passed: bool = False


class Protocol(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        room = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self.folder = tempfile.mkdtemp(prefix="tea-protocol-", dir=room)
        self.bench = Bench(f"{self.folder}/spool")
        self.clock = Clock()
        self.alive: set[str] = set()
        self.serial = 0
        self.frozen: list[Fake] = []
        self.crew = [self.hire() for _ in range(WORKERS)]
        self.seen: dict[str, bytes | str] = {}
        self.checked: dict[str, set[int]] = {}

    @initialize(
        retries=st.integers(0, 2),
        delay=st.sampled_from([0.0, 5.0]),
        max_lost=st.integers(0, 3),
    )
    def make_jobs(self, retries: int, delay: float, max_lost: int) -> None:
        policy = Policy(max_retries=retries, base_delay=delay, max_lost=max_lost)
        self.policy = policy
        self.jobs = self.bench.jobs(JOBS, policy)
        self.records = [jobs.read_job(job) for job in self.jobs]

    def hire(self) -> Fake:
        self.serial += 1
        text = f"u@h:{self.serial}:aaaaaaaa"
        self.alive.add(text)
        observer = Observer(self.bench.spool)
        observer.is_alive = self.alive.__contains__  # type: ignore[method-assign]
        return Fake(text, Queue(self.bench.fanout, text, observer, clock=self.clock, slots=0))

    # -- what workers do ----------------------------------------------------------------------------------------

    @property
    def busy(self) -> list[Fake]:
        return [worker for worker in self.crew if worker.claim is not None]

    @rule(
        act=st.sampled_from(["work"] * 6 + ["freeze", "freeze", "die", "wake", "wake", "judge", "cancel", "litter"]),
        which=st.integers(0, 11),
        pause=st.sampled_from([POLL, 5.0]),
        outcome=outcomes,
        far=st.sampled_from(FAR[1:]),
    )
    def happens(self, act: str, which: int, pause: float, outcome: Outcome, far: str) -> None:
        """One rule for all: rules of their own would be switched off, each in half of the examples."""
        job, record = self.jobs[which % JOBS], self.records[which % JOBS]
        if act == "work":
            self.work(self.crew[which % WORKERS], pause, outcome, far)
        elif act in ("freeze", "die") and self.busy:
            self.vanish(self.busy[which % len(self.busy)], act == "freeze")
        elif act == "wake" and self.frozen:
            self.finish(self.frozen[which % len(self.frozen)], outcome, far)
        elif act == "judge":
            self.judge(job, record, pause)
        elif act == "cancel":
            self.cancel(job, record)
        elif act == "litter":
            self.litter(job, which)

    def work(self, worker: Fake, pause: float, outcome: Outcome, far: str) -> None:
        """A worker that runs nothing looks for a job; one that runs a job finishes it, or a part of that."""
        if worker.claim is not None:
            self.finish(worker, outcome, far)
        else:
            self.take(worker, pause)

    def take(self, worker: Fake, pause: float) -> None:
        """Look for a job, until those of others have been looked at, too."""
        for _ in range(3):
            worker.claim, worker.far = worker.queue.take(), "nothing"
            if worker.claim is not None:
                return
            self.clock.now += pause

    def vanish(self, worker: Fake, freezes: bool) -> None:
        """To all others a frozen worker is as dead as a dead one."""
        self.alive.discard(worker.text)
        if freezes:
            self.frozen.append(worker)
        self.crew[self.crew.index(worker)] = self.hire()

    def finish(self, worker: Fake, outcome: Outcome, how_far: str) -> None:
        """What `jobs.finish` does, step by step, up to a point; the next call goes on from there."""
        if worker.claim is None:
            return
        goal = FAR.index(how_far)
        if worker.far == "nothing" and how_far == "done":
            self.finish_at_once(worker, outcome)
            return
        while worker.claim is not None and FAR.index(worker.far) < goal:
            self.step(worker, outcome)

    def finish_at_once(self, worker: Fake, outcome: Outcome) -> None:
        claim = worker.claim
        assert claim is not None
        end = result(claim.job, claim.record, claim.attempt, outcome, by=worker.text)
        jobs.finish(self.bench.fanout, claim.job, claim.record, claim.attempt, end)
        self.rest(worker)

    def step(self, worker: Fake, outcome: Outcome) -> None:
        claim = worker.claim
        assert claim is not None
        job, attempt = claim.job, claim.attempt
        if worker.far == "nothing":
            self.publish(worker, outcome)
        elif worker.far == "published":
            worker.passed = claimed_by(job, attempt + 1) is None
            if worker.passed:
                self.note_check(job, attempt)
            worker.far = "checked"
        elif worker.far == "checked":
            worker.passed = worker.passed and self.link(job, attempt)
            worker.far = "accepted"
        elif worker.far == "accepted":
            if worker.passed:
                tickets.move(self.bench.fanout, job.name, TICKET_OF[worker.outcome])
            self.rest(worker)

    def publish(self, worker: Fake, outcome: Outcome) -> None:
        claim = worker.claim
        assert claim is not None
        end = result(claim.job, claim.record, claim.attempt, outcome, by=worker.text)
        worker.outcome = outcome
        try:
            jobs.write_result(claim.job, claim.attempt, end)
        except FileExistsError:  # something was planted there
            self.rest(worker)
            return
        worker.far = "published"
        if outcome is not Outcome.SUCCEEDED and jobs._retry_follows(
            claim.job, claim.record, jobs.ended(end), claim.attempt
        ):
            self.rest(worker)

    def rest(self, worker: Fake) -> None:
        worker.claim, worker.far = None, "nothing"

    def link(self, job: JobFiles, attempt: int) -> bool:
        """The second check of `accept`, possibly long after the first."""
        try:
            os.link(job.result(attempt), job.accepted)
        except (FileExistsError, FileNotFoundError):
            return False
        return True

    def note_check(self, job: JobFiles, attempt: int) -> None:
        """Remember which attempts passed the first check of `accept`, and may go on from there at any time."""
        self.checked.setdefault(job.path, set()).add(attempt)

    # -- what others do -----------------------------------------------------------------------------------------

    def judge(self, job: JobFiles, record: JobRecord, pause: float) -> None:
        """A coordinator looks, and mends."""
        self.clock.now += pause
        decision = jobs.judge(self.bench.fanout, job, record, self.alive.__contains__)
        if decision.verdict is Verdict.FINISHED:
            self.check_tickets(job, record)

    def cancel(self, job: JobFiles, record: JobRecord) -> None:
        """A coordinator ends a job, as whoever claims the next attempt."""
        attempt = self.claims(job) + 1
        if attempt > 2 and not os.path.lexists(job.accepted):
            assert try_claim(job, attempt, "boss@h:1:bbbbbbbb")
            jobs.finish(self.bench.fanout, job, record, attempt, result(job, record, attempt, Outcome.CANCELLED))

    def litter(self, job: JobFiles, which: int) -> None:
        """Nonsense where the newest attempt's result belongs, or a second ticket: two links of one file."""
        newest = self.claims(job)
        if which % 2:
            ticket = self.bench.fanout.ticket(tickets.TICKETS[which % 4], job.name)
            if not os.path.lexists(ticket):
                os.link(self.bench.fanout.blank, ticket)
        elif newest and not os.path.lexists(job.result(newest)):
            Path(job.result(newest)).write_bytes([b"", b"{}", b'{"job": "another"}'][which % 3])
            os.chmod(job.result(newest), 0o600)

    # -- what must hold -----------------------------------------------------------------------------------------

    def claims(self, job: JobFiles) -> int:
        return max((int(m[1]) for name in os.listdir(job.path) if (m := CLAIM.fullmatch(name))), default=0)

    @invariant()
    def nothing_changes_once_it_is_there(self) -> None:
        """Claims, results that can be trusted, and above all the accepted result."""
        for job, record in zip(getattr(self, "jobs", []), getattr(self, "records", []), strict=True):
            newest = self.claims(job)
            for attempt in range(1, newest + 1):
                self.same(job.claim(attempt), claimed_by(job, attempt))
                assert job.result(attempt) not in self.seen or os.path.exists(job.result(attempt)), "a result is gone"
                if os.path.exists(job.result(attempt)) and self.is_good(job, attempt):
                    self.same(job.result(attempt), Path(job.result(attempt)).read_bytes())
            if os.path.lexists(job.accepted):
                if job.accepted not in self.seen:
                    self.check_accepted(job, record, newest)
                self.same(job.accepted, Path(job.accepted).read_bytes())
            else:
                assert job.accepted not in self.seen

    def is_good(self, job: JobFiles, attempt: int) -> bool:
        return b'"attempt":%d,' % attempt in Path(job.result(attempt)).read_bytes()

    def same(self, path: str, content: Any) -> None:
        assert self.seen.setdefault(path, content) == content, f"{path} has changed"

    def check_accepted(self, job: JobFiles, record: JobRecord, newest: int) -> None:
        """Newly accepted: the newest attempt, or one that was when it passed the first check of `accept`."""
        accepted = jobs.read_accepted(job, record.input_sha256)
        assert accepted is not None
        attempt = accepted["attempt"]
        assert 1 <= attempt <= newest
        assert attempt == newest or attempt in self.checked.get(job.path, set()), "accepted from a fenced attempt"

    def check_tickets(self, job: JobFiles, record: JobRecord) -> None:
        accepted = jobs.read_accepted(job, record.input_sha256)
        assert accepted is not None
        expected = TICKET_OF[Outcome(accepted["outcome"])]
        lie = [kind for kind in tickets.TICKETS if os.path.lexists(self.bench.fanout.ticket(kind, job.name))]
        assert lie == [expected]

    def teardown(self) -> None:
        try:
            self.see_it_through()
        finally:
            shutil.rmtree(self.folder)

    def see_it_through(self) -> None:
        """All die but one new worker, which brings every job to its end; then the frozen ones wake up."""
        if not hasattr(self, "jobs"):
            return
        self.alive.clear()
        healthy = self.hire()
        for job in self.jobs:
            if tickets.kind_of(self.bench.fanout, job.name) is None:
                raise AssertionError(f"{job.name} has lost its ticket")
        for _ in range(60):
            self.clock.now += 5.0
            self.put_back_misplaced()
            healthy.claim = healthy.queue.take()
            if healthy.claim is not None:
                self.finish_at_once(healthy, Outcome.SUCCEEDED)
            elif healthy.queue.remaining == 0:
                break
        self.judge_all()
        self.check_all()
        for late in [*self.frozen, *self.crew]:
            self.finish(late, Outcome.SUCCEEDED, "done")
        self.judge_all()
        self.check_all()

    def judge_all(self) -> None:
        for job, record in zip(self.jobs, self.records, strict=True):
            assert jobs.judge(self.bench.fanout, job, record, self.alive.__contains__).verdict is Verdict.FINISHED

    def put_back_misplaced(self) -> None:
        """Tickets that the test itself has put among the finished; a coordinator judges those that it finds there."""
        for job, record in zip(self.jobs, self.records, strict=True):
            if not os.path.lexists(self.bench.fanout.ticket("todo", job.name)):
                decision = jobs.judge(self.bench.fanout, job, record, self.alive.__contains__)
                if decision.verdict is not Verdict.FINISHED:
                    tickets.settle(self.bench.fanout, job.name, "todo")

    def check_all(self) -> None:
        self.nothing_changes_once_it_is_there()
        for job, record in zip(self.jobs, self.records, strict=True):
            assert os.path.lexists(job.accepted), f"{job.name} has not ended"
            self.check_tickets(job, record)
            attempts = jobs.look(job, record).attempts
            assert [a.number for a in attempts] == list(range(1, len(attempts) + 1))


Protocol.TestCase.settings = settings(
    max_examples=int(os.environ.get("PROTOCOL_EXAMPLES", "120")),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestProtocol = Protocol.TestCase
