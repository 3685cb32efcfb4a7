"""Tickets: an index over the jobs of a fan-out that makes counting and searching cheap.

One empty file for each job lies in `todo/`, `done/`, `failed/` or `cancelled/` and is moved by rename. Job
directories are the truth: whoever finds a ticket in the wrong folder puts it right with `settle`.
"""

from __future__ import annotations

import os

from spool.layout import TICKETS, FanOutFiles, JobFiles, is_name
from spool.opened import listed
from spool.publish import write_exclusive

FINISHED = TICKETS[1:]


def move(fanout: FanOutFiles, name: str, kind: str) -> None:
    """Move a job's ticket from `todo/` to a folder of finished jobs, where it must not be yet.

    Raises OSError when the disk refuses; a ticket that is not in `todo/` is settled instead.
    """
    try:
        os.rename(fanout.ticket("todo", name), fanout.ticket(kind, name))
    except FileNotFoundError:
        settle(fanout, name, kind)


def settle(fanout: FanOutFiles, name: str, kind: str) -> bool:
    """Make sure that a job's ticket lies in `kind/` and nowhere else; True when something had to be mended.

    A rename between two links of one file does nothing, so this creates and removes.
    """
    mended = False
    try:
        write_exclusive(fanout.ticket(kind, name), b"")
        mended = True
    except FileExistsError:
        pass
    for other in TICKETS:
        if other != kind:
            try:
                os.unlink(fanout.ticket(other, name))
                mended = True
            except FileNotFoundError:
                continue
    return mended


def kind_of(fanout: FanOutFiles, name: str) -> str | None:
    """The folder in which a job's ticket lies; None when it has none."""
    for kind in TICKETS:
        packed = listed(fanout.tickets(kind))
        if (name in packed) if packed is not None else os.path.lexists(fanout.ticket(kind, name)):
            return kind
    return None


def drop_stray(fanout: FanOutFiles, job: JobFiles) -> None:
    """Remove the ticket in `todo/` of a job whose directory is gone."""
    if os.path.isdir(job.path):
        return
    try:
        os.unlink(fanout.ticket("todo", job.name))
    except FileNotFoundError:
        pass


def names(fanout: FanOutFiles, kind: str) -> list[str]:
    """The jobs whose ticket lies in a folder, in no order. Names that are none of ours are passed over."""
    packed = listed(fanout.tickets(kind))
    try:
        found = os.listdir(fanout.tickets(kind)) if packed is None else packed
        return [name for name in found if is_name(name)]
    except FileNotFoundError:
        return []


def unseen(fanout: FanOutFiles, kind: str, seen: set[str]) -> list[str]:
    """Like `names`, without those that are known already: the check of a name costs more than the look into a set."""
    try:
        return [name for name in os.listdir(fanout.tickets(kind)) if name not in seen and is_name(name)]
    except FileNotFoundError:
        return []


def counts(fanout: FanOutFiles) -> dict[str, int]:
    """How many jobs are to do (or running), done, failed and cancelled."""
    return {kind: len(names(fanout, kind)) for kind in TICKETS}
