"""Runs to pack, and what may be known of a folder."""

from __future__ import annotations

import itertools
import json
import os
import stat
from pathlib import Path
from typing import Any

from spool.layout import RunFiles, SpoolFiles
from spool.publish import Linker
from spool.run import CoordinatorLock, create_fanout, create_run, update_run


def make_run(spool: SpoolFiles, jobs: int = 5, inside: int = 2) -> RunFiles:
    """A run that has ended, with links of all kinds, odd modes and times, and fan-outs inside branches."""
    run = create_run(spool, "demo", {}, b"nodes: []\n")
    fill(run.fanouts, jobs, inside)
    Path(run.path, "events.jsonl").write_text("{}\n")
    CoordinatorLock(run).release()
    update_run(run, outcome="done", finished=1.0)
    return run


def fill(folder: str, jobs: int, inside: int) -> None:
    fanout = create_fanout(folder, 1, "split")
    Path(fanout.fanout).write_text(json.dumps({"total": jobs}))
    state, workflow, blank = (
        Linker(fanout.state, b"{}"),
        Linker(fanout.workflow("w"), b"n"),
        Linker(fanout.blank, b""),
    )
    for number in range(jobs):
        job = fanout.job(f"{number:04d}-split")
        os.mkdir(job.path, 0o700)
        state.link(job.base)
        workflow.link(job.workflow)
        os.symlink(f"me@here:{number}:abc", job.claim(1))
        result = {"job": job.name, "attempt": 1, "outcome": "succeeded", "seconds": number / 7, "number": number}
        Path(job.result(1)).write_text(json.dumps(result))
        os.link(job.result(1), job.accepted)
        os.utime(job.claim(1), ns=(5, 1_700_000_000_123_456_789 + number), follow_symlinks=False)
        blank.link(fanout.ticket("done", job.name))
        if number < inside:
            fill(job.fanouts, 2, 0)
    os.utime(fanout.tickets("done"), ns=(1, 2))


def tree(folder: str | Path) -> list[tuple[Any, ...]]:
    """Everything that may be known of a folder, but for inode numbers: names of one file are grouped instead."""
    found: list[tuple[Any, ...]] = []
    first: dict[int, str] = {}
    inside = [Path(where, name) for where, *names in os.walk(folder) for name in itertools.chain(*names)]
    for path in sorted([Path(folder), *inside]):
        status, name = path.lstat(), str(path.relative_to(folder))
        kind = stat.S_IFMT(status.st_mode)
        held: Any = os.readlink(path) if path.is_symlink() else path.read_bytes() if stat.S_ISREG(kind) else None
        same = first.setdefault(status.st_ino, name)
        found.append((name, kind, stat.S_IMODE(status.st_mode), status.st_mtime_ns, held, same))
    return found
