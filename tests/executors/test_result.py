from __future__ import annotations

import pickle
import sys
from typing import Any

import pytest

from executors.result import OUTCOMES, ParallelFlowResult, RetryExhaustedError


def error_from(function: Any) -> BaseException:
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError("no error")


class TestLikeADict:
    result = ParallelFlowResult.from_success("left", {"n": 1, "error": "mine"}, 12.5, retry_count=2)

    def test_fields_come_before_the_state(self) -> None:
        assert self.result["branch"] == "left"
        assert self.result["error"] is None
        assert self.result["state"] == {"n": 1, "error": "mine"}

    def test_other_keys_fall_through_to_the_state(self) -> None:
        assert self.result["n"] == 1
        assert self.result.get("n") == 1

    @pytest.mark.parametrize("key", ["job", "host", "outcome"])
    def test_names_that_workflows_had_before_belong_to_the_state(self, key: str) -> None:
        plain = ParallelFlowResult("b", True, {}, job="j", host="h")
        taken = ParallelFlowResult("b", True, {key: "the workflow's own"}, job="j", host="h")
        assert plain[key] == getattr(plain, key) == {"job": "j", "host": "h", "outcome": "succeeded"}[key]
        assert taken[key] == "the workflow's own"
        assert getattr(taken, key) == getattr(plain, key)

    def test_an_unknown_key_is_a_key_error(self) -> None:
        with pytest.raises(KeyError, match="nothing"):
            self.result["nothing"]
        assert self.result.get("nothing") is None
        assert self.result.get("nothing", 7) == 7
        assert ParallelFlowResult("b", False).get("n", 0) == 0

    def test_contains_and_keys_agree(self) -> None:
        assert "n" in self.result
        assert "timing_ms" in self.result
        assert "nothing" not in self.result
        assert all(key in self.result for key in self.result.keys())  # noqa: SIM118
        assert list(self.result) == self.result.keys()
        assert len(set(self.result.keys())) == len(self.result.keys())

    def test_it_can_become_a_dict(self) -> None:
        assert dict(self.result)["n"] == 1
        assert self.result.to_dict()["state"] == {"n": 1, "error": "mine"}
        assert ParallelFlowResult(**self.result.to_dict()) == self.result

    def test_a_state_may_be_missing(self) -> None:
        assert "n" not in ParallelFlowResult("b", False)
        assert "branch" in ParallelFlowResult("b", False)


class TestMakers:
    def test_success(self) -> None:
        result = ParallelFlowResult.from_success("b", {"x": 1}, 3.0, 1, "closed")
        assert (result.success, result.outcome, result.error, result.timeout) == (
            True,
            "succeeded",
            None,
            False,
        )
        assert (result.timing_ms, result.retry_count, result.circuit_state) == (3.0, 1, "closed")
        assert result.attempt_errors == []

    def test_error(self) -> None:
        errors = [{"attempt": 0, "error": "x"}]
        result = ParallelFlowResult.from_error("b", ValueError("bad"), {"x": 1}, 3.0, False, 1, errors, "open")
        assert (result.success, result.outcome, result.error, result.error_type) == (
            False,
            "failed",
            "bad",
            "ValueError",
        )
        assert result.traceback is None
        assert result.attempt_errors == errors

    def test_the_traceback_is_that_of_the_exception_wherever_it_is_asked_for(self) -> None:
        def culprit() -> None:
            raise ValueError("bad")

        error = error_from(culprit)
        result = ParallelFlowResult.from_error("b", error, None, 0.0, include_traceback=True)
        assert result.traceback is not None
        assert "in culprit" in result.traceback
        assert "ValueError: bad" in result.traceback

    def test_timeout(self) -> None:
        result = ParallelFlowResult.from_timeout("b", None, 2001.0, 2.0, 3)
        assert (result.success, result.timeout, result.outcome) == (False, True, "timed_out")
        assert (result.error, result.error_type) == ("Flow timed out after 2.0s", "TimeoutError")

    def test_circuit_open(self) -> None:
        result = ParallelFlowResult.from_circuit_open("b", "db")
        assert (result.success, result.outcome, result.circuit_state) == (False, "failed", "open")
        assert (result.error, result.error_type) == ("Circuit breaker 'db' is open", "CircuitOpenError")

    def test_errors_are_not_shared_between_results(self) -> None:
        one, other = ParallelFlowResult("a", False), ParallelFlowResult("b", False)
        one.attempt_errors.append({"error": "x"})
        assert other.attempt_errors == []


@pytest.mark.parametrize("outcome", sorted(OUTCOMES))
def test_an_outcome_that_is_given_stands(outcome: str) -> None:
    assert ParallelFlowResult("b", False, outcome=outcome).outcome == outcome


def test_an_outcome_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="'vanished'"):
        ParallelFlowResult("b", False, outcome="vanished")


def test_a_hundred_thousand_results_are_small() -> None:
    result = ParallelFlowResult.from_success("b", {}, 1.0)
    assert not hasattr(result, "__dict__")
    assert sys.getsizeof(result) + sys.getsizeof(result.attempt_errors) < 300


def test_results_and_errors_survive_pickling() -> None:
    result = ParallelFlowResult.from_timeout("b", {"x": 1}, 1.0, 1.0)
    assert pickle.loads(pickle.dumps(result)) == result
    error = pickle.loads(pickle.dumps(RetryExhaustedError("left", 4, [{"error": "x"}])))
    assert (error.branch, error.attempts, error.errors) == ("left", 4, [{"error": "x"}])
    assert str(error) == "All 4 retry attempts exhausted for branch 'left'"
