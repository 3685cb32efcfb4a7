"""Killed at every system call of making, claiming and finishing a job: nothing is lost, nothing is half-read."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path

import pytest

from tests.faults.traced import need_strace, traced
from tests.faults.work import check_finished, check_whole, claims, heal, work
from tests.spool.kit import Bench, spec

CALLS = {
    "openat": 40,
    "close": 40,
    "write": 20,
    "pwrite64": 3,
    "fsync": 6,
    "?symlink,symlinkat": 2,
    "?link,linkat": 6,
    "?unlink,?unlinkat": 10,
    "?rename,?renameat,renameat2": 5,
    "?mkdir,mkdirat": 5,
    "?readlink,readlinkat": 4,
    "flock": 3,
    "?rmdir": 3,
}
"""What a worker or a coordinator calls, each with more than the number of times that it does."""


@pytest.fixture(scope="module", autouse=True)
def _strace() -> None:
    need_strace()


@pytest.mark.parametrize("call", CALLS)
def test_a_worker_killed_at_any_call_costs_at_most_one_attempt(tmp_path: Path, call: str) -> None:
    for n in count(1):
        bench = Bench(tmp_path / f"spool-{n}")
        [job] = bench.jobs(1)
        ended = traced(lambda bench=bench: work(bench), f"{call}:signal=KILL:when={n}")  # type: ignore[misc]
        assert ended.killed or ended.said == "finished"
        check_whole(bench)
        claimed, published = claims(job), os.path.exists(job.result(1))
        ran = heal(bench)
        check_finished(bench)
        if published:
            assert ran == []  # finished work never runs again
        else:
            assert ran == [(job.name, claimed + 1)]
        if not ended.killed:
            assert n > 1, f"{call} is never called"
            break
        assert n <= CALLS[call], f"more than {CALLS[call]} calls of {call}"


@pytest.mark.parametrize("call", ["openat", "close", "write", "?link,linkat", "?unlink,unlinkat", "?mkdir,mkdirat"])
def test_a_coordinator_killed_at_any_call_of_making_jobs_makes_them_all_when_resumed(
    tmp_path: Path, call: str
) -> None:
    base = b'{"shared":"%s"}' % (b"x" * 2000)

    def make(bench: Bench) -> str:
        writer = bench.writer(base=base)
        for index in range(2):
            writer.create(spec(index, 2))
        return "made"

    for n in count(1):
        bench = Bench(tmp_path / f"spool-{n}")
        ended = traced(lambda bench=bench: make(bench), f"{call}:signal=KILL:when={n}")  # type: ignore[misc]
        assert ended.killed or ended.said == "made"
        for name in bench.tickets().get("todo", []):  # whoever has a ticket is complete
            assert {"job.json", "input.json", "base.json", "workflow.yaml"} <= set(
                os.listdir(bench.fanout.job(name).path)
            )
        make(bench)
        assert bench.tickets() == {"todo": ["0000-branch", "0001-branch"]}
        assert sorted(heal(bench)) == [("0000-branch", 1), ("0001-branch", 1)]
        assert {path.name for path in Path(bench.fanout.jobs).iterdir()} == {"0000-branch", "0001-branch"}
        if not ended.killed:
            assert n > 1, f"{call} is never called"
            break
        assert n <= 40
