"""Threads: slots that are given up and taken, and a resumed fan-out."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from executors import threads
from executors.base import FanOutContext, Flow
from executors.policy import ParallelConfig, RetryPolicy
from executors.thread import ThreadExecutor, default_workers
from spool import job as jobs
from spool.claim import try_claim
from spool.layout import JobFiles
from spool.run import create_fanout, open_spool
from spool.worker import Worker
from tests.support import wait_until


def context(folder: Path, **more: Any) -> FanOutContext:
    spool = open_spool(str(folder))
    return FanOutContext(spool=spool, fanout=create_fanout(f"{folder}/runs", 1, "src"), **more)


def flow(name: str, function: Any) -> Flow:
    return Flow(name, lambda state, token, job: function(state, token), name)


def test_a_hanging_branch_holds_no_slot() -> None:
    let_go = threading.Event()
    try:
        flows = [flow("hangs", lambda state, token: let_go.wait(240)), flow("next", lambda state, token: {"x": 1})]
        flows[0].config = ParallelConfig(timeout_seconds=0.1)  # only for this one: the other may take its time
        results = ThreadExecutor(1).execute(flows, [{}, {}], ParallelConfig())
        assert [result.outcome for result in results] == ["timed_out", "succeeded"]
    finally:
        let_go.set()


def test_a_thread_that_obeys_at_once_is_timed_out_all_the_same(spool_dir: Path) -> None:
    for given in (None, context(spool_dir)):
        waits = flow("waits", lambda state, token: {"told": token.wait(240)})
        (result,) = ThreadExecutor(1, given).execute([waits], [{}], ParallelConfig(timeout_seconds=0.05))
        assert result.outcome == "timed_out"


def test_threads_end_with_the_fan_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "IDLE", 0.1)
    before = set(threading.enumerate())
    ThreadExecutor(4).execute([lambda state: None] * 20, [{}] * 20, ParallelConfig())
    wait_until(lambda: not [t for t in threading.enumerate() if t.name == "tea-branch" and t not in before])


class Clock:
    """Stands for the module `time`: seconds that pass only when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_the_message_names_the_limit_that_was_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left for the second attempt is what the first has not taken: no second more, no second less."""
    from executors import thread as module

    clock, tries = Clock(), [2.0, 1.0]
    monkeypatch.setattr(module, "time", clock)

    def slow(state: Any, token: Any) -> Any:
        clock.now += tries.pop(0)
        token.wait(240)

    config = ParallelConfig(timeout_seconds=2, timeout_total=3, retry_policy=RetryPolicy(5, base_delay=0.0))
    (result,) = ThreadExecutor(1).execute([flow("slow", slow)], [{}], config)
    assert [error["error"].split(";")[0] for error in result.attempt_errors] == [
        "Flow timed out after 2.0s",
        "Flow timed out after 3.0s",
    ]
    assert tries == []


def test_what_has_a_result_is_not_run_again(spool_dir: Path) -> None:
    """A second call over the same record takes up what the first one left."""
    ran: list[str] = []

    def noting(name: str, fail: bool = False) -> Flow:
        def function(state: Any, token: Any) -> Any:
            ran.append(name)
            if fail:
                raise KeyboardInterrupt
            return {"by": name}

        return flow(name, function)

    here = context(spool_dir)
    first = ThreadExecutor(1, here).execute([noting("a"), noting("b")], [{"x": 1}, {"x": 1}], ParallelConfig())
    again = ThreadExecutor(1, here).execute([noting("a"), noting("b")], [{"x": 1}, {"x": 1}], ParallelConfig())
    assert ran == ["a", "b"]
    assert [(r.branch, r.success, r["by"], r["x"]) for r in again] == [(r.branch, True, r["by"], 1) for r in first]


def test_a_record_that_cannot_be_written_fails_the_branch(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from executors import thread as module

    def refused(*_: Any) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "try_claim", refused)
    (result,) = ThreadExecutor(1, context(spool_dir)).execute(
        [flow("a", lambda state, token: {"x": 1})], [{}], ParallelConfig()
    )
    assert not result.success
    assert "Permission denied" in str(result.error)


def test_a_record_that_a_full_disk_refuses_is_written_later(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from executors import thread as module
    from spool import patience

    answers = [False, False, True]
    real = module.try_claim

    def refused_at_first(*arguments: Any) -> bool:
        if answers.pop(0):
            return real(*arguments)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "try_claim", refused_at_first)
    monkeypatch.setattr(patience, "PATIENCE", 0.01)
    told: list[str] = []
    there = context(spool_dir)
    there.warn = told.append
    (result,) = ThreadExecutor(1, there).execute([flow("a", lambda state, token: {"x": 1})], [{}], ParallelConfig())
    assert result.success
    assert len(told) == 1
    assert "No space left on device; waiting until it is possible again" in told[0]


def test_how_many_threads_by_default() -> None:
    assert 1 < default_workers() <= 32


def test_a_branch_that_another_process_has_begun_meanwhile_is_not_begun_again(spool_dir: Path) -> None:
    """Row 3, for threads: who was stopped, and comes back, finds that others have gone on."""
    given = context(spool_dir)
    assert given.spool is not None
    assert given.fanout is not None
    ran: list[str] = []
    with Worker(given.spool) as other:

        def stopped(state: Any, token: Any, job: JobFiles | None) -> Any:
            """While the other branch waits for this one's slot, a worker takes it."""
            assert job is not None
            theirs = JobFiles(job.path.replace("0000-a", "0001-b"))
            record = jobs.read_job(theirs)
            assert try_claim(theirs, 1, other.text)
            result = {"job": theirs.name, "attempt": 1, "input_sha256": record.input_sha256, "outcome": "succeeded"}
            more = {"success": True, "started": 1.0, "seconds": 0.5, "state": {"by": "another"}}
            assert jobs.finish(given.fanout, theirs, record, 1, {**result, **more})
            return {"by": "this"}

        flows = [Flow("a", stopped, "a"), flow("b", lambda state, token: ran.append("b"))]
        config = ParallelConfig(retry_policy=RetryPolicy(3, base_delay=0.0))
        results = ThreadExecutor(1, given).execute(flows, [{}, {}], config)
    assert [result.state for result in results] == [{"by": "this"}, {"by": "another"}]
    assert ran == []
    assert [path.name for path in Path(given.fanout.jobs).glob("*/claim.*")] == ["claim.1", "claim.1"]
