from __future__ import annotations

import json
import logging
import pickle
import threading
import time
from collections import Counter
from functools import partial

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from executors.breaker import (
    CircuitBreaker,
    CircuitBreakerRegistry,
    CircuitOpenError,
    CircuitState,
)
from executors.policy import CircuitBreakerConfig

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


class FakeClock:
    """Seconds that pass when told to. Starts where no real clock is, so that mixing them up shows."""

    def __init__(self) -> None:
        self.now = 5e8

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def breaker_on(clock: FakeClock, threshold: int = 3, reset: float = 30, trials: int = 1) -> CircuitBreaker:
    return CircuitBreaker(CircuitBreakerConfig(threshold, reset, trials), "db", clock)


def note(heard: list[CircuitState], old: CircuitState, new: CircuitState) -> None:
    heard.append(new)


def fail(breaker: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        breaker.record_failure()


class TestTransitions:
    def test_it_opens_at_the_threshold_and_not_before(self, clock: FakeClock) -> None:
        breaker = breaker_on(clock, threshold=3)
        fail(breaker, 2)
        assert (breaker.state, breaker.failure_count, breaker.allow_request()) == (CLOSED, 2, True)
        fail(breaker, 1)
        assert (breaker.state, breaker.failure_count, breaker.allow_request()) == (OPEN, 3, False)

    def test_a_success_forgets_earlier_failures(self, clock: FakeClock) -> None:
        breaker = breaker_on(clock, threshold=3)
        fail(breaker, 2)
        breaker.record_success()
        fail(breaker, 2)
        assert breaker.state is CLOSED

    def test_time_alone_changes_nothing_only_a_request_does(self, clock: FakeClock) -> None:
        breaker = breaker_on(clock, threshold=1, reset=30)
        fail(breaker, 1)
        clock.now += 29.999
        assert not breaker.allow_request()
        clock.now += 0.001
        assert breaker.state is OPEN
        assert breaker.allow_request()
        assert breaker.state is HALF_OPEN

    def test_half_open_lets_only_so_many_through(self, clock: FakeClock) -> None:
        breaker = breaker_on(clock, threshold=1, reset=30, trials=2)
        fail(breaker, 1)
        clock.now += 30
        assert [breaker.allow_request() for _ in range(4)] == [True, True, False, False]

    def test_a_good_trial_closes(self, clock: FakeClock) -> None:
        breaker = breaker_on(clock, threshold=1)
        fail(breaker, 1)
        clock.now += 30
        breaker.allow_request()
        breaker.record_success()
        assert (breaker.state, breaker.failure_count) == (CLOSED, 0)

    def test_a_bad_trial_opens_for_the_whole_time_again(self, clock: FakeClock) -> None:
        breaker = breaker_on(clock, threshold=5, reset=30)
        fail(breaker, 5)
        clock.now += 30
        breaker.allow_request()
        fail(breaker, 1)
        assert breaker.state is OPEN
        clock.now += 29
        assert not breaker.allow_request()
        clock.now += 1
        assert breaker.allow_request()

    def test_a_late_success_does_not_close_an_open_circuit(self, clock: FakeClock) -> None:
        breaker = breaker_on(clock, threshold=1)
        fail(breaker, 1)
        breaker.record_success()
        assert breaker.state is OPEN

    def test_a_trial_without_a_verdict_gives_its_place_back(self, clock: FakeClock) -> None:
        breaker = breaker_on(clock, threshold=1)
        fail(breaker, 1)
        clock.now += 30
        assert breaker.allow_request()
        assert not breaker.allow_request()
        breaker.release()
        assert breaker.allow_request()

    def test_reset_closes_and_forgets(self, clock: FakeClock) -> None:
        breaker = breaker_on(clock, threshold=1)
        fail(breaker, 1)
        breaker.reset()
        assert breaker.allow_request()
        assert breaker.get_state_info() == {
            "name": "db",
            "state": "closed",
            "failure_count": 0,
            "last_failure_time": None,
            "half_open_calls": 0,
            "half_open_active": 0,
        }

    def test_state_info_is_for_people(self, clock: FakeClock) -> None:
        breaker = breaker_on(clock, threshold=1)
        fail(breaker, 1)
        clock.now += 30
        breaker.allow_request()
        info = breaker.get_state_info()
        assert (info["state"], info["half_open_calls"], info["half_open_active"]) == ("half_open", 1, 1)
        assert abs(info["last_failure_time"] - time.time()) < 60, "a time of day, not the breaker's own clock"


class TestCallbacks:
    def test_they_hear_every_change_in_order(self, clock: FakeClock) -> None:
        breaker = breaker_on(clock, threshold=1)
        heard: list[tuple[CircuitState, CircuitState]] = []
        breaker.add_state_change_callback(lambda old, new: heard.append((old, new)))
        breaker.record_success()
        fail(breaker, 2)
        clock.now += 30
        breaker.allow_request()
        fail(breaker, 1)
        breaker.reset()
        breaker.reset()
        assert heard == [(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, OPEN), (OPEN, CLOSED)]

    def test_a_callback_that_fails_is_logged_and_the_next_one_still_called(
        self, clock: FakeClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        breaker = breaker_on(clock, threshold=1)
        heard: list[CircuitState] = []

        def broken(old: CircuitState, new: CircuitState) -> None:
            raise RuntimeError("listener is broken")

        breaker.add_state_change_callback(broken)
        breaker.add_state_change_callback(lambda old, new: heard.append(new))
        with caplog.at_level(logging.WARNING):
            breaker.record_failure()
        assert heard == [OPEN]
        assert "listener is broken" in caplog.text

    def test_a_callback_may_use_the_breaker(self, clock: FakeClock) -> None:
        breaker = breaker_on(clock, threshold=1)
        breaker.add_state_change_callback(lambda old, new: breaker.reset() if new is OPEN else None)
        worker = threading.Thread(target=breaker.record_failure, daemon=True)
        worker.start()
        worker.join(240)
        assert not worker.is_alive(), "the callback was called with the lock held"
        assert breaker.state is CLOSED


class TestThreads:
    def test_no_failure_is_lost(self) -> None:
        breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=8 * 500 + 1))
        threads = [threading.Thread(target=fail, args=(breaker, 500)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert breaker.failure_count == 8 * 500

    def test_only_the_allowed_number_of_trials_wins_the_race(self, clock: FakeClock) -> None:
        for _ in range(50):
            breaker = breaker_on(clock, threshold=1, reset=0, trials=3)
            opened: list[CircuitState] = []
            breaker.add_state_change_callback(partial(note, opened))
            fail(breaker, 1)
            answers: list[bool] = []
            barrier = threading.Barrier(8)

            def ask(
                breaker: CircuitBreaker = breaker,
                barrier: threading.Barrier = barrier,
                answers: list[bool] = answers,
            ) -> None:
                barrier.wait(240)
                answers.append(breaker.allow_request())

            threads = [threading.Thread(target=ask) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert Counter(answers) == {True: 3, False: 5}
            assert opened == [OPEN, HALF_OPEN]


class TestJson:
    def roundtrip(self, breaker: CircuitBreaker, clock: FakeClock) -> CircuitBreaker:
        return CircuitBreaker.from_json(json.loads(json.dumps(breaker.to_json())), clock)

    def test_an_open_circuit_waits_out_the_rest_on_another_clock(self, clock: FakeClock) -> None:
        breaker = breaker_on(clock, threshold=1, reset=30)
        fail(breaker, 1)
        clock.now += 20
        elsewhere = FakeClock()
        elsewhere.now = 7.0
        restored = self.roundtrip(breaker, elsewhere)
        assert (restored.name, restored.state, restored.failure_count) == ("db", OPEN, 1)
        elsewhere.now += 9.9
        assert not restored.allow_request()
        elsewhere.now += 0.2
        assert restored.allow_request()

    def test_half_open_forgets_trials_whose_callers_are_gone(self, clock: FakeClock) -> None:
        breaker = breaker_on(clock, threshold=1)
        fail(breaker, 1)
        clock.now += 30
        breaker.allow_request()
        restored = self.roundtrip(breaker, clock)
        assert restored.state is HALF_OPEN
        assert restored.allow_request()

    def test_a_closed_circuit_keeps_counting(self, clock: FakeClock) -> None:
        breaker = breaker_on(clock, threshold=3)
        fail(breaker, 2)
        restored = self.roundtrip(breaker, clock)
        fail(restored, 1)
        assert restored.state is OPEN

    def test_no_clock_value_is_written(self, clock: FakeClock) -> None:
        breaker = breaker_on(clock, threshold=1, reset=30)
        fail(breaker, 1)
        assert breaker.to_json()["open_remaining"] == 30
        assert str(int(clock.now)) not in json.dumps(breaker.to_json())

    def test_a_forged_waiting_time_is_capped(self, clock: FakeClock) -> None:
        breaker = breaker_on(clock, threshold=1, reset=30)
        fail(breaker, 1)
        restored = CircuitBreaker.from_json({**breaker.to_json(), "open_remaining": 1e9}, clock)
        clock.now += 30
        assert restored.allow_request()

    @pytest.mark.parametrize("change", [{"state": "ajar"}, {"config": {"thresold": 1}}])
    def test_nonsense_is_refused(self, clock: FakeClock, change: dict[str, object]) -> None:
        with pytest.raises(ValueError, match=r"ajar|thresold"):
            CircuitBreaker.from_json({**breaker_on(clock).to_json(), **change}, clock)


class TestRegistry:
    def test_one_breaker_for_one_name(self) -> None:
        registry = CircuitBreakerRegistry()
        first = registry.get_or_create("a", CircuitBreakerConfig(failure_threshold=1))
        assert registry.get_or_create("a", CircuitBreakerConfig(failure_threshold=9)) is first
        assert registry.get_circuit("a") is first
        assert registry.get_circuit("b") is None

    def test_graphs_do_not_share_but_the_process_does(self) -> None:
        config = CircuitBreakerConfig()
        assert CircuitBreakerRegistry().get_or_create("x", config) is not CircuitBreakerRegistry().get_or_create(
            "x", config
        )
        shared = CircuitBreakerRegistry("global").get_or_create("test-only-circuit", config)
        assert CircuitBreakerRegistry("global").get_circuit("test-only-circuit") is shared

    def test_reset_one_or_all(self) -> None:
        registry = CircuitBreakerRegistry()
        for name in ("a", "b", "c"):
            registry.get_or_create(name, CircuitBreakerConfig(failure_threshold=1)).record_failure()
        registry.reset_circuit("a")
        registry.reset_circuit("no such circuit")
        states = registry.get_circuit_states()
        assert {name: info["state"] for name, info in states.items()} == {
            "a": "closed",
            "b": "open",
            "c": "open",
        }
        registry.reset_all_circuits()
        assert {info["state"] for info in registry.get_circuit_states().values()} == {"closed"}

    def test_threads_that_ask_for_the_same_name_get_the_same_breaker(self) -> None:
        registry = CircuitBreakerRegistry()
        barrier = threading.Barrier(8)
        got: list[CircuitBreaker] = []

        def ask() -> None:
            barrier.wait(240)
            got.append(registry.get_or_create("a", CircuitBreakerConfig()))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(map(id, got))) == 1

    def test_it_can_be_written_and_restored(self) -> None:
        registry = CircuitBreakerRegistry()
        registry.get_or_create("a", CircuitBreakerConfig(failure_threshold=1)).record_failure()
        registry.get_or_create("b", CircuitBreakerConfig())
        other = CircuitBreakerRegistry()
        other.restore(json.loads(json.dumps(registry.to_json())))
        assert {name: info["state"] for name, info in other.get_circuit_states().items()} == {
            "a": "open",
            "b": "closed",
        }

    def test_an_unknown_scope_is_refused(self) -> None:
        with pytest.raises(ValueError, match="'universe'"):
            CircuitBreakerRegistry("universe")


def test_the_error_says_which_circuit_also_after_pickling() -> None:
    error = CircuitOpenError("db")
    assert str(error) == "Circuit breaker 'db' is open"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


class BreakerMachine(RuleBasedStateMachine):
    """Every sequence of calls, beside a model that is written differently: by what was *seen* last."""

    THRESHOLD, RESET, TRIALS = 3, 10.0, 2

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.breaker = breaker_on(self.clock, self.THRESHOLD, self.RESET, self.TRIALS)
        self.changes: list[tuple[CircuitState, CircuitState]] = []
        self.breaker.add_state_change_callback(lambda old, new: self.changes.append((old, new)))
        self.in_a_row = 0
        self.last_failure = 0.0
        self.trials_out = 0

    @rule(seconds=st.sampled_from([0.5, 4.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        before = self.breaker.state
        self.clock.now += seconds
        assert self.breaker.state is before

    @rule()
    def ask(self) -> None:
        before = self.breaker.state
        allowed = self.breaker.allow_request()
        if before is CLOSED:
            assert allowed
        elif before is OPEN:
            assert allowed == (self.clock.now >= self.last_failure + self.RESET)
            self.trials_out = int(allowed)
        else:
            assert allowed == (self.trials_out < self.TRIALS)
            self.trials_out += allowed

    @rule()
    def succeed(self) -> None:
        before = self.breaker.state
        self.breaker.record_success()
        self.in_a_row = 0
        assert self.breaker.state is (OPEN if before is OPEN else CLOSED)

    @rule()
    def fail(self) -> None:
        before = self.breaker.state
        self.breaker.record_failure()
        self.in_a_row += 1
        self.last_failure = self.clock.now
        must_be_open = before is not CLOSED or self.in_a_row >= self.THRESHOLD
        assert self.breaker.state is (OPEN if must_be_open else CLOSED)

    @precondition(lambda self: self.breaker.state is HALF_OPEN and self.trials_out)
    @rule()
    def give_up_a_trial(self) -> None:
        self.breaker.release()
        self.trials_out -= 1

    @rule()
    def reset(self) -> None:
        self.breaker.reset()
        self.in_a_row = 0
        assert self.breaker.state is CLOSED

    @rule()
    def survive_a_restart(self) -> None:
        restored = CircuitBreaker.from_json(self.breaker.to_json(), self.clock)
        restored.add_state_change_callback(lambda old, new: self.changes.append((old, new)))
        self.breaker, self.trials_out = restored, 0

    @invariant()
    def counts_agree(self) -> None:
        assert self.breaker.failure_count == self.in_a_row

    @invariant()
    def changes_make_a_chain(self) -> None:
        state = CLOSED
        for old, new in self.changes:
            assert old is state
            assert new is not old
            assert (old, new) != (CLOSED, HALF_OPEN)
            state = new
        assert self.breaker.state is state


TestBreakerMachine = BreakerMachine.TestCase
