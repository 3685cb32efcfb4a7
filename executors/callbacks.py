"""Telling a user's objects what happens to the branches, without letting them get in the way.

A callback is any object with some of the methods of `ParallelFlowCallback`. It is called in a thread of its
own and waited for, but not for ever; what it raises is logged. Events of one branch come in order, those of
different branches may come at the same time. This is for watching: a callback can't change a result.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

from executors.breaker import CircuitState
from executors.policy import ParallelConfig
from executors.result import ParallelFlowResult

logger = logging.getLogger(__name__)

ERROR_POLICIES = ("log", "raise", "remove")

ErrorHandler = Callable[[Any, BaseException], object]


@dataclass(slots=True)
class ParallelFlowContext:
    """Which branch an event is about.

    state_snapshot: the state that the branch started with. start_time: `time.time()`.
    """

    branch: str
    fan_in_node: str
    state_snapshot: dict[str, Any]
    start_time: float
    config: ParallelConfig | None = None
    graph_name: str | None = None


@runtime_checkable
class ParallelFlowCallback(Protocol):
    """The events. An object need only have the methods it cares for; a subclass inherits empty ones."""

    # The bodies say `return`: a type checker takes a function with no body for one that must be overridden.

    def on_flow_start(self, context: ParallelFlowContext) -> None:
        """A branch starts its first attempt."""
        return

    def on_flow_complete(self, context: ParallelFlowContext, result: ParallelFlowResult) -> None:
        """A branch has its result, good or bad."""
        return

    def on_flow_error(self, context: ParallelFlowContext, error: BaseException, attempt: int) -> None:
        """Attempt number `attempt` (from 0) ended with `error`."""
        return

    def on_flow_timeout(self, context: ParallelFlowContext, timeout_seconds: float) -> None:
        """An attempt ran out of time."""
        return

    def on_flow_retry(self, context: ParallelFlowContext, attempt: int, delay: float, error: BaseException) -> None:
        """Another attempt will start in `delay` seconds because the last one ended with `error`."""
        return

    def on_circuit_state_change(
        self, context: ParallelFlowContext, old_state: CircuitState, new_state: CircuitState
    ) -> None:
        """The circuit breaker of the branch changed its state."""
        return


class CallbackManager:
    """Calls every callback for every event.

    timeout: seconds to wait for one call; None calls in the caller's own thread, however long it takes.
    error_policy: what to do when a callback fails or hangs, besides logging it: nothing ("log"), raise the
        error in the caller ("raise"), or never call it again ("remove").

    Every method may be called from any thread.
    """

    def __init__(
        self,
        callbacks: Iterable[object] | None = None,
        timeout: float | None = 5.0,
        error_policy: str = "log",
    ) -> None:
        if error_policy not in ERROR_POLICIES:
            raise ValueError(f"error_policy is {error_policy!r}, but must be one of {', '.join(ERROR_POLICIES)}")
        self.callbacks: list[object] = list(callbacks or ())
        self.timeout = timeout
        self.error_policy = error_policy
        self._error_handlers: list[ErrorHandler] = []
        self._hanging: dict[tuple[int, str], threading.Thread] = {}
        self._lock = threading.Lock()

    def add_callback(self, callback: object) -> None:
        """Call `callback` from now on."""
        with self._lock:
            self.callbacks.append(callback)

    def remove_callback(self, callback: object) -> None:
        """Call `callback` no more. No error if it was not called before."""
        with self._lock:
            if callback in self.callbacks:
                self.callbacks.remove(callback)

    def add_error_handler(self, handler: ErrorHandler) -> None:
        """Call `handler(callback, error)` when a callback fails (its error) or hangs (a TimeoutError)."""
        with self._lock:
            self._error_handlers.append(handler)

    def fire_event(self, method_name: str, *args: Any, **kwargs: Any) -> None:
        """Call `method_name` of every callback that has it, one after the other."""
        if not self.callbacks:  # read without the lock: nobody is listening, so nobody can be late
            return
        with self._lock:
            callbacks = tuple(self.callbacks)
        for callback in callbacks:
            method = getattr(callback, method_name, None)
            if method is not None:
                self._call(callback, method_name, partial(method, *args, **kwargs))

    def _call(self, callback: object, method_name: str, call: Callable[[], object]) -> None:
        label = f"{type(callback).__name__}.{method_name}"
        if self._still_hangs(callback, method_name):
            logger.warning("Callback %s skipped: an earlier call still hangs", label)
            return
        error = self._call_and_wait(callback, method_name, call)
        if error is not None:
            logger.warning("Callback %s failed: %s: %s", label, type(error).__name__, error)
            self._handle_error(callback, error)

    def _call_and_wait(self, callback: object, method_name: str, call: Callable[[], object]) -> BaseException | None:
        if self.timeout is None:
            return _outcome(call)
        outcome: list[BaseException | None] = []
        thread = threading.Thread(
            target=lambda: outcome.append(_outcome(call)), name=f"callback-{method_name}", daemon=True
        )
        thread.start()
        thread.join(self.timeout)
        if outcome:
            return outcome[0]
        with self._lock:
            self._hanging[id(callback), method_name] = thread
        return TimeoutError(f"still running after {self.timeout}s, abandoned")

    def _still_hangs(self, callback: object, method_name: str) -> bool:
        """Whether an abandoned call of this method is under way: one lost thread is enough."""
        if not self._hanging:
            return False
        with self._lock:
            thread = self._hanging.get((id(callback), method_name))
            if thread is None:
                return False
            if not thread.is_alive():
                del self._hanging[id(callback), method_name]
                return False
            return True

    def _handle_error(self, callback: object, error: BaseException) -> None:
        for handler in tuple(self._error_handlers):
            if (failure := _outcome(partial(handler, callback, error))) is not None:
                logger.warning("A callback error handler failed: %r", failure)
        if self.error_policy == "remove":
            self.remove_callback(callback)
        elif self.error_policy == "raise":
            raise error

    def fire_flow_start(self, context: ParallelFlowContext) -> None:
        """A branch starts."""
        self.fire_event("on_flow_start", context)

    def fire_flow_complete(self, context: ParallelFlowContext, result: ParallelFlowResult) -> None:
        """A branch has its result."""
        self.fire_event("on_flow_complete", context, result)

    def fire_flow_error(self, context: ParallelFlowContext, error: BaseException, attempt: int) -> None:
        """An attempt failed."""
        self.fire_event("on_flow_error", context, error, attempt)

    def fire_flow_timeout(self, context: ParallelFlowContext, timeout_seconds: float) -> None:
        """An attempt ran out of time."""
        self.fire_event("on_flow_timeout", context, timeout_seconds)

    def fire_flow_retry(self, context: ParallelFlowContext, attempt: int, delay: float, error: BaseException) -> None:
        """Another attempt follows."""
        self.fire_event("on_flow_retry", context, attempt, delay, error)

    def fire_circuit_state_change(
        self, context: ParallelFlowContext, old_state: CircuitState, new_state: CircuitState
    ) -> None:
        """A circuit breaker changed its state."""
        self.fire_event("on_circuit_state_change", context, old_state, new_state)


def _outcome(call: Callable[[], object]) -> BaseException | None:
    """What `call` raised. Everything counts: `sys.exit()` in a callback must not end the workflow either."""
    try:
        call()
    except BaseException as error:
        return error
    return None
