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
name = how.replace(" ", "-")
def note():
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, ("begin %s %d\\n" % (name, os.getpid())).encode())
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

LIMIT = 8.0
"""Seconds for a job: enough to start its tree also on a slow machine."""

HOW = ["tree", "deaf tree", "session", "orphan", "deaf orphan session"]


def workflow(place: Place, node: str, strategy: str = "process", **more: Any) -> None:
    """Each item is how a tree of processes is made that its branch starts: by a `command`, or by Python in it."""
    (place.folder / "tree.py").write_text(TREE)
    if node == "command":
        import sys

        step: dict[str, Any] = {"command": [sys.executable, "tree.py", "{{ state.log }}", "{{ state.item }}"]}
    else:
        wait = "import subprocess, sys\nprint('partial output', flush=True)\n"
        step = {"run": wait + "subprocess.run([sys.executable, 'tree.py', state['log'], state['item']])"}
    work = {"name": "work", "strategy": {"parallel_each": "{{ state['items'] }}"}, "fan_in": "add", **step}
    parallel = {"strategy": strategy, "max_workers": 2, "timeout_seconds": LIMIT, "grace_seconds": 0.3, **more}
    add = {"name": "add", "fan_in": True, "run": "return {'outcomes': [r.outcome for r in parallel_results]}"}
    place.write({"name": "t", "settings": {"parallel": parallel}, "nodes": [work, add]})


@pytest.mark.parametrize("node", ["command", "python"])
def test_the_whole_tree_of_a_job_that_takes_too_long_dies(place: Place, node: str) -> None:
    workflow(place, node, max_workers=len(HOW))
    run = place.run(HOW)
    place.wait_for("begin", 3 * len(HOW))
    assert final(run)["outcomes"] == ["timed_out"] * len(HOW)
    assert place.noted("begin") == {how.replace(" ", "-"): 3 for how in HOW}
    wait_until(lambda: not [how for _, how, pid in place.lines() if is_running(pid)], what="the end of all trees")
    for job in place.jobs():
        if node == "python":
            assert (job / "stdout.1.log").read_text().startswith("partial output\n")
        result = json.loads((job / "result.json").read_bytes())
        assert result["error"] == f"Flow timed out after {LIMIT}s"


def test_the_tree_dies_under_an_external_worker_too(place: Place) -> None:
    workflow(place, "command", "workers")
    run = place.run(["deaf orphan session"])
    wait_until(place.todo)
    worker = place.start("worker")
    pids = place.wait_for("begin", 3)
    assert final(run)["outcomes"] == ["timed_out"]
    ended(worker)
    wait_until(lambda: not any(map(is_running, pids)), what="the end of the tree")


def test_what_a_job_that_ended_well_left_running_ends_with_its_worker(place: Place) -> None:
    """A daemon that a job starts and does not wait for is no service of the next one."""
    workflow(place, "python")
    run = place.run(["gone", "gone"])
    assert final(run)["outcomes"] == ["succeeded", "succeeded"]
    pids = {pid for _, _, pid in place.lines()}
    wait_until(lambda: not any(map(is_running, pids)), what="the end of what was left")


def test_a_thread_that_takes_too_long_is_told_and_given_up(place: Place) -> None:
    """It cannot be killed, and the result says so; a program that it has started is."""
    workflow(place, "command", "thread")
    run = place.run(["tree"])
    pids = place.wait_for("begin", 3)
    assert final(run)["outcomes"] == ["timed_out"]
    [result] = place.results()
    assert "its thread was told to stop and may still run" in result["error"]
    wait_until(lambda: not any(map(is_running, pids)), what="the end of the program")


def test_every_attempt_has_its_own_time(place: Place) -> None:
    body = NOTE + "import time\nnote('begin')\ntime.sleep(0 if len(open(state['log']).readlines()) > 2 else 60)"
    retry = {"max_retries": 20, "base_delay": 0.01}  # on a slow machine, an attempt may end before it notes anything
    place.fan_out(body + "\nreturn {'value': 5}", timeout_seconds=1.5, grace_seconds=0.1, retry=retry)
    assert final(place.run(1))["total"] == 5
    [job] = place.jobs()
    results = sorted(
        (json.loads(path.read_bytes()) for path in job.glob("result.*.json")), key=lambda r: r["attempt"]
    )
    *late, last = [result["outcome"] for result in results]
    assert (set(late), last) == ({"timed_out"}, "succeeded")
    assert len(late) >= 2
