"""Which jobs have finished since the last look: polling is the truth, events are only a hint that makes it quick.

A poll lists the flat ticket folders. A hint names one job and costs O(1): it comes from a worker's pipe, or from
inotify through watchdog where other processes finish the jobs. Lost hints, an exhausted watch limit, a queue overflow
or a file system without events cost at most one interval. The interval grows with the time that a listing takes, so
that a fan-out of 100,000 jobs is not spent on listing.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from spool import tickets
from spool.layout import FanOutFiles, is_name

_log = logging.getLogger("tea.spool")

INTERVAL = 0.2
"""Seconds between polls where hints are expected, on a local disk."""

SHARE, HINTED_SHARE = 20, 100
"""A poll may take at most one part in SHARE of the time; less while hints come that miss nothing."""

LONGEST = 15.0
"""Seconds between polls at most: one may have waited for minutes until a server was back."""


class Watcher:
    """Names the finished jobs of a fan-out, each once.

    Args:
        fanout: where.
        interval: seconds between polls; longer on network file systems.
        events: use inotify (watchdog) as a source of hints. Without it somebody else may call `hint`.
    """

    def __init__(
        self,
        fanout: FanOutFiles,
        *,
        interval: float = INTERVAL,
        events: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fanout, self._interval, self._clock = fanout, interval, clock
        self._seen: set[str] = set()
        self._hints: deque[str] = deque()
        self._hinted = False
        self._next_poll = clock() + interval
        self._arrived = threading.Event()
        self._observer: Any = None
        if events:
            self._watch()

    def hint(self, name: str) -> None:
        """Somebody says that this job has finished. Thread-safe."""
        self._hints.append(name)
        self._arrived.set()

    def finished(self) -> list[str]:
        """Jobs that finished since the last call: what was hinted, and what a poll finds when one is due.

        A hinted job may not have finished after all; `forget` it then.
        """
        self._arrived.clear()
        names = []
        while self._hints:
            name = self._hints.popleft()
            self._hinted = True
            if name not in self._seen:
                self._seen.add(name)
                names.append(name)
        if self._clock() >= self._next_poll:
            names += self.poll()
        return names

    def poll(self) -> list[str]:
        """List the ticket folders now, whatever the interval."""
        began = self._clock()
        names: list[str] = []
        for kind in tickets.FINISHED:
            names += tickets.unseen(self._fanout, kind, self._seen)
        self._seen.update(names)
        ended = self._clock()
        share = HINTED_SHARE if self._hinted and not names else SHARE
        self._hinted = False
        self._next_poll = ended + max(self._interval, min((ended - began) * share, LONGEST))
        return names

    def forget(self, name: str) -> None:
        """A hint was wrong or early: report this job again when it has finished."""
        self._seen.discard(name)

    @property
    def due(self) -> float:
        """Seconds until the next poll is due."""
        return max(0.0, self._next_poll - self._clock())

    def wait(self, timeout: float) -> None:
        """Wait for a hint, or until the next poll is due, at most `timeout` seconds."""
        self._arrived.wait(min(timeout, self.due))

    def _watch(self) -> None:
        """Start inotify on the three flat folders; without it polling alone does the work, as often as it may."""
        from watchdog.events import FileSystemEventHandler
        from watchdog.observers import Observer

        watcher = self

        class Moved(FileSystemEventHandler):
            def on_moved(self, event: Any) -> None:
                watcher._event(event.dest_path)

            def on_created(self, event: Any) -> None:
                watcher._event(event.src_path)

        observer: Any = None
        try:
            observer = Observer()
            for kind in tickets.FINISHED:
                observer.schedule(Moved(), self._fanout.tickets(kind))
            observer.start()
        except OSError as error:  # the limit of watches or instances
            if observer is not None:
                observer.stop()  # what had started already
            _log.warning(
                "%s: no file events (%s); polling every %g s instead", self._fanout.path, error, self._interval
            )
            return
        self._observer = observer

    def _event(self, path: str | bytes) -> None:
        name = os.path.basename(os.fsdecode(path))
        if is_name(name):
            self.hint(name)

    def close(self) -> None:
        """Stop watching."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
