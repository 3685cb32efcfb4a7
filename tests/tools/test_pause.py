"""`tea spool pause` and `unpause`: nothing new begins, what runs ends, under every strategy and after a kill."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from spool import cancel
from spool.pause import LOOK, Gate, pause, paused, unpause
from spool.run import create_fanout, create_run, open_spool
from tests.spool.test_worker import Clock
from tests.support import tea_cmd, wait_until
from tests.tools.kit import Start, job, read, run, state, text, verb, write_workflow

ITEMS = 6
"""Item 2 blocks, so with one worker 0 and 1 have ended, 2 runs, and 3 to 5 wait."""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    write_workflow(tmp_path, retries=0)
    return tmp_path


def begin(here: Path, start_tea: Start, strategy: str, *arguments: str) -> Any:
    """A run with one worker that is at item 2."""
    (here / "block").touch()
    given = ("--input", state(here, items=ITEMS, bad=()), "--strategy", strategy, *arguments)
    process = start_tea("run", "w.yaml", *given, cwd=here)
    if strategy == "workers":
        wait_until(lambda: len(list(here.glob(".tea/spool/runs/*/fanouts/*/todo/*"))) == ITEMS)
    return process


def at_item_2(here: Path) -> None:
    wait_until(lambda: list(here.glob(".tea/spool/runs/*/fanouts/*/jobs/0002-*/claim.*")), what="item 2 to run")


def states(here: Path) -> list[str]:
    return [line["state"] for line in read(here, "list")]


def held(here: Path) -> list[str]:
    """Item 2 may end; the states when it has."""
    (here / "block").unlink()
    wait_until(lambda: states(here)[2] == "done", what="what runs to end")
    return states(here)


HELD = ["done"] * 3 + ["todo"] * 3


class TestLiveRun:
    @pytest.mark.parametrize("strategy", ["process", "thread"])
    def test_nothing_new_begins_until_it_goes_on(self, here: Path, start_tea: Start, strategy: str) -> None:
        process = begin(here, start_tea, strategy, "--max-workers", "1")
        at_item_2(here)
        (done,) = read(here, "pause")
        assert (done["changed"], done["state"], done["running"], done["todo"]) == (True, "running", 1, 3)
        gate = Gate(_fanout(here))
        assert gate.closed()
        _let_everybody_look()
        assert held(here) == HELD
        status = read(here, "status")
        assert status["paused"]["by"] == done["by"]
        told = text(here, "status")
        assert re.search(rf"^paused    by {re.escape(done['by'])}, .+: nothing new begins$", told, re.MULTILINE), told
        assert f"tea spool unpause {done['run']}" in told
        assert f"The run is paused by {done['by']} since 2" in " ".join(text(here, "explain", "4").split())
        assert f"tea spool unpause {done['run']}" in text(here, "explain", "4")
        assert "was paused already" in text(here, "pause")
        assert states(here) == HELD
        assert f"{done['run']}: goes on, 3 jobs wait" in text(here, "unpause")
        out, _ = process.communicate(timeout=240)
        assert json.loads(out)["values"] == [0, 2, 4, 6, 8, 10]
        assert "was not paused" in text(here, "unpause")

    def test_workers_of_others_hold_too_and_say_why(self, here: Path, start_tea: Start) -> None:
        process = begin(here, start_tea, "workers")
        (here / "block").unlink()
        (done,) = read(here, "pause")
        workers = [start_tea("worker", ".tea/spool", cwd=here)]
        _says_why(workers[0], done["by"])
        process.send_signal(signal.SIGKILL)  # the request outlives the coordinator
        process.wait(240)
        workers.append(start_tea("worker", ".tea/spool", cwd=here))
        _says_why(workers[1], done["by"])
        assert states(here) == ["todo"] * ITEMS
        text(here, "unpause")
        assert [worker.wait(240) for worker in workers] == [0, 0]
        assert states(here) == ["done"] * ITEMS

    def test_a_paused_run_can_be_cancelled(self, here: Path, start_tea: Start) -> None:
        process = begin(here, start_tea, "process", "--max-workers", "1")
        at_item_2(here)
        (done,) = read(here, "pause")
        read(here, "cancel", done["run"])
        assert process.wait(240) == 130
        assert read(here, "status")["paused"] is None
        assert "nothing to pause" in verb(here, "pause", code=2).stderr


class TestDeadRun:
    def test_resume_lets_it_go_on_and_says_so(self, here: Path, start_tea: Start) -> None:
        process = begin(here, start_tea, "process", "--max-workers", "1")
        at_item_2(here)
        read(here, "pause")
        process.send_signal(signal.SIGKILL)
        process.wait(240)
        (here / "block").unlink()
        assert "workers of the spool take no job of it" in text(here, "pause")
        done = tea_cmd("resume", cwd=here)
        assert done.returncode == 0, done.stderr
        assert "the run was paused by" in done.stderr
        assert states(here) == ["done"] * ITEMS
        assert not list(here.glob(".tea/spool/runs/*/paused.json"))

    def test_one_that_has_ended(self, here: Path) -> None:
        run(here, bad=())
        assert "has ended (done): there is nothing to pause" in verb(here, "pause", code=2).stderr
        assert text(here, "unpause").endswith("was not paused\n")


class TestGate:
    def test_it_looks_now_and_then_and_not_at_each_job(self, spool_dir: Path) -> None:
        clock = Clock()
        run_ = create_run(open_spool(str(spool_dir)), "x", {}, b"")
        gate = Gate(create_fanout(run_.fanouts, 1, "s"), clock)
        assert not gate.closed()
        assert pause(run_)
        assert not pause(run_)
        assert not gate.closed(clock.now + LOOK / 2)
        assert gate.closed(clock.now + LOOK)
        assert paused(run_)["by"]
        assert unpause(run_)
        assert not unpause(run_)
        assert gate.closed(clock.now + LOOK)
        assert not gate.closed(clock.now + 3 * LOOK)

    def test_what_another_host_asks_is_seen_by_a_listing(
        self, spool_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Over NFS a name that was missing when it was looked up stays so for up to a minute."""
        run_ = create_run(open_spool(str(spool_dir)), "x", {}, b"")
        pause(run_)
        cancel.ask(run_)
        monkeypatch.setattr(os, "access", lambda *_: False)
        monkeypatch.setattr(os.path, "lexists", lambda _: False)
        assert Gate(create_fanout(run_.fanouts, 1, "s")).closed()
        assert paused(run_)
        assert cancel.asked(run_)

    def test_what_a_branch_fans_out_belongs_to_the_branch(self, spool_dir: Path) -> None:
        run_ = create_run(open_spool(str(spool_dir)), "x", {}, b"")
        outer = create_fanout(run_.fanouts, 1, "s")
        pause(run_)
        assert Gate(outer).closed()
        assert not Gate(create_fanout(outer.job("0000-a").fanouts, 1, "inner")).closed()
        assert not Gate(None).closed()


def _says_why(worker: subprocess.Popen[str], by: str) -> None:
    assert worker.stderr is not None
    line = worker.stderr.readline()
    assert f"is paused by {by}; its jobs wait" in line


def _fanout(here: Path) -> Any:
    from spool.find import fanout_of
    from spool.layout import JobFiles

    return fanout_of(JobFiles(str(job(here, 0))))


def _let_everybody_look() -> None:
    """Whoever claims has looked for the request: they do so by the clock, so the clock is waited for."""
    import time

    until = time.monotonic() + 3 * LOOK
    wait_until(lambda: time.monotonic() > until)
