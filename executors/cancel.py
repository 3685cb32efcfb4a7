"""Cooperative cancellation: a flag that many threads may watch.

A thread can't be killed. It can be told, and a node that takes `cancel_token` can ask. The token does **not**
stop anything by itself, and it does not cross a process boundary: there, cancelling means killing.
"""

from __future__ import annotations

import threading


class CancellationToken:
    """Tells running work that its result is no longer wanted.

        def crunch(state, cancel_token):
            for part in state["parts"]:
                if cancel_token.is_cancelled():
                    return {}
                ...

    Every method may be called from any thread.
    """

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Ask everybody who holds this token to stop. Asking twice is the same as asking once."""
        self._event.set()

    def is_cancelled(self) -> bool:
        """Whether somebody asked to stop."""
        return self._event.is_set()

    def reset(self) -> None:
        """Take the request back, so that the token can be used again."""
        self._event.clear()

    def wait(self, timeout: float | None = None) -> bool:
        """Sleep until cancelled, at most `timeout` seconds (None: without end). True when cancelled."""
        return self._event.wait(timeout)

    def __repr__(self) -> str:
        return f"<CancellationToken {'cancelled' if self.is_cancelled() else 'not cancelled'}>"
