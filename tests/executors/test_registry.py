"""Which executors there are, and what they do with plain functions."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from executors.base import (
    FanOutContext,
    Flow,
    ParallelExecutor,
    UnknownStrategyError,
    as_flows,
    available_strategies,
    get_executor,
)
from executors.cancel import CancellationToken
from executors.policy import ParallelConfig, RetryPolicy
from executors.travel import PickleValidationError
from tests.support import wait_until

pytestmark = pytest.mark.usefixtures("no_leftovers")


@pytest.fixture(params=["thread", "process"])
def strategy(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return str(request.param)


def execute(strategy: str, flows: list[Any], states: list[Any], **config: Any) -> Any:
    return get_executor(strategy, max_workers=2).execute(flows, states, ParallelConfig(**config))


def test_built_in_strategies() -> None:
    assert {"thread", "process", "workers"} <= set(available_strategies())
    for name in ("thread", "process", "workers"):
        executor = get_executor(name, max_workers=3)
        assert isinstance(executor, ParallelExecutor)
        assert executor.strategy == name
    with pytest.raises(UnknownStrategyError, match="no strategy 'nope'"):
        get_executor("nope")


def test_plain_functions(strategy: str, tmp_path: Path) -> None:
    offset = 100
    flows = [lambda state: {"y": state["x"] + offset}, lambda state: {"y": state["x"] * 2}]
    results = execute(strategy, flows, [{"x": 1}, {"x": 2}])
    assert [result["y"] for result in results] == [101, 4]
    assert [result.branch for result in results] == ["flow_0", "flow_1"]
    assert [name for name in os.listdir(tmp_path) if name.startswith("tea-spool-")] == []


def test_nothing_goes_on_beating_when_the_fan_out_is_over() -> None:
    """The record of plain functions is a spool that goes with the call, and this process's work on it, too."""
    before = set(threading.enumerate())
    execute("process", [lambda state: None], [{}])
    wait_until(lambda: not [t for t in threading.enumerate() if t.name == "tea-beat" and t not in before])


def test_named_functions_give_their_name_to_the_branch(strategy: str) -> None:
    def load(state: Any) -> Any:
        raise OSError(state["x"])

    (result,) = execute(strategy, [load], [{"x": "no"}], retry_policy=RetryPolicy(1, base_delay=0))
    assert (result.branch, result.error, result.retry_count) == ("load", "no", 1)


def test_no_flows(strategy: str) -> None:
    assert execute(strategy, [], []) == []


def test_flows_and_states_must_match(strategy: str) -> None:
    with pytest.raises(ValueError, match="2 flows, but 1 states"):
        execute(strategy, [len, len], [{}])


def test_shared_values_are_isolated(strategy: str) -> None:
    shared = [0]
    flows = [lambda state: state["shared"].append(1), lambda state: {"n": len(state["shared"])}] * 2
    results = execute(strategy, flows, [{"shared": shared}] * 4)
    assert [result["shared"] for result in results] == [[0, 1], [0], [0, 1], [0]]
    assert shared == [0]


def test_a_state_that_cannot_travel(strategy: str) -> None:
    states = [{"ok": 1}, {"lock": threading.Lock()}]
    if strategy == "thread":
        assert execute(strategy, [lambda state: None] * 2, states)[1].success
        return
    with pytest.raises(PickleValidationError) as caught:
        execute(strategy, [lambda state: None] * 2, states)
    assert (caught.value.key, caught.value.flow_index) == ("lock", 1)


def test_a_token_that_is_cancelled(strategy: str, spool_dir: Path) -> None:
    token = CancellationToken()
    token.cancel()
    executor = get_executor(strategy, context=FanOutContext(token=token))
    results = executor.execute([lambda state: {"x": 1}] * 3, [{}] * 3, ParallelConfig())
    assert [result.outcome for result in results] == ["cancelled"] * 3


def test_the_first_failure_cancels_the_rest(strategy: str) -> None:
    def bad(state: Any) -> None:
        raise OSError("no")

    executor = get_executor(strategy, max_workers=1)
    results = executor.execute([bad, *[_wait] * 5], [{}] * 6, ParallelConfig(fail_fast=True, grace_seconds=0.1))
    assert [result.outcome for result in results] == ["failed", *["cancelled"] * 5]


def _wait(state: Any) -> None:
    threading.Event().wait(240)


def test_flows_are_callables_too() -> None:
    flow = Flow("a", lambda state, token, job: {**state, "token": token.is_cancelled(), "job": job})
    assert flow({"x": 1}) == {"x": 1, "token": False, "job": None}
    assert as_flows([flow])[0] is flow
