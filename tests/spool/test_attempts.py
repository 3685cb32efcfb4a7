"""Which attempt is next: the table of states, without a disk."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spool.attempts import TICKET_OF, Attempt, Ended, Outcome, Policy, Verdict, decide, may_retry
from spool.layout import TICKETS
from tests.spool.kit import ALICE, BOB, everybody, nobody

FREE, RUNNING, WAITING, FINISHED, GIVEN_UP = (
    Verdict.FREE,
    Verdict.RUNNING,
    Verdict.WAITING,
    Verdict.FINISHED,
    Verdict.GIVEN_UP,
)
ok, bad, late, lost, cancelled = (
    Ended(Outcome.SUCCEEDED),
    Ended(Outcome.FAILED, ("builtins.ValueError", "builtins.Exception")),
    Ended(Outcome.TIMED_OUT, ("builtins.TimeoutError", "builtins.OSError")),
    Ended(Outcome.LOST),
    Ended(Outcome.CANCELLED),
)


def listing(*ends: Ended | None) -> list[Attempt]:
    return [Attempt(number, ALICE, end) for number, end in enumerate(ends, 1)]


TABLE = [
    # ends of the attempts so far, policy, alive, verdict, attempt, failures, lost
    ([], Policy(), False, FREE, 1, 0, 0),
    ([ok], Policy(), False, FINISHED, 1, 0, 0),
    ([ok], Policy(max_retries=9), True, FINISHED, 1, 0, 0),
    ([None], Policy(), True, RUNNING, 1, 0, 0),
    ([None], Policy(), False, FREE, 2, 0, 1),
    ([None], Policy(max_lost=0), False, GIVEN_UP, 2, 0, 1),
    ([None] * 3, Policy(), False, FREE, 4, 0, 3),
    ([None] * 3, Policy(), True, RUNNING, 3, 0, 2),
    ([None] * 4, Policy(), False, GIVEN_UP, 5, 0, 4),
    ([None] * 5, Policy(), False, GIVEN_UP, 6, 0, 5),  # who gave up died before it could say so
    ([None] * 4 + [lost], Policy(max_retries=9), False, FINISHED, 5, 0, 4),
    ([bad], Policy(), False, FINISHED, 1, 1, 0),
    ([late], Policy(), False, FINISHED, 1, 1, 0),
    ([cancelled], Policy(max_retries=9), False, FINISHED, 1, 0, 0),
    ([bad], Policy(max_retries=1), False, FREE, 2, 1, 0),
    ([late], Policy(max_retries=1), False, FREE, 2, 1, 0),
    ([bad, bad], Policy(max_retries=1), False, FINISHED, 2, 2, 0),
    ([bad, ok], Policy(max_retries=1), False, FINISHED, 2, 1, 0),
    ([bad, None], Policy(max_retries=1), True, RUNNING, 2, 1, 0),
    # lost workers and failures are counted apart
    ([None, None, None, bad], Policy(max_retries=1), False, FREE, 5, 1, 3),
    ([None, None, None, bad, bad], Policy(max_retries=1), False, FINISHED, 5, 2, 3),
    ([bad, bad, None], Policy(max_retries=2, max_lost=1), False, FREE, 4, 2, 1),
    ([bad, None, None], Policy(max_retries=2, max_lost=1), False, GIVEN_UP, 4, 1, 2),
    # which errors may be tried again
    ([bad], Policy(max_retries=1, retry_on=("builtins.ValueError",)), False, FREE, 2, 1, 0),
    ([bad], Policy(max_retries=1, retry_on=("builtins.Exception",)), False, FREE, 2, 1, 0),
    ([bad], Policy(max_retries=1, retry_on=("builtins.KeyError",)), False, FINISHED, 1, 1, 0),
    ([bad], Policy(max_retries=1, retry_on=()), False, FINISHED, 1, 1, 0),
]


@pytest.mark.parametrize(("ends", "policy", "alive", "verdict", "attempt", "failures", "gone"), TABLE)
def test_the_table(
    ends: list[Ended | None], policy: Policy, alive: bool, verdict: Verdict, attempt: int, failures: int, gone: int
) -> None:
    decision = decide(listing(*ends), policy, lambda _: alive)
    assert (decision.verdict, decision.attempt) == (verdict, attempt)
    assert (decision.failures, decision.lost) == (failures, gone)


def test_only_the_newest_claimant_is_asked_for_and_only_without_a_result() -> None:
    asked: list[str] = []

    def is_alive(text: str) -> bool:
        asked.append(text)
        return True

    decide([Attempt(1, ALICE), Attempt(2, BOB)], Policy(), is_alive)
    assert asked == [BOB]
    decide([Attempt(1, ALICE), Attempt(2, BOB, ok)], Policy(), is_alive)
    assert asked == [BOB]


# -- back-off ---------------------------------------------------------------------------------------------------


def test_delays_grow_up_to_their_limit() -> None:
    policy = Policy(base_delay=1.0, backoff_multiplier=3.0, max_delay=20.0)
    assert [policy.delay(n) for n in range(1, 6)] == [1.0, 3.0, 9.0, 20.0, 20.0]
    assert Policy(backoff_multiplier=10.0).delay(100_000) == 60.0


@pytest.mark.parametrize(
    ("waited", "verdict"), [(0.0, WAITING), (1.999, WAITING), (2.0, FREE), (2.001, FREE), (float("inf"), FREE)]
)
def test_an_attempt_is_free_when_its_delay_has_passed_and_not_before(waited: float, verdict: Verdict) -> None:
    policy = Policy(max_retries=2, base_delay=1.0)
    decision = decide(listing(bad, bad), policy, nobody, waited)
    assert (decision.verdict, decision.attempt, decision.delay) == (verdict, 3, 2.0)


def test_without_a_delay_nobody_waits() -> None:
    assert decide(listing(bad), Policy(max_retries=1, base_delay=0.0), nobody, 0.0).verdict is FREE


def test_lost_attempts_are_tried_again_at_once() -> None:
    decision = decide(listing(bad, None), Policy(max_retries=1), nobody, 0.0)
    assert (decision.verdict, decision.delay) == (FREE, 0.0)


# -- the budget of all attempts together ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spent", "total", "again"),
    [(1.0, 10.0, True), (8.99, 10.0, True), (9.0, 10.0, False), (12.0, 10.0, False), (1e9, None, True)],
)
def test_no_attempt_follows_that_could_only_begin_after_the_total(
    spent: float, total: float | None, again: bool
) -> None:
    policy = Policy(max_retries=3, base_delay=1.0, timeout_total=total)
    assert may_retry(policy, Ended(Outcome.FAILED, spent=spent), 1) is again


def test_what_was_spent_includes_the_wait() -> None:
    policy = Policy(max_retries=3, base_delay=1.0)
    ends = listing(Ended(Outcome.FAILED, spent=2.5), Ended(Outcome.FAILED, spent=7.0))
    assert decide(ends, policy, nobody).spent == 9.0
    assert decide(ends, policy, nobody, 0.0).spent == 7.0
    assert decide([*ends, Attempt(3, ALICE)], policy, everybody).spent == 7.0


# -- sent back by a person --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ends", "forgiven", "verdict", "attempt"),
    [
        ([bad], 1, FREE, 2),
        ([bad, bad], 1, FINISHED, 2),
        ([bad, bad], 2, FREE, 3),
        ([None] * 4, 4, FREE, 5),
        ([ok], 1, FREE, 2),
        ([lost], 1, FREE, 2),
    ],
)
def test_attempts_that_were_sent_back_count_no_more(
    ends: list[Ended | None], forgiven: int, verdict: Verdict, attempt: int
) -> None:
    decision = decide(listing(*ends), Policy(), nobody, forgiven=forgiven)
    assert (decision.verdict, decision.attempt) == (verdict, attempt)


def test_an_attempt_that_runs_runs_on_when_it_was_sent_back() -> None:
    decision = decide(listing(None), Policy(), everybody, forgiven=1)
    assert (decision.verdict, decision.attempt, decision.lost) == (RUNNING, 1, 0)


# -- properties -------------------------------------------------------------------------------------------------

ends = st.builds(
    Ended,
    st.sampled_from(Outcome),
    st.lists(st.sampled_from(["a.A", "b.B"]), max_size=2).map(tuple),
    st.floats(0, 1e6),
)
policies = st.builds(
    Policy,
    max_retries=st.integers(0, 4),
    base_delay=st.floats(0, 100),
    max_delay=st.floats(0, 100),
    backoff_multiplier=st.floats(0, 100),
    timeout_seconds=st.none() | st.floats(0, 1e6),
    timeout_total=st.none() | st.floats(0, 1e6),
    max_lost=st.integers(0, 4),
    retry_on=st.none() | st.lists(st.sampled_from(["a.A", "b.B", "c.C"]), max_size=2).map(tuple),
)
listings = st.lists(st.none() | ends, max_size=8).map(lambda items: listing(*items))


@given(listings, policies, st.booleans(), st.floats(0, 1000), st.integers(0, 9))
def test_numbers_only_grow_and_counts_are_right(
    attempts: list[Attempt], policy: Policy, alive: bool, waited: float, forgiven: int
) -> None:
    decision = decide(attempts, policy, lambda _: alive, waited, forgiven)
    newest = attempts[-1].number if attempts else 0
    new = decision.verdict in (FREE, WAITING, GIVEN_UP)
    assert decision.attempt == newest + new
    assert 0 <= decision.failures <= len(attempts)
    assert 0 <= decision.lost <= len(attempts)
    assert decision.failures + decision.lost <= len(attempts)
    assert decision.delay <= policy.max_delay
    if decision.verdict is FREE and attempts and not forgiven:
        if attempts[-1].ended is None:
            assert decision.lost <= policy.max_lost
        else:
            assert decision.failures <= policy.max_retries


@given(listings, policies, st.booleans())
def test_waiting_ends(attempts: list[Attempt], policy: Policy, alive: bool) -> None:
    now = decide(attempts, policy, lambda _: alive, 0.0)
    then = decide(attempts, policy, lambda _: alive)
    assert then.verdict is not WAITING
    if now.verdict is WAITING:
        assert (then.verdict, then.attempt, then.delay) == (FREE, now.attempt, now.delay)
    else:
        assert now == then


@given(st.lists(st.none() | ends, max_size=40), policies)
def test_every_job_ends_whatever_happens_to_its_attempts(fates: list[Ended | None], policy: Policy) -> None:
    attempts: list[Attempt] = []
    for fate in fates:
        decision = decide(attempts, policy, nobody)
        if decision.verdict is not FREE:
            break
        attempts.append(Attempt(decision.attempt, ALICE, fate))
    assert len(attempts) <= policy.max_retries + policy.max_lost + 2


@given(ends, policies, st.integers(1, 9))
def test_a_success_is_final_and_more_failures_never_allow_more(end: Ended, policy: Policy, failures: int) -> None:
    if end.outcome in (Outcome.SUCCEEDED, Outcome.LOST, Outcome.CANCELLED):
        assert not may_retry(policy, end, failures)
    assume(policy.backoff_multiplier >= 1)
    if may_retry(policy, end, failures + 1):
        assert may_retry(policy, end, failures)


# -- on disk ----------------------------------------------------------------------------------------------------


@given(policies)
def test_a_policy_is_read_as_it_was_written(policy: Policy) -> None:
    assert Policy.from_json(json.loads(json.dumps(policy.to_json()))) == policy
    assert Policy.from_json(policy.to_json()) == policy


def test_a_policy_is_written_in_short() -> None:
    assert Policy().to_json() == {}
    assert Policy(max_retries=2).to_json() == {"max_retries": 2}


@pytest.mark.parametrize(
    "data",
    [
        {"max_retry": 1},
        {"max_retries": "1"},
        {"max_retries": 1.5},
        {"max_retries": True},
        {"max_lost": None},
        {"base_delay": "x"},
        {"base_delay": None},
        {"retry_on": "KeyError"},
        {"retry_on": [1]},
        {"timeout_total": []},
        {"timeout_seconds": False},
    ],
)
def test_a_policy_that_is_none_of_ours_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        Policy.from_json(data)


def test_every_outcome_has_a_folder_for_its_ticket() -> None:
    assert set(TICKET_OF) == set(Outcome)
    assert set(TICKET_OF.values()) == set(TICKETS) - {"todo"}
