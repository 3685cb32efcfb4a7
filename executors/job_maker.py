"""From the states of branches to job directories: what they share is written once."""

from __future__ import annotations

from typing import Any

from executors.base import FanOutContext
from executors.branches import Branches
from executors.travel import Parcel, pack
from spool import jsonio
from spool.layout import FORMAT
from spool.making import JobSpec, JobWriter

LARGE = 64 * 1024 * 1024
"""Bytes of shared state above which the user is warned."""


class JobMaker:
    """Makes the jobs of one fan-out.

    Args:
        carry: what JSON cannot show must travel as a pickle, or else is only marked in the record.
    """

    def __init__(self, branches: Branches, context: FanOutContext, *, carry: bool) -> None:
        self._branches, self._context, self._carry = branches, context, carry
        self._base_marked: tuple[str, ...] = ()
        self._common: dict[str, Any] = {}
        self._others: dict[int, Parcel] = {}
        self._writer: JobWriter | None = None

    def prepare(self) -> None:
        """Pack all states. Raises PickleValidationError, naming key and branch, before any job exists."""
        branches, flows = self._branches, self._branches.flows
        base = pack(branches.states.base, branch=flows[0].branch if flows else "", carry=self._carry)
        self._base_marked = base.marked
        self._warn_of_size(len(base.shown) + len(base.pickle or b""))
        for i, flow in enumerate(flows):
            own = branches.states.own(i)
            if not jsonio.is_json(own):
                self._others[i] = pack(own, branch=flow.branch, index=i, carry=self._carry)
        assert self._context.fanout is not None
        self._common = self._in_all()
        self._writer = JobWriter(self._context.fanout, base.shown, self._context.workflows, self._common, base.pickle)

    def _warn_of_size(self, size: int) -> None:
        if size > LARGE and self._carry:
            assert self._context.fanout is not None
            self._context.warn(
                f"{self._context.fanout.name}: the state that its branches share is {size >> 20} MiB, and every "
                "worker holds it in memory; keep large data in files, and their names in the state"
            )

    def _in_all(self) -> dict[str, Any]:
        """What stands in every job.json."""
        common: dict[str, Any] = {"exit": self._context.exit}
        if not any(flow.config for flow in self._branches.flows):
            common["policy"] = self._branches.common.to_json()
        if self._context.version:
            common["tea"] = self._context.version
        return {**common, "format": FORMAT}

    def create(self, i: int, *, ticket: bool = True) -> str | None:
        """Make the job of branch i; the hash of its input, None when an earlier coordinator of this run made it."""
        branches, flow = self._branches, self._branches.flows[i]
        other = self._others.get(i)
        parcel = other or Parcel(jsonio.dumps(branches.states.own(i)))
        extra: dict[str, Any] = {}
        if flow.config is not None or "policy" not in self._common:
            extra["policy"] = branches.policy(i).to_json()
        if why := self._not_replayable(other):
            extra["not_replayable"] = why
        spec = JobSpec(
            branches.names[i], i, flow.branch, flow.entry, parcel.shown, flow.workflow, extra, parcel.pickle
        )
        assert self._writer is not None
        return self._writer.create(spec, ticket=ticket)

    def _not_replayable(self, other: Parcel | None) -> str | None:
        """Why the record alone can't run a job; None when it can."""
        if self._context.not_replayable or self._carry:
            return self._context.not_replayable
        marked = (*self._base_marked, *(other.marked if other else ()))
        return f"JSON cannot hold {', '.join(marked)}" if marked else None
