"""Why a job waits, runs, was retried, was lost, timed out, failed or was cancelled: in sentences, and what to do.

A pure function over `Facts`: nothing here reads a disk or a clock. The verdict is that of `attempts.decide`, so what
is told is what a worker would do.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from spool.attempts import Decision, Outcome, Verdict, decide
from spool.facts import Facts, Try

LONGEST = 500
"""Characters of an error that are told; `tea spool show` has more, and `--json` of it all."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job is where it is.

    state: `waiting`, `backing off`, `running`, `stuck`, `half finished`, or the outcome of a job that has one.
    sentences: the story, oldest first; the first says where it stands.
    next: what may be typed, without `--spool`, each with what it is for.
    back_off: seconds until the next attempt may begin. retries_left, losses_left: what the policy still allows.
    """

    state: str
    sentences: tuple[str, ...]
    next: tuple[tuple[str, str], ...]
    back_off: float = 0.0
    retries_left: int = 0
    losses_left: int = 0


def explain(facts: Facts) -> Explanation:
    """Explain a job."""
    decision = _decide(facts)
    back_off = max(0.0, decision.delay - facts.waited) if decision.verdict is Verdict.WAITING else 0.0
    state = _state(facts, decision)
    sentences = (
        _head(facts, decision, state, back_off),
        *_story(facts),
        *_policy(facts, decision, state),
        *_oddities(facts, state),
    )
    policy = facts.policy
    return Explanation(
        state,
        sentences,
        tuple(_next(facts, state)),
        back_off,
        max(0, policy.max_retries - decision.failures),
        max(0, policy.max_lost + 1 - decision.lost),
    )


def _decide(facts: Facts) -> Decision:
    alive = {one.claimant: bool(one.alive) for one in facts.tries}
    attempts = [one.attempt for one in facts.tries]
    return decide(attempts, facts.policy, lambda who: alive.get(who, False), facts.waited, facts.forgiven)


def _state(facts: Facts, decision: Decision) -> str:
    if facts.accepted is not None:
        return str(facts.accepted["outcome"])
    match decision.verdict:
        case Verdict.RUNNING:
            return "stuck" if facts.tries[-1].stopped else "running"
        case Verdict.WAITING:
            return "backing off"
        case Verdict.FINISHED:
            return "half finished"
        case _:
            return "waiting"


# -- where it stands ------------------------------------------------------------------------------------------------


def _running(facts: Facts, newest: Try) -> str:
    number, since = newest.number, _clock(newest.claimed)
    if facts.strategy != "remote":
        return f"It runs: attempt {number}, since {since}, at {newest.claimant}."
    if facts.host:
        return f"It runs: attempt {number}, on host {facts.host}, where {newest.claimant} has sent it."
    return f"It is on its way: {newest.claimant} has claimed attempt {number} for a host, on which it has not begun."


def _head(facts: Facts, decision: Decision, state: str, back_off: float) -> str:
    if facts.accepted is not None:
        return _ended(facts, facts.accepted)
    newest = facts.tries[-1] if facts.tries else None
    match state:
        case "running":
            assert newest is not None
            return _running(facts, newest)
        case "stuck":
            assert newest is not None
            return f"It should run, but the process of its worker {newest.claimant} is stopped by a signal."
        case "backing off":
            left = f"in {_span(back_off)}" if back_off else "as soon as a worker looks at it"
            return f"It failed and is retried: attempt {decision.attempt} may begin {left}.{_nobody(facts)}"
        case "half finished":
            return (
                f"Attempt {decision.attempt} was its last, but its result has not been accepted yet.{_nobody(facts)}"
            )
    return _waiting(facts, decision)


def _ended(facts: Facts, result: Mapping[str, Any]) -> str:
    attempt, error = result.get("attempt"), _error(result)
    match result["outcome"]:
        case Outcome.SUCCEEDED:
            took = f" after {_span(result['seconds'])}" if result.get("seconds") is not None else ""
            return f"It is done: attempt {attempt} succeeded{took}."
        case Outcome.TIMED_OUT:
            return f"It timed out: attempt {attempt} was ended: {error}."
        case Outcome.CANCELLED:
            return f"It was cancelled: {error}."
        case Outcome.LOST:
            return f"It was given up: {error}."
    return f"It failed for good with attempt {attempt}: {error}."


def _waiting(facts: Facts, decision: Decision) -> str:
    newest = facts.tries[-1] if facts.tries else None
    if decision.verdict is Verdict.GIVEN_UP:
        return f"It has lost more workers than it may; the next that looks at it gives it up.{_nobody(facts)}"
    if newest is None:
        return f"It waits: nobody has claimed it yet.{_busy(facts)}{_nobody(facts)}"
    if newest.number <= facts.forgiven:
        return f"It waits to run again: it was sent back.{_busy(facts)}{_nobody(facts)}"
    if newest.ended is None:
        return (
            f"It waits to run again, as attempt {decision.attempt}: attempt {newest.number} was lost.{_nobody(facts)}"
        )
    return f"It waits to run again, as attempt {decision.attempt}.{_busy(facts)}{_nobody(facts)}"


def _busy(facts: Facts) -> str:
    return " A worker takes it when it comes to it." if facts.driven and facts.workers and not facts.paused else ""


def _nobody(facts: Facts) -> str:
    """Why nothing will happen by itself; empty where it will."""
    if facts.paused:
        since = f" since {_clock(facts.paused['at'])}" if facts.paused["at"] is not None else ""
        return f" The run is paused by {facts.paused['by']}{since}: nothing new begins."
    if not facts.driven:
        who = f"{facts.driver} is gone" if facts.driver else "its coordinator is gone"
        return f" Nobody drives its run ({facts.run_state}; {who})."
    if facts.strategy == "workers" and facts.workers < 2:  # one is the coordinator itself
        return " No worker lives that could take it."
    return ""


# -- how it came to that --------------------------------------------------------------------------------------------


def _story(facts: Facts) -> Iterator[str]:
    for one in facts.tries:
        yield f"Attempt {one.number} was claimed by {one.claimant or '?'} at {_clock(one.claimed)}{_outcome(one)}."
        if one.sent_back:
            who, at = one.sent_back.get("by", "somebody"), float(one.sent_back.get("at") or 0.0)
            given = f", with another {', '.join(one.sent_back['input'])}" if one.sent_back.get("input") else ""
            yield f"{who} sent it back at {_clock(at)}{given}: attempts up to {one.number} are forgiven."


def _outcome(one: Try) -> str:
    result = one.result
    if one.distrusted:
        return f"; its result counts as absent, and it as lost: {one.distrusted}"
    if not result:
        return _without_result(one)
    took = f" after {_span(result['seconds'])}" if result.get("seconds") is not None else ""
    if result["outcome"] == Outcome.SUCCEEDED:
        return f" and succeeded{took}"
    node = f" in node '{result['node']}'" if result.get("node") else ""
    return f" and {str(result['outcome']).replace('_', ' ')}{took}{node}: {_error(result)}"


def _without_result(one: Try) -> str:
    if not one.alive:
        return " and was lost: that worker ended without a result"
    if one.stopped:
        return "; that process is stopped, and counts as dead when it has not been heard of for its lease"
    if one.silent is not None:
        return f" and runs, as far as is known: a worker of another host is dead after {_span(one.silent)} of silence"
    return " and runs"


def _policy(facts: Facts, decision: Decision, state: str) -> Iterator[str]:
    policy, result = facts.policy, facts.accepted
    if result is not None and result["outcome"] in (Outcome.FAILED, Outcome.TIMED_OUT):
        yield _why_no_retry(facts, result)
    if result is not None:
        return
    counted = f" ({decision.failures} failed so far)" if decision.failures else ""
    if policy.max_retries:
        yield f"It may be retried {_times(policy.max_retries)} after failures{counted}."
    if decision.lost:
        yield f"It may lose {policy.max_lost} workers, and has lost {decision.lost}."
    limits = [(policy.timeout_seconds, "an attempt"), (policy.timeout_total, "all attempts together")]
    for limit, what in limits:
        if limit is not None:
            left = _left(facts, state, limit) if limit is policy.timeout_seconds else ""
            yield f"The limit for {what} is {_span(limit)}{left}."


def _left(facts: Facts, state: str, limit: float) -> str:
    if state != "running":
        return ""
    left = limit - (facts.now - facts.tries[-1].claimed)
    return f", of which {_span(left)} are left" if left > 0 else ", which is over: it is about to be ended"


def _why_no_retry(facts: Facts, result: Mapping[str, Any]) -> str:
    policy, error = facts.policy, result.get("error_type")
    if policy.max_retries == 0:
        return "No retry follows, as its policy allows none (max_retries is 0)."
    if not policy.retries(tuple(map(str, result.get("error_types") or ()))):
        return (
            f"No retry follows: {error} is none of the errors that are retried ({', '.join(policy.retry_on or ())})."
        )
    failures = sum(1 for one in facts.tries if one.number > facts.forgiven and _failed(one))
    if failures > policy.max_retries:
        return f"No retry follows: it has been retried {_times(policy.max_retries)}, as often as it may."
    if policy.timeout_total is not None:
        return f"No retry follows: its attempts and pauses may take {_span(policy.timeout_total)} together."
    return "No retry follows."


def _failed(one: Try) -> bool:
    return one.ended is not None and one.ended.outcome in (Outcome.FAILED, Outcome.TIMED_OUT)


def _oddities(facts: Facts, state: str) -> Iterator[str]:
    if facts.trouble:
        yield f"Its job.json cannot be trusted: {facts.trouble}. Whoever claims it will fail it for that reason."
    if facts.accepted_trouble:
        yield f"Its accepted result cannot be trusted: {facts.accepted_trouble}."
    if facts.quarantined:
        yield f"Put aside, as they could not be trusted: {', '.join(facts.quarantined)}."
    if not facts.ticket:
        yield "It has no ticket, so no worker finds it."
    elif facts.accepted is not None and facts.ticket == "todo":
        yield "Its ticket still lies in todo/; the next worker that looks puts it right."
    elif facts.accepted is None and facts.ticket != "todo":
        yield f"Its ticket lies in {facts.ticket}/ although it has no result that can be trusted."


# -- what to do -----------------------------------------------------------------------------------------------------


def _next(facts: Facts, state: str) -> Iterator[tuple[str, str]]:
    job, resume = f"{facts.run}/{facts.name}", f"tea resume {facts.run}"
    if facts.trouble or facts.accepted_trouble or facts.quarantined or not facts.ticket:
        yield "tea spool doctor", "look for damage"
    if state in ("failed", "timed_out", "lost", "cancelled"):
        if state != "cancelled":
            yield f"tea spool logs {job}", "what it printed"
        yield f"tea spool replay {job}", "run it alone, apart from the record"
        if facts.driven:
            return  # the run must end before anything can be sent back
        yield f"tea spool retry {job}", "send it back; tea resume then runs it"
    elif state in ("running", "stuck"):
        if state == "stuck":
            yield f"kill -CONT {facts.tries[-1].claimant.split(':')[1]}", "let its worker go on"
        yield f"tea spool logs {job} --follow", "what it prints"
        yield f"tea spool cancel {job}", "end it"
    elif state != "succeeded" and not facts.driven:
        yield resume, "go on with the run"
    elif state != "succeeded" and facts.paused:
        yield f"tea spool unpause {facts.run}", "let the run go on"
    elif state == "waiting" and facts.strategy == "workers" and facts.workers < 2:
        yield "tea worker", "run the jobs of this spool"
    elif state == "succeeded" and not facts.driven and facts.run_state != "done":
        yield resume, "go on with the run"


def _error(result: Mapping[str, Any]) -> str:
    kind, error = result.get("error_type"), " ".join(str(result.get("error") or "no reason is known").split())
    text = error if not kind or kind in error else f"{kind}: {error}"
    return text.rstrip(".") if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def _span(seconds: Any) -> str:
    """`0.25 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    value = float(seconds)
    if value < 10:
        return f"{value:.2g} s"
    whole = round(value)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _clock(at: float) -> str:
    """Local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
