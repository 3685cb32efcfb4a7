"""What is told of a job, as a function of what is known."""

from __future__ import annotations

from typing import Any

import pytest

from spool.attempts import Policy
from spool.explain import explain
from spool.facts import Facts, Try

ME = "a@h:7:00000000"


def result(attempt: int = 1, outcome: str = "failed", **more: Any) -> dict[str, Any]:
    base = {
        "attempt": attempt,
        "outcome": outcome,
        "seconds": 0.5,
        "spent": 0.5,
        "error_types": ["builtins.ValueError"],
    }
    if outcome != "succeeded":
        base |= {"error": "no", "error_type": "ValueError"}
    return {**base, **more}


def told(**facts: Any) -> str:
    return "\n".join(explain(Facts("001-s/0-s", "r", **facts)).sentences)


def typed(**facts: Any) -> list[str]:
    return [text for text, _ in explain(Facts("001-s/0-s", "r", **facts)).next]


FAILED = Try(1, ME, result=result())
SUCCEEDED = Try(2, ME, result=result(2, "succeeded"))
RUNNING = Try(1, ME, alive=True)
LOST = Try(1, ME, alive=False)


class TestState:
    @pytest.mark.parametrize(
        ("facts", "state"),
        [
            ({}, "waiting"),
            ({"tries": (RUNNING,)}, "running"),
            ({"tries": (Try(1, ME, alive=True, stopped=True),)}, "stuck"),
            ({"tries": (LOST,)}, "waiting"),
            ({"tries": (FAILED,), "policy": Policy(max_retries=1)}, "backing off"),
            ({"tries": (FAILED,), "policy": Policy(max_retries=1), "waited": 2.0}, "waiting"),
            ({"tries": (FAILED,)}, "half finished"),
            ({"tries": (FAILED,), "accepted": result()}, "failed"),
            ({"tries": (FAILED,), "accepted": result(2, "cancelled")}, "cancelled"),
        ],
    )
    def test_state(self, facts: dict[str, Any], state: str) -> None:
        assert explain(Facts("001-s/0-s", "r", **facts)).state == state


class TestBackOff:
    def test_what_is_left_of_it(self) -> None:
        found = explain(Facts("j", "r", tries=(FAILED,), policy=Policy(max_retries=3, base_delay=8), waited=3.0))
        assert (found.back_off, found.retries_left) == (5.0, 2)
        assert found.sentences[0] == "It failed and is retried: attempt 2 may begin in 5 s."

    def test_nobody_will_retry_it(self) -> None:
        text = told(tries=(FAILED,), policy=Policy(max_retries=3, base_delay=8), run_state="stopped", driver="a@h:1")
        assert "Nobody drives its run (stopped; a@h:1 is gone)." in text


class TestWhyNoRetry:
    def test_none_is_allowed(self) -> None:
        assert "allows none (max_retries is 0)" in told(tries=(FAILED,), accepted=result())

    def test_all_are_used(self) -> None:
        tries = (FAILED, Try(2, ME, result=result(2)))
        text = told(tries=tries, accepted=result(2), policy=Policy(max_retries=1))
        assert "it has been retried once, as often as it may" in text

    def test_the_error_is_not_one_of_them(self) -> None:
        text = told(tries=(FAILED,), accepted=result(), policy=Policy(max_retries=5, retry_on=("builtins.OSError",)))
        assert "ValueError is none of the errors that are retried (builtins.OSError)" in text

    def test_the_time_is_used(self) -> None:
        text = told(tries=(FAILED,), accepted=result(), policy=Policy(max_retries=5, timeout_total=1.2))
        assert "may take 1.2 s together" in text


class TestLost:
    def test_one(self) -> None:
        text = told(tries=(LOST,))
        assert "It waits to run again, as attempt 2: attempt 1 was lost." in text
        assert "and was lost: that worker ended without a result" in text
        assert "It may lose 3 workers, and has lost 1." in text

    def test_too_many(self) -> None:
        found = explain(Facts("j", "r", tries=(LOST,), policy=Policy(max_lost=0)))
        assert "lost more workers than it may" in found.sentences[0]
        assert found.losses_left == 0

    def test_a_result_that_cannot_be_trusted_counts_as_absent(self) -> None:
        spoiled = Try(1, ME, alive=False, distrusted="result.1.json: empty")
        text = told(tries=(spoiled,), quarantined=("result.1.json.corrupt",))
        assert "its result counts as absent, and it as lost: result.1.json: empty" in text
        assert "Put aside, as they could not be trusted: result.1.json.corrupt." in text


class TestForgiven:
    def test_attempts_that_were_sent_back_do_not_count(self) -> None:
        tries = (Try(1, ME, result=result(), sent_back={"by": "bob", "at": 0.0}),)
        found = explain(Facts("j", "r", tries=tries, policy=Policy(max_retries=1)))
        assert (found.state, found.retries_left) == ("waiting", 1)
        assert any("bob sent it back at" in text for text in found.sentences)


class TestLimits:
    def test_of_a_running_attempt(self) -> None:
        running = Try(1, ME, claimed=100.0, alive=True)
        assert "30 s, of which 12 s are left" in told(tries=(running,), policy=Policy(timeout_seconds=30), now=118.0)
        assert "which is over" in told(tries=(running,), policy=Policy(timeout_seconds=30), now=140.0)


class TestNext:
    def test_a_failed_job(self) -> None:
        commands = typed(tries=(FAILED,), accepted=result(), run_state="done")
        assert commands == [
            "tea spool logs r/001-s/0-s",
            "tea spool replay r/001-s/0-s",
            "tea spool retry r/001-s/0-s",
        ]
        assert "tea spool retry r/001-s/0-s" not in typed(tries=(FAILED,), accepted=result())

    def test_a_job_of_a_run_that_nobody_drives(self) -> None:
        assert typed(run_state="stopped") == ["tea resume r"]
        assert typed(strategy="workers", workers=1) == ["tea worker"]
        assert typed() == []

    def test_damage(self) -> None:
        assert typed(quarantined=("result.1.json.corrupt",)) == ["tea spool doctor"]
