"""Workers that are frozen and wake up later: their lease runs out, and what they bring then is kept aside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.faults.kit import NOTE, Place, ended, final, hang_up, kill
from tests.support import is_running, wait_until

FIRST_WAITS = (
    NOTE
    + """
import time
first = state["item"] == 0 and not os.path.exists(state["log"])
if state["item"] == 0:
    note("begin")
while first and os.path.exists(state["log"] + ".hold"):
    time.sleep(0.005)
if state["item"] == 0:
    note("end")
return {"value": 1 if first else 2}
"""
)
"""The first attempt at item 0 runs as long as the test wants and gives 1; all others give 2 at once."""


def first_job(place: Place) -> Path:
    return place.jobs()[0]


@pytest.mark.parametrize("strategy", ["process", "workers"])
def test_a_frozen_workers_job_is_taken_over_and_its_late_result_kept_aside(place: Place, strategy: str) -> None:
    settings = {"lease_duration": 0.6}
    place.fan_out(FIRST_WAITS, 'import time\nwhile not __import__("os").path.exists(state["log"] + ".go"):\n'
                  '    time.sleep(0.01)\nreturn {"total": parallel_results[0].state["value"], "log": None}',
                  strategy=strategy, spool=settings)  # fmt: skip
    place.hold()
    run = place.run(2)
    workers = []
    if strategy == "workers":
        wait_until(place.todo)
        workers = [place.start("worker", "--follow", stdin=subprocess.PIPE)]
    [frozen] = place.wait_for("begin")
    if strategy == "workers":
        workers.append(place.start("worker", "--follow", stdin=subprocess.PIPE))
    kill(frozen, signal.SIGSTOP)
    place.wait_for("end")
    wait_until(lambda: (first_job(place) / "result.json").exists())
    if strategy == "workers":  # it ends late, or is ended as its job was taken over: attempt 2 stands
        place.let_go()
        kill(frozen, signal.SIGCONT)
    Path(f"{place.log}.go").touch()
    assert final(run)["total"] == 2
    job = first_job(place)
    assert json.loads((job / "result.json").read_bytes())["attempt"] == 2
    assert len(os.listdir(job.parent.parent / "done")) == 2
    for worker in workers:
        hang_up(worker)
    assert not is_running(frozen)


def test_the_lease_of_a_workflow_is_that_of_its_external_workers(place: Place) -> None:
    place.fan_out(strategy="workers", spool={"lease_duration": 7.5, "durability": "power"})
    place.hold()
    run = place.run(1)
    wait_until(place.todo)
    worker = place.start("worker")
    [pid] = place.wait_for("begin")
    records = [json.loads(path.read_bytes()) for path in place.spool.glob("workers/*/worker.json")]
    assert [record["lease"] for record in records if record["pid"] == pid] == [7.5]
    place.let_go()
    final(run)
    ended(worker)


def test_a_result_after_the_timeout_is_not_accepted(place: Place) -> None:
    """The worker is frozen while its time runs out; it is ended, and a retry's result counts."""
    freezes = "import signal\nif first:\n    os.kill(os.getpid(), signal.SIGSTOP)\nwhile first"
    retry = {"max_retries": 20, "base_delay": 0.01}  # a slow machine may need more than one
    body = FIRST_WAITS.replace("while first", freezes)
    place.fan_out(body, timeout_seconds=2, grace_seconds=0.3, retry=retry, max_workers=1)
    assert final(place.run(1))["total"] == 2
    pid, *_ = place.wait_for("begin")
    assert not is_running(pid)
    job = first_job(place)
    assert json.loads((job / "result.1.json").read_bytes())["outcome"] == "timed_out"
    assert json.loads((job / "result.json").read_bytes())["attempt"] > 1
    assert pid not in place.wait_for("end")


def test_a_frozen_coordinator_goes_on(place: Place) -> None:
    place.fan_out(strategy="workers")
    run = place.run(20)
    wait_until(place.todo)
    kill(run, signal.SIGSTOP)
    place.fan_out(NOTE + "note('x')")  # what the file says now is nothing to a run that has begun
    made = len(place.todo())
    worker = place.start("worker", "--follow", stdin=subprocess.PIPE)
    place.wait_for("end", made)
    kill(run, signal.SIGCONT)
    assert final(run)["total"] == sum(2 * i for i in range(20))
    hang_up(worker)


@pytest.mark.parametrize("days", [-1, 1])
def test_a_worker_whose_clock_is_a_day_off(place: Place, days: int) -> None:
    """Leases, retries and order do not depend on it: it lives, its job is not taken from it, its result counts."""
    (place.folder / "off").mkdir()
    clock = f"import time\nright = time.time\ntime.time = lambda: right() + {days * 86400}\n"
    (place.folder / "off" / "sitecustomize.py").write_text(clock)
    place.fan_out(strategy="workers", spool={"lease_duration": 0.6}, retry={"max_retries": 1, "base_delay": 0.01})
    place.hold()
    run = place.run(2)
    wait_until(lambda: len(place.todo()) == 2)
    off = place.start("worker", env={"PYTHONPATH": str(place.folder / "off")})
    [pid] = place.wait_for("begin")
    right = place.start("worker")
    place.wait_for("begin", 2)
    beats = next(path.parent / "beat" for path in place.spool.glob("workers/*/worker.json")
                 if json.loads(path.read_bytes())["pid"] == pid)  # fmt: skip
    first = int(beats.read_text())
    wait_until(lambda: int(beats.read_text()) > first + 5)  # longer than its lease
    place.let_go()
    assert final(run)["total"] == 2
    ended(off)
    ended(right)
    assert place.noted("begin").total() == 2
    started = [result["started"] for result in place.results()]
    assert max(started) - min(started) > 80_000
