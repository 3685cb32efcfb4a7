"""`tea spool cancel`: living runs and dead ones, whole and by job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import is_running, tea_cmd, wait_until
from tests.tools.kit import Start, files_of, job, read, run, start, text, verb, write_workflow


@pytest.fixture
def here(tmp_path: Path) -> Path:
    write_workflow(tmp_path, retries=0)
    return tmp_path


def newest(here: Path) -> str:
    return str(read(here, "status")["run"])


def states(here: Path) -> list[str]:
    return [line["state"] for line in read(here, "list")]


def resume(here: Path) -> Any:
    (here / "block").unlink(missing_ok=True)
    done = tea_cmd("resume", "--retry-failed", cwd=here)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["values"]


class TestLiveRun:
    def test_dry_run(self, here: Path, start_tea: Start) -> None:
        process = start(here, start_tea, strategy="thread")
        (done,) = read(here, "cancel", newest(here), "--dry-run")
        assert (done["asked"], done["state"], done["jobs"]) == (True, "running", ["001-split/0002-split"])
        assert "only the whole run can be cancelled" in verb(here, "cancel", "2", "--dry-run", code=1).stderr
        (here / "block").unlink()
        assert process.wait(240) == 0

    @pytest.mark.parametrize("strategy", ["process", "thread"])
    def test_it_ends_and_its_fan_in_does_not_run(self, here: Path, start_tea: Start, strategy: str) -> None:
        process = start(here, start_tea, "--max-workers", "1", strategy=strategy, ended=2)
        name = newest(here)
        (done,) = read(here, "cancel", name)
        assert (done["asked"], done["state"]) == (True, "cancelled")
        out, err = process.communicate(timeout=240)
        assert (process.returncode, out) == (130, "")
        assert f"cancelled by {json.loads(run_json(here))['cancelled_by']}" in err
        assert f"tea resume {name} --retry-failed" in err
        assert states(here) == ["done", "failed", "cancelled", "cancelled"]
        assert read(here, "explain", "3")["state"] == "cancelled"
        assert f"tea resume {name} --retry-failed" in text(here, "status")
        (here / "fixed").touch()
        assert resume(here) == [0, 2, 4, 6]
        assert read(here, "status")["state"] == "done"

    def test_one_that_does_not_listen(self, here: Path, start_tea: Start) -> None:
        process = start(here, start_tea)
        process.send_signal(signal.SIGSTOP)
        try:
            done = verb(here, "cancel", newest(here), "--wait", "0.1", code=1)
            assert "was asked to cancel it, and has not ended yet" in done.stdout
        finally:
            process.send_signal(signal.SIGCONT)
        assert process.wait(240) == 130

    def test_a_request_of_old_does_not_end_a_run_that_is_resumed(self, here: Path, start_tea: Start) -> None:
        process = start(here, start_tea)
        read(here, "cancel", newest(here))
        process.wait(240)
        (here / "fixed").touch()
        assert resume(here) == [0, 2, 4, 6]


class TestDeadRun:
    @pytest.fixture
    def dead(self, here: Path, start_tea: Start) -> Path:
        process = start(here, start_tea)
        process.send_signal(signal.SIGKILL)
        process.wait(240)
        wait_until(
            lambda: not any(one["alive"] for one in read(here, "status")["workers"]),
            what="both slots to be seen dead",
        )
        return here

    def test_dry_run(self, dead: Path) -> None:
        before = files_of(dead)
        (done,) = read(dead, "cancel", newest(dead), "--dry-run")
        assert (done["dry_run"], done["asked"], done["jobs"]) == (True, False, ["001-split/0002-split"])
        assert "1 job would be cancelled\n  001-split/0002-split" in text(dead, "cancel", newest(dead), "--dry-run")
        refused = verb(dead, "cancel", "2", "0", "--dry-run", code=1)
        assert "001-split/0000-split stays as it is: it has ended already (done)" in refused.stderr
        assert files_of(dead) == before

    def test_what_has_not_finished_is_cancelled(self, dead: Path) -> None:
        (done,) = read(dead, "cancel", newest(dead))
        assert (done["asked"], done["state"], done["jobs"]) == (False, "cancelled", ["001-split/0002-split"])
        assert states(dead) == ["done", "failed", "cancelled", "done"]
        (dead / "fixed").touch()
        assert resume(dead) == [0, 2, 4, 6]

    def test_one_job(self, dead: Path) -> None:
        (done,) = read(dead, "cancel", "2")
        assert done["jobs"] == ["001-split/0002-split"]
        done = verb(dead, "cancel", "2", "0", code=1)
        assert "001-split/0002-split stays as it is: it has ended already (cancelled)" in done.stderr
        assert "001-split/0000-split stays as it is: it has ended already (succeeded)" in done.stderr
        assert not any((dead / ".tea" / "spool" / "workers").glob(f"*-{os.getpid()}-*"))


class TestOneJobOfALiveRun:
    def test_a_running_one_is_ended_and_the_run_goes_on(self, here: Path, start_tea: Start) -> None:
        process = start(here, start_tea)
        pid = int(read(here, "explain", "2")["attempts"][0]["claimant"].split(":")[1])
        (done,) = read(here, "cancel", "2")
        assert done["jobs"] == ["001-split/0002-split"]
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        assert json.loads(out)["values"] == [0, "failed", "cancelled", 6]
        assert not is_running(pid)

    def test_one_that_waits_never_begins(self, here: Path, start_tea: Start) -> None:
        process = start(here, start_tea, "--max-workers", "1", ended=2)
        read(here, "cancel", "3")
        (here / "block").unlink()
        out, err = process.communicate(timeout=240)
        assert json.loads(out)["values"] == [0, "failed", 4, "cancelled"], err
        assert not list(job(here, 3).glob("stdout*"))

    def test_threads_take_no_orders_for_single_jobs(self, here: Path, start_tea: Start) -> None:
        start(here, start_tea, strategy="thread")
        assert "only the whole run can be cancelled" in verb(here, "cancel", "2", code=1).stderr
        assert states(here)[2] == "running"


def test_a_run_that_is_done(here: Path) -> None:
    run(here)
    assert "nothing was cancelled; it is done" in text(here, "cancel", newest(here))
    assert read(here, "status")["state"] == "done"


def test_something_must_be_named(here: Path) -> None:
    run(here)
    assert "Missing argument" in verb(here, "cancel", code=2).stderr


def run_json(here: Path) -> str:
    (path,) = (here / ".tea" / "spool" / "runs").glob("*/run.json")
    return path.read_text()


PROGRAM = """
import pathlib
from tea import StateGraph
from tea.cancel import RunCancelledError

def branch(state, cancel_token):
    pathlib.Path("begun").touch()
    cancel_token.wait(240)
    return {}

graph = StateGraph({})
graph.add_node("split", run=lambda state: {})
graph.add_node("branch", run=branch)
graph.add_fanin_node("join", run=lambda state: pathlib.Path("joined").touch())
graph.set_entry_point("split")
graph.add_parallel_edge("split", "branch", "join")
graph.add_edge("branch", "join")
graph.set_finish_point("join")
try:
    {call}
except RunCancelledError as error:
    print(error)
"""


CALLS = ("list(graph.compile().invoke({}))", "graph.compile().execute_scoped({}, 'split', 'join')")


@pytest.mark.parametrize("call", CALLS)
def test_a_run_that_a_program_drives(tmp_path: Path, call: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM.replace("{call}", call))
    command = [sys.executable, "program.py"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as program:
        wait_until(lambda: (tmp_path / "begun").exists(), what="the branch to begin")
        (done,) = read(tmp_path, "cancel", newest(tmp_path))
        out, _ = program.communicate(timeout=240)
    assert (done["asked"], done["state"]) == (True, "cancelled")
    assert out.startswith("cancelled by ")
    assert json.loads(run_json(tmp_path))["outcome"] == "cancelled"
    assert not (tmp_path / "joined").exists()
