"""Jobs whose time is up are ended with everything that they have started; what they had printed is kept."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.faults.kit import NOTE, Place, ended, final
from tests.support import is_running, wait_until

# A program that notes its process and that of each child, and sleeps.
TREE = """
import os, signal, sys, time
log, how = sys.argv[1], sys.argv[2]
def note():
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, ("begin - %d\\n" % os.getpid()).encode())
print("partial output", flush=True)
if "deaf" in how:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
for depth in range(3):
    if os.fork() == 0:
        if "session" in how:
            os.setsid()
        if "orphan" in how and os.fork():
            os._exit(0)
        note()
        if depth == 2:
            break
    else:
        break
if how == "gone":
    os._exit(0)
time.sleep(600)
"""

HOW = ["tree", "deaf tree", "session", "orphan", "deaf orphan session"]


def workflow(place: Place, how: str, node: str, strategy: str = "process", **more: Any) -> None:
    """One branch that starts a tree of processes: by a `command`, or by Python in the job itself."""
    (place.folder / "tree.py").write_text(TREE)
    if node == "command":
        import sys

        step: dict[str, Any] = {"command": [sys.executable, "tree.py", "{{ state.log }}", how]}
    else:
        wait = "import subprocess, sys\nprint('partial output', flush=True)\n"
        step = {"run": wait + f"subprocess.run([sys.executable, 'tree.py', state['log'], {how!r}])"}
    work = {"name": "work", "strategy": {"parallel_each": "{{ state['items'] }}"}, "fan_in": "add", **step}
    parallel = {"strategy": strategy, "max_workers": 2, "timeout_seconds": 4, "grace_seconds": 0.3, **more}
    add = {"name": "add", "fan_in": True, "run": "return {'outcomes': [r.outcome for r in parallel_results]}"}
    place.write({"name": "t", "settings": {"parallel": parallel}, "nodes": [work, add]})


@pytest.mark.parametrize("node", ["command", "python"])
@pytest.mark.parametrize("how", HOW)
def test_the_whole_tree_of_a_job_that_takes_too_long_dies(place: Place, how: str, node: str) -> None:
    workflow(place, how, node)
    run = place.run(1)
    pids = place.wait_for("begin", 3)
    assert final(run)["outcomes"] == ["timed_out"]
    wait_until(lambda: not any(map(is_running, pids)), what="the end of the tree")
    [job] = place.jobs()
    if node == "python":
        assert (job / "stdout.1.log").read_text().startswith("partial output\n")
    result = json.loads((job / "result.json").read_bytes())
    assert result["error"] == "Flow timed out after 4.0s"


def test_the_tree_dies_under_an_external_worker_too(place: Place) -> None:
    workflow(place, "deaf orphan session", "command", "workers")
    run = place.run(1)
    wait_until(place.todo)
    worker = place.start("worker")
    pids = place.wait_for("begin", 3)
    assert final(run)["outcomes"] == ["timed_out"]
    ended(worker)
    wait_until(lambda: not any(map(is_running, pids)), what="the end of the tree")


def test_what_a_job_that_ended_well_left_running_ends_with_its_worker(place: Place) -> None:
    """A daemon that a job starts and does not wait for is no service of the next one."""
    workflow(place, "gone", "python")
    run = place.run(2)
    assert final(run)["outcomes"] == ["succeeded", "succeeded"]
    pids = {pid for _, _, pid in place.lines()}
    wait_until(lambda: not any(map(is_running, pids)), what="the end of what was left")


def test_a_thread_that_takes_too_long_is_told_and_given_up(place: Place) -> None:
    """It cannot be killed, and the result says so; a program that it has started is."""
    workflow(place, "tree", "command", "thread")
    run = place.run(1)
    pids = place.wait_for("begin", 3)
    assert final(run)["outcomes"] == ["timed_out"]
    [result] = place.results()
    assert "its thread was told to stop and may still run" in result["error"]
    wait_until(lambda: not any(map(is_running, pids)), what="the end of the program")


def test_every_attempt_has_its_own_time(place: Place) -> None:
    body = NOTE + "import time\nnote('begin')\ntime.sleep(0 if len(open(state['log']).readlines()) > 2 else 60)"
    retry = {"max_retries": 3, "base_delay": 0.01}
    place.fan_out(body + "\nreturn {'value': 5}", timeout_seconds=1.5, grace_seconds=0.1, retry=retry)
    assert final(place.run(1))["total"] == 5
    [job] = place.jobs()
    outcomes = [json.loads((job / f"result.{n}.json").read_bytes())["outcome"] for n in (1, 2, 3)]
    assert outcomes == ["timed_out", "timed_out", "succeeded"]
