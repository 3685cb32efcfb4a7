"""Making the job directories of a fan-out.

A directory becomes a job by its ticket: its files are written first, so nobody can read half a job.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import Any

from spool import jsonio, tickets
from spool.job import is_complete, sha256
from spool.layout import FanOutFiles, JobFiles
from spool.publish import Linker, write_exclusive

INLINE_BASE = 1024
"""Bytes of shared state up to which it is written into each job's input instead of linked beside it."""


@dataclass(slots=True)
class JobSpec:
    """What a coordinator knows of a job before it exists.

    own: the part of the input that is this branch's alone, as a JSON object.
    workflow: key of the subset in `shared/` that runs this branch.
    extra: further members of job.json, for instance why it can't be replayed.
    pickle: what JSON could not carry of the input.
    """

    name: str
    index: int
    branch: str
    entry: str
    own: bytes
    workflow: str | None = None
    extra: dict[str, Any] | None = None
    pickle: bytes | None = None


class JobWriter:
    """Makes the job directories of one fan-out.

    Args:
        fanout: where.
        base: the state that all branches share, as a JSON object; `state.json` of the fan-out, linked into jobs.
        workflows: the subset for each key, YAML text.
        common: what stands in every job.json: format, exit, policy, versions.
        base_pickle: what JSON could not carry of the shared state.
    """

    def __init__(
        self,
        fanout: FanOutFiles,
        base: bytes,
        workflows: dict[str, bytes],
        common: dict[str, Any],
        base_pickle: bytes | None = None,
    ) -> None:
        self._fanout = fanout
        self._common = jsonio.dumps(common)[1:]
        self._tickets = Linker(fanout.blank, b"")
        self._workflows = {key: Linker(fanout.workflow(key), text) for key, text in workflows.items()}
        inline = len(base) <= INLINE_BASE
        self._inline = base if inline and base != b"{}" else None
        # The pickle first: a fan-out whose state.json is there is one that a resume goes on from.
        self._base_pickle = Linker(fanout.state_pickle, base_pickle) if base_pickle is not None else None
        state = Linker(fanout.state, base)
        self._base = None if inline else state
        self._base_shas = {} if inline else {"base_sha256": sha256(base)}
        if base_pickle is not None:
            self._base_shas["base_pickle_sha256"] = sha256(base_pickle)

    def create(self, spec: JobSpec, *, ticket: bool = True) -> str | None:
        """Make a job and its ticket; without one when nobody shall run it, because its end is published at once.

        Returns the SHA-256 of its input, None when the job exists already (a resumed fan-out).
        Raises OSError when the disk refuses; nothing of the job is visible then.
        """
        job = self._fanout.job(spec.name)
        try:
            os.mkdir(job.path, 0o700)
        except FileExistsError:
            if self._exists(job, ticket):
                return None
            shutil.rmtree(job.path)  # a coordinator died while it made this one; no ticket, so nobody has seen it
            os.mkdir(job.path, 0o700)
        digest = self._fill(job, spec)
        if ticket:
            self._tickets.link(self._fanout.ticket("todo", spec.name))
        return digest

    def _exists(self, job: JobFiles, ticket: bool) -> bool:
        """Whether this directory is a job already: it has a ticket, or lacks nothing but that and is given one."""
        if tickets.kind_of(self._fanout, job.name) is not None:
            return True
        if not is_complete(job):
            return False
        if ticket:
            self._tickets.link(self._fanout.ticket("todo", job.name))
        return True

    def _fill(self, job: JobFiles, spec: JobSpec) -> str:
        data = self._input(spec.own)
        digest = sha256(data)
        write_exclusive(job.input, data)
        if self._base is not None:
            self._base.link(job.base)
        if self._base_pickle is not None:
            self._base_pickle.link(job.base_pickle)
        if spec.pickle is not None:
            write_exclusive(job.pickle, spec.pickle)
        if spec.workflow is not None:
            self._workflows[spec.workflow].link(job.workflow)
        write_exclusive(job.job, self._record(spec, digest))
        return digest

    def _input(self, own: bytes) -> bytes:
        if self._inline is None:
            return own
        if own == b"{}":
            return self._inline
        return self._inline[:-1] + b"," + own[1:]

    def _record(self, spec: JobSpec, digest: str) -> bytes:
        record: dict[str, Any] = {
            "id": spec.name,
            "branch": spec.branch,
            "index": spec.index,
            "entry": spec.entry,
            "input_sha256": digest,
        }
        record.update(self._base_shas)
        if spec.workflow is not None:
            record["workflow"] = spec.workflow
        if spec.pickle is not None:
            record["pickle_sha256"] = sha256(spec.pickle)
        record.update(spec.extra or {})
        return jsonio.dumps(record)[:-1] + b"," + self._common
