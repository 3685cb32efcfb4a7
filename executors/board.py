"""The coordinator's side of one fan-out: makes the jobs, takes their results, keeps the count.

    flows, states --prepare--> parcels --create--> job directories and tickets
                                                        |  (workers claim, run, finish)
    results, one slot a branch  <--collect--  result.json of each

Everything that must mean the same under every strategy is decided here and in what it is made of: jobs (`job_maker`),
what a result file becomes in the fan-in, fail-fast, circuit breakers (`circuits`), callbacks (`listeners`). Where
branches run is the executors' business.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from executors.base import FanOutContext
from executors.branches import Branches
from executors.circuits import Circuits
from executors.job_maker import JobMaker
from executors.listeners import Listeners
from executors.policy import ParallelConfig
from executors.result import ParallelFlowResult
from executors.state import BranchState
from executors.travel import unpack_pickle
from spool import job as jobs
from spool import tickets
from spool.attempts import TICKET_OF, Outcome, Policy
from spool.claim import try_claim
from spool.errors import CorruptFileError, ForeignFileError
from spool.job import JobRecord, Listing
from spool.layout import FanOutFiles, JobFiles
from spool.patience import patiently
from spool.publish import quarantine, read_bytes
from spool.retry import given_input

T = TypeVar("T")


class UnreadableError(Exception):
    """What a branch gave back cannot be unpickled in this process."""

    def __init__(self, error: BaseException) -> None:
        self.kind = type(error).__name__
        super().__init__(f"its result cannot be unpickled in this process: {error}")


_SUCCEEDED = Outcome.SUCCEEDED.value


class Board:
    """The jobs of one fan-out and what has come of them.

    Args:
        carry: what JSON cannot show must travel as a pickle (`process`), or is only marked in the record (`thread`).
    """

    def __init__(
        self,
        flows: Sequence[Any],
        states: Sequence[Any],
        config: ParallelConfig,
        context: FanOutContext,
        *,
        carry: bool,
    ) -> None:
        self.branches = Branches(flows, states, config)
        self.flows, self.states, self.config = self.branches.flows, self.branches.states, config
        self.context = context
        self.total = len(self.flows)
        self.results: list[ParallelFlowResult | None] = [None] * self.total
        self.counts = dict.fromkeys(Outcome, 0)
        self.created = 0
        self.running = 0
        """How many branches run now, as far as the executor knows."""
        self.paused = False
        self.retries = 0
        self.first_failure: ParallelFlowResult | None = None
        self.stopper: ParallelFlowResult | None = None
        self.began = time.monotonic()
        self._shas: dict[int, str] = {}
        self._errors: dict[int, list[dict[str, Any]]] = {}
        self._forgiven: dict[int, int] = {}
        self._maker = JobMaker(self.branches, context, carry=carry)
        self.listeners = Listeners(self.branches, context)
        self.note = self.listeners.note
        self.circuits = Circuits(self.branches, context, self.listeners)

    def policy(self, i: int) -> Policy:
        """What is allowed to the job of branch i."""
        return self.branches.policy(i)

    def patiently(self, do: Callable[[], T], what: str) -> T:
        """See `spool.patience`; until the fan-out is cancelled."""
        return patiently(do, what, self.context.warn, self.context.token.is_cancelled)

    @property
    def grace(self) -> float:
        return self.config.grace_seconds

    # -- before anything starts ---------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make sure that everything can travel, and get ready to make jobs.

        Raises PickleValidationError, naming key and branch, before any job exists.
        """
        if self.context.fanout is not None:
            self.patiently(self._maker.prepare, f"cannot make jobs in {self.context.fanout.path}")

    # -- jobs ---------------------------------------------------------------------------------------------------

    @property
    def fanout(self) -> FanOutFiles:
        assert self.context.fanout is not None
        return self.context.fanout

    def name(self, i: int) -> str:
        return self.branches.names[i]

    def job(self, i: int) -> JobFiles:
        return self.fanout.job(self.name(i))

    def create(self, i: int, *, ticket: bool = True) -> bool:
        """Make the job of branch i; False when an earlier coordinator of this run made it.

        Without a ticket no worker sees it: it is for `end` to end it.
        """
        digest = self._maker.create(i, ticket=ticket)
        self.created += 1
        if digest is not None:
            self._shas[i] = digest
        return digest is not None

    def record(self, i: int) -> JobRecord:
        """What job.json of branch i says; of a job that was made here, without reading it again."""
        digest = self._shas.get(i)
        if digest is None:
            return jobs.read_job(self.job(i))
        flow = self.flows[i]
        return JobRecord(
            {"id": self.name(i), "index": i, "branch": flow.branch, "entry": flow.entry},
            self.policy(i),
            digest,
        )

    def index(self, name: str) -> int | None:
        """The branch of a ticket; None for a name that is not one of ours."""
        return self.branches.index(name)

    # -- results ------------------------------------------------------------------------------------------------

    @property
    def collected(self) -> int:
        return sum(self.counts.values())

    @property
    def complete(self) -> bool:
        return self.collected == self.total

    def collect(self, i: int, *, tell: bool = True) -> bool:
        """Take the accepted result of branch i from its directory; False when there is none that can be trusted."""
        if self.results[i] is not None:
            return True
        job, raw = self.job(i), None
        try:
            raw = jobs.read_accepted(job, self._sha(i))
            changes = raw and self._changes(job, raw)
        except UnreadableError as error:
            assert raw is not None
            ended = {"outcome": Outcome.FAILED.value, "error": str(error), "error_type": error.kind}
            raw, changes = {**raw, **ended}, {}
        except (CorruptFileError, ForeignFileError) as error:
            quarantine(job.accepted)
            if raw is not None:  # what belongs to the result is spoiled, and the result with it
                quarantine(job.result(raw["attempt"]))
            tickets.settle(self.fanout, job.name, "todo")
            self.note("corrupt", job=job.name, error=str(error))
            return False
        if raw is None or changes is None:
            return False
        self.put(i, self.result_of(i, raw, changes), tell=tell)
        return True

    def adopt(self, i: int, *, tell: bool = False) -> bool:
        """Take the result that branch i had before this call; its ticket may have stayed behind a dead worker.

        Callbacks watch what happens: they are not told of what has happened before, maybe to themselves.
        """
        if not self.collect(i, tell=tell):
            return False
        result = self.results[i]
        assert result is not None
        if os.path.lexists(self.fanout.ticket("todo", self.name(i))):
            tickets.settle(self.fanout, self.name(i), TICKET_OF[Outcome(result.outcome or Outcome.FAILED)])
        return True

    def take_up(self, i: int) -> Listing | None:
        """The attempts that a job without a result had before this call; None when its job.json cannot tell.

        Their errors belong to its result, but neither callbacks nor its circuit hear of them again.
        """
        job = self.job(i)
        try:
            listing = jobs.look(job, self.record(i))
        except (CorruptFileError, ForeignFileError):  # whoever claims it refuses it
            return None
        newest = listing.attempts[-1].number if listing.attempts else 0
        self._errors[i] = self._errors_on_disk(i, newest + 1)
        self._forgiven[i] = sum(one["attempt"] < listing.forgiven for one in self._errors[i])
        return listing

    def _sha(self, i: int) -> str:
        """The hash of a job's input; empty when its job.json cannot tell: only a refusal of the job fits that."""
        if i not in self._shas:
            try:
                self._shas[i] = self.record(i).input_sha256
            except (CorruptFileError, ForeignFileError):
                return ""
        return self._shas[i]

    def _changes(self, job: JobFiles, raw: dict[str, Any]) -> dict[str, Any]:
        """What the branch changed, with what JSON could not carry put back."""
        changes = raw.get("state")
        if not isinstance(changes, dict):
            changes = {}
        digest = raw.get("pickle_sha256")
        if digest is not None:
            data = read_bytes(job.result_pickle(raw["attempt"]))
            if jobs.sha256(data) != digest:
                raise CorruptFileError(job.result_pickle(raw["attempt"]), "its sha256 is not the one in the result")
            try:
                changes = {**changes, **unpack_pickle(data)}
            except Exception as error:  # unpickling imports and calls user code
                raise UnreadableError(error) from error
        return changes

    def result_of(self, i: int, raw: dict[str, Any], changes: dict[str, Any]) -> ParallelFlowResult:
        """The slot of branch i from the result of its last attempt and what that changed."""
        if raw["outcome"] == _SUCCEEDED and raw.get("attempt") == 1:
            return self._first_success(i, raw, changes)
        outcome = Outcome(raw["outcome"])
        ok = outcome is Outcome.SUCCEEDED
        errors = self._attempt_errors(i, raw)
        retry = self.branches.config_of(i).retry_policy
        kept = retry.max_stored_errors if retry else len(errors)
        return ParallelFlowResult(
            branch=self.flows[i].branch,
            success=ok,
            state=self._state_after(i, raw, changes) if "started" in raw else None,
            error=raw.get("error"),
            error_type=raw.get("error_type"),
            traceback=raw.get("traceback") if self.branches.config_of(i).include_traceback else None,
            timeout=outcome is Outcome.TIMED_OUT,
            timing_ms=float(raw.get("seconds") or 0.0) * 1000,
            retry_count=max(0, len(errors) - (0 if ok else 1)),
            circuit_state=raw.get("circuit_state") or self.circuits.state(i),
            attempt_errors=errors[max(0, len(errors) - kept) :],
            exit_code=raw.get("exit_code"),
            job=self.job(i).path if self.context.fanout is not None else None,
            host=raw.get("host"),
            outcome=outcome.value,
        )

    def _first_success(self, i: int, raw: dict[str, Any], changes: dict[str, Any]) -> ParallelFlowResult:
        """What nearly every slot is filled with."""
        return ParallelFlowResult(
            branch=self.flows[i].branch,
            success=True,
            state=self.final_state(i, changes, raw.get("removed") or ()),
            timing_ms=float(raw.get("seconds") or 0.0) * 1000,
            circuit_state=raw.get("circuit_state") or self.circuits.state(i),
            job=self.job(i).path if self.context.fanout is not None else None,
            host=raw.get("host"),
            outcome=_SUCCEEDED,
        )

    def _attempt_errors(self, i: int, raw: dict[str, Any]) -> list[dict[str, Any]]:
        """The errors of all attempts that failed, oldest first; attempts count from 0 here."""
        newest = int(raw.get("attempt", 1))
        if newest == 1 and raw["outcome"] == Outcome.SUCCEEDED.value:
            return []
        errors = self._errors.pop(i, None)
        if errors is None:
            errors = self._errors_on_disk(i, newest) if newest > 1 and self.context.fanout is not None else []
            if raw["outcome"] != Outcome.SUCCEEDED.value:
                errors.append(_attempt_error(newest, raw))
        return errors

    def _errors_on_disk(self, i: int, newest: int) -> list[dict[str, Any]]:
        job, record = self.job(i), self.record(i)
        results = {number: jobs.trusted_result(job, record, number) for number in range(1, newest)}
        return [_attempt_error(n, one) for n, one in results.items() if one and not one.get("success")]

    def final_state(self, i: int, changes: dict[str, Any], removed: Sequence[str] = ()) -> dict[str, Any]:
        """The state in which branch i ended. Values that it did not change are shared with its siblings."""
        state = {**self.states.base, **self.states.own(i), **changes}
        for key in removed:
            state.pop(key, None)
        return state

    def state(self, i: int, attempt: int) -> BranchState:
        """The state in which an attempt of branch i begins: a person may have given it other values."""
        state: BranchState = self.states[i]
        given = given_input(self.job(i), attempt) if attempt > 1 and self.context.fanout is not None else {}
        return BranchState(state.base, {**state.own, **given}) if given else state

    def _state_after(self, i: int, raw: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
        """The state in which branch i ended with a later attempt."""
        given: dict[str, Any] = {}
        if self.context.fanout is not None:
            try:
                given = given_input(self.job(i), int(raw.get("attempt") or 1))
            except (CorruptFileError, ForeignFileError) as error:  # it could be read when the attempt began
                self.note("corrupt", job=self.name(i), error=str(error))
        return self.final_state(i, {**given, **changes}, raw.get("removed") or ())

    def put(self, i: int, result: ParallelFlowResult, *, tell: bool = True) -> None:
        """Fill the slot of branch i, once; callbacks hear of it with `tell`."""
        if self.results[i] is not None:
            return
        self.results[i] = result
        self.counts[Outcome(result.outcome or Outcome.FAILED)] += 1
        if not result.success:
            self._note_failure(i, result)
        self.listeners.ended(i, result, tell=tell)
        if self.context.on_result is not None:
            self.context.on_result(i, result)

    def _note_failure(self, i: int, result: ParallelFlowResult) -> None:
        self.first_failure = self.first_failure or result
        if self.branches.config_of(i).fail_fast:
            self.stopper = self.stopper or result

    # -- ends that no worker gave --------------------------------------------------------------------------------

    def end(self, i: int, claimant: str, outcome: Outcome, kind: str, error: str, **more: Any) -> None:
        """End branch i here: as whoever claims the next attempt. Does nothing when the job has a result already."""
        if self.context.fanout is None:
            raw = {"outcome": outcome.value, "error": error, "error_type": kind, **more}
            self.put(i, self.result_of(i, raw, {}))
            return
        self.patiently(
            lambda: self._end(i, claimant, outcome, kind, error, more),
            f"cannot write the result of {self.job(i).path}",
        )

    def _end(self, i: int, claimant: str, outcome: Outcome, kind: str, error: str, more: dict[str, Any]) -> None:
        job, record = self.job(i), self.record(i)
        while not try_claim(job, attempt := self._attempt_for(job, record, claimant), claimant):
            if self.collect(i):
                return  # who took it since we looked has finished; before that, the next claim fences it off
        jobs.clear_up(job, attempt - 1)
        result = jobs.verdict_result(job, record, attempt, outcome, kind, error)
        jobs.finish(self.fanout, job, record, attempt, {**result, **more})
        self.collect(i)

    @staticmethod
    def _attempt_for(job: JobFiles, record: JobRecord, claimant: str) -> int:
        """The next attempt; the newest when it is this claimant's already and has no result."""
        attempts = jobs.look(job, record).attempts
        if not attempts:
            return 1
        newest = attempts[-1]
        return newest.number + (newest.claimant != claimant or newest.ended is not None)

    # -- callbacks and notes ------------------------------------------------------------------------------------

    def started(self, i: int, at: float | None = None) -> None:
        """Branch i began its first attempt, just now or at that time (seconds since the epoch)."""
        if self.results[i] is None:
            self.listeners.began(i, at)

    def failures(self, i: int) -> int:
        """How many attempts of branch i are known to have failed, since a person last sent it back."""
        return len(self._errors.get(i, ())) - self._forgiven.get(i, 0)

    def attempt_failed(
        self, i: int, attempt: int, raw: dict[str, Any], error: BaseException | None, delay: float | None
    ) -> None:
        """An attempt (from 1) failed; `delay` seconds until the next, None when there is none.

        `error` is the exception itself where it happened in this process.
        """
        self._errors.setdefault(i, []).append(_attempt_error(attempt, raw))
        if delay is not None:
            self.retries += 1
        self.listeners.attempt_failed(i, attempt, raw, error, delay)

    def progress(self) -> None:
        if self.context.progress is not None:
            self.context.progress(self)

    @property
    def should_stop(self) -> str | None:
        """Why no further branch may begin; None while they may."""
        if self.context.token.is_cancelled():
            return "cancelled"
        if self.stopper is not None:
            return f"cancelled: fail_fast, and branch '{self.stopper.branch}' failed"
        return None


def _attempt_error(attempt: int, raw: dict[str, Any]) -> dict[str, Any]:
    return {"attempt": attempt - 1, "error": raw.get("error"), "error_type": raw.get("error_type")}
