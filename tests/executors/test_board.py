"""The coordinator's side of a fan-out: names, results, circuits."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from executors import board as boards
from executors.base import FanOutContext, Flow
from executors.board import Board
from executors.branches import policy_of
from executors.policy import CircuitBreakerConfig, ParallelConfig, RetryPolicy
from spool import job as jobs
from spool.attempts import Outcome
from spool.claim import try_claim
from spool.layout import JobFiles
from spool.run import create_fanout, open_spool


def board(folder: Path | None, count: int = 3, config: ParallelConfig | None = None, **more: Any) -> Board:
    given = FanOutContext(**more)
    if folder is not None:
        given.spool, given.fanout = open_spool(str(folder)), create_fanout(f"{folder}/runs", 1, "src")
    flows = [Flow(f"b{i}", lambda state, token, job: state, f"b{i}") for i in range(count)]
    made = Board(flows, [{"x": 1, "i": i} for i in range(count)], config or ParallelConfig(), given, carry=True)
    made.prepare()
    return made


def finish(made: Board, i: int, **members: Any) -> None:
    job, record = made.job(i), made.record(i)
    assert try_claim(job, 1, "me@here:1:abc")
    result = {
        "job": job.name,
        "attempt": 1,
        "input_sha256": record.input_sha256,
        "outcome": "succeeded",
        "success": True,
        "started": 1.0,
        "seconds": 0.5,
        "state": {"y": i},
        **members,
    }
    jobs.finish(made.fanout, job, record, 1, result)


def test_names_sort_like_branches_and_are_known_again(spool_dir: Path) -> None:
    made = board(spool_dir, 12)
    names = [made.name(i) for i in range(12)]
    assert names == sorted(names)
    assert [made.index(name) for name in names] == list(range(12))
    for other in ("0099-b1", "0000-b1", "nonsense", "", "-1-b0"):
        assert made.index(other) is None


def test_results_are_collected_once(spool_dir: Path) -> None:
    seen: list[int] = []
    made = board(spool_dir, on_result=lambda i, result: seen.append(i))
    for i in range(3):
        assert made.create(i)
        assert not made.collect(i)
        finish(made, i)
        assert made.collect(i)
        assert made.collect(i)
    assert (made.complete, made.collected, seen) == (True, 3, [0, 1, 2])
    assert [result.state for result in made.results if result] == [{"x": 1, "i": i, "y": i} for i in range(3)]
    assert not made.create(0)


def test_a_result_that_cannot_be_trusted_counts_as_absent(spool_dir: Path) -> None:
    made = board(spool_dir, 1)
    made.create(0)
    finish(made, 0)
    path = Path(made.job(0).accepted)
    os.unlink(path)
    path.write_text('{"job": "another", "attempt": 1}')
    path.chmod(0o600)
    assert not made.collect(0)
    assert not path.exists()
    assert Path(f"{path}.corrupt").exists()


def test_removed_keys_and_missing_states(spool_dir: Path) -> None:
    made = board(spool_dir, 2)
    for i in range(2):
        made.create(i)
    finish(made, 0, removed=["x"])
    assert made.collect(0)
    assert made.results[0].state == {"i": 0, "y": 0}  # type: ignore[union-attr]
    made.end(1, "me@here:1:abc", Outcome.CANCELLED, "CancelledError", "enough")
    assert made.results[1].state is None  # type: ignore[union-attr]
    assert made.results[1].error == "enough"  # type: ignore[union-attr]


def test_a_branch_that_has_a_result_cannot_be_ended(spool_dir: Path) -> None:
    made = board(spool_dir, 1)
    made.create(0)
    finish(made, 0)
    made.end(0, "me@here:1:abc", Outcome.CANCELLED, "CancelledError", "late")
    assert made.results[0].success  # type: ignore[union-attr]


def test_a_branch_that_a_worker_claims_just_then_is_ended_all_the_same(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker comes between the look at the job and the claim; what it brings later comes too late."""
    made = board(spool_dir, 1)
    made.create(0)

    def after_a_worker(job: JobFiles, attempt: int, claimant: str) -> bool:
        try_claim(job, 1, "me@there:2:abcdef01")
        return try_claim(job, attempt, claimant)

    monkeypatch.setattr(boards, "try_claim", after_a_worker)
    made.end(0, "me@here:1:abcdef01", Outcome.CANCELLED, "CancelledError", "enough")
    assert made.results[0] is not None
    assert (made.results[0].outcome, made.results[0].error) == ("cancelled", "enough")
    assert sorted(path.name for path in Path(made.job(0).path).glob("claim.*")) == ["claim.1", "claim.2"]


def test_fail_fast_stops_and_the_user_may_too() -> None:
    made = board(None, 2, ParallelConfig(fail_fast=True))
    assert made.should_stop is None
    made.end(0, "", Outcome.FAILED, "OSError", "no")
    assert "fail_fast, and branch 'b0' failed" in str(made.should_stop)
    made.context.token.cancel()
    assert made.should_stop == "cancelled"


def test_circuits_count_attempts_and_forget_cancelled_ones() -> None:
    config = ParallelConfig(circuit_breaker=CircuitBreakerConfig(failure_threshold=1, reset_timeout=0.0))
    made = board(None, 1, config)
    assert made.circuits.count(0, Outcome.FAILED) == "open"
    assert made.circuits.admits(0)
    assert not made.circuits.admits(0)
    assert made.circuits.count(0, Outcome.CANCELLED) == "half_open"
    assert made.circuits.admits(0)
    assert made.circuits.count(0, Outcome.SUCCEEDED) == "closed"
    assert board(None).circuits.count(0, Outcome.FAILED) is None


def test_the_policy_stands_in_the_job(spool_dir: Path) -> None:
    config = ParallelConfig(timeout_seconds=5, retry_policy=RetryPolicy(2, retry_on={OSError, KeyError}))
    made = board(spool_dir, 1, config)
    made.create(0)
    policy = json.loads(Path(made.job(0).job).read_bytes())["policy"]
    assert policy == {
        "max_retries": 2,
        "timeout_seconds": 5.0,
        "retry_on": ["builtins.KeyError", "builtins.OSError"],
    }
    assert made.record(0).policy == policy_of(config)


def test_a_shared_state_that_is_big_is_written_once(spool_dir: Path) -> None:
    given = FanOutContext(spool=open_spool(str(spool_dir)), fanout=create_fanout(f"{spool_dir}/runs", 1, "src"))
    big = ["x" * 100] * 100
    flows = [Flow("b", lambda state, token, job: state)] * 5
    made = Board(flows, [{"big": big, "i": i} for i in range(5)], ParallelConfig(), given, carry=True)
    made.prepare()
    for i in range(5):
        made.create(i)
    assert {os.stat(made.job(i).base).st_ino for i in range(5)} == {os.stat(made.fanout.state).st_ino}


@pytest.mark.parametrize("count", [0, 2])
def test_as_many_states_as_flows(count: int) -> None:
    with pytest.raises(ValueError, match=f"1 flows, but {count} states"):
        Board([len], [{}] * count, ParallelConfig(), FanOutContext(), carry=False)
