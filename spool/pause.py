"""Pausing a run: nobody takes a new job of it, what runs goes on to its end, until somebody lets it go on.

The request is a file in the run's folder, `paused.json`. Whoever claims looks for it a few times a second, never
once a job, and the coordinator looks too, to show it; so it also holds when the coordinator is gone and other
workers are there. Fan-outs inside a branch belong to the branch that runs, and are not held up.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from spool import jsonio
from spool.cancel import asker
from spool.errors import UnknownNameError
from spool.find import in_run, run_of
from spool.layout import FanOutFiles, RunFiles
from spool.publish import is_there, publish, read_quietly

LOOK = 0.2
"""Seconds between two looks for the request."""


def pause(run: RunFiles) -> bool:
    """Hold a run; False when it is held already. Raises OSError when the disk refuses."""
    try:
        publish(run.paused, jsonio.pretty({"by": asker(), "at": time.time()}))
    except FileExistsError:
        return False
    return True


def unpause(run: RunFiles) -> bool:
    """Let a run go on; False when it was not held."""
    try:
        os.unlink(run.paused)
    except FileNotFoundError:
        return False
    return True


def paused(run: RunFiles) -> Mapping[str, Any]:
    """Who holds a run, `by`, and since when, `at` in seconds since the epoch; empty when nobody does."""
    if not is_there(run.paused):
        return {}
    note = read_quietly(run.paused)
    at = note.get("at")
    return {"by": str(note.get("by") or "somebody"), "at": float(at) if isinstance(at, int | float) else None}


class Gate:
    """Tells whoever claims whether the run of a fan-out is held; looks every `LOOK` seconds at most.

    Always open for a fan-out inside a branch, and for one that is in no run.
    """

    def __init__(self, fanout: FanOutFiles | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._marker = _marker_of(fanout)
        self._next_look = clock() if self._marker else float("inf")
        self._closed = False

    def closed(self, now: float | None = None) -> bool:
        """Whether no new job may be taken now. `now` saves a look at the clock."""
        now = self._clock() if now is None else now
        if now >= self._next_look:
            self._closed = is_there(self._marker)
            self._next_look = now + LOOK
        return self._closed


def _marker_of(fanout: FanOutFiles | None) -> str:
    try:
        if fanout is None or "/" in in_run(fanout.path):
            return ""
        return run_of(fanout.path).paused
    except UnknownNameError:
        return ""
