"""Hosts as the spool shows them: a worker for each that works, and an event for each change; see `spool.hosts`.

Only shown: nothing here may keep a job from running.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from executors.board import Board
from executors.remote.held import Held
from spool import jsonio
from spool.errors import SpoolError
from spool.layout import SpoolFiles
from spool.publish import read_json, replace
from spool.worker import Worker

_OVER = {"connecting": "not used", "ready": "ended", "half-open": "ended"}
"""What becomes of a host's state when the fan-out is over; why one is lost or out stays to be seen."""


class Roster:
    """The hosts of one fan-out."""

    def __init__(self, board: Board, spool: SpoolFiles) -> None:
        self._board, self._spool = board, spool
        self._workers: dict[str, Worker] = {}
        self._states: dict[str, str] = {}
        self._shown: dict[str, str] = {}

    def tell(self, host: str, state: str, **fields: Any) -> None:
        """A host is in another state. fields: what else the journal shall keep."""
        if self._states.get(host) != state or fields:
            self._states[host] = state
            self._board.note("host", host=host, state=state, **fields)

    def works(self, host: str, slots: int) -> None:
        """Jobs can be sent there: it is seen among the workers."""
        context = self._board.context
        with contextlib.suppress(OSError, SpoolError):
            worker = Worker(self._spool, slots=slots, lease=context.lease, version=context.version)
            self._workers[host] = worker
            replace(worker.files.worker, jsonio.pretty({**read_json(worker.files.worker), "serves": host}))

    def gone(self, host: str) -> None:
        """No job runs there any more."""
        worker = self._workers.pop(host, None)
        self._shown.pop(host, None)
        if worker is not None:
            worker.close()

    def show(self, held: Mapping[str, Held]) -> None:
        """What runs where now; written only where that has changed."""
        path = self._board.fanout.path
        lines: dict[str, list[str]] = {host: [] for host in self._workers}
        for one in held.values():
            if one.since and one.link is not None and one.link.name in lines:
                lines[one.link.name].append(_line(path, one))
        for host, worker in self._workers.items():
            text = "\n".join(lines[host])
            if text != self._shown.get(host, ""):
                self._shown[host] = text
                with contextlib.suppress(OSError):
                    worker.doing(text)

    def close(self, hosts: Iterable[str]) -> None:
        """The fan-out is over."""
        for host in hosts:
            self.gone(host)
            state = self._states.get(host, "")
            self.tell(host, _OVER.get(state, state))


def _line(fanout: str, held: Held) -> str:
    claim = held.claim
    return f"{fanout} {claim.job.name} {claim.attempt} {held.since:.3f} {claim.spent:.3f}"
