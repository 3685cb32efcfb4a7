"""Ending a worker together with all that its job has started, also what forks faster than it can be counted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from executors import undertaker
from executors.ending import kill_rest, reap
from spool.layout import SpoolFiles, WorkerFiles
from spool.worker import is_locked
from tests.support import ROOT, clean_env, wait_until

FORKING = """
import os, sys, time
from spool.layout import SpoolFiles
from spool.worker import Worker

folder, leaves = sys.argv[1], "leaves" in sys.argv
worker, end = Worker(SpoolFiles(folder)), time.monotonic() + 240
for _ in range(5):
    if os.fork() == 0:
        break
else:
    print(worker.name, flush=True)
    time.sleep(240)
while time.monotonic() < end and not os.path.exists(f"{folder}/stop"):
    if os.fork():
        os._exit(0)
    if leaves:
        os.setsid()
"""
"""A worker of which there are five chains of processes: each starts the next one, and ends at once."""


@dataclass
class Forking:
    """A worker whose job forks all the time."""

    spool: SpoolFiles
    process: subprocess.Popen[str]
    files: WorkerFiles

    def is_left(self) -> bool:
        """Whether anything of it lives: it has inherited the worker's lock."""
        return bool(is_locked(self.files.lock))


@pytest.fixture
def forking(tmp_path: Path) -> Iterator[Callable[..., Forking]]:
    started: list[Forking] = []

    def start(*how: str) -> Forking:
        process = subprocess.Popen(
            [sys.executable, "-c", FORKING, str(tmp_path), *how],
            cwd=ROOT,
            env=clean_env({undertaker.SERVER: str(tmp_path)}),
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        spool = SpoolFiles(str(tmp_path))
        started.append(Forking(spool, process, spool.worker(process.stdout.readline().strip())))
        return started[-1]

    yield start
    (tmp_path / "stop").touch()
    for one in started:
        one.process.kill()
        one.process.communicate()
        wait_until(lambda one=one: not one.is_left(), what="what forks to end")  # type: ignore[misc]


def test_a_group_that_forks_all_the_time_ends(forking: Callable[..., Forking]) -> None:
    worker = forking()
    kill_rest(worker.process.pid, None)
    wait_until(lambda: not worker.is_left(), 30, what="the group to end")


def test_what_leaves_its_group_all_the_time_ends(forking: Callable[..., Forking]) -> None:
    worker = forking("leaves")
    kill_rest(worker.process.pid, worker.files)
    wait_until(lambda: not worker.is_left(), 30, what="what left the group to end")


def test_what_a_dead_worker_has_left_ends_though_it_forks_all_the_time(forking: Callable[..., Forking]) -> None:
    worker = forking("leaves")
    worker.process.kill()
    worker.process.wait()
    reap(worker.spool)
    wait_until(lambda: not worker.is_left(), 30, what="what the worker left to end")


def test_what_a_coordinator_leaves_ends_though_it_forks_all_the_time(forking: Callable[..., Forking]) -> None:
    worker = forking("leaves")
    undertaker.end(worker.spool.path, 30)
    wait_until(lambda: not worker.is_left(), 30, what="what was left behind to end")


def test_zombies_of_a_group_are_not_waited_for(
    forking: Callable[..., Forking], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = forking()
    monkeypatch.setattr("executors.ending._PATIENCE", 240)
    kill_rest(worker.process.pid, worker.files)  # its leader is our child, whom nobody has waited for
    assert worker.process.returncode is None
