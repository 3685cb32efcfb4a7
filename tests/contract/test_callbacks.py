"""Callbacks: the same calls in the same order under every executor."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tea import CallbackManager
from tests.contract.world import WAIT, World


class Recorder:
    """Notes every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Any]] = []
        self.contexts: list[Any] = []
        self.lock = threading.Lock()

    def _note(self, name: str, context: Any, what: Any = None) -> None:
        with self.lock:
            self.calls.append((context.branch, name, what))
            self.contexts.append(context)

    def on_flow_start(self, context: Any) -> None:
        self._note("start", context)

    def on_flow_complete(self, context: Any, result: Any) -> None:
        self._note("complete", context, result.outcome)

    def on_flow_error(self, context: Any, error: BaseException, attempt: int) -> None:
        self._note("error", context, (str(error)[:10], attempt))

    def on_flow_timeout(self, context: Any, timeout_seconds: float) -> None:
        self._note("timeout", context, timeout_seconds)

    def on_flow_retry(self, context: Any, attempt: int, delay: float, error: BaseException) -> None:
        self._note("retry", context, (attempt, delay, str(error)[:10]))

    def on_circuit_state_change(self, context: Any, old: Any, new: Any) -> None:
        self._note("circuit", context, f"{old.value}-{new.value}")

    def of(self, branch: str) -> list[Any]:
        return [(name, what) for who, name, what in self.calls if who == branch]


def told(callback: object) -> CallbackManager:
    """Calls it in the thread that has the news, so that a call that comes late on a slow machine is not given up."""
    return CallbackManager([callback], timeout=None)


def test_what_is_called_for_what_becomes_of_a_branch(world: World) -> None:
    recorder = Recorder()
    flag = world.folder / "flag"
    flaky = f"import os\nif not os.path.exists({str(flag)!r}):\n    open({str(flag)!r}, 'x').close()\n"
    branches = {
        "good": "return {'x': 1}",
        "flaky": flaky + "    raise OSError('first time')",
        "bad": "raise OSError('every time')",
    }
    settings = {"retry": {"max_retries": 1, "base_delay": 0.02}}
    world.run(world.edges(branches, settings, parallel_callbacks=told(recorder)))
    assert recorder.of("good") == [("start", None), ("complete", "succeeded")]
    assert recorder.of("flaky") == [
        ("start", None),
        ("error", ("first time", 0)),
        ("retry", (1, 0.02, "first time")),
        ("complete", "succeeded"),
    ]
    assert recorder.of("bad") == [
        ("start", None),
        ("error", ("every time", 0)),
        ("retry", (1, 0.02, "every time")),
        ("error", ("every time", 1)),
        ("complete", "failed"),
    ]


def test_a_timeout(world: World) -> None:
    recorder = Recorder()
    world.run(world.edges({"slow": WAIT}, {"timeout_seconds": 0.3}, parallel_callbacks=told(recorder)))
    assert recorder.of("slow") == [
        ("start", None),
        ("error", ("Flow timed", 0)),
        ("timeout", 0.3),
        ("complete", "timed_out"),
    ]


def test_a_circuit_that_opens(world: World) -> None:
    recorder = Recorder()
    graph = world.edges(
        {"bad": "raise OSError('no')"},
        {"circuit_breaker": {"failure_threshold": 1}},
        parallel_callbacks=told(recorder),
    )
    world.run(graph)
    world.run(graph)
    assert recorder.of("bad") == [
        ("start", None),
        ("circuit", "closed-open"),
        ("error", ("no", 0)),
        ("complete", "failed"),
        ("complete", "failed"),  # refused: it never started
    ]


def test_contexts_say_what_the_branch_began_with(world: World) -> None:
    recorder = Recorder()
    graph = world.edges({"a": "state['x'].append(1)", "b": ""}, parallel_callbacks=told(recorder))
    world.run(graph, {"x": [0]})
    for context in recorder.contexts:
        assert context.fan_in_node == "join"
        assert context.state_snapshot == {"x": [0]}
        assert context.config.strategy == world.strategy
        assert context.start_time > 1e9
    assert sorted({context.branch for context in recorder.contexts}) == ["a", "b"]


def test_a_callback_that_fails_harms_nobody(world: World, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def on_flow_start(self, context: Any) -> None:
            raise RuntimeError("broken callback")

    ran = world.run(world.edges({"a": ""}, parallel_callbacks=told(Broken())))
    assert ran.column("success") == [True]
    assert "broken callback" in caplog.text


def test_branches_that_never_began_are_only_completed(world: World) -> None:
    from tea import CancellationToken

    recorder, token = Recorder(), CancellationToken()
    token.cancel()
    world.run(world.edges({"a": ""}, parallel_callbacks=told(recorder)), cancel_token=token)
    assert recorder.of("a") == [("complete", "cancelled")]
