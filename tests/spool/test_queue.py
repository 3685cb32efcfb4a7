"""The queue: every job is found, claimed once, and ended, whatever stands in the way of others."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from spool import job as jobs
from spool import queue as module
from spool import tickets
from spool.attempts import Outcome, Policy
from spool.claim import claimed_by, try_claim
from spool.job import accepted_attempt, finish, read_accepted
from spool.publish import quarantine
from spool.queue import DEAD_WORKERS, POLL, TROUBLE, Claim, Queue
from spool.worker import Observer, Worker
from tests.spool.kit import ALICE, BOB, Bench, line, python, result, spec, together
from tests.spool.test_worker import Clock

SUCCEEDED, FAILED = Outcome.SUCCEEDED, Outcome.FAILED


class Everybody(Observer):
    """An observer that is told who lives."""

    def __init__(self, bench: Bench, *alive: str) -> None:
        super().__init__(bench.spool)
        self.alive = set(alive)

    def is_alive(self, text: str) -> bool:
        return text in self.alive


@pytest.fixture
def bench(spool_dir: Path) -> Bench:
    return Bench(spool_dir)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(bench: Bench, clock: Clock) -> Callable[..., Queue]:
    def make(claimant: str = ALICE, *alive: str, **options: object) -> Queue:
        observer = Everybody(bench, claimant, *alive)
        return Queue(bench.fanout, claimant, observer, clock=clock, **options)  # type: ignore[arg-type]

    return make


def end(bench: Bench, claim: Claim, outcome: Outcome = SUCCEEDED) -> None:
    finish(
        bench.fanout, claim.job, claim.record, claim.attempt, result(claim.job, claim.record, claim.attempt, outcome)
    )


def soon(queue: Queue, clock: Clock, seconds: float = 60.0) -> Claim:
    """The next claim, when enough time has passed."""
    until = clock.now + seconds
    while (claim := queue.take()) is None:
        assert clock.now < until, "nothing came"
        clock.now += 0.05
    return claim


def drain(bench: Bench, queue: Queue) -> list[str]:
    names = []
    while (claim := queue.take()) is not None:
        names.append(claim.job.name)
        end(bench, claim)
    return names


# -- fresh jobs -------------------------------------------------------------------------------------------------


def test_one_queue_takes_all_in_order(bench: Bench, queue: Callable[..., Queue]) -> None:
    made = [job.name for job in bench.jobs(7)]
    one = queue()
    assert one.remaining == -1
    assert drain(bench, one) == made
    assert one.remaining == 0
    assert bench.tickets() == {"done": made}


def test_queues_that_were_started_together_begin_with_their_shares_and_then_help(
    bench: Bench, queue: Callable[..., Queue]
) -> None:
    made = [job.name for job in bench.jobs(6)]
    first = queue(ALICE, BOB, slot=0, slots=2)
    second = queue(BOB, ALICE, slot=1, slots=2)
    assert [first.take().job.name, second.take().job.name] == made[:2]  # type: ignore[union-attr]
    rest = [claim.job.name for _ in range(4) if (claim := first.take())]
    assert sorted(rest) == made[2:]
    assert first.take() is None
    assert second.take() is None


@pytest.mark.parametrize("slots", [0, 1, 3])
def test_several_queues_in_one_process_claim_each_job_once(
    bench: Bench, queue: Callable[..., Queue], slots: int
) -> None:
    made = [job.name for job in bench.jobs(60)]
    names = [f"u@h:{number}:aaaaaaaa" for number in range(3)]
    queues = [queue(name, *names, slot=number, slots=slots) for number, name in enumerate(names)]
    taken: list[str] = []
    while claims := [claim for one in queues if (claim := one.take()) is not None]:
        taken += [claim.job.name for claim in claims]
    assert sorted(taken) == made


def test_jobs_that_come_later_are_found(bench: Bench, queue: Callable[..., Queue]) -> None:
    one = queue()
    assert one.take() is None
    made = [job.name for job in bench.jobs(2)]
    assert drain(bench, one) == made


RACER = """
import sys
from spool import job as jobs
from spool.layout import FanOutFiles, SpoolFiles
from spool.queue import Queue
from spool.worker import Observer, Worker
spool, fanout, slot, slots = sys.argv[1:]
files = FanOutFiles(fanout)
with Worker(SpoolFiles(spool)) as worker:
    queue = Queue(files, worker.text, Observer(SpoolFiles(spool)), slot=int(slot), slots=int(slots))
    print("ready", flush=True); sys.stdin.readline()
    taken = []
    while queue.remaining != 0:
        claim = queue.take()
        if claim is None: continue
        taken.append(f"{claim.job.name}:{claim.attempt}")
        result = {"job": claim.job.name, "attempt": claim.attempt, "input_sha256": claim.record.input_sha256,
                  "outcome": "succeeded", "success": True, "by": slot}
        jobs.finish(files, claim.job, claim.record, claim.attempt, result)
    print(*taken, flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("slots", ["0", "4"])
def test_several_processes_claim_each_job_once(bench: Bench, slots: str) -> None:
    made = [job.name for job in bench.jobs(300)]
    racers = [python(RACER, bench.spool.path, bench.fanout.path, str(i), slots) for i in range(4)]
    together(racers)
    taken = [line(racer).split() for racer in racers]
    for racer in racers:
        racer.communicate("\n", timeout=240)
    assert sorted(name for mine in taken for name in mine) == [f"{name}:1" for name in made]
    assert bench.tickets() == {"done": made}
    for slot, mine in enumerate(taken):
        for name in mine:
            accepted = json.loads(Path(bench.fanout.job(name.partition(":")[0]).accepted).read_bytes())
            assert accepted["by"] == str(slot)


# -- retries ----------------------------------------------------------------------------------------------------


def test_a_job_that_waits_for_its_back_off_holds_nobody_up(
    bench: Bench, queue: Callable[..., Queue], clock: Clock
) -> None:
    first, *others = [job.name for job in bench.jobs(3, Policy(max_retries=1, base_delay=10.0))]
    one = queue()
    claim = one.take()
    assert claim is not None
    end(bench, claim, FAILED)
    one.failed(first)
    assert drain(bench, one) == others
    assert one.take() is None
    clock.now += 9.9
    assert one.take() is None
    clock.now += 0.2
    claim = one.take()
    assert claim is not None
    assert (claim.job.name, claim.attempt) == (first, 2)


def test_the_back_off_of_each_failure_is_kept_by_those_who_only_watch(
    bench: Bench, queue: Callable[..., Queue], clock: Clock
) -> None:
    """What a queue knows of an earlier failure says nothing about a newer one."""
    job, record = bench.job(Policy(max_retries=3, base_delay=10.0, backoff_multiplier=1.0))
    one = queue(ALICE, BOB)
    for attempt in (1, 2, 3):
        assert try_claim(job, attempt, BOB)
        finish(bench.fanout, job, record, attempt, result(job, record, attempt, FAILED))
        assert one.take() is None  # learns of the failure
        clock.now += POLL
        assert one.take() is None
        clock.now += 9.8
        assert one.take() is None
        clock.now += 0.2
    claim = soon(one, clock, 1.0)
    assert claim.attempt == 4


def test_a_long_back_off_does_not_delay_other_looks(bench: Bench, queue: Callable[..., Queue], clock: Clock) -> None:
    slow, other = bench.jobs(2, Policy(max_retries=1, base_delay=50.0))
    one = queue(ALICE, BOB)
    claim = one.take()
    assert claim is not None
    end(bench, claim, FAILED)
    one.failed(slow.name)
    assert try_claim(other, 1, BOB)
    assert one.take() is None
    clock.now += POLL
    assert one.take() is None
    one._observer.alive.discard(BOB)  # type: ignore[attr-defined]
    claim = soon(one, clock, 1.0)
    assert (claim.job.name, claim.attempt) == (other.name, 2)


def test_what_earlier_attempts_took_is_told(bench: Bench, queue: Callable[..., Queue], clock: Clock) -> None:
    job, record = bench.job(Policy(max_retries=1, base_delay=1.0))
    try_claim(job, 1, BOB)
    finish(bench.fanout, job, record, 1, result(job, record, 1, FAILED, spent=5.0))
    assert soon(queue(), clock).spent == 6.0


# -- death ------------------------------------------------------------------------------------------------------


def test_a_job_in_living_hands_is_left_and_of_dead_ones_taken(
    bench: Bench, queue: Callable[..., Queue], clock: Clock
) -> None:
    [job] = bench.jobs()
    try_claim(job, 1, BOB)
    one = queue(ALICE, BOB)
    for _ in range(10):
        assert one.take() is None
        clock.now += POLL
    one._observer.alive.discard(BOB)  # type: ignore[attr-defined]
    claim = soon(one, clock, POLL * 2)
    assert claim.attempt == 2


DIES = """
import os, sys
from spool.layout import FanOutFiles, SpoolFiles
from spool.queue import Queue
from spool.worker import Observer, Worker
spool, fanout, name = sys.argv[1:]
worker = Worker(SpoolFiles(spool))
queue = Queue(FanOutFiles(fanout), worker.text, Observer(SpoolFiles(spool)), first=[name])
claim = queue.take()
worker.doing(f"{fanout} {claim.job.name} {claim.attempt} 0.000 0.000")
print("claimed", flush=True)
os.kill(os.getpid(), 9)
"""


def test_the_job_of_a_killed_worker_comes_before_all_others(tmp_path: Path) -> None:
    """Also with spaces in the path; the dead worker's folder names its job."""
    bench = Bench(tmp_path / "a spool of mine")
    made = bench.jobs(20)
    tenth = made[10].name
    process = python(DIES, bench.spool.path, bench.fanout.path, tenth)
    assert line(process) == "claimed"
    process.communicate(timeout=240)
    clock = Clock()
    with Worker(bench.spool) as worker:
        one = Queue(bench.fanout, worker.text, Observer(bench.spool), clock=clock)
        assert one.take().job.name == made[0].name  # type: ignore[union-attr]
        clock.now += DEAD_WORKERS
        claim = one.take()
        assert claim is not None
        assert (claim.job.name, claim.attempt) == (tenth, 2)
        assert one.take().job.name == made[1].name  # type: ignore[union-attr]


def test_a_job_that_kills_its_workers_is_given_up(bench: Bench, queue: Callable[..., Queue], clock: Clock) -> None:
    job, record = bench.job(Policy(max_lost=2, max_retries=5))
    for attempt in range(1, 4):
        claim = soon(queue(f"u@h:{attempt}:aaaaaaaa"), clock)
        assert claim.attempt == attempt
    one = queue()
    for _ in range(5):
        assert one.take() is None
        clock.now += POLL
    accepted = read_accepted(job, record.input_sha256)
    assert accepted is not None
    assert (accepted["outcome"], accepted["attempt"]) == ("lost", 4)
    assert "died 3 times (max_lost is 2)" in accepted["error"]
    assert bench.tickets() == {"failed": [job.name]}
    assert one.remaining == 0


def test_who_gives_up_may_die_of_it_and_another_gives_up(
    bench: Bench, queue: Callable[..., Queue], clock: Clock
) -> None:
    [job] = bench.jobs(policy=Policy(max_lost=0))
    try_claim(job, 1, BOB)
    try_claim(job, 2, BOB)  # was about to say that it is lost
    one = queue()
    for _ in range(5):
        assert one.take() is None
        clock.now += POLL
    assert accepted_attempt(job) == 3
    assert bench.tickets() == {"failed": [job.name]}


# -- trouble ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [None, b"", b"{", b'{"id": "0007-other"}', b"[]"])
@pytest.mark.parametrize("claimed", [False, True])
def test_a_job_that_cannot_be_read_fails_with_the_reason_and_the_others_go_on(
    bench: Bench, queue: Callable[..., Queue], clock: Clock, data: bytes | None, claimed: bool
) -> None:
    broken, *others = bench.jobs(4)
    os.unlink(broken.job)
    if data is not None:
        Path(broken.job).write_bytes(data)
        os.chmod(broken.job, 0o600)
    if claimed:
        try_claim(broken, 1, BOB)
    one = queue()
    assert drain(bench, one) == [job.name for job in others]
    clock.now += POLL
    assert one.take() is None
    assert bench.tickets() == {"done": [job.name for job in others], "failed": [broken.name]}
    accepted = json.loads(Path(broken.accepted).read_bytes())
    assert accepted["error_type"] == "CorruptFileError"
    assert "job.json" in accepted["error"]


def test_a_ticket_without_a_job_is_dropped(bench: Bench, queue: Callable[..., Queue], clock: Clock) -> None:
    gone, *others = bench.jobs(3)
    shutil.rmtree(gone.path)
    one = queue()
    assert drain(bench, one) == [job.name for job in others]
    clock.now += POLL
    assert one.take() is None
    assert one.take() is None
    assert one.remaining == 0
    assert bench.tickets() == {"done": [job.name for job in others]}
    assert not os.path.exists(gone.path)


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO], ids=errno.errorcode.get)
def test_a_job_whose_files_fail_for_a_while_is_tried_again_after_the_others(
    bench: Bench, queue: Callable[..., Queue], clock: Clock, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    bad, *others = bench.jobs(3)
    real = jobs.read_job
    failing = True

    def read(job: jobs.JobFiles) -> jobs.JobRecord:
        if failing and job.name == bad.name:
            raise OSError(number, os.strerror(number), job.job)
        return real(job)

    monkeypatch.setattr(module.jobs, "read_job", read)
    one = queue()
    with pytest.raises(OSError, match=r"job\.json"):
        one.take()
    assert drain(bench, one) == [job.name for job in others]
    clock.now += POLL
    with pytest.raises(OSError, match=r"job\.json"):  # nothing else is left, so it is told again
        one.take()
    assert one.take() is None
    later = bench.writer(total=9)
    later.create(spec(7))
    clock.now += TROUBLE
    assert one.take().job.name == "0007-branch"  # type: ignore[union-attr]
    failing = False
    clock.now += TROUBLE
    claim = one.take()
    assert claim is not None
    assert (claim.job.name, claim.attempt) == (bad.name, 1)


def test_a_disk_that_refuses_claims_is_told_and_claims_go_on_afterwards(
    bench: Bench, queue: Callable[..., Queue], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [job.name for job in bench.jobs(3)]

    def full(_text: str, path: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    one = queue()
    monkeypatch.setattr(os, "symlink", full)
    for pause in (POLL, POLL, POLL, TROUBLE, TROUBLE):
        with pytest.raises(OSError, match="No space"):
            one.take()
        clock.now += pause
    monkeypatch.undo()
    names = []
    while len(names) < 3:
        claim = soon(one, clock, 3.0)
        names.append(claim.job.name)
        end(bench, claim)
    assert sorted(names) == made
    assert all(claimed_by(bench.fanout.job(name), 2) is None for name in made)


def test_a_claim_that_was_lost_on_the_way_is_taken_up_by_whose_it_is(
    bench: Bench, queue: Callable[..., Queue], clock: Clock
) -> None:
    """NFS made the link, but said that it failed: nobody else may have the job."""
    [job] = bench.jobs()
    try_claim(job, 1, ALICE)
    other, one = queue(BOB, ALICE), queue(ALICE, BOB)
    for _ in range(3):
        assert other.take() is None
    claim = soon(one, clock, 1.0)
    assert claim.attempt == 1


def test_a_finished_job_that_comes_back_is_not_run_as_its_first_attempt_again(
    bench: Bench, queue: Callable[..., Queue], clock: Clock
) -> None:
    """Its accepted result was found spoiled, and its ticket put back."""
    [job] = bench.jobs()
    one = queue()
    claim = one.take()
    assert claim is not None
    end(bench, claim)
    Path(job.accepted).write_bytes(b"spoiled")
    quarantine(job.accepted)
    tickets.settle(bench.fanout, job.name, "todo")
    claim = soon(one, clock, 1.0)
    assert claim.attempt == 2
    end(bench, claim)
    assert one.take() is None
    assert accepted_attempt(job) == 2
    assert bench.tickets() == {"done": [job.name]}


def test_a_result_that_was_not_accepted_is_accepted_and_not_run_again(
    bench: Bench, queue: Callable[..., Queue], clock: Clock
) -> None:
    job, record = bench.job()
    try_claim(job, 1, BOB)
    jobs.write_result(job, 1, result(job, record, 1))
    one = queue()
    for _ in range(3):
        assert one.take() is None
        clock.now += POLL
    assert accepted_attempt(job) == 1
    assert bench.tickets() == {"done": [job.name]}


def test_the_time_to_wait_is_bounded_by_what_is_known(bench: Bench, queue: Callable[..., Queue]) -> None:
    one = queue()
    assert one.wait == POLL
    one.failed("0000-b")
    assert one.wait == 0.001
