"""What the user asked for: how often to retry, how long to wait, when to give up on a host or a service.

Values only. They are checked when they are made, so that a wrong number is an error at the start and not an
oddity in the night; nothing here waits, runs or counts. `to_json` and `from_json` carry a `ParallelConfig`
through `fanout.json` and `job.json`.

Units: every time is in seconds. Attempts are counted from 0 here, as in "after attempt 0 failed".
"""

from __future__ import annotations

import builtins
import dataclasses
import math
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self, TypeGuard


@dataclass(slots=True)
class RetryPolicy:
    """How to retry an attempt that failed: wait `base_delay * backoff_multiplier ** attempt`, then again.

    max_retries: attempts after the first; 0 means none.
    base_delay, max_delay: seconds; no delay is longer than `max_delay`.
    backoff_multiplier: 1 waits the same each time.
    retry_on: only these exception classes (and their subclasses) are worth another attempt; None means all.
    max_stored_errors: how many errors of failed attempts a result keeps.

    Raises ValueError when a value is out of range.
    """

    max_retries: int = 0
    base_delay: float = 1.0
    max_delay: float = 60.0
    backoff_multiplier: float = 2.0
    retry_on: set[type[BaseException]] | None = None
    max_stored_errors: int = 5

    def __post_init__(self) -> None:
        _whole(self, "max_retries", 0)
        _number(self, "base_delay", at_least=0)
        _number(self, "max_delay", at_least=0)
        _number(self, "backoff_multiplier", above=0)
        _whole(self, "max_stored_errors", 0)
        if self.retry_on is not None:
            self.retry_on = _exception_classes(self, self.retry_on)

    def should_retry(self, exception: BaseException, attempt: int) -> bool:
        """Whether attempt number `attempt` (from 0), which ended with `exception`, is followed by another."""
        if attempt >= self.max_retries:
            return False
        return self.retry_on is None or isinstance(exception, tuple(self.retry_on))

    def get_delay(self, attempt: int) -> float:
        """Seconds to wait after attempt number `attempt` (from 0) failed."""
        try:
            delay = self.base_delay * float(self.backoff_multiplier) ** attempt
        except OverflowError:  # beyond 1.8e308 the cap decides, unless there was nothing to multiply
            delay = math.inf if self.base_delay else 0.0
        return float(min(delay, self.max_delay))

    def to_json(self) -> dict[str, Any]:
        """The policy as JSON values; exception classes become names like `builtins.OSError`."""
        data = _shallow(self)
        if self.retry_on is not None:
            data["retry_on"] = sorted(f"{cls.__module__}.{cls.__qualname__}" for cls in self.retry_on)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The policy back from `to_json`. Raises ValueError for unknown keys, bad values, unknown classes."""
        values = _known_keys(cls, data)
        if values.get("retry_on") is not None:
            values["retry_on"] = _classes_named(values["retry_on"])
        return cls(**values)


@dataclass(slots=True)
class CircuitBreakerConfig:
    """When to stop sending work to something that keeps failing.

    failure_threshold: failures in a row that open the circuit.
    reset_timeout: seconds an open circuit waits before it lets a trial through.
    half_open_max_calls: trials at once.

    Raises ValueError when a value is out of range.
    """

    failure_threshold: int = 5
    reset_timeout: float = 30.0
    half_open_max_calls: int = 1

    def __post_init__(self) -> None:
        _whole(self, "failure_threshold", 1)
        _number(self, "reset_timeout", at_least=0)
        _whole(self, "half_open_max_calls", 1)

    def to_json(self) -> dict[str, Any]:
        """The configuration as JSON values."""
        return _shallow(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The configuration back from `to_json`. Raises ValueError for unknown keys and bad values."""
        return cls(**_known_keys(cls, data))


@dataclass(slots=True)
class ParallelConfig:
    """Everything that can be asked of a fan-out; the same under every strategy.

    timeout_seconds: for one attempt; timeout_total: for all attempts of a branch together; None: no limit.
    fail_fast: the first failure cancels the other branches.
    retry_policy, circuit_breaker: None: no retries, no breaker.
    include_traceback: keep tracebacks in results.
    strategy: name of an executor.
    max_workers: branches at once; None lets the executor choose.
    remote_config: settings of the strategy `remote`, a mapping or an object of that executor.
    max_lost: how often a job may lose its worker (killed, host gone) before it is given up. Not a retry.
    grace_seconds: between asking a job to stop and killing it.
    max_memory: bytes that a job may use, None for no limit; not for threads.

    Raises ValueError when a value is out of range.
    """

    timeout_seconds: float | None = None
    timeout_total: float | None = None
    fail_fast: bool = False
    retry_policy: RetryPolicy | None = None
    circuit_breaker: CircuitBreakerConfig | None = None
    include_traceback: bool = False
    strategy: str = "thread"
    max_workers: int | None = None
    remote_config: Any = None
    max_lost: int = 3
    grace_seconds: float = 5.0
    max_memory: int | None = None

    def __post_init__(self) -> None:
        self.timeout_seconds = _limit(self, "timeout_seconds")
        self.timeout_total = _limit(self, "timeout_total")
        _instance(self, "fail_fast", bool)
        _instance(self, "retry_policy", RetryPolicy | None)
        _instance(self, "circuit_breaker", CircuitBreakerConfig | None)
        _instance(self, "include_traceback", bool)
        _instance(self, "strategy", str)
        if not self.strategy:
            raise _out_of_range(self, "strategy", "the name of an executor")
        if self.max_workers is not None:
            _whole(self, "max_workers", 1)
        _whole(self, "max_lost", 0)
        _number(self, "grace_seconds", at_least=0)
        if self.max_memory is not None:
            _whole(self, "max_memory", 1)

    def to_json(self) -> dict[str, Any]:
        """The configuration as JSON values.

        Raises TypeError when `remote_config` is neither a mapping, nor a dataclass, nor has a `to_json`.
        """
        return {
            **_shallow(self),
            "retry_policy": self.retry_policy.to_json() if self.retry_policy else None,
            "circuit_breaker": self.circuit_breaker.to_json() if self.circuit_breaker else None,
            "remote_config": _remote_to_json(self.remote_config),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The configuration back from `to_json`; `remote_config` stays the mapping that it is in JSON.

        Raises ValueError for unknown keys, values out of range and exception classes that can't be found.
        """
        values = _known_keys(cls, data)
        if values.get("retry_policy") is not None:
            values["retry_policy"] = RetryPolicy.from_json(values["retry_policy"])
        if values.get("circuit_breaker") is not None:
            values["circuit_breaker"] = CircuitBreakerConfig.from_json(values["circuit_breaker"])
        return cls(**values)


def _out_of_range(owner: object, name: str, wanted: str) -> ValueError:
    value = getattr(owner, name)
    return ValueError(f"{type(owner).__name__}.{name} is {value!r}, but must be {wanted}")


def _whole(owner: object, name: str, at_least: int) -> None:
    value = getattr(owner, name)
    # bool is an int to Python, but `max_retries: true` is a mistake to everybody else.
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise _out_of_range(owner, name, f"a whole number, {at_least} or more")


def _number(owner: object, name: str, *, at_least: float | None = None, above: float | None = None) -> None:
    value = getattr(owner, name)
    wanted = f"a finite number, {at_least} or more" if above is None else f"a finite number above {above}"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _out_of_range(owner, name, wanted)
    if (at_least is not None and value < at_least) or (above is not None and value <= above):
        raise _out_of_range(owner, name, wanted)


def _limit(owner: object, name: str) -> float | None:
    """A time limit; infinity says the same as None, and only None can be written as JSON."""
    value = getattr(owner, name)
    if value is None or value == math.inf:
        return None
    _number(owner, name, above=0)
    return float(value)


def _instance(owner: object, name: str, kind: Any) -> None:
    if not isinstance(getattr(owner, name), kind):
        raise _out_of_range(owner, name, f"of type {getattr(kind, '__name__', kind)}")


def _exception_classes(owner: object, classes: Iterable[Any]) -> set[type[BaseException]]:
    try:
        found = set(classes)
    except TypeError:
        raise _out_of_range(owner, "retry_on", "a set of exception classes, or None") from None
    if not all(isinstance(cls, type) and issubclass(cls, BaseException) for cls in found):
        raise _out_of_range(owner, "retry_on", "a set of exception classes, or None")
    return found


def _classes_named(names: Iterable[str]) -> set[type[BaseException]]:
    if isinstance(names, str):
        raise ValueError(f"retry_on is {names!r}, but must be a list of exception class names")
    return {exception_class(name) for name in names}


def exception_class(name: str) -> type[BaseException]:
    """The exception class called `name`: `OSError`, `package.module.SomeError` or `package.module:SomeError`.

    Imports the module. Raises ValueError when there is no such class.
    """
    try:
        found = getattr(builtins, name, None) or pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"retry_on: no exception class {name!r} can be imported here{_near(name, error)}") from error
    if not _is_exception(found):
        raise ValueError(f"retry_on: {name!r} is not an exception class")
    return found


def _is_exception(value: Any) -> TypeGuard[type[BaseException]]:
    return isinstance(value, type) and issubclass(value, BaseException)


def _near(name: str, error: Exception) -> str:
    """The built-in class that was perhaps meant, else why the import failed."""
    import difflib  # only now: this is imported at every start

    known = [one for one, value in vars(builtins).items() if _is_exception(value)]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else f": {error}"


def _shallow(owner: Any) -> dict[str, Any]:
    return {field.name: getattr(owner, field.name) for field in fields(owner)}


def _known_keys(cls: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise ValueError(f"{cls.__name__} is {data!r}, but must be a mapping")
    known = [field.name for field in fields(cls)]
    unknown = sorted(str(key) for key in data if key not in known)
    if unknown:
        raise ValueError(f"{cls.__name__} has no {', '.join(unknown)}; known are {', '.join(known)}")
    return dict(data)


def _remote_to_json(remote: Any) -> Any:
    if remote is None:
        return None
    if isinstance(remote, Mapping):
        return dict(remote)
    if hasattr(remote, "to_json"):
        return remote.to_json()
    if dataclasses.is_dataclass(remote) and not isinstance(remote, type):
        return dataclasses.asdict(remote)
    raise TypeError(f"remote_config of type {type(remote).__name__} can't be written as JSON; use a mapping")
