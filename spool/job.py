"""A job directory: made by a coordinator, claimed and finished by workers, read by everybody.

A directory becomes a job by its ticket (see `making`). Nothing in it changes after that; claims and results come in.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from spool import jsonio, tickets
from spool.attempts import TICKET_OF, Attempt, Decision, Ended, Outcome, Policy, Verdict, decide, may_retry
from spool.claim import Claimant, claimed_by, try_claim
from spool.errors import CorruptFileError, ForeignFileError, SpoolError, TooLargeError
from spool.layout import CLAIM, QUARANTINED, RESULT, RETRY, FanOutFiles, JobFiles
from spool.publish import MAX_JSON, publish, quarantine, read_bytes, read_json, sweep, sync_folder


def sha256(data: bytes) -> str:
    """The hex digest of the SHA-256 of data."""
    return hashlib.sha256(data).hexdigest()


def is_complete(job: JobFiles) -> bool:
    """Whether a job directory was written to its end: job.json is the last file and parses."""
    try:
        read_json(job.job)
    except (FileNotFoundError, CorruptFileError):
        return False
    return True


class JobRecord(NamedTuple):
    """What job.json says, checked; the shapes of its members are known good."""

    data: dict[str, Any]
    policy: Policy
    input_sha256: str

    @property
    def name(self) -> str:
        return str(self.data["id"])


def read_job(job: JobFiles) -> JobRecord:
    """Read job.json. Raises FileNotFoundError when there is no such job, ForeignFileError or CorruptFileError when
    there is one, but its job.json is missing, another job's or otherwise not what a coordinator writes.
    """
    try:
        data = read_json(job.job)
    except FileNotFoundError:
        if os.path.isdir(job.path):
            raise CorruptFileError(job.job, "it is missing") from None
        raise
    if data.get("id") != job.name:
        raise CorruptFileError(job.job, f"it speaks of job {data.get('id')!r}")
    for member, kind in _MEMBERS:
        if type(data.get(member)) is not kind:
            raise CorruptFileError(job.job, f"{member} is {data.get(member)!r}")
    try:
        return JobRecord(data, _policy(data.get("policy") or {}), data["input_sha256"])
    except (TypeError, AttributeError) as error:
        raise CorruptFileError(job.job, str(error)) from None


def _policy(data: dict[str, Any]) -> Policy:
    """Jobs of a fan-out share a policy: it is checked once."""
    global _last_policy
    if data != _last_policy[0]:
        _last_policy = (data, Policy.from_json(data))
    return _last_policy[1]


_last_policy: tuple[dict[str, Any], Policy] = ({}, Policy())

_MEMBERS = (("index", int), ("branch", str), ("entry", str), ("input_sha256", str))


def read_input(job: JobFiles, record: JobRecord) -> dict[str, Any]:
    """The branch's own input, without the shared state. Raises CorruptFileError when it is not what was written."""
    data = read_bytes(job.input)
    if sha256(data) != record.input_sha256:
        raise CorruptFileError(job.input, "it is not what the coordinator wrote (sha256 differs)")
    value = jsonio.loads(data)
    if type(value) is not dict:
        raise CorruptFileError(job.input, "not a JSON object")
    return value


# -- attempts and results ---------------------------------------------------------------------------------------


class Listing(NamedTuple):
    """One look at a job directory. forgiven: the newest attempt that a person has sent back, 0 for none."""

    attempts: tuple[Attempt, ...]
    accepted: bool
    results: tuple[int, ...]
    forgiven: int = 0


def look(job: JobFiles, record: JobRecord) -> Listing:
    """List a job directory and read the results of its attempts.

    Results that do not parse, or speak of another job, attempt or input, are quarantined and count as absent; their
    attempts are nobody's any more, so that they are lost even while the worker lives that wrote them.
    Raises FileNotFoundError when the job is gone.
    """
    claims: list[int] = []
    results: list[int] = []
    spoiled: set[int] = set()
    accepted = False
    forgiven = 0
    for name in os.listdir(job.path):
        if match := CLAIM.fullmatch(name):
            claims.append(int(match[1]))
        elif match := RESULT.fullmatch(name):
            results.append(int(match[1]))
        elif match := QUARANTINED.fullmatch(name):
            spoiled.add(int(match[1]))
        elif match := RETRY.fullmatch(name):
            forgiven = max(forgiven, int(match[1]))
        elif name == "result.json":
            accepted = True
    attempts = [_attempt(job, record, number, number in results, number in spoiled) for number in sorted(claims)]
    return Listing(tuple(attempts), accepted, tuple(sorted(results)), forgiven)


def _attempt(job: JobFiles, record: JobRecord, number: int, has_result: bool, spoiled: bool) -> Attempt:
    result = trusted_result(job, record, number) if has_result else None
    if result is not None:
        return Attempt(number, claimed_by(job, number) or "", ended(result))
    return Attempt(number, "" if has_result or spoiled else claimed_by(job, number) or "")


def ended(result: dict[str, Any]) -> Ended:
    """What `decide` needs of a result."""
    types = result.get("error_types") or ()
    return Ended(Outcome(result["outcome"]), tuple(map(str, types)), float(result.get("spent") or 0.0))


def trusted_result(job: JobFiles, record: JobRecord, attempt: int) -> dict[str, Any] | None:
    """The result of an attempt; None when there is none that can be trusted (it is quarantined then)."""
    path = job.result(attempt)
    try:
        result = read_json(path)
        check_result(path, result, job.name, attempt, record.input_sha256)
    except FileNotFoundError:
        return None
    except (CorruptFileError, ForeignFileError):
        quarantine(path)
        return None
    return result


def check_result(path: str, result: dict[str, Any], job: str, attempt: int | None, input_sha256: str | None) -> None:
    """Raises CorruptFileError unless this is a result of this job, attempt and input."""
    if result.get("job") != job:
        raise CorruptFileError(path, f"it speaks of job {result.get('job')!r}, not of {job!r}")
    if attempt is not None and result.get("attempt") != attempt:
        raise CorruptFileError(path, f"it speaks of attempt {result.get('attempt')!r}, not of {attempt}")
    if input_sha256 is not None and result.get("input_sha256") != input_sha256 and not _is_refusal(result):
        raise CorruptFileError(path, "it answers another input")
    outcome = result.get("outcome")
    if type(outcome) is not str or outcome not in _OUTCOMES:
        raise CorruptFileError(path, f"outcome {outcome!r} is none of {sorted(_OUTCOMES)}")
    for member, kinds in _RESULT_MEMBERS:
        if type(result.get(member)) not in kinds:
            raise CorruptFileError(path, f"{member} is {result.get(member)!r}")


def _is_refusal(result: dict[str, Any]) -> bool:
    """A job whose job.json could not be read was refused by somebody who could not know the hash of its input."""
    return result.get("input_sha256") == "" and result.get("outcome") == Outcome.FAILED.value


_OUTCOMES = frozenset(outcome.value for outcome in Outcome)
_NUMBER = (int, float, type(None))
_RESULT_MEMBERS = (("attempt", (int,)), ("error_types", (list, type(None))), ("spent", _NUMBER), ("seconds", _NUMBER))


def read_accepted(job: JobFiles, input_sha256: str | None) -> dict[str, Any] | None:
    """The accepted result of a job, None while there is none. Without a hash, one that answers whatever input.

    Raises CorruptFileError or ForeignFileError for one that cannot be trusted.
    """
    path = job.accepted
    try:
        result = read_json(path)
    except FileNotFoundError:
        return None
    except ForeignFileError:
        path = _linked_result(job)
        try:
            result = read_json(path)
        except FileNotFoundError:
            raise CorruptFileError(job.accepted, f"it points to {path}, which is gone") from None
    check_result(path, result, job.name, None, input_sha256)
    return result


def _linked_result(job: JobFiles) -> str:
    """Where links are refused, result.json is a symbolic link to a result beside it; anything else is refused."""
    try:
        target = os.readlink(job.accepted)
    except OSError:
        raise ForeignFileError(job.accepted, "not a regular file of yours") from None
    if not RESULT.fullmatch(target):
        raise ForeignFileError(job.accepted, "a symbolic link where a file belongs")
    return f"{job.path}/{target}"


def verdict_result(
    job: JobFiles, record: JobRecord, attempt: int, outcome: Outcome, kind: str, error: str, spent: float = 0.0
) -> dict[str, Any]:
    """A result that no run gave: lost, cancelled, refused, timed out by a supervisor."""
    return {
        "job": job.name,
        "attempt": attempt,
        "input_sha256": record.input_sha256,
        "outcome": outcome.value,
        "success": False,
        "error": error,
        "error_type": kind,
        "error_types": [kind],
        "spent": spent,
        "finished": time.time(),
    }


def write_result(job: JobFiles, attempt: int, result: dict[str, Any], *, sync: bool = False) -> None:
    """Publish what an attempt ended with.

    Raises FileExistsError when it has a result already, TooLargeError when nobody would read it.
    """
    data = jsonio.dumps(result)
    if len(data) > MAX_JSON:
        raise TooLargeError(job.result(attempt), len(data), MAX_JSON)
    publish(job.result(attempt), data, sync=sync)


def accept(job: JobFiles, attempt: int) -> bool:
    """Make the result of an attempt the job's result; False when a newer attempt or another result is in its place.

    Two checks, because a frozen worker may wake up between any two calls: a newer claim fences this attempt off,
    and the exclusive link decides between two that pass.
    """
    if claimed_by(job, attempt + 1) is not None:  # not os.access: that answers "no" also when it cannot tell
        return False
    try:
        os.link(job.result(attempt), job.accepted)
    except FileExistsError:
        return accepted_attempt(job) == attempt
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise
        return _accept_by_symlink(job, attempt)
    return True


def _accept_by_symlink(job: JobFiles, attempt: int) -> bool:
    """Links are refused here; a symbolic link is as exclusive."""
    try:
        os.symlink(os.path.basename(job.result(attempt)), job.accepted)
    except FileExistsError:
        return accepted_attempt(job) == attempt
    return True


def accepted_attempt(job: JobFiles) -> int | None:
    """The attempt whose result was accepted; None when there is none or it cannot be read."""
    try:
        attempt = read_json(job.accepted).get("attempt")
    except ForeignFileError:
        return _linked_attempt(job)
    except (FileNotFoundError, CorruptFileError):
        return None
    return attempt if type(attempt) is int else None


def _linked_attempt(job: JobFiles) -> int | None:
    try:
        match = RESULT.fullmatch(os.path.basename(_linked_result(job)))
    except ForeignFileError:
        return None
    return int(match[1]) if match else None


def finish(
    fanout: FanOutFiles, job: JobFiles, record: JobRecord, attempt: int, result: dict[str, Any], *, sync: bool = False
) -> bool:
    """Publish the result of an attempt; accept it and move the ticket when no retry follows.

    Returns True when the result was published (late ones are, and kept beside the accepted one), False when the
    attempt had a result already.
    """
    try:
        write_result(job, attempt, result, sync=sync)
    except FileExistsError:
        return False
    outcome = result["outcome"]
    if outcome != _SUCCEEDED and _retry_follows(job, record, ended(result), attempt):
        return True
    if accept(job, attempt):
        if sync:
            sync_folder(job.path)
        tickets.move(fanout, job.name, TICKET_OF[outcome])
    return True


_SUCCEEDED = Outcome.SUCCEEDED.value


def _retry_follows(job: JobFiles, record: JobRecord, end: Ended, attempt: int) -> bool:
    if record.policy.max_retries == 0:  # the common case needs no listing
        return False
    listing = look(job, record)
    counted = [a.ended for a in listing.attempts if a.ended and a.number > listing.forgiven]
    failures = sum(1 for e in counted if e.outcome in (Outcome.FAILED, Outcome.TIMED_OUT))
    return may_retry(record.policy, end, failures)


def judge(
    fanout: FanOutFiles,
    job: JobFiles,
    record: JobRecord,
    is_alive: Callable[[str], bool],
    waited: float = float("inf"),
) -> Decision:
    """What is next for a job, mending what a dead process left half done: acceptance and ticket of a final result.

    A claimant may publish its last result and end in order between our listing and our question whether it lives,
    so a dead one is believed only when a second listing still shows no result.
    """
    listing = look(job, record)
    if listing.accepted and (final := _final(fanout, job, record.input_sha256)) is not None:
        return final
    decision = decide(listing.attempts, record.policy, is_alive, waited, listing.forgiven)
    if decision.lost and listing.attempts[-1].ended is None:
        listing = look(job, record)
        decision = decide(listing.attempts, record.policy, is_alive, waited, listing.forgiven)
    if decision.verdict is Verdict.FINISHED:
        _mend(fanout, job, listing, decision.attempt)
    return decision


def _final(fanout: FanOutFiles, job: JobFiles, input_sha256: str | None) -> Decision | None:
    """The decision on a job with an accepted result, whatever was claimed after it; mends its ticket.

    An accepted result that cannot be trusted is quarantined and counts as absent.
    """
    try:
        result = read_accepted(job, input_sha256)
    except (CorruptFileError, ForeignFileError):
        quarantine(job.accepted)
        return None
    if result is None:
        return None
    end = ended(result)
    tickets.settle(fanout, job.name, TICKET_OF[end.outcome])
    return Decision(Verdict.FINISHED, result["attempt"], spent=end.spent)


def _mend(fanout: FanOutFiles, job: JobFiles, listing: Listing, attempt: int) -> None:
    end = next(a.ended for a in listing.attempts if a.number == attempt)
    if end is not None and accept(job, attempt):
        clear_up(job, attempt)
        tickets.settle(fanout, job.name, TICKET_OF[end.outcome])


def clear_up(job: JobFiles, newest: int) -> None:
    """Remove the temporary files of whoever had attempts up to this one; they are dead, or have published."""
    for attempt in range(1, newest + 1):
        claimant = Claimant.parse(claimed_by(job, attempt) or "")
        if claimant is not None:
            sweep(job.path, claimant.pid)


def refuse(fanout: FanOutFiles, job: JobFiles, claimant: str, error: SpoolError) -> None:
    """Fail a job whose job.json cannot be trusted, with the reason, as whoever claims its next attempt."""
    if _final(fanout, job, None) is not None:
        return
    record = JobRecord({"id": job.name}, Policy(), "")
    attempt = _attempt_of(job, claimant)
    if try_claim(job, attempt, claimant):
        result = verdict_result(job, record, attempt, Outcome.FAILED, type(error).__name__, str(error))
        finish(fanout, job, record, attempt, result)


def _attempt_of(job: JobFiles, claimant: str) -> int:
    """The newest attempt when this claimant has it and has not ended it, else the next."""
    names = os.listdir(job.path)
    newest = max((int(match[1]) for name in names if (match := CLAIM.fullmatch(name))), default=0)
    if newest and f"result.{newest}.json" not in names and claimed_by(job, newest) == claimant:
        return newest
    return newest + 1
