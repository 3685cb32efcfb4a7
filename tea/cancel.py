"""The coordinator's ear: looks once a second whether somebody asked to cancel its run."""

from __future__ import annotations

import threading
from functools import partial

from executors.cancel import CancellationToken
from executors.threads import run_in_thread
from spool.cancel import asked, forget
from spool.layout import RunFiles

PERIOD = 1.0
"""Seconds between two looks."""


class RunCancelledError(Exception):
    """Somebody asked to cancel the run that is driven here."""


class Listener:
    """Cancels a token when a request to cancel the run appears.

    Args:
        run: the run that this process drives; None for one without a record, which nobody can ask to cancel.
        token: what its fan-outs are cancelled by.
        anew: whether the run begins, or is taken up: what was asked before is over then.
    """

    def __init__(self, run: RunFiles | None, token: CancellationToken, *, anew: bool = True) -> None:
        self._run, self._token, self._anew = run, token, anew
        self._closed = threading.Event()
        self.by: str | None = None
        """Who asked; None while nobody has."""

    def __enter__(self) -> Listener:
        if self._run is not None:
            if self._anew:
                forget(self._run)
            run_in_thread(partial(self._listen, self._run))
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()

    def _listen(self, run: RunFiles) -> None:
        while self.by is None:
            try:
                self.by = asked(run)
            except OSError:  # a disk that does not answer now may answer later
                pass
            if self.by is not None:
                self._token.cancel()
            elif self._closed.wait(PERIOD):
                return

    def check(self) -> None:
        """Raises RunCancelledError when somebody has asked."""
        if self.by is not None:
            raise RunCancelledError(f"cancelled by {self.by}")
