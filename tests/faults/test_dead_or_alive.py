"""Workers that are killed, frozen, rebooted, or two on one job: real processes; one accepted result each time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from spool import job as jobs
from spool.claim import Claimant, claimed_by, host_name, try_claim
from spool.job import accepted_attempt
from spool.layout import JobFiles
from spool.queue import Queue
from spool.worker import Observer, boot_id
from tests.faults.work import check_finished, doubled, heal
from tests.spool.kit import Bench, line, python, result, together
from tests.spool.test_worker import Clock
from tests.support import wait_until

WORKER = """
import os, sys, time
from spool.layout import FanOutFiles, SpoolFiles
from spool.queue import Queue
from spool.worker import Observer, Worker
from spool import job as jobs
spool, fanout, lease, child = sys.argv[1:]
worker = Worker(SpoolFiles(spool), lease=float(lease))
queue = Queue(FanOutFiles(fanout), worker.text, Observer(SpoolFiles(spool)))
claim = queue.take()
worker.doing(f"{fanout} {claim.job.name} {claim.attempt} 0.000 0.000")
if child == "child":
    pid = os.fork()
    if pid == 0:
        os.close(1)
        while True: time.sleep(60)
    print(pid, flush=True)
print("running", flush=True)
sys.stdin.readline()
given = jobs.read_input(claim.job, claim.record)
result = {"job": claim.job.name, "attempt": claim.attempt, "input_sha256": claim.record.input_sha256,
          "outcome": "succeeded", "success": True, "by": "late", "state": {"doubled": given["item"] * 2}}
print(jobs.finish(FanOutFiles(fanout), claim.job, claim.record, claim.attempt, result), flush=True)
worker.close()
"""


@pytest.fixture
def bench(spool_dir: Path) -> Bench:
    return Bench(spool_dir)


@pytest.fixture
def start(bench: Bench) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start_one(lease: float = 30.0, child: str = "") -> subprocess.Popen[str]:
        process = python(WORKER, bench.spool.path, bench.fanout.path, str(lease), child)
        started.append(process)
        return process

    yield start_one
    for process in started:
        process.kill()
        process.communicate(timeout=240)


def move_elsewhere(bench: Bench, job: JobFiles) -> None:
    """Let the claimant's folder say that it runs on another host: then its beat alone tells."""
    claimant = Claimant.parse(claimed_by(job, 1) or "")
    assert claimant is not None
    path = Path(bench.spool.worker(claimant.worker).worker)
    record = json.loads(path.read_bytes())
    path.write_text(json.dumps({**record, "host": "elsewhere", "boot_id": "another"}))


def test_a_killed_workers_job_runs_again_at_once(bench: Bench, start: Any) -> None:
    [job] = bench.jobs()
    worker = start()
    assert line(worker) == "running"
    worker.kill()
    worker.wait(timeout=240)
    assert heal(bench) == [(job.name, 2)]
    check_finished(bench)


def test_a_killed_workers_job_does_not_run_again_while_its_child_lives(bench: Bench, start: Any) -> None:
    [job] = bench.jobs()
    worker = start(child="child")
    child = int(line(worker))
    assert line(worker) == "running"
    worker.kill()
    worker.wait(timeout=240)
    try:
        with pytest.raises(TimeoutError):
            heal(bench, timeout=1.0)
        assert claimed_by(job, 2) is None
    finally:
        os.kill(child, signal.SIGKILL)
    assert heal(bench) == [(job.name, 2)]
    check_finished(bench)


def test_a_frozen_worker_of_another_host_loses_its_job_and_its_late_result_is_kept_aside(
    bench: Bench, start: Any
) -> None:
    [job] = bench.jobs()
    worker = start(lease=0.3)
    assert line(worker) == "running"
    move_elsewhere(bench, job)
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        assert heal(bench) == [(job.name, 2)]
        accepted = Path(job.accepted).read_bytes()
    finally:
        os.kill(worker.pid, signal.SIGCONT)
    worker.stdin.write("\n")
    worker.stdin.flush()
    assert line(worker) == "True"
    assert json.loads(Path(job.result(1)).read_bytes())["by"] == "late"
    assert Path(job.accepted).read_bytes() == accepted
    assert accepted_attempt(job) == 2
    check_finished(bench)


def test_a_worker_of_another_host_that_beats_keeps_its_job(bench: Bench, start: Any) -> None:
    """A lease has passed five times, by the clock of whoever waits for its job."""
    [job] = bench.jobs()
    worker = start(lease=0.3)
    assert line(worker) == "running"
    move_elsewhere(bench, job)
    [beat] = Path(bench.spool.workers).glob("*/beat")
    clock = Clock()
    queue = Queue(bench.fanout, "bob@there:22:bbbbbbbb", Observer(bench.spool, clock), clock=clock)
    assert queue.take() is None
    for _ in range(6):
        last = beat.read_bytes()
        wait_until(lambda last=last: beat.read_bytes() != last, what="a beat")  # type: ignore[misc]
        clock.now += 0.29
        assert queue.take() is None
    worker.stdin.write("\n")
    worker.stdin.flush()
    assert line(worker) == "True"
    assert accepted_attempt(job) == 1
    assert heal(bench) == []
    check_finished(bench)


@pytest.mark.parametrize("boot", ["the one before", boot_id()])
def test_after_a_reboot_nobody_waits_for_a_pid_that_is_used_again(bench: Bench, boot: str) -> None:
    """Another boot is dead whatever lives under its pid; in this boot the lock tells, and nobody holds it."""
    [job] = bench.jobs()
    claimant = Claimant("eve", host_name(), os.getpid(), "0123456789ab")
    folder = Path(bench.spool.worker(claimant.worker).path)
    folder.mkdir()
    record = {"host": host_name(), "boot_id": boot, "pid": os.getpid(), "lease": 3600, "locked": True}
    (folder / "worker.json").write_text(json.dumps(record))
    os.chmod(folder / "worker.json", 0o600)
    (folder / "lock").touch()
    assert try_claim(job, 1, str(claimant))
    assert heal(bench) == [(job.name, 2)]
    check_finished(bench)


def test_two_results_of_one_attempt_leave_the_first(bench: Bench) -> None:
    """A supervisor publishes that an attempt failed while its worker publishes that it succeeded."""
    job, record = bench.job()
    try_claim(job, 1, "u@h:1:aaaaaaaa")
    good = {
        "job": job.name,
        "attempt": 1,
        "input_sha256": record.input_sha256,
        "outcome": "succeeded",
        "state": {"doubled": 0},
    }
    assert jobs.finish(bench.fanout, job, record, 1, good)
    assert not jobs.finish(bench.fanout, job, record, 1, {**good, "outcome": "failed"})
    assert doubled(job)
    check_finished(bench)


RACER = """
import sys
from spool.job import accept, read_job, write_result
from spool.layout import FanOutFiles
fanout, attempt = sys.argv[1:]
files = FanOutFiles(fanout)
made = [files.job(f"{number:04d}-branch") for number in range(100)]
records = [read_job(job) for job in made]
print("ready", flush=True); sys.stdin.readline()
won = []
for job, record in zip(made, records):
    if accept(job, int(attempt)): won.append(job.name)
print(*won, flush=True)
"""


def test_of_two_processes_that_accept_different_attempts_one_wins(bench: Bench) -> None:
    """The older attempt is fenced off where its claim is seen; the link decides where it is not."""
    for job in bench.jobs(100):
        record = jobs.read_job(job)
        for attempt in (1, 2):
            jobs.write_result(job, attempt, result(job, record, attempt))
    racers = [python(RACER, bench.fanout.path, str(attempt)) for attempt in (1, 2)]
    together(racers)
    won = [line(racer).split() for racer in racers]
    for racer in racers:
        racer.communicate(timeout=240)
    assert sorted([*won[0], *won[1]]) == [f"{number:04d}-branch" for number in range(100)]
    for attempt, names in enumerate(won, 1):
        assert all(accepted_attempt(bench.fanout.job(name)) == attempt for name in names)
