"""Which attempt is next: the state of a job as a pure function of what its directory lists.

Nothing here reads a disk or a clock. `job.py` lists and reads; `decide` tells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from enum import Enum, StrEnum
from typing import Any, NamedTuple


class Outcome(StrEnum):
    """What an attempt, and so a branch, ended with."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    LOST = "lost"
    CANCELLED = "cancelled"


TICKET_OF = {
    Outcome.SUCCEEDED: "done",
    Outcome.FAILED: "failed",
    Outcome.TIMED_OUT: "failed",
    Outcome.LOST: "failed",
    Outcome.CANCELLED: "cancelled",
}
"""The folder in which the ticket of a finished job lies."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What is allowed to a job; stands in its job.json, so that any worker anywhere applies the same.

    Durations are seconds; None means no limit. `retry_on` lists names of exception classes, None means all.
    `max_lost` counts attempts whose worker died, apart from failures. `max_memory` is bytes.
    """

    max_retries: int = 0
    base_delay: float = 1.0
    max_delay: float = 60.0
    backoff_multiplier: float = 2.0
    timeout_seconds: float | None = None
    timeout_total: float | None = None
    max_lost: int = 3
    grace_seconds: float = 5.0
    max_memory: int | None = None
    retry_on: tuple[str, ...] | None = None

    def delay(self, failures: int) -> float:
        """Seconds to wait after the n-th failure (from 1): base, base*m, base*m*m, ... capped."""
        try:
            return min(self.base_delay * self.backoff_multiplier ** (failures - 1), self.max_delay)
        except OverflowError:
            return self.max_delay

    def retries(self, error_types: Sequence[str]) -> bool:
        """Whether an error with these class names (its own and its bases') may be tried again."""
        return self.retry_on is None or not set(self.retry_on).isdisjoint(error_types)

    def to_json(self) -> dict[str, Any]:
        """Only what differs from the defaults."""
        return {key: value for key, value in asdict(self).items() if value != _DEFAULTS[key]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Policy:
        """The inverse of `to_json`. Raises TypeError for a key that this version does not know, or a wrong value."""
        if not data:
            return DEFAULT
        for key, value in data.items():
            if not _is_right(key, value):
                raise TypeError(f"policy: {key} is {value!r}")
        retry_on = data.get("retry_on")
        return cls(**{**data, "retry_on": None if retry_on is None else tuple(retry_on)})


DEFAULT = Policy()

_DEFAULTS = {field.name: field.default for field in fields(Policy)}


def _is_right(key: str, value: Any) -> bool:
    if key == "retry_on":
        return value is None or (type(value) in (list, tuple) and all(type(name) is str for name in value))
    if value is None:
        return _DEFAULTS.get(key, 0) is None
    return type(value) is int or (type(value) is float and type(_DEFAULTS.get(key)) is not int)


class Ended(NamedTuple):
    """What `decide` needs of a result: how the attempt ended and how long all attempts took together (seconds)."""

    outcome: Outcome
    error_types: tuple[str, ...] = ()
    spent: float = 0.0


class Attempt(NamedTuple):
    """One attempt as a listing shows it: who claimed it, and what it ended with, if it did."""

    number: int
    claimant: str
    ended: Ended | None = None


class Verdict(Enum):
    """What a worker may do with a job."""

    FREE = "free"
    RUNNING = "running"
    WAITING = "waiting"
    FINISHED = "finished"
    GIVEN_UP = "given up"


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict on a job.

    attempt: the attempt that is free, runs, or holds the final result.
    delay: seconds from the newest failure until `attempt` is free, with WAITING and with FREE.
    failures, lost: how many attempts failed, and how many lost their worker.
    """

    verdict: Verdict
    attempt: int
    failures: int = 0
    lost: int = 0
    delay: float = 0.0
    spent: float = 0.0


def decide(
    attempts: Sequence[Attempt],
    policy: Policy,
    is_alive: Callable[[str], bool],
    waited: float = float("inf"),
    forgiven: int = 0,
) -> Decision:
    """What is next for a job.

    Args:
        attempts: by number, from one listing of the job's directory; gaps are fine.
        policy: what job.json allows.
        is_alive: whether a claimant lives; asked only about the newest claim, and only when it has no result.
        waited: seconds for which the observer has known of the newest failure, on its own clock.
        forgiven: attempts up to this number count no more: a person has sent the job back.
    """
    if not attempts:
        return Decision(Verdict.FREE, 1)
    newest = attempts[-1]
    attempts = [a for a in attempts if a.number > forgiven]
    if not attempts and newest.ended is not None:
        return Decision(Verdict.FREE, newest.number + 1)
    failures = sum(1 for a in attempts if a.ended and a.ended.outcome in (Outcome.FAILED, Outcome.TIMED_OUT))
    lost = sum(1 for a in attempts if a.ended is None)
    spent = max((a.ended.spent for a in attempts if a.ended), default=0.0)
    if newest.ended is None:
        if is_alive(newest.claimant):
            return Decision(Verdict.RUNNING, newest.number, failures, max(lost - 1, 0), spent=spent)
        verdict = Verdict.FREE if lost <= policy.max_lost else Verdict.GIVEN_UP
        return Decision(verdict, newest.number + 1, failures, lost, spent=spent)
    if not may_retry(policy, newest.ended, failures):
        return Decision(Verdict.FINISHED, newest.number, failures, lost, spent=spent)
    delay = policy.delay(failures)
    if waited < delay:
        return Decision(Verdict.WAITING, newest.number + 1, failures, lost, delay, spent)
    return Decision(Verdict.FREE, newest.number + 1, failures, lost, delay, spent + delay)


def may_retry(policy: Policy, ended: Ended, failures: int) -> bool:
    """Whether another attempt may follow this end, the `failures`-th failure of the job."""
    if ended.outcome not in (Outcome.FAILED, Outcome.TIMED_OUT):
        return False
    if failures > policy.max_retries or not policy.retries(ended.error_types):
        return False
    return policy.timeout_total is None or ended.spent + policy.delay(failures) < policy.timeout_total
