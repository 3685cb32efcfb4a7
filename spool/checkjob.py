"""One job: does its directory hold together, and does its ticket tell what it holds?

Reads what `job.look` and `job.judge` read, by the same rules, but moves nothing. What is wrong is mended by `judge`
itself, as any worker that came across the job would do.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from typing import Any

from spool import tickets
from spool.attempts import TICKET_OF, Attempt, Decision, Ended, Verdict, decide
from spool.claim import Claimant, claimed_by
from spool.errors import CorruptFileError, ForeignFileError, SpoolError
from spool.examination import Examination, Scope
from spool.finding import Findings
from spool.job import (
    JobRecord,
    accepted_attempt,
    check_result,
    ended,
    is_complete,
    judge,
    read_accepted,
    read_job,
    sha256,
)
from spool.layout import CLAIM, QUARANTINED, RESULT, RETRY, TICKETS, FanOutFiles, JobFiles
from spool.publish import quarantine, read_bytes, read_json

_NUMBERED = {"claim.": CLAIM, "result": RESULT, "retry.": RETRY}
"""What names that begin so are, if they have a number."""


class JobCheck:
    """One look at one job.

    Args:
        findings: where what is found goes.
        fanout, scope: where the job is.
    """

    def __init__(
        self, exam: Examination, findings: Findings, fanout: FanOutFiles, scope: Scope, job: JobFiles
    ) -> None:
        self.exam, self.findings = exam, findings
        self.fanout, self.scope, self.job = fanout, scope, job
        self.files: dict[str, os.stat_result] = {}
        self._numbers: dict[re.Pattern[str], set[int]] = {pattern: set() for pattern in _NUMBERED.values()}
        """Of attempts, by what there is of them; what was put aside is not among the results."""
        self._aside: set[int] = set()
        self.has_fanouts = False
        self._told = False

    def run(self, kinds: list[str]) -> None:
        """Check everything, given the folders in which the job has tickets."""
        self.files = self.exam.entries(self.job.path, self.findings, live=self.scope.live, links=CLAIM)
        self._types()
        if not self.count_tickets(kinds):
            return
        record = self._record()
        if record is None:
            return
        self._inputs(record)
        attempts = self._attempts(record)
        accepted = self._accepted(record, attempts)
        if not self._told:  # else the ticket is wrong for that reason, and mended with it
            decision = self._decide(record, attempts)
            self._ticket(kinds[0], decision, accepted)
            if self._is_orphaned(decision, accepted):
                self._orphan(attempts[max(attempts)])

    # -- tickets ----------------------------------------------------------------------------------------------------

    def count_tickets(self, kinds: list[str]) -> bool:
        """Whether the job has one ticket."""
        if not kinds:
            self._ticketless()
        elif len(kinds) > 1:
            text = f"the job has tickets in {', '.join(f'{kind}/' for kind in kinds)}, and is counted as often"
            self.findings.error("double-ticket", self.job.path, text, self.scope.resume, self._settle)
        return len(kinds) == 1

    def _ticketless(self) -> None:
        """A job directory without a ticket: the coordinator died while it made it, or the ticket was removed.

        Only a coordinator makes and unmakes jobs and gives them their first ticket. Where none may live we do that
        in its place; inside a branch the next attempt does.
        """
        claimed = newest_claimant(self.job) != ""
        if (self.scope.live and not claimed) or self._is_past:
            return  # it is just being made, or its coordinator comes to it
        mend = None if self.scope.live or self.scope.nested else self._settle if claimed else self._adopt
        alone = mend and self.exam.alone(self.scope.run, mend)
        if claimed or is_complete(self.job):
            remedy = self.scope.resume or "end the run and resume it: that makes a new ticket"
            self.findings.error(
                "no-ticket", self.job.path, "the job has no ticket, so nobody finds it", remedy, alone
            )
        else:
            text = "half a job: its coordinator died while it made it, and nobody has seen it"
            self.findings.warning("half-made", self.job.path, text, self.scope.resume, alone)

    @property
    def _is_past(self) -> bool:
        """Whether it is inside a branch of a run that is done: one that was ended from outside leaves open ends."""
        return self.scope.nested and not self.scope.resume

    def _adopt(self) -> bool:
        """What the coordinator that takes the run up would do: give it a ticket, or make it anew."""
        if tickets_of(self.fanout, self.job.name) or newest_claimant(self.job):
            return False
        if is_complete(self.job):
            return tickets.settle(self.fanout, self.job.name, "todo")
        shutil.rmtree(self.job.path)
        return True

    def _settle(self) -> bool:
        """Bring the ticket and the accepted result in line with the attempts; True when they are.

        A worker may finish the job at any moment. If it does before our ticket is there, our second look sees that;
        if later, it moves our ticket.
        """
        record, is_alive = read_job(self.job), self.exam.observer.is_alive
        if judge(self.fanout, self.job, record, is_alive).verdict is not Verdict.FINISHED:
            tickets.settle(self.fanout, self.job.name, "todo")
            judge(self.fanout, self.job, record, is_alive)
        return len(tickets_of(self.fanout, self.job.name)) == 1

    def _ticket(self, kind: str, decision: Decision, accepted: Ended | None) -> None:
        """Whether the one ticket lies where the result belongs."""
        path, resume = self.fanout.ticket(kind, self.job.name), self.scope.resume
        if accepted is not None:
            wanted = TICKET_OF[accepted.outcome]
            if kind != wanted:
                text = f"its ticket lies in {kind}/, but its result belongs into {wanted}/"
                self.findings.error("misfiled", path, text, resume, self._settle)
        elif decision.verdict is Verdict.FINISHED:
            text = f"attempt {decision.attempt} is final, but its worker died before the result was accepted"
            self.findings.error("not-accepted", self.job.path, text, resume, self._settle)
        elif kind != "todo":
            text = f"its ticket lies in {kind}/, but it has no result that can be trusted, so it has not finished"
            self.findings.error("misfiled", path, text, resume, self._settle)

    def _is_orphaned(self, decision: Decision, accepted: Ended | None) -> bool:
        """Whether the newest attempt is lost, and nobody is there to see that."""
        lost = bool(decision.lost) and decision.verdict in (Verdict.FREE, Verdict.GIVEN_UP)
        return lost and accepted is None and not (self.scope.live or self._is_past)

    def _orphan(self, newest: Attempt) -> None:
        if newest.ended is None and Claimant.parse(newest.claimant) is not None:
            text = f"attempt {newest.number} is claimed by {newest.claimant}, which is gone; it counts as lost"
            self.findings.warning("orphan", self.job.claim(newest.number), text, self.scope.resume)

    # -- files ------------------------------------------------------------------------------------------------------

    def _types(self) -> None:
        for name, status in self.files.items():
            if (pattern := _NUMBERED.get(name[:6])) is not None:
                if match := pattern.fullmatch(name):
                    self._numbers[pattern].add(int(match[1]))
                elif match := QUARANTINED.fullmatch(name):
                    self._aside.add(int(match[1]))
            if stat.S_ISREG(status.st_mode) and ".corrupt" not in name and name != "fanouts":
                continue  # nearly all
            path = f"{self.job.path}/{name}"
            if name == "fanouts":
                self.has_fanouts = self.exam.must_be(self.findings, "folder", path, status)
            elif CLAIM.fullmatch(name) or (name == "result.json" and _links_to_a_result(path)):
                continue
            elif name.endswith(".corrupt") or QUARANTINED.fullmatch(name):
                text = "put aside, as it could not be trusted; it counts as absent"
                self.findings.warning("quarantined", path, text, "look at it, then remove it")
            else:
                self.exam.must_be(self.findings, "file", path, status)

    def _record(self) -> JobRecord | None:
        try:
            return read_job(self.job)
        except (CorruptFileError, ForeignFileError) as error:
            text = f"{error.why}: the job cannot run; a worker that comes to it fails it"
            self.findings.error("job-file", error.path, text, "put back a copy, if there is one")
        except OSError as error:
            if os.path.isdir(self.job.path):  # else it was removed meanwhile
                self.findings.error("unreadable", self.job.job, f"cannot be read: {error.strerror}")
        return None

    def _inputs(self, record: JobRecord) -> None:
        """Whether what the job reads is what the coordinator wrote."""
        for path, member in (
            (self.job.input, "input_sha256"),
            (self.job.base, "base_sha256"),
            (self.job.base_pickle, "base_pickle_sha256"),
            (self.job.pickle, "pickle_sha256"),
        ):
            if member in record.data and (why := self._differs(path, record.data[member])):
                text = f"{why}: the job cannot run as it was meant to"
                self.findings.error("input", path, text, "put back a copy, if there is one")

    def _differs(self, path: str, digest: object) -> str:
        """Why a file is not the one that was written; empty when it is."""
        status = self._status(path)
        if status is None:
            return "it is missing, or not trusted"
        key = (status.st_dev, status.st_ino)
        known = self.exam.digests.get(key)
        try:
            known = known or sha256(read_bytes(path))
        except (OSError, SpoolError) as error:
            return getattr(error, "why", None) or str(error)
        if status.st_nlink > 1:
            self.exam.digests[key] = known
        return "" if known == digest else "it is not what the coordinator wrote (sha256 differs)"

    def _status(self, path: str) -> os.stat_result | None:
        """Of a file of the job that can be trusted."""
        return self.files.get(path[len(self.job.path) + 1 :])

    # -- attempts -------------------------------------------------------------------------------------------------

    def _attempts(self, record: JobRecord) -> dict[int, Attempt]:
        """What `job.look` would see, by number."""
        claims, results = self._numbers[CLAIM], self._numbers[RESULT]
        nobodys = results | self._aside
        attempts = {}
        for number in sorted(claims):
            end = self._ended(record, number) if number in results else None
            claimant = "" if end is None and number in nobodys else self._claimant(number)
            attempts[number] = Attempt(number, claimant, end)
        for number in sorted(results - claims):
            text = f"a result of attempt {number}, which nobody has claimed; it counts as absent"
            self.findings.warning("unclaimed", self.job.result(number), text, "see who made it, and remove it")
        return attempts

    def _claimant(self, number: int) -> str:
        path = self.job.claim(number)
        try:
            text = os.readlink(path)
        except OSError:
            return ""
        if Claimant.parse(text) is None:
            why = f"claimed by {text!r}, which is no worker; the attempt counts as lost"
            self.findings.warning("claim", path, why, "no need to act: the next attempt is free")
        return text

    def _ended(self, record: JobRecord, number: int) -> Ended | None:
        """What an attempt ended with; None, and a finding, when its result cannot be trusted."""
        path = self.job.result(number)
        try:
            result = read_json(path)
            check_result(path, result, self.job.name, number, record.input_sha256)
            self._pickle(number, result)
            return ended(result)
        except FileNotFoundError:
            return None
        except (CorruptFileError, ForeignFileError) as error:
            text = f"{error.why}; a reader puts it aside, and the attempt counts as lost"
            self._untrusted("result", error.path, text)
        except OSError as error:
            self.findings.error("unreadable", path, f"cannot be read: {error.strerror}")
        return None

    def _pickle(self, number: int, result: dict[str, Any]) -> None:
        """What JSON could not carry of a result. `judge` does not look at it, so it would be accepted for ever."""
        if "pickle_sha256" not in result:
            return
        path = self.job.result_pickle(number)
        why = self._differs(path, result["pickle_sha256"])
        if why:
            text = (
                f"{why}: the coordinator cannot take this result, and the attempt counts as lost when it is put aside"
            )
            self._told = True
            self.findings.error("pickle", path, text, "", lambda: self._put_aside(number))

    def _put_aside(self, number: int) -> bool:
        """Quarantine the result of an attempt, also where it was accepted, so that the job runs again."""
        accepted = accepted_attempt(self.job) == number
        quarantine(self.job.result(number))
        if accepted:
            quarantine(self.job.accepted)
        return self._settle()

    def _accepted(self, record: JobRecord, attempts: dict[int, Attempt]) -> Ended | None:
        """The accepted result; None when there is none that can be trusted."""
        status = self._status(self.job.accepted)
        if status is None:
            return None
        attempt = next((a for n, a in attempts.items() if self._is_result(n, status)), None)
        if attempt is not None:  # one file with two names: it has been read
            return attempt.ended
        try:
            result = read_accepted(self.job, record.input_sha256)
        except (CorruptFileError, ForeignFileError) as error:
            text = f"{error.why}; a reader puts it aside, and the job counts as not finished"
            self._untrusted("accepted", self.job.accepted, text)
            return None
        return ended(result) if result is not None else None

    def _is_result(self, number: int, status: os.stat_result) -> bool:
        other = self._status(self.job.result(number))
        return other is not None and os.path.samestat(status, other)

    def _untrusted(self, kind: str, path: str, text: str) -> None:
        self._told = True
        self.findings.error(kind, path, text, self.scope.resume, self._settle)

    def _decide(self, record: JobRecord, attempts: dict[int, Attempt]) -> Decision:
        forgiven = max(self._numbers[RETRY], default=0)
        return decide(list(attempts.values()), record.policy, self.exam.observer.is_alive, forgiven=forgiven)


def _links_to_a_result(path: str) -> bool:
    """Where links are refused, result.json is a symbolic link to a result beside it."""
    try:
        return RESULT.fullmatch(os.readlink(path)) is not None
    except OSError:
        return False


def tickets_of(fanout: FanOutFiles, name: str) -> list[str]:
    """The folders in which a job has a ticket now."""
    return [kind for kind in TICKETS if os.path.lexists(fanout.ticket(kind, name))]


def newest_claimant(job: JobFiles) -> str:
    """Who has the newest attempt of a job; empty when nobody ever had one."""
    try:
        numbers = [int(match[1]) for name in os.listdir(job.path) if (match := CLAIM.fullmatch(name))]
    except OSError:
        return ""
    return (claimed_by(job, max(numbers)) or "") if numbers else ""
