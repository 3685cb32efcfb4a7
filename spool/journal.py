"""The coordinator's journal of a run: one JSON object a line, appended, never changed.

For people and for `tea spool`: nothing that must be right depends on it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from spool import jsonio
from spool.layout import RunFiles


class Journal:
    """Appends events to a run's `events.jsonl`; each line is one write, so lines never mix."""

    def __init__(self, run: RunFiles) -> None:
        self._fd = os.open(run.events, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, event: str, **fields: Any) -> None:
        """Append an event with this host's time (seconds since the epoch)."""
        os.write(self._fd, jsonio.dumps({"at": time.time(), "event": event, **fields}) + b"\n")

    def close(self) -> None:
        os.close(self._fd)


def read_journal(run: RunFiles) -> Iterator[dict[str, Any]]:
    """The events of a run, oldest first; a line cut short by a crash is passed over."""
    try:
        with open(run.events, "rb") as file:
            for line in file:
                try:
                    yield jsonio.loads(line)
                except ValueError:
                    continue
    except FileNotFoundError:
        return
