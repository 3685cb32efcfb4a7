"""One attempt: whatever user code does becomes a result."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

from executors import attempt as attempts
from executors.attempt import NodeFailure, Ran, describe, error_types, run
from executors.state import BranchState


def tried(branch: Any, base: dict[str, Any] | None = None) -> Ran:
    return run(branch, BranchState(base or {}, {}))


def test_success() -> None:
    def branch(state: Any) -> Any:
        state["log"].append(1)
        del state["old"]
        state["new"] = 2
        return state

    ran = tried(branch, {"log": [], "old": 0, "same": []})
    assert (ran.result["outcome"], ran.result["success"], ran.error) == ("succeeded", True, None)
    assert (ran.changes, ran.removed) == ({"log": [1], "new": 2}, ["old"])
    assert ran.result["seconds"] >= 0


def test_a_function_that_returns_another_dict() -> None:
    """Its keys are the changes, together with what it changed in place."""

    def branch(state: Any) -> Any:
        state["log"].append(1)
        return {**state, "new": 2}

    assert tried(branch, {"log": [], "same": [1]}).changes == {"log": [1], "new": 2}


@pytest.mark.parametrize("value", [5, "text", [1]])
def test_a_function_that_returns_something_else_fails(value: Any) -> None:
    ran = tried(lambda state: value)
    assert ran.result["error_type"] == "TypeError"


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("even this fails")


def deep(state: Any) -> Any:
    return deep(state)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ValueError("x"), "ValueError", "x"),
        (ValueError(), "ValueError", "ValueError"),
        (SystemExit(3), "SystemExit", "the job called sys.exit(3)"),
        (KeyboardInterrupt(), "KeyboardInterrupt", "KeyboardInterrupt"),
        (Silent(), "Silent", "Silent"),
        (ValueError("\ud800"), "ValueError", "?"),
        (GeneratorExit(), "GeneratorExit", "GeneratorExit"),
    ],
)
def test_everything_that_is_raised_is_a_failure(error: BaseException, kind: str, text: str) -> None:
    def branch(state: Any) -> Any:
        state["half"] = 1
        raise error

    ran = tried(branch)
    assert (ran.result["outcome"], ran.result["error_type"], ran.result["error"]) == ("failed", kind, text)
    assert kind in ran.result["traceback"]
    assert ran.changes == {"half": 1}
    assert ran.error is error


def test_endless_recursion_is_a_failure_with_a_short_traceback() -> None:
    ran = tried(deep)
    assert ran.result["error_type"] == "RecursionError"
    assert len(ran.result["traceback"]) < 10_000


def test_the_exit_code_of_what_failed() -> None:
    assert tried(lambda state: sys.exit(7)).result["exit_code"] == 7
    assert "exit_code" not in tried(lambda state: sys.exit("words")).result


def test_a_nodes_failure_is_told_as_its_cause() -> None:
    cause = OSError("disk")

    def branch(state: Any) -> Any:
        raise NodeFailure("load", cause)

    ran = tried(branch)
    assert (ran.result["node"], ran.result["error"], ran.result["error_type"]) == ("load", "disk", "OSError")
    assert ran.error is cause
    assert str(NodeFailure("load", cause)) == "Error in node 'load': disk"


def test_classes_of_an_error() -> None:
    assert error_types(FileNotFoundError())[:2] == ["builtins.FileNotFoundError", "builtins.OSError"]
    assert "builtins.Exception" in attempts.TIMEOUT_TYPES
    assert describe(Silent()) == "Silent"


def test_a_state_that_cannot_be_compared_does_not_break_the_report() -> None:
    ran = tried(lambda state: state.update(lock=threading.Lock()))
    assert ran.result["success"]
