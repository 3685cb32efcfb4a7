"""`tea spool explain` of jobs of real runs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support import wait_until
from tests.tools.kit import Start, files_of, job, read, run, start, text, write_workflow


@pytest.fixture
def here(tmp_path: Path) -> Path:
    write_workflow(tmp_path)
    return tmp_path


def test_a_failed_job(ended: Path) -> None:
    told = text(ended, "explain", "1")
    assert told.startswith(
        "001-split/0001-split: failed\nIt failed for good with attempt 2: ValueError: bad item 1.\n"
    )
    assert told.count("in node 'split': ValueError: bad item 1.") == 2
    assert "it has been retried once, as often as it may." in " ".join(told.split())
    assert "tea spool retry " in told


def test_a_job_that_succeeded(ended: Path) -> None:
    found = read(ended, "explain", "0")
    assert (found["state"], found["ticket"], found["next"]) == ("succeeded", "done", [])
    assert [(a["attempt"], a["outcome"]) for a in found["attempts"]] == [(1, "succeeded")]


@pytest.mark.parametrize("strategy", ["process", "thread"])
def test_a_running_job_and_its_dead_coordinator(here: Path, start_tea: Start, strategy: str) -> None:
    process = start(here, start_tea, strategy=strategy)
    found = read(here, "explain", "2")
    assert found["state"] == "running"
    assert "tea spool cancel " in found["next"][1]["type"]
    process.send_signal(signal.SIGKILL)
    process.wait(240)
    wait_until(lambda: read(here, "explain", "2")["state"] == "waiting", what="the worker to be seen dead")
    told = text(here, "explain", "2")
    assert "as attempt 2: attempt 1 was lost. Nobody drives its run (stopped;" in " ".join(told.split())
    assert told.rstrip().endswith("go on with the run")


def test_a_stopped_worker(here: Path, start_tea: Start) -> None:
    start(here, start_tea)
    pid = int(read(here, "explain", "2")["attempts"][0]["claimant"].split(":")[1])

    os.kill(pid, signal.SIGSTOP)
    try:
        found = wait_until(lambda: (f := read(here, "explain", "2"))["state"] == "stuck" and f)
        assert found["next"][0]["type"] == f"kill -CONT {pid}"
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_job_that_waits_for_its_next_attempt(here: Path, start_tea: Start) -> None:
    write_workflow(here, delay=600)
    start(here, start_tea, ended=2)
    found = wait_until(lambda: (f := read(here, "explain", "1"))["state"] == "backing off" and f)
    assert 0 < found["back_off"] <= 600
    assert found["retries_left"] == 0


def test_damage_is_told_and_left(here: Path) -> None:
    run(here)
    (job(here, 0) / "result.1.json").write_text("{")
    (job(here, 0) / "result.json").unlink()
    before = files_of(here)
    told = " ".join(text(here, "explain", "0").split())
    assert "its result counts as absent, and it as lost:" in told
    assert "Its ticket lies in done/ although it has no result that can be trusted." in told
    assert files_of(here) == before


def test_nothing_is_written_by_looking(ended: Path) -> None:
    before = files_of(ended)
    for name in ("0", "1"):
        text(ended, "explain", name)
    assert files_of(ended) == before
