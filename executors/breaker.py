"""Circuit breakers: stop sending work to what keeps failing, and try again later.

    CLOSED    --failure_threshold failures in a row-->  OPEN
    OPEN      --reset_timeout after the last failure, at the next request-->  HALF_OPEN
    HALF_OPEN --a trial succeeds-->  CLOSED
    HALF_OPEN --a trial fails-->  OPEN

After M. Nygard, "Release It!" (2007). A breaker only answers and counts: it does not run the call, and it
does not know which of two overlapping calls a success belongs to.

Whoever got True from `allow_request` owes it one of `record_success`, `record_failure` or `release`;
a trial that is never accounted for keeps its place, and a half-open circuit has few.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, ClassVar, Self

from executors.policy import CircuitBreakerConfig

logger = logging.getLogger(__name__)


class CircuitState(Enum):
    """Whether requests pass (CLOSED), are refused (OPEN), or a few pass as a trial (HALF_OPEN)."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


StateChangeCallback = Callable[[CircuitState, CircuitState], object]


class CircuitOpenError(Exception):
    """A request was refused because the circuit is open."""

    def __init__(self, circuit_name: str) -> None:
        super().__init__(circuit_name)
        self.circuit_name = circuit_name

    def __str__(self) -> str:
        return f"Circuit breaker '{self.circuit_name}' is open"


class CircuitBreaker:
    """One circuit. Every method may be called from any thread.

    name: for messages and for the registry.
    clock: seconds that never run backwards; tests pass their own.
    """

    def __init__(
        self,
        config: CircuitBreakerConfig,
        name: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.name = name if name is not None else f"circuit_{id(self):x}"
        self._clock = clock
        self._lock = threading.Lock()
        self._callbacks: list[StateChangeCallback] = []
        self._state = CircuitState.CLOSED
        self._clear()

    def _clear(self) -> None:
        self._failure_count = 0
        self._half_open_calls = 0
        self._half_open_active = 0
        self._retry_at = 0.0  # on self._clock; means something only while OPEN
        self._last_failure_time: float | None = None  # time.time(), for people: never compared

    @property
    def state(self) -> CircuitState:
        """The state now. An open circuit becomes half-open only when it is asked to let something through."""
        with self._lock:
            return self._state

    @property
    def failure_count(self) -> int:
        """Failures since the last success."""
        with self._lock:
            return self._failure_count

    def allow_request(self) -> bool:
        """Whether a request may go out now. In half-open, True takes one of the few places for trials."""
        with self._lock:
            before = self._state
            allowed = self._admit()
            after = self._state
        self._announce(before, after)
        return allowed

    def _admit(self) -> bool:
        if self._state is CircuitState.CLOSED:
            return True
        if self._state is CircuitState.OPEN:
            if self._clock() < self._retry_at:
                return False
            self._state = CircuitState.HALF_OPEN
            self._half_open_calls = self._half_open_active = 0
        if self._half_open_active >= self.config.half_open_max_calls:
            return False
        self._half_open_calls += 1
        self._half_open_active += 1
        return True

    def record_success(self) -> None:
        """A request went well: forget earlier failures; a trial that went well closes the circuit.

        A success that arrives while the circuit is open belongs to a call from before it opened, and does not
        close it.
        """
        with self._lock:
            before = self._state
            self._failure_count = 0
            if before is CircuitState.HALF_OPEN:
                self._half_open_active = 0
                self._state = CircuitState.CLOSED
            after = self._state
        self._announce(before, after)

    def record_failure(self) -> None:
        """A request failed: enough of them in a row open the circuit, and so does a single failed trial."""
        with self._lock:
            before = self._state
            self._failure_count += 1
            self._last_failure_time = time.time()
            if before is not CircuitState.CLOSED or self._failure_count >= self.config.failure_threshold:
                self._open_for(self.config.reset_timeout)
            after = self._state
        self._announce(before, after)

    def _open_for(self, seconds: float) -> None:
        self._state = CircuitState.OPEN
        self._half_open_active = 0
        self._retry_at = self._clock() + seconds

    def release(self) -> None:
        """An allowed request ended without a verdict (cancelled, never sent): give its place to another."""
        with self._lock:
            self._half_open_active = max(0, self._half_open_active - 1)

    def reset(self) -> None:
        """Close the circuit and forget everything."""
        with self._lock:
            before = self._state
            self._state = CircuitState.CLOSED
            self._clear()
        self._announce(before, CircuitState.CLOSED)

    def add_state_change_callback(self, callback: StateChangeCallback) -> None:
        """Call `callback(old, new)` after each change, in the thread that caused it.

        The lock is free by then, so the callback may use the breaker. What it raises is logged and dropped.
        """
        with self._lock:
            self._callbacks.append(callback)

    def _announce(self, old: CircuitState, new: CircuitState) -> None:
        if old is new:
            return
        logger.info("Circuit breaker '%s': %s -> %s", self.name, old.value, new.value)
        for callback in tuple(self._callbacks):
            try:
                callback(old, new)
            except Exception as error:  # a listener must not decide over the work it listens to
                logger.warning("Circuit breaker '%s': a state change callback failed: %r", self.name, error)

    def get_state_info(self) -> dict[str, Any]:
        """What a person wants to know about the circuit; `last_failure_time` is `time.time()`, or None."""
        with self._lock:
            return {
                "name": self.name,
                "state": self._state.value,
                "failure_count": self._failure_count,
                "last_failure_time": self._last_failure_time,
                "half_open_calls": self._half_open_calls,
                "half_open_active": self._half_open_active,
            }

    def to_json(self) -> dict[str, Any]:
        """What `from_json` needs, in any process and after any pause.

        The time that is left is written, not a time of day: a monotonic clock means nothing to another
        process, and a wall clock may have been set. The pause itself therefore does not count as waiting.
        """
        with self._lock:
            is_open = self._state is CircuitState.OPEN
            return {
                "name": self.name,
                "config": self.config.to_json(),
                "state": self._state.value,
                "failure_count": self._failure_count,
                "open_remaining": max(0.0, self._retry_at - self._clock()) if is_open else 0.0,
            }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], clock: Callable[[], float] = time.monotonic) -> Self:
        """The breaker back from `to_json`. Trials that were under way are forgotten: their callers are gone.

        Raises KeyError or ValueError when `data` is not what `to_json` wrote.
        """
        breaker = cls(CircuitBreakerConfig.from_json(data["config"]), data["name"], clock)
        breaker._state = CircuitState(data["state"])
        breaker._failure_count = int(data["failure_count"])
        # No circuit stays open longer than it was told to, whatever the file says.
        remaining = min(float(data["open_remaining"]), breaker.config.reset_timeout)
        breaker._retry_at = clock() + remaining
        return breaker

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.name!r} {self.state.value}, {self.failure_count} failures>"


class CircuitBreakerRegistry:
    """Circuit breakers by name: those of one graph, or, with scope "global", those of the whole process."""

    _process_wide: ClassVar[dict[str, CircuitBreaker]] = {}
    _process_wide_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, scope: str = "graph") -> None:
        if scope not in ("graph", "global"):
            raise ValueError(f"scope is {scope!r}, but must be 'graph' or 'global'")
        self.scope = scope
        self._circuits: dict[str, CircuitBreaker] = self._process_wide if scope == "global" else {}
        self._lock = self._process_wide_lock if scope == "global" else threading.Lock()

    def get_or_create(self, name: str, config: CircuitBreakerConfig) -> CircuitBreaker:
        """The circuit `name`; `config` is only for a new one."""
        with self._lock:
            breaker = self._circuits.get(name)
            if breaker is None:
                breaker = self._circuits[name] = CircuitBreaker(config, name)
            return breaker

    def get_circuit(self, name: str) -> CircuitBreaker | None:
        """The circuit `name`, or None."""
        with self._lock:
            return self._circuits.get(name)

    def reset_circuit(self, name: str | None = None) -> None:
        """Reset the circuit `name`, or all of them. A name that nobody uses is no error."""
        for breaker in self._snapshot():
            if name is None or breaker.name == name:
                breaker.reset()

    def reset_all_circuits(self) -> None:
        """Reset every circuit."""
        self.reset_circuit(None)

    def get_circuit_states(self) -> dict[str, dict[str, Any]]:
        """`get_state_info` of every circuit, by name."""
        return {breaker.name: breaker.get_state_info() for breaker in self._snapshot()}

    def to_json(self) -> list[dict[str, Any]]:
        """Every circuit as JSON values, for `restore`."""
        return [breaker.to_json() for breaker in self._snapshot()]

    def restore(self, data: list[dict[str, Any]]) -> None:
        """Take in the circuits that `to_json` wrote; they replace circuits of the same names."""
        breakers = [CircuitBreaker.from_json(item) for item in data]
        with self._lock:
            self._circuits.update((breaker.name, breaker) for breaker in breakers)

    def _snapshot(self) -> list[CircuitBreaker]:
        # Work on a copy: a reset calls callbacks, which may well ask the registry.
        with self._lock:
            return list(self._circuits.values())
