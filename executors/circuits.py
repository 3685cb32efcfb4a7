"""The circuit breakers in front of the branches of a fan-out; written down, so that a resumed run finds them."""

from __future__ import annotations

from executors.base import FanOutContext
from executors.branches import Branches
from executors.breaker import CircuitBreaker, CircuitState
from executors.listeners import Listeners
from spool import jsonio
from spool.attempts import Outcome
from spool.publish import replace


class Circuits:
    """Asks the breakers, and tells them how attempts went."""

    def __init__(self, branches: Branches, context: FanOutContext, listeners: Listeners) -> None:
        self._branches, self._context, self._listeners = branches, context, listeners

    def breaker(self, i: int) -> CircuitBreaker | None:
        """The breaker in front of branch i; branches over data share their node's."""
        config = self._branches.config_of(i).circuit_breaker
        if config is None:
            return None
        flow = self._branches.flows[i]
        return self._context.breakers.get_or_create(self._context.breaker_name or flow.entry or flow.branch, config)

    def state(self, i: int) -> str | None:
        """The state of the circuit before branch i; None where there is none."""
        breaker = self.breaker(i)
        return breaker.state.value if breaker is not None else None

    def admits(self, i: int) -> bool:
        """Whether the circuit lets branch i through."""
        breaker = self.breaker(i)
        if breaker is None:
            return True
        before = breaker.state
        allowed = breaker.allow_request()
        self._changed(i, before, breaker.state)
        return allowed

    def count(self, i: int, outcome: Outcome) -> str | None:
        """Tell the circuit how an attempt went; its state afterwards. A cancelled one says nothing about it."""
        breaker = self.breaker(i)
        if breaker is None:
            return None
        before, failures = breaker.state, breaker.failure_count
        if outcome is Outcome.CANCELLED:
            breaker.release()
        else:
            breaker.record_success() if outcome is Outcome.SUCCEEDED else breaker.record_failure()
        self._changed(i, before, breaker.state)
        if breaker.state is before and breaker.failure_count != failures:  # a resumed run counts on from here
            self._keep()
        return breaker.state.value

    def _changed(self, i: int, old: CircuitState, new: CircuitState) -> None:
        if old is not new:
            self._keep()
            self._listeners.circuit_changed(i, old, new)

    def _keep(self) -> None:
        """Write the circuits down."""
        if self._context.fanout is not None:
            circuits = jsonio.pretty({"circuits": self._context.breakers.to_json()})
            try:
                replace(self._context.fanout.breaker, circuits)
            except OSError as error:  # a resumed run finds out again
                self._listeners.note("disk", error=f"cannot keep the circuits: {error}")
