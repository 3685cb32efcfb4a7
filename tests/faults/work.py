"""What is run under faults: a worker that takes a job and finishes it; and what must hold afterwards."""

from __future__ import annotations

import json
import os
from pathlib import Path

from spool import job as jobs
from spool.attempts import Outcome
from spool.errors import SpoolError
from spool.layout import CLAIM, JobFiles
from spool.queue import Claim, Queue
from spool.worker import Observer, Worker
from tests.spool.kit import Bench
from tests.support import wait_until


def finish(bench: Bench, claim: Claim, sync: bool = False) -> None:
    """Run a job: its result doubles what was given to it, in several pages of text."""
    try:
        given = jobs.read_input(claim.job, claim.record)
    except SpoolError as error:
        kind, why = type(error).__name__, str(error)
        result = jobs.verdict_result(claim.job, claim.record, claim.attempt, Outcome.FAILED, kind, why)
        jobs.finish(bench.fanout, claim.job, claim.record, claim.attempt, result, sync=sync)
        return
    result = {
        "job": claim.job.name,
        "attempt": claim.attempt,
        "input_sha256": claim.record.input_sha256,
        "outcome": "succeeded",
        "success": True,
        "state": {"doubled": given["item"] * 2, "text": "x" * 9000},
    }
    jobs.finish(bench.fanout, claim.job, claim.record, claim.attempt, result, sync=sync)


def work(bench: Bench, sync: bool = True) -> str:
    """A worker that finishes one job."""
    with Worker(bench.spool, lease=3600) as worker:
        claim = Queue(bench.fanout, worker.text, Observer(bench.spool)).take()
        assert claim is not None
        worker.doing(f"{bench.fanout.path} {claim.job.name} {claim.attempt} 0.000 0.000")
        finish(bench, claim, sync)
    return "finished"


def heal(bench: Bench, trouble: list[str] | None = None, timeout: float = 240) -> list[tuple[str, int]]:
    """A healthy worker finishes what is left: the attempts that it ran. What it was refused goes to `trouble`."""
    ran: list[tuple[str, int]] = []
    trouble = [] if trouble is None else trouble
    with Worker(bench.spool) as worker:
        queue = Queue(bench.fanout, worker.text, Observer(bench.spool))

        def empty() -> bool:
            try:
                while (claim := queue.take()) is not None:
                    ran.append((claim.job.name, claim.attempt))
                    finish(bench, claim)
            except OSError as error:
                trouble.append(str(error))
            return queue.remaining == 0

        wait_until(empty, timeout, "the queue to be empty")
    return ran


def check_whole(bench: Bench) -> None:
    """Whatever has its name is complete, at any moment; what is done has an accepted result."""
    for folder, _, names in os.walk(bench.run.path):
        for name in names:
            if name.endswith(".json") and not name.startswith("."):
                json.loads(Path(folder, name).read_bytes())
    for name in bench.tickets().get("done", []):
        assert doubled(bench.fanout.job(name))


def doubled(job: JobFiles) -> bool:
    record = jobs.read_job(job)
    accepted = jobs.read_accepted(job, record.input_sha256)
    return accepted is not None and accepted["state"]["doubled"] == jobs.read_input(job, record)["item"] * 2


def check_finished(bench: Bench) -> None:
    """Every job has one accepted result and its ticket in done/; nothing but what belongs there is in it."""
    check_whole(bench)
    made = sorted(os.listdir(bench.fanout.jobs))
    assert bench.tickets() == {"done": made}
    for name in made:
        job = bench.fanout.job(name)
        assert doubled(job)
        visible = {one for one in os.listdir(job.path) if not one.startswith((".tmp-", ".reserved-"))}
        claims = {one for one in visible if CLAIM.fullmatch(one)}
        results = {f"result.{one.removeprefix('claim.')}.json" for one in claims}
        assert visible - claims - results == {"job.json", "input.json", "workflow.yaml", "result.json"}


def claims(job: JobFiles) -> int:
    return sum(1 for name in os.listdir(job.path) if CLAIM.fullmatch(name))
