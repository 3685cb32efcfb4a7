"""What became of a branch: one `ParallelFlowResult` for each, whatever happened.

A plain value: it does not know the spool. There may be 100,000 of them, so it has slots and no cleverness.
"""

from __future__ import annotations

import traceback as tracebacks
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, Self

from executors.breaker import CircuitOpenError, CircuitState

OUTCOMES = frozenset({"succeeded", "failed", "timed_out", "lost", "cancelled"})


class RetryExhaustedError(Exception):
    """A branch failed on its last attempt.

    attempts: how many were made. errors: what each of the stored ones ended with.
    """

    def __init__(self, branch: str, attempts: int, errors: list[dict[str, Any]]) -> None:
        super().__init__(branch, attempts, errors)
        self.branch = branch
        self.attempts = attempts
        self.errors = errors

    def __str__(self) -> str:
        return f"All {self.attempts} retry attempts exhausted for branch '{self.branch}'"


@dataclass(slots=True)
class ParallelFlowResult:
    """The result of one branch, readable by attribute and like a dict.

    branch: name of the branch. success: whether `state` is a result to rely on.
    state: the state that the branch ended with (or had, when it failed); None when it is not known.
    error, error_type, traceback: message, exception class name, and traceback if it was asked for.
    timeout: it ran out of time. timing_ms: milliseconds. retry_count: attempts after the first.
    circuit_state: "closed", "open" or "half_open" where a circuit breaker was involved.
    attempt_errors: what earlier attempts ended with. exit_code: of a command or a worker, if there was one.
    job: the job directory. host: where it ran.
    outcome: "succeeded", "failed", "timed_out", "lost" or "cancelled"; follows from the rest when left out.

    Like a dict, `result[key]` gives a field, else what the state has under `key`. The state comes first only
    for `job`, `host` and `outcome`: workflows used these as names of their own before they were fields.
    """

    branch: str
    success: bool
    state: dict[str, Any] | None = None
    error: str | None = None
    error_type: str | None = None
    traceback: str | None = None
    timeout: bool = False
    timing_ms: float = 0.0
    retry_count: int = 0
    circuit_state: str | None = None
    attempt_errors: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int | None = None
    job: str | None = None
    host: str | None = None
    outcome: str | None = None

    def __post_init__(self) -> None:
        if self.outcome is None:
            self.outcome = "succeeded" if self.success else "timed_out" if self.timeout else "failed"
        elif self.outcome not in OUTCOMES:
            raise ValueError(f"outcome is {self.outcome!r}, but must be one of {', '.join(sorted(OUTCOMES))}")

    def __getitem__(self, key: str) -> Any:
        if self.state and key in self.state and key not in _FIELDS_BEFORE_STATE:
            return self.state[key]
        if key in _FIELDS:
            return getattr(self, key)
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return key in _FIELDS or bool(self.state and key in self.state)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def get(self, key: str, default: Any = None) -> Any:
        """`self[key]`, or `default` when there is no such key."""
        try:
            return self[key]
        except KeyError:
            return default

    def keys(self) -> list[str]:
        """The fields, then the keys of the state."""
        return [*_FIELDS, *(key for key in self.state or () if key not in _FIELDS)]

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict; the values are shared, not copied."""
        return {name: getattr(self, name) for name in _FIELDS}

    @classmethod
    def from_success(
        cls,
        branch: str,
        state: dict[str, Any],
        timing_ms: float,
        retry_count: int = 0,
        circuit_state: str | None = None,
    ) -> Self:
        """The branch ended well, with `state`."""
        return cls(branch, True, state, timing_ms=timing_ms, retry_count=retry_count, circuit_state=circuit_state)

    @classmethod
    def from_error(
        cls,
        branch: str,
        exception: BaseException,
        state: dict[str, Any] | None,
        timing_ms: float,
        include_traceback: bool = False,
        retry_count: int = 0,
        attempt_errors: list[dict[str, Any]] | None = None,
        circuit_state: str | None = None,
    ) -> Self:
        """The branch ended with `exception`."""
        return cls(
            branch,
            False,
            state,
            error=str(exception),
            error_type=type(exception).__name__,
            traceback="".join(tracebacks.format_exception(exception)) if include_traceback else None,
            timing_ms=timing_ms,
            retry_count=retry_count,
            attempt_errors=attempt_errors or [],
            circuit_state=circuit_state,
        )

    @classmethod
    def from_timeout(
        cls,
        branch: str,
        state: dict[str, Any] | None,
        timing_ms: float,
        timeout_seconds: float,
        retry_count: int = 0,
        circuit_state: str | None = None,
    ) -> Self:
        """The branch was stopped after `timeout_seconds`."""
        return cls(
            branch,
            False,
            state,
            error=f"Flow timed out after {timeout_seconds}s",
            error_type="TimeoutError",
            timeout=True,
            timing_ms=timing_ms,
            retry_count=retry_count,
            circuit_state=circuit_state,
        )

    @classmethod
    def from_circuit_open(cls, branch: str, circuit_name: str) -> Self:
        """The branch never started: its circuit is open."""
        refusal = CircuitOpenError(circuit_name)
        return cls.from_error(branch, refusal, None, 0.0, circuit_state=CircuitState.OPEN.value)


_FIELDS = {item.name: None for item in fields(ParallelFlowResult)}  # a dict keeps the order, and looks up quickly
_FIELDS_BEFORE_STATE = frozenset(_FIELDS) - {"job", "host", "outcome"}
