"""What a report holds: figures, jobs, details of some of them; as JSON, and as columns for the page.

A report is bounded by `Limits`. What that leaves out is said in `Report.left_out`; counts, histograms, workers and
groups of failures are always those of all jobs.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from spool import jsonio
from spool.layout import JobFiles
from spool.opened import fetch, home
from tools.reporting import totals
from tools.reporting.detail import Reader, Sizes
from tools.reporting.record import Attempt, Job, Run
from tools.reporting.text import visible
from tools.text import size


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a report holds at most.

    jobs: that are listed and drawn. attempts: of one job, the newest; all_attempts: of all jobs together. errors:
    characters of all errors together in the list, of which each has `short` in any case. details: jobs with input,
    result and output; detail_bytes: of all these together. The others: lines of those lists.
    """

    jobs: int = 100_000
    attempts: int = 20
    all_attempts: int = 200_000
    errors: int = 4_000_000
    short: int = 60
    details: int = 2_000
    detail_bytes: int = 8_000_000
    slowest: int = 20
    failures: int = 20
    groups: int = 50
    fanouts: int = 200
    workers: int = 200
    damaged: int = 50
    sizes: Sizes = field(default_factory=Sizes)


@dataclass(slots=True)
class Report:
    """A run with its figures.

    jobs: those that are listed. details: by the name of the job. attempts: the newest ones of a job that are drawn.
    """

    run: Run
    limits: Limits
    counts: dict[str, int]
    by_fanout: list[list[Job]]
    failures: list[totals.Failures]
    slowest: list[Job]
    hosts: list[totals.Worker]
    workers: list[totals.Worker]
    jobs: list[Job] = field(default_factory=list)
    details: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    attempts: int = 0

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def make(run: Run, limits: Limits) -> Report:
    """The report of a run."""
    by_fanout: list[list[Job]] = [[] for _ in run.fanouts]
    for job in run.jobs:
        by_fanout[job.fanout].append(job)
    report = Report(
        run,
        limits,
        totals.counts(run.jobs, sum(fanout.unmade for fanout in run.fanouts)),
        by_fanout,
        totals.failures(run.jobs),
        totals.slowest(run.jobs, limits.slowest),
        totals.workers(run, by_host=True),
        totals.workers(run, by_host=False),
    )
    ranks = _ranks(report)
    report.jobs = _chosen(report, ranks)
    report.attempts = _attempts(report)
    report.left_out = list(_left_out(report, _read_details(report, ranks)))
    return report


def _ranks(report: Report) -> dict[str, int]:
    """How interesting jobs are, 0 the most: the first failures of each kind, then others, slow ones, retried ones."""
    ranks: dict[str, int] = {}
    for group in report.failures:
        for place, job in enumerate(group.jobs):
            ranks[job.name] = min(place, 1000)
    for job in report.slowest:
        ranks.setdefault(job.name, 20)
    for job in report.run.jobs:
        if job.name not in ranks:
            ranks[job.name] = (
                1001 if job.state in ("running", "cancelled") else 1002 if len(job.attempts) > 1 else 1003
            )
    return ranks


def _chosen(report: Report, ranks: Mapping[str, int]) -> list[Job]:
    jobs, limit = report.run.jobs, report.limits.jobs
    if len(jobs) <= limit:
        return jobs
    kept = {job.name for job in heapq.nsmallest(limit, jobs, key=lambda job: ranks[job.name])}
    return [job for job in jobs if job.name in kept]


def _attempts(report: Report) -> int:
    """How many attempts of each job may be drawn, so that all together are not too many."""
    limit = report.limits.attempts
    while limit > 1 and sum(min(len(job.attempts), limit) for job in report.jobs) > report.limits.all_attempts:
        limit //= 2
    return limit


def _read_details(report: Report, ranks: Mapping[str, int]) -> int:
    """Read the details of the jobs that rank first; how many texts were cut."""
    reader, room = Reader(report.limits.sizes), report.limits.detail_bytes
    for job in heapq.nsmallest(report.limits.details, report.jobs, key=lambda job: ranks[job.name]):
        fetch(JobFiles(job.path))
        found = reader.read(job)
        room -= len(jsonio.dumps(found))
        if room < 0:
            break
        report.details[job.name] = found
    return reader.cut


def _left_out(report: Report, cut: int) -> Iterator[str]:
    """What the limits leave out, in sentences."""
    limits, run, sizes = report.limits, report.run, report.limits.sizes
    if len(report.jobs) < len(run.jobs):
        yield (
            f"{len(report.jobs):,} of {len(run.jobs):,} jobs are listed and drawn: what failed, is slow or was "
            "retried first. `tea spool list` has all. Counts, durations and workers are those of all jobs."
        )
    if not limits.details:
        yield "The command line is not here: it may hold inputs."
    if len(report.details) < len(report.jobs):
        yield (
            f"Input, result and output are here for {len(report.details):,} of {len(report.jobs):,} jobs "
            f"(at most {limits.details:,}, and {size(limits.detail_bytes)} together): failures first, then what is "
            "slow or was retried. `tea spool show JOB` has the others."
        )
    if cut:
        yield (
            f"{cut:,} long text{'s are' if cut > 1 else ' is'} cut: inputs and results after {sizes.value:,} "
            f"characters, errors after {sizes.error:,}; of what a job printed the last {size(sizes.output)} are here."
            " `tea spool show JOB` and `tea spool logs JOB` have more."
        )
    clipped = sum(max(0, len(job.attempts) - report.attempts) for job in report.jobs)
    if clipped:
        yield f"{clipped:,} older attempts are not drawn: there are the last {report.attempts} of each job."
    if sum(len(job.error) for job in report.jobs) > limits.errors:
        yield f"There are so many errors that most in the table are cut after {limits.short} characters."
    if len(run.fanouts) > limits.fanouts:
        yield f"{len(run.fanouts) - limits.fanouts:,} of {len(run.fanouts):,} fan-outs are not in their table."
    if len(report.failures) > limits.groups:
        yield f"{len(report.failures) - limits.groups:,} rarer kinds of errors have no group; the table has them."
    if len(report.workers) > limits.workers:
        yield f"{len(report.workers) - limits.workers:,} of {len(report.workers):,} workers are not listed."
    if len(run.damaged) > limits.damaged:
        yield f"{len(run.damaged) - limits.damaged:,} more damaged files are not named here; see `tea spool doctor`."


# -- JSON -------------------------------------------------------------------------------------------------------


def as_json(report: Report) -> dict[str, Any]:
    """The report for programs."""
    run = report.run
    return {
        "run": run.files.name,
        "path": home(run.files.path),
        "state": run.state,
        "coordinator": run.driver or None,
        "coordinator_alive": run.alive,
        "record": {name: value for name, value in run.record.items() if name != "argv" or report.limits.details},
        "taken": run.taken,
        "started": run.started,
        "seconds": run.seconds,
        "counts": report.counts,
        "fanouts": [_fanout(report, place) for place in range(len(run.fanouts))],
        "failures": [
            {"error_type": group.kind, "states": dict(group.states), "jobs": [job.name for job in group.jobs]}
            for group in report.failures
        ],
        "slowest": [job.name for job in report.slowest],
        "hosts": [_worker(one) for one in report.hosts],
        "workers": [_worker(one) for one in report.workers],
        "damaged": run.damaged,
        "left_out": report.left_out,
        "jobs": [_job(job, report) for job in report.jobs],
    }


def _fanout(report: Report, place: int) -> dict[str, Any]:
    fanout, jobs = report.run.fanouts[place], report.by_fanout[place]
    found = totals.durations(seconds for seconds, _ in totals.timed(jobs))
    return {
        "name": fanout.name,
        "fanouts": fanout.folders,
        "strategy": fanout.record.get("strategy"),
        "counts": totals.counts(jobs, fanout.unmade),
        "seconds": asdict(found) if found else None,
    }


def _worker(one: totals.Worker) -> dict[str, Any]:
    return {
        "name": one.name,
        "workers": len(one.workers),
        "attempts": one.attempts,
        "outcomes": dict(one.outcomes),
        "busy": one.busy,
        "first": one.first,
        "last": one.last,
        "at_once": one.at_once,
    }


def _job(job: Job, report: Report) -> dict[str, Any]:
    return {
        "job": job.name,
        "path": home(job.path),
        "state": job.state,
        "seconds": job.seconds,
        "error_type": job.error_type or None,
        "error": job.error or None,
        "attempts": [asdict(one) for one in job.attempts],
        "details": report.details.get(job.name),
    }


# -- columns ----------------------------------------------------------------------------------------------------


class _Words:
    """Texts by number, each once."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        return self.numbers.setdefault(text, len(self.numbers))


def columns(report: Report) -> dict[str, Any]:
    """Jobs and attempts as columns, which are small and quickly read: times in milliseconds since the run began.

    A job has `tries` attempts in the columns of attempts, and had `older` before them.
    """
    limit, begin, room = report.attempts, report.run.started, report.limits.errors
    kinds, errors, workers, places, outcomes = _Words(), _Words(), _Words(), _Words(), _Words()
    jobs: dict[str, list[Any]] = {
        name: [] for name in ("place", "name", "state", "kind", "error", "tries", "counted")
    }
    tries: dict[str, list[Any]] = {name: [] for name in ("number", "outcome", "start", "length", "worker")}
    for job in report.jobs:
        shown = job.attempts[-limit:]
        place, _, name = job.name.rpartition("/")
        room -= len(job.error)
        error = job.error if room >= 0 else job.error[: report.limits.short]
        row = (place, name, job.state, job.error_type, error, len(shown), _counted(job, shown))
        words = (places, None, outcomes, kinds, errors, None, None)
        for column, words_, value in zip(jobs.values(), words, row, strict=True):
            column.append(value if words_ is None else words_.number(str(value)))
        for one in shown:
            tries["number"].append(one.number)
            tries["outcome"].append(outcomes.number(one.outcome))
            tries["start"].append(_milliseconds(one.started - begin) if one.started else None)
            tries["length"].append(_milliseconds(one.seconds, 3))
            tries["worker"].append(workers.number(one.worker))
    return {
        "run": report.run.files.name,
        "begin": begin,
        "end": report.run.seconds * 1000,
        "live": report.run.state == "running",
        "words": {
            "place": list(places.numbers),
            "state": list(outcomes.numbers),
            "kind": list(kinds.numbers),
            "error": list(errors.numbers),
            "worker": [visible(name) for name in workers.numbers],
        },
        "fanouts": _fanouts(report, places),
        "jobs": jobs,
        "tries": tries,
        "details": report.details,
    }


def _fanouts(report: Report, places: _Words) -> dict[str, Any]:
    """The groups of fan-outs, and the group of each place."""
    groups = {job.name.rpartition("/")[0]: job.fanout for job in report.jobs}
    return {
        "names": [fanout.name for fanout in report.run.fanouts],
        "of": [groups[place] for place in places.numbers],
    }


def _counted(job: Job, shown: tuple[Attempt, ...]) -> int:
    """The place of the attempt that counts among those that are shown; -1 for none."""
    return next((place for place, one in enumerate(shown) if one is job.counted), -1)


def _milliseconds(seconds: float | None, digits: int = 2) -> float | None:
    return None if seconds is None else round(seconds * 1000, digits)
