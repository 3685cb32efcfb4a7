"""The coordinator's side of one fan-out: makes the jobs, takes their results, keeps the count.

    flows, states --prepare--> parcels --create--> job directories and tickets
                                                        |  (workers claim, run, finish)
    results, one slot a branch  <--collect--  result.json of each

Everything that must mean the same under every strategy is decided here: what a result file becomes in the fan-in,
fail-fast, the circuit breaker, callbacks. Where branches run is the executors' business.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from executors.base import FanOutContext, Flow, as_flows
from executors.breaker import CircuitBreaker, CircuitState
from executors.callbacks import ParallelFlowContext
from executors.policy import ParallelConfig
from executors.result import ParallelFlowResult
from executors.state import BranchState, BranchStates, as_branch_states
from executors.travel import Parcel, pack, unpack_pickle
from spool import job as jobs
from spool import jsonio, tickets
from spool.attempts import TICKET_OF, Outcome, Policy
from spool.claim import try_claim
from spool.errors import CorruptFileError, ForeignFileError
from spool.job import JobRecord, Listing
from spool.layout import FORMAT, FanOutFiles, JobFiles, job_name
from spool.making import JobSpec, JobWriter
from spool.patience import patiently
from spool.publish import quarantine, read_bytes, replace
from spool.retry import given_input

T = TypeVar("T")

LARGE = 64 * 1024 * 1024
"""Bytes of shared state above which the user is warned."""


class RemoteError(Exception):
    """An error that happened in another process; its type's name is in `kind`."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


class UnreadableError(Exception):
    """What a branch gave back cannot be unpickled in this process."""

    def __init__(self, error: BaseException) -> None:
        self.kind = type(error).__name__
        super().__init__(f"its result cannot be unpickled in this process: {error}")


def policy_of(config: ParallelConfig) -> Policy:
    """The part of a configuration that stands in job.json."""
    retry = config.retry_policy
    types = None
    if retry is not None and retry.retry_on is not None:
        types = tuple(sorted(f"{cls.__module__}.{cls.__qualname__}" for cls in retry.retry_on))
    return Policy(
        max_retries=retry.max_retries if retry else 0,
        base_delay=retry.base_delay if retry else 1.0,
        max_delay=retry.max_delay if retry else 60.0,
        backoff_multiplier=retry.backoff_multiplier if retry else 2.0,
        timeout_seconds=config.timeout_seconds,
        timeout_total=config.timeout_total,
        max_lost=config.max_lost,
        grace_seconds=config.grace_seconds,
        max_memory=config.max_memory,
        retry_on=types,
    )


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
        if len(flows) != len(states):
            raise ValueError(f"{len(flows)} flows, but {len(states)} states")
        self.flows: list[Flow] = as_flows(flows)
        self.states: BranchStates = as_branch_states(states)
        self.config, self.context = config, context
        self._policy = policy_of(config)
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
        self._carry = carry
        self._starts: dict[int, float] = {}
        self._shas: dict[int, str] = {}
        self._errors: dict[int, list[dict[str, Any]]] = {}
        self._forgiven: dict[int, int] = {}
        stems = {branch: job_name(0, 1, branch)[4:] for branch in {flow.branch for flow in self.flows}}
        digits = len(job_name(0, self.total, "x")) - 2
        self._names = [f"{i:0{digits}d}{stems[flow.branch]}" for i, flow in enumerate(self.flows)]
        self._base_marked: tuple[str, ...] = ()
        self._written_common: dict[str, Any] = {}
        self._others: dict[int, Parcel] = {}
        self._writer: JobWriter | None = None

    def config_of(self, i: int) -> ParallelConfig:
        """The configuration of branch i."""
        return self.flows[i].config or self.config

    def policy(self, i: int) -> Policy:
        """What is allowed to the job of branch i."""
        config = self.flows[i].config
        return self._policy if config is None else policy_of(config)

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
            self.patiently(self._prepare, f"cannot make jobs in {self.context.fanout.path}")

    def _prepare(self) -> None:
        name = self.flows[0].branch if self.flows else ""
        base = pack(self.states.base, branch=name, carry=self._carry)
        self._base_marked = base.marked
        self._warn_of_size(len(base.shown) + len(base.pickle or b""))
        for i in range(self.total):
            own = self.states.own(i)
            if not jsonio.is_json(own):
                self._others[i] = pack(own, branch=self.flows[i].branch, index=i, carry=self._carry)
        workflows = self.context.workflows
        self._written_common = self._common()
        self._writer = JobWriter(self.fanout, base.shown, workflows, self._written_common, base.pickle)

    def _warn_of_size(self, size: int) -> None:
        if size > LARGE and self._carry:
            self.context.warn(
                f"{self.fanout.name}: the state that its branches share is {size >> 20} MiB, and every worker holds "
                "it in memory; keep large data in files, and their names in the state"
            )

    def _common(self) -> dict[str, Any]:
        common: dict[str, Any] = {"exit": self.context.exit}
        if not any(flow.config for flow in self.flows):
            common["policy"] = self._policy.to_json()
        if self.context.version:
            common["tea"] = self.context.version
        return {**common, "format": FORMAT}

    # -- jobs ---------------------------------------------------------------------------------------------------

    @property
    def fanout(self) -> FanOutFiles:
        assert self.context.fanout is not None
        return self.context.fanout

    def name(self, i: int) -> str:
        return self._names[i]

    def job(self, i: int) -> JobFiles:
        return self.fanout.job(self.name(i))

    def create(self, i: int, *, ticket: bool = True) -> bool:
        """Make the job of branch i; False when an earlier coordinator of this run made it.

        Without a ticket no worker sees it: it is for `end` to end it.
        """
        flow = self.flows[i]
        other = self._others.get(i)
        parcel = other or Parcel(jsonio.dumps(self.states.own(i)))
        extra: dict[str, Any] = {}
        if flow.config is not None or "policy" not in self._written_common:
            extra["policy"] = self.policy(i).to_json()
        if why := self._not_replayable(other):
            extra["not_replayable"] = why
        spec = JobSpec(self.name(i), i, flow.branch, flow.entry, parcel.shown, flow.workflow, extra, parcel.pickle)
        assert self._writer is not None
        digest = self._writer.create(spec, ticket=ticket)
        self.created += 1
        if digest is not None:
            self._shas[i] = digest
        return digest is not None

    def _not_replayable(self, other: Parcel | None) -> str | None:
        """Why the record alone can't run a job; None when it can."""
        if self.context.not_replayable or self._carry:
            return self.context.not_replayable
        marked = (*self._base_marked, *(other.marked if other else ()))
        return f"JSON cannot hold {', '.join(marked)}" if marked else None

    def record(self, i: int) -> JobRecord:
        """What job.json of branch i says; of a job that was made here, without reading it again."""
        digest = self._shas.get(i)
        if digest is None:
            return jobs.read_job(self.job(i))
        flow = self.flows[i]
        return JobRecord(
            {"id": self.name(i), "index": i, "branch": flow.branch, "entry": flow.entry}, self.policy(i), digest
        )

    def index(self, name: str) -> int | None:
        """The branch of a ticket; None for a name that is not one of ours."""
        number = name.partition("-")[0]
        if number.isdecimal() and int(number) < self.total and self.name(int(number)) == name:
            return int(number)
        return None

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
        retry = self.config_of(i).retry_policy
        kept = retry.max_stored_errors if retry else len(errors)
        return ParallelFlowResult(
            branch=self.flows[i].branch,
            success=ok,
            state=self._state_after(i, raw, changes) if "started" in raw else None,
            error=raw.get("error"),
            error_type=raw.get("error_type"),
            traceback=raw.get("traceback") if self.config_of(i).include_traceback else None,
            timeout=outcome is Outcome.TIMED_OUT,
            timing_ms=float(raw.get("seconds") or 0.0) * 1000,
            retry_count=max(0, len(errors) - (0 if ok else 1)),
            circuit_state=raw.get("circuit_state") or self._circuit_state(i),
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
            circuit_state=raw.get("circuit_state") or self._circuit_state(i),
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
            self.note("failed", job=self.name(i), outcome=result.outcome, error=result.error)
        if self.context.callbacks is not None and tell:
            self._called_back(i, result)
        if self.context.on_result is not None:
            self.context.on_result(i, result)
        self._starts.pop(i, None)

    def _note_failure(self, i: int, result: ParallelFlowResult) -> None:
        self.first_failure = self.first_failure or result
        if self.config_of(i).fail_fast:
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
        attempt = self._attempt_for(job, record, claimant)
        if try_claim(job, attempt, claimant):
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

    # -- circuit breaker ----------------------------------------------------------------------------------------

    def breaker(self, i: int) -> CircuitBreaker | None:
        """The breaker in front of branch i; branches over data share their node's."""
        config = self.config_of(i).circuit_breaker
        if config is None:
            return None
        name = self.context.breaker_name or self.flows[i].entry or self.flows[i].branch
        return self.context.breakers.get_or_create(name, config)

    def _circuit_state(self, i: int) -> str | None:
        breaker = self.breaker(i)
        return breaker.state.value if breaker is not None else None

    def admits(self, i: int) -> bool:
        """Whether the circuit lets branch i through."""
        breaker = self.breaker(i)
        if breaker is None:
            return True
        before = breaker.state
        allowed = breaker.allow_request()
        self._circuit_changed(i, before, breaker.state)
        return allowed

    def count_for_breaker(self, i: int, outcome: Outcome) -> str | None:
        """Tell the circuit how an attempt went; its state afterwards. A cancelled one says nothing about it."""
        breaker = self.breaker(i)
        if breaker is None:
            return None
        before, failures = breaker.state, breaker.failure_count
        if outcome is Outcome.CANCELLED:
            breaker.release()
        else:
            breaker.record_success() if outcome is Outcome.SUCCEEDED else breaker.record_failure()
        self._circuit_changed(i, before, breaker.state)
        if breaker.state is before and breaker.failure_count != failures:  # a resumed run counts on from here
            self._keep_circuit()
        return breaker.state.value

    def _circuit_changed(self, i: int, old: CircuitState, new: CircuitState) -> None:
        if old is not new:
            self._keep_circuit()
            self.note("circuit", branch=self.flows[i].branch, old=old.value, new=new.value)
            if self.context.callbacks is not None:
                self.context.callbacks.fire_circuit_state_change(self._flow_context(i), old, new)

    def _keep_circuit(self) -> None:
        """Write the circuits down, so that a resumed run finds them as they were."""
        if self.context.fanout is not None:
            circuits = jsonio.pretty({"circuits": self.context.breakers.to_json()})
            try:
                replace(self.context.fanout.breaker, circuits)
            except OSError as error:  # a resumed run finds out again
                self.note("disk", error=f"cannot keep the circuits: {error}")

    # -- callbacks and notes ------------------------------------------------------------------------------------

    def _flow_context(self, i: int) -> ParallelFlowContext:
        state: BranchState = self.states[i]
        return ParallelFlowContext(
            branch=self.flows[i].branch,
            fan_in_node=self.context.exit,
            state_snapshot=dict(state),
            start_time=self._starts.setdefault(i, time.time()),
            config=self.config_of(i),
            graph_name=self.context.graph_name,
        )

    def started(self, i: int, at: float | None = None) -> None:
        """Branch i began its first attempt, just now or at that time (seconds since the epoch)."""
        if self.context.callbacks is not None and i not in self._starts and self.results[i] is None:
            self._starts[i] = at or time.time()
            self.context.callbacks.fire_flow_start(self._flow_context(i))

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
        error = error or RemoteError(str(raw.get("error_type")), str(raw.get("error")))
        if delay is not None:
            self.retries += 1
            self.note("retry", job=self.name(i), attempt=attempt, delay=delay, error=str(error))
        callbacks = self.context.callbacks
        if callbacks is None:
            return
        callbacks.fire_flow_error(self._flow_context(i), error, attempt - 1)
        if delay is not None:
            callbacks.fire_flow_retry(self._flow_context(i), attempt, delay, error)

    def _called_back(self, i: int, result: ParallelFlowResult) -> None:
        callbacks = self.context.callbacks
        assert callbacks is not None
        limit = self.config_of(i).timeout_seconds
        if result.timeout and limit is not None:
            callbacks.fire_flow_timeout(self._flow_context(i), limit)
        callbacks.fire_flow_complete(self._flow_context(i), result)

    def note(self, event: str, **fields: Any) -> None:
        """Write to the run's journal, where there is one."""
        if self.context.journal is not None:
            self.context.journal.write(event, fanout=self.context.fanout and self.context.fanout.name, **fields)

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
