"""A fan-out that is taken up again: what ended before is told to nobody twice, and counted once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from executors.base import FanOutContext, Flow
from executors.board import Board
from executors.callbacks import CallbackManager
from executors.policy import CircuitBreakerConfig, ParallelConfig, RetryPolicy
from executors.process import ProcessExecutor
from executors.thread import ThreadExecutor
from spool import job as jobs
from spool.attempts import Outcome
from spool.claim import try_claim
from spool.layout import FanOutFiles
from spool.run import create_fanout, open_spool

pytestmark = pytest.mark.usefixtures("no_leftovers")

BRANCHES = ("done", "failed_once", "waits")
STATES = [{"i": i} for i in range(len(BRANCHES))]


class Recorder:
    """Notes what it is told: the method, the branch and the numbers."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda context, *_: self.told.append((name, context.branch))


def earlier_life(spool: Path, config: ParallelConfig) -> FanOutFiles:
    """A coordinator that was killed when one branch was done, and the first attempt at another had failed."""
    fanout = create_fanout(f"{spool}/runs", 1, "src")
    context = FanOutContext(spool=open_spool(str(spool)), fanout=fanout)
    board = Board([Flow(name, lambda *_: None, name) for name in BRANCHES], STATES, config, context, carry=True)
    board.prepare()
    for i in range(3):
        board.create(i)
    for i, ok in ((0, True), (1, False)):
        job, record = board.job(i), board.record(i)
        assert try_claim(job, 1, "me@here:1:abc")
        ended: dict[str, Any] = {"outcome": "succeeded" if ok else "failed", "success": ok}
        if not ok:
            ended.update(error="the first time", error_type="OSError", error_types=["builtins.OSError"])
        mine = {"job": job.name, "attempt": 1, "input_sha256": record.input_sha256}
        jobs.finish(fanout, job, record, 1, {**mine, **ended, "started": 1.0, "seconds": 0.5, "state": {}})
        board.circuits.count(i, Outcome(ended["outcome"]))
    return fanout


def next_life(strategy: str, spool: Path, fanout: FanOutFiles, config: ParallelConfig, second: Any) -> Any:
    """Drive the fan-out to its end; the results, what callbacks were told, and the circuits."""
    flows = [lambda state: {}, second, lambda state: {}]
    recorder = Recorder()
    context = FanOutContext(
        spool=open_spool(str(spool)),
        fanout=fanout,
        runtime=cloudpickle.dumps(flows),
        callbacks=CallbackManager([recorder], timeout=None),
    )
    if Path(fanout.breaker).exists():
        context.breakers.restore(json.loads(Path(fanout.breaker).read_bytes())["circuits"])
    named = [
        Flow(name, lambda state, _token, _job, run=run: run(state), name)
        for name, run in zip(BRANCHES, flows, strict=True)
    ]
    executor = ThreadExecutor if strategy == "thread" else ProcessExecutor
    results = executor(1, context).execute(named, STATES, config)
    return results, recorder.told, context.breakers.get_circuit_states()


@pytest.mark.parametrize("strategy", ["thread", "process"])
def test_callbacks_hear_only_of_what_happens_now(spool_dir: Path, strategy: str) -> None:
    config = ParallelConfig(retry_policy=RetryPolicy(1, base_delay=0))
    fanout = earlier_life(spool_dir, config)
    results, told, _ = next_life(strategy, spool_dir, fanout, config, lambda state: {})
    assert [result.outcome for result in results] == ["succeeded"] * 3
    for branch in BRANCHES[1:]:
        assert [event for event, of in told if of == branch] == ["on_flow_start", "on_flow_complete"]
    assert not [event for event, of in told if of == "done"]
    again = results[1]
    assert (again.retry_count, [one["error"] for one in again.attempt_errors]) == (1, ["the first time"])


@pytest.mark.parametrize("strategy", ["thread", "process"])
@pytest.mark.parametrize(("threshold", "state"), [(1, "open"), (2, "open"), (3, "closed")])
def test_a_circuit_counts_a_failure_once(spool_dir: Path, strategy: str, threshold: int, state: str) -> None:
    circuit = CircuitBreakerConfig(failure_threshold=threshold, reset_timeout=60)
    config = ParallelConfig(retry_policy=RetryPolicy(1, base_delay=0), circuit_breaker=circuit)
    fanout = earlier_life(spool_dir, config)

    def fails(_state: Any) -> None:
        raise OSError("the second time")

    results, _, circuits = next_life(strategy, spool_dir, fanout, config, fails)
    assert [one["error"] for one in results[1].attempt_errors] == ["the first time", "the second time"]
    assert (circuits["failed_once"]["failure_count"], circuits["failed_once"]["state"]) == (2, state)
