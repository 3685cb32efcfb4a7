"""The coordinator's journal of a run: one JSON object a line, appended, never changed.

For people and for `tea spool`: nothing that must be right depends on it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from spool import jsonio
from spool.layout import RunFiles

_log = logging.getLogger("tea.spool")


class Journal:
    """Appends events to a run's `events.jsonl`; each line is one write, so lines never mix."""

    def __init__(self, run: RunFiles) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._path, self._fd = run.events, os.open(run.events, flags, 0o600)
        self._cut = False

    def write(self, event: str, **fields: Any) -> None:
        """Append an event with this host's time (seconds since the epoch).

        A disk that refuses costs the event and a warning, not the run.
        """
        line = jsonio.dumps({"at": time.time(), "event": event, **fields}) + b"\n"
        if self._cut:
            line = b"\n" + line
        try:
            cut = os.write(self._fd, line) < len(line)
        except OSError as error:
            cut = True
            if not self._cut:
                _log.warning("%s: events are lost: %s", self._path, error.strerror)
        self._cut = cut

    def close(self) -> None:
        os.close(self._fd)


def read_journal(run: RunFiles, only: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """The events of a run, oldest first; a line cut short by a crash is passed over.

    only: names of events; the lines of others are not even parsed.
    """
    wanted = [f'"event":"{name}"'.encode() for name in only]
    try:
        fd = os.open(run.events, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    with open(fd, "rb") as file:
        for line in file:
            if wanted and not any(text in line for text in wanted):
                continue
            try:
                event = jsonio.loads(line)
            except ValueError:
                continue
            if type(event) is dict and (not only or event.get("event") in only):
                yield event
