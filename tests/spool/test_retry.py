"""Sending jobs back: nothing is deleted, and a crash at any point can be made good by doing it again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spool import job as jobs
from spool.attempts import Outcome, Policy, Verdict
from spool.claim import try_claim
from spool.job import accepted_attempt, finish, judge
from spool.layout import JobFiles
from spool.retry import retry_failed, send_back
from tests.faults.traced import need_strace, traced
from tests.spool.kit import ALICE, BOB, Bench, nobody, result


@pytest.fixture
def bench(spool_dir: Path) -> Bench:
    return Bench(spool_dir)


def ended(bench: Bench, outcome: Outcome, policy: Policy | None = None) -> JobFiles:
    job, record = bench.job(policy)
    try_claim(job, 1, ALICE)
    finish(bench.fanout, job, record, 1, result(job, record, 1, outcome))
    return job


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT, Outcome.LOST, Outcome.CANCELLED])
def test_a_job_that_did_not_succeed_runs_again_and_keeps_what_it_had(bench: Bench, outcome: Outcome) -> None:
    job = ended(bench, outcome)
    record = jobs.read_job(job)
    before = Path(job.accepted).read_bytes()
    assert retry_failed(bench.fanout) == [job.name]
    assert bench.tickets() == {"todo": [job.name]}
    assert Path(job.retired(1)).read_bytes() == Path(job.result(1)).read_bytes() == before
    assert not os.path.lexists(job.accepted)
    decision = judge(bench.fanout, job, record, nobody)
    assert (decision.verdict, decision.attempt) == (Verdict.FREE, 2)
    try_claim(job, 2, BOB)
    finish(bench.fanout, job, record, 2, result(job, record, 2))
    assert accepted_attempt(job) == 2
    assert bench.tickets() == {"done": [job.name]}


def test_what_succeeded_or_has_not_ended_is_left_alone(bench: Bench) -> None:
    job = ended(bench, Outcome.SUCCEEDED)
    assert not send_back(bench.fanout, job)
    assert bench.tickets() == {"done": [job.name]}
    other = Bench(Path(bench.spool.path).with_name("other"))
    job, _ = other.job()
    for _ in range(2):
        assert not send_back(other.fanout, job)
        try_claim(job, 1, ALICE)
    assert other.tickets() == {"todo": [job.name]}


def test_sending_back_twice_changes_nothing(bench: Bench) -> None:
    job = ended(bench, Outcome.FAILED)
    assert send_back(bench.fanout, job)
    names = sorted(os.listdir(job.path))
    assert not send_back(bench.fanout, job)
    assert sorted(os.listdir(job.path)) == names
    assert bench.tickets() == {"todo": [job.name]}


def test_retries_count_anew(bench: Bench) -> None:
    job = ended(bench, Outcome.FAILED, Policy(max_retries=1, base_delay=0.0))
    record = jobs.read_job(job)
    try_claim(job, 2, ALICE)
    finish(bench.fanout, job, record, 2, result(job, record, 2, Outcome.FAILED))
    assert accepted_attempt(job) == 2
    assert send_back(bench.fanout, job)
    try_claim(job, 3, ALICE)
    finish(bench.fanout, job, record, 3, result(job, record, 3, Outcome.FAILED))
    assert bench.tickets() == {"todo": [job.name]}
    decision = judge(bench.fanout, job, record, nobody)
    assert (decision.verdict, decision.attempt) == (Verdict.FREE, 4)


@pytest.mark.parametrize(
    "call", ["openat", "write", "?link,linkat", "?unlink,unlinkat", "?rename,?renameat,renameat2"]
)
def test_killed_at_any_call_it_can_be_done_again(tmp_path: Path, call: str) -> None:
    need_strace()
    for n in range(1, 30):
        bench = Bench(tmp_path / str(n))
        job = ended(bench, Outcome.FAILED)
        hit = traced(lambda bench=bench, job=job: send_back(bench.fanout, job), f"{call}:signal=KILL:when={n}").killed  # type: ignore[misc]
        judge(bench.fanout, job, jobs.read_job(job), nobody)  # somebody may look at it meanwhile
        send_back(bench.fanout, job)
        decision = judge(bench.fanout, job, jobs.read_job(job), nobody)
        assert (decision.verdict, decision.attempt) == (Verdict.FREE, 2)
        assert bench.tickets() == {"todo": [job.name]}
        assert os.path.exists(job.retired(1))
        if not hit:
            assert n > 1
            return
    pytest.fail("it never ended")
