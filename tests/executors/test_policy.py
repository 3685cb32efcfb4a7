from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executors.policy import CircuitBreakerConfig, ParallelConfig, RetryPolicy, exception_class


class Outer:
    class Flaky(Exception):
        pass


class TestRetry:
    def test_no_retries_unless_asked_for(self) -> None:
        assert not RetryPolicy().should_retry(ValueError(), 0)

    def test_attempts_count_from_zero(self) -> None:
        policy = RetryPolicy(max_retries=2)
        assert [policy.should_retry(ValueError(), attempt) for attempt in range(4)] == [
            True,
            True,
            False,
            False,
        ]

    def test_only_the_named_exceptions_and_their_subclasses(self) -> None:
        policy = RetryPolicy(max_retries=1, retry_on={OSError, KeyError})
        assert policy.should_retry(ConnectionRefusedError(), 0)
        assert policy.should_retry(KeyError("x"), 0)
        assert not policy.should_retry(ValueError(), 0)

    def test_an_empty_set_retries_nothing(self) -> None:
        assert not RetryPolicy(max_retries=5, retry_on=set()).should_retry(OSError(), 0)

    def test_delays_double_up_to_the_cap(self) -> None:
        policy = RetryPolicy(base_delay=1, backoff_multiplier=2, max_delay=10)
        assert [policy.get_delay(attempt) for attempt in range(6)] == [1, 2, 4, 8, 10, 10]

    @pytest.mark.parametrize("attempt", [1_000, 10**9, 10**400])
    def test_a_huge_attempt_number_costs_nothing_and_gives_the_cap(self, attempt: int) -> None:
        assert RetryPolicy(backoff_multiplier=2, max_delay=60).get_delay(attempt) == 60
        assert RetryPolicy(base_delay=0).get_delay(attempt) == 0

    @given(
        base=st.floats(0, 1e9),
        multiplier=st.floats(1e-6, 1e6),
        cap=st.floats(0, 1e9),
        attempt=st.integers(0, 10**6),
    )
    def test_a_delay_is_always_a_time_one_can_sleep(
        self, base: float, multiplier: float, cap: float, attempt: int
    ) -> None:
        policy = RetryPolicy(base_delay=base, backoff_multiplier=multiplier, max_delay=cap)
        assert 0 <= policy.get_delay(attempt) <= cap


class TestValues:
    @pytest.mark.parametrize(
        ("make", "field"),
        [
            (lambda v: RetryPolicy(max_retries=v), "RetryPolicy.max_retries"),
            (lambda v: RetryPolicy(base_delay=v), "RetryPolicy.base_delay"),
            (lambda v: RetryPolicy(max_delay=v), "RetryPolicy.max_delay"),
            (lambda v: RetryPolicy(backoff_multiplier=v), "RetryPolicy.backoff_multiplier"),
            (lambda v: RetryPolicy(max_stored_errors=v), "RetryPolicy.max_stored_errors"),
            (lambda v: CircuitBreakerConfig(failure_threshold=v), "CircuitBreakerConfig.failure_threshold"),
            (lambda v: CircuitBreakerConfig(reset_timeout=v), "CircuitBreakerConfig.reset_timeout"),
            (
                lambda v: CircuitBreakerConfig(half_open_max_calls=v),
                "CircuitBreakerConfig.half_open_max_calls",
            ),
            (lambda v: ParallelConfig(timeout_seconds=v), "ParallelConfig.timeout_seconds"),
            (lambda v: ParallelConfig(timeout_total=v), "ParallelConfig.timeout_total"),
            (lambda v: ParallelConfig(max_workers=v), "ParallelConfig.max_workers"),
            (lambda v: ParallelConfig(max_lost=v), "ParallelConfig.max_lost"),
            (lambda v: ParallelConfig(grace_seconds=v), "ParallelConfig.grace_seconds"),
        ],
    )
    @pytest.mark.parametrize("value", [-1, -math.inf, math.nan, "3", True])
    def test_an_impossible_number_names_field_value_and_range(
        self, make: Callable[[Any], object], field: str, value: Any
    ) -> None:
        with pytest.raises(ValueError, match=f"{field} is .*must be .*(more|above)") as caught:
            make(value)
        assert repr(value) in str(caught.value)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: CircuitBreakerConfig(failure_threshold=0),
            lambda: CircuitBreakerConfig(half_open_max_calls=0),
            lambda: ParallelConfig(timeout_seconds=0),
            lambda: ParallelConfig(max_workers=0),
            lambda: RetryPolicy(max_retries=1.5),  # type: ignore[arg-type]
            lambda: ParallelConfig(strategy=""),
            lambda: ParallelConfig(strategy=None),  # type: ignore[arg-type]
            lambda: ParallelConfig(fail_fast="no"),  # type: ignore[arg-type]
            lambda: ParallelConfig(retry_policy={"max_retries": 1}),  # type: ignore[arg-type]
            lambda: RetryPolicy(retry_on=OSError),  # type: ignore[arg-type]
            lambda: RetryPolicy(retry_on={"OSError"}),  # type: ignore[arg-type]
        ],
    )
    def test_what_makes_no_sense_is_refused(self, make: Callable[[], object]) -> None:
        with pytest.raises(ValueError, match="must be"):
            make()

    def test_the_smallest_sensible_values_pass(self) -> None:
        RetryPolicy(max_retries=0, base_delay=0, max_delay=0, backoff_multiplier=0.5, max_stored_errors=0)
        CircuitBreakerConfig(failure_threshold=1, reset_timeout=0, half_open_max_calls=1)
        ParallelConfig(timeout_seconds=0.001, max_workers=1, max_lost=0, grace_seconds=0)

    def test_an_infinite_limit_is_no_limit(self) -> None:
        assert ParallelConfig(timeout_seconds=math.inf, timeout_total=math.inf) == ParallelConfig()

    def test_any_collection_of_exceptions_will_do(self) -> None:
        assert RetryPolicy(retry_on=[OSError, OSError]).retry_on == {OSError}  # type: ignore[arg-type]


EXCEPTIONS = st.sets(st.sampled_from([OSError, ValueError, KeyError, json.JSONDecodeError, Outer.Flaky]))
POLICIES = st.builds(
    RetryPolicy,
    max_retries=st.integers(0, 100),
    base_delay=st.floats(0, 100),
    max_delay=st.floats(0, 1000),
    backoff_multiplier=st.floats(0.1, 10),
    retry_on=st.none() | EXCEPTIONS,
    max_stored_errors=st.integers(0, 10),
)
BREAKERS = st.builds(
    CircuitBreakerConfig,
    failure_threshold=st.integers(1, 100),
    reset_timeout=st.floats(0, 1000),
    half_open_max_calls=st.integers(1, 10),
)
CONFIGS = st.builds(
    ParallelConfig,
    timeout_seconds=st.none() | st.floats(0.001, 1e6),
    timeout_total=st.none() | st.floats(0.001, 1e6),
    fail_fast=st.booleans(),
    retry_policy=st.none() | POLICIES,
    circuit_breaker=st.none() | BREAKERS,
    include_traceback=st.booleans(),
    strategy=st.sampled_from(["thread", "process", "remote", "my-plugin"]),
    max_workers=st.none() | st.integers(1, 1000),
    remote_config=st.none() | st.dictionaries(st.text(), st.integers() | st.lists(st.text())),
    max_lost=st.integers(0, 10),
    grace_seconds=st.floats(0, 100),
)


class TestJson:
    @given(CONFIGS)
    def test_a_config_survives_the_trip_through_json(self, config: ParallelConfig) -> None:
        assert ParallelConfig.from_json(json.loads(json.dumps(config.to_json(), allow_nan=False))) == config

    def test_left_out_keys_have_their_defaults(self) -> None:
        assert ParallelConfig.from_json({}) == ParallelConfig()
        assert ParallelConfig.from_json({"retry_policy": {"max_retries": 2}}).retry_policy == RetryPolicy(2)

    def test_exceptions_may_be_named_the_short_way(self) -> None:
        policy = RetryPolicy.from_json({"retry_on": ["OSError", "json.JSONDecodeError", "json:JSONDecodeError"]})
        assert policy.retry_on == {OSError, json.JSONDecodeError}

    def test_an_unknown_key_is_named_with_the_known_ones(self) -> None:
        with pytest.raises(ValueError, match=r"ParallelConfig has no retries; known are .*retry_policy"):
            ParallelConfig.from_json({"retries": 3})

    @pytest.mark.parametrize("name", ["NoSuchError", "no.such.Module", "json", "len", "json.dumps", "", "a b"])
    def test_a_class_that_is_none_is_named(self, name: str) -> None:
        with pytest.raises(ValueError, match="retry_on") as caught:
            RetryPolicy.from_json({"retry_on": [name]})
        assert repr(name) in str(caught.value)

    def test_one_name_is_not_a_list_of_letters(self) -> None:
        with pytest.raises(ValueError, match="must be a list"):
            RetryPolicy.from_json({"retry_on": "OSError"})

    def test_a_remote_dataclass_is_written_as_a_mapping(self) -> None:
        @dataclass
        class Remote:
            hosts: list[str]

        data = ParallelConfig(strategy="remote", remote_config=Remote(["a", "b"])).to_json()
        assert data["remote_config"] == {"hosts": ["a", "b"]}

    def test_a_remote_config_may_know_how_to_write_itself(self) -> None:
        class Remote:
            def to_json(self) -> dict[str, Any]:
                return {"hosts": ["me"]}

        assert ParallelConfig(remote_config=Remote()).to_json()["remote_config"] == {"hosts": ["me"]}

    def test_a_remote_config_that_json_cannot_carry_is_an_error(self) -> None:
        with pytest.raises(TypeError, match="remote_config of type object"):
            ParallelConfig(remote_config=object()).to_json()

    def test_not_even_a_mapping(self) -> None:
        with pytest.raises(ValueError, match="must be a mapping"):
            ParallelConfig.from_json([])  # type: ignore[arg-type]


def test_exception_class_finds_nested_classes() -> None:
    assert exception_class(f"{__name__}.Outer.Flaky") is Outer.Flaky
