"""Fan-outs: do the tickets say what the job directories hold?

In a live fan-out jobs end, and tickets move, between two listings. So what looks wrong there is looked at a second
time, and only that counts. What only a coordinator may do (make jobs, unmake them, give them their first ticket) is
done as the run's coordinator, and never where one may live.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterable

from spool import tickets
from spool.checkjob import JobCheck, newest_claimant, tickets_of
from spool.examination import Examination, Scope
from spool.finding import Findings, Mend
from spool.fitness import link_limit
from spool.layout import TICKETS, FanOutFiles, JobFiles, is_name
from spool.run import fanouts

SECOND_LOOK = 0.5
"""Seconds until what looks wrong in a live fan-out is looked at again."""

PATIENCE = 5.0
"""Seconds for which it is looked at again and again: a process may be held up between two of its steps."""

NEAR = 0.9
"""The share of the links that a file may have, from which on it is told."""


def check_fanouts(exam: Examination, folder: str, scope: Scope) -> None:
    """All fan-outs in a `fanouts/` folder, and those inside their branches."""
    entries = exam.entries(folder, exam.findings, live=scope.live)
    known = {fanout.name for fanout in fanouts(folder)}
    for name in sorted(set(entries) - known):
        exam.name_is_wrong(f"{folder}/{name}")
    for name in sorted(known & set(entries)):
        if exam.must_be(exam.findings, "folder", f"{folder}/{name}", entries[name]):
            _FanOutCheck(exam, FanOutFiles(f"{folder}/{name}"), scope).run()


class _FanOutCheck:
    """One look at one fan-out."""

    def __init__(self, exam: Examination, fanout: FanOutFiles, scope: Scope) -> None:
        self.exam, self.fanout, self.scope = exam, fanout, scope
        self.moving = scope.live or exam.busy
        self.tickets: dict[str, list[str]] = {}

    def run(self) -> None:
        self.exam.findings.counts["fan-outs"] += 1
        if not self._folders():
            return
        self._list_tickets()
        jobs = self._jobs()
        self._strays(jobs)
        nested = self._quickly(jobs) if self.exam.quick else self._thoroughly(jobs)
        self._links()
        for job in nested:
            self._inside(job)

    # -- the fan-out itself ---------------------------------------------------------------------------------------

    def _folders(self) -> bool:
        """Whether the fan-out has been made to its end."""
        fanout, exam = self.fanout, self.exam
        entries = exam.entries(fanout.path, exam.findings, live=self.scope.live)
        if "fanout.json" not in entries:
            if not self.scope.live:
                text = "fanout.json is missing: its coordinator died while it began, or it was removed"
                exam.findings.warning(
                    "half-made", fanout.path, text, self.scope.resume or f"rm -r {shlex.quote(fanout.path)}"
                )
            return False
        if exam.must_be(exam.findings, "file", fanout.fanout, entries["fanout.json"]):
            exam.json(fanout.fanout)
        for name in (*TICKETS, "jobs", "shared"):
            path = f"{fanout.path}/{name}"
            if name not in entries:
                text = "the folder is missing, so jobs cannot be finished"
                exam.findings.error("missing", path, text, f"mkdir -m 700 {shlex.quote(path)}", maker(path))
            elif not exam.must_be(exam.findings, "folder", path, entries[name]):
                return False
        return True

    def _list_tickets(self) -> None:
        for kind in TICKETS:
            folder = self.fanout.tickets(kind)
            for name, status in self.exam.entries(folder, self.exam.findings, live=self.scope.live).items():
                if not is_name(name):
                    self.exam.name_is_wrong(f"{folder}/{name}")
                elif self.exam.must_be(self.exam.findings, "file", f"{folder}/{name}", status):
                    self.tickets.setdefault(name, []).append(kind)

    def _jobs(self) -> list[str]:
        names = []
        for name, status in self.exam.entries(self.fanout.jobs, self.exam.findings, live=self.scope.live).items():
            if not is_name(name):
                self.exam.name_is_wrong(f"{self.fanout.jobs}/{name}")
            elif self.exam.must_be(self.exam.findings, "folder", f"{self.fanout.jobs}/{name}", status):
                names.append(name)
        self.exam.findings.counts["jobs"] += len(names)
        return sorted(names)

    def _links(self) -> None:
        """What jobs share is linked into them."""
        limit = link_limit(self.fanout.path)
        folder, findings = self.fanout.shared, self.exam.findings
        for name, status in self.exam.entries(folder, findings, live=self.scope.live).items():
            if limit and status.st_nlink >= limit * NEAR:
                text = (
                    f"{status.st_nlink:,} of the {limit:,} links that a file may have here; another file follows then"
                )
                findings.note("links", f"{folder}/{name}", text)

    # -- tickets --------------------------------------------------------------------------------------------------

    def _strays(self, jobs: Iterable[str]) -> None:
        """Tickets of jobs that are gone."""
        for name in sorted(set(self.tickets).difference(jobs)):
            job = self.fanout.job(name)
            for kind in tickets_of(self.fanout, name):
                if os.path.isdir(job.path):
                    break
                self._stray(job, kind)

    def _stray(self, job: JobFiles, kind: str) -> None:
        path = self.fanout.ticket(kind, job.name)
        if kind == "todo":
            text = "a ticket of a job whose directory is gone; nobody can run it"
            self.exam.findings.warning("stray-ticket", path, text, "", lambda: _drop(self.fanout, job))
            return
        text = f"the job is {kind}, but its directory is gone, and its result with it"
        remedy = (
            f"{self.scope.resume} runs it again" if self.scope.resume else "put back a copy, or remove the ticket"
        )
        self.exam.findings.error("lost-job", path, text, remedy)

    # -- jobs -----------------------------------------------------------------------------------------------------

    def _quickly(self, jobs: list[str]) -> list[JobFiles]:
        """Only whether each job has one ticket; nobody looks into jobs, so no fan-outs inside them are found."""

        def look(name: str, findings: Findings) -> None:
            self._check(name, findings).count_tickets(tickets_of(self.fanout, name))

        for name in self._confirmed([name for name in jobs if len(self.tickets.get(name, ())) != 1], look):
            look(name, self.exam.findings)
        return []

    def _thoroughly(self, jobs: list[str]) -> list[JobFiles]:
        """Look into every job; those that hold fan-outs of their own."""
        nested, suspects = [], []
        for name in jobs:
            findings = Findings() if self.moving else self.exam.findings
            check = self._check(name, findings)
            check.run(self.tickets.get(name, []))
            if check.has_fanouts:
                nested.append(check.job)
            if self.moving and any(True for _ in findings):
                suspects.append(name)

        def look(name: str, findings: Findings) -> None:
            self._check(name, findings).run(tickets_of(self.fanout, name))

        for name in self._confirmed(suspects, look):
            look(name, self.exam.findings)
        return nested

    def _check(self, name: str, findings: Findings) -> JobCheck:
        return JobCheck(self.exam, findings, self.fanout, self.scope, self.fanout.job(name))

    def _confirmed(self, suspects: list[str], look: Callable[[str, Findings], None]) -> list[str]:
        """What somebody may be about to put right is given the time for that, `PATIENCE` in all of an examination."""
        while suspects and self.moving:
            time.sleep(SECOND_LOOK)
            self.exam.waited += SECOND_LOOK
            suspects = [name for name in suspects if _looks_wrong(name, look)]
            if self.exam.waited >= PATIENCE:
                break
        return suspects

    def _inside(self, job: JobFiles) -> None:
        """The fan-outs inside a branch; live as long as a worker has the branch."""
        live = self.scope.live or self.exam.observer.is_alive(newest_claimant(job))
        check_fanouts(self.exam, job.fanouts, Scope(self.scope.run, live, True, self.scope.resume))


def _looks_wrong(name: str, look: Callable[[str, Findings], None]) -> bool:
    findings = Findings()
    look(name, findings)
    return any(True for _ in findings)


# -- mending --------------------------------------------------------------------------------------------------------


def maker(path: str) -> Mend:
    """Makes a folder that is missing."""

    def mend() -> bool:
        os.mkdir(path, 0o700)
        return True

    return mend


def _drop(fanout: FanOutFiles, job: JobFiles) -> bool:
    tickets.drop_stray(fanout, job)
    return not os.path.lexists(fanout.ticket("todo", job.name))
