"""Figures over the jobs of a run, as pure functions: counts, durations, groups of failures, workers."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tools.reporting.record import STATES, Job, Run

BUCKETS = 24
"""Bars of a histogram at most."""


def counts(jobs: Iterable[Job], unmade: int = 0) -> dict[str, int]:
    """How many jobs are in each state; those that have not been made yet wait."""
    found = Counter(job.state for job in jobs)
    found["waiting"] += unmade
    return {state: found[state] for state in STATES}


@dataclass(frozen=True, slots=True)
class Durations:
    """What jobs took that ended by themselves, in seconds: half of them at most `median`, and so on."""

    count: int
    median: float
    ninety_five: float
    longest: float
    total: float


def durations(values: Iterable[float]) -> Durations | None:
    """None when there is nothing to tell of."""
    found = sorted(values)
    if not found:
        return None
    return Durations(len(found), _rank(found, 0.5), _rank(found, 0.95), found[-1], math.fsum(found))


def _rank(values: Sequence[float], share: float) -> float:
    """The nearest rank: the smallest value that this share of all do not exceed."""
    return values[max(0, math.ceil(share * len(values)) - 1)]


# -- histograms -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Bucket:
    """Jobs that took `low` seconds or more and less than `high`, by state."""

    low: float
    high: float
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class Histogram:
    """Buckets without gaps. logarithmic: each is as many times as wide as the one before it."""

    buckets: list[Bucket]
    logarithmic: bool

    @property
    def highest(self) -> int:
        return max((bucket.total for bucket in self.buckets), default=0)


def timed(jobs: Iterable[Job]) -> list[tuple[float, str]]:
    """Duration and state of the jobs that have ended and tell how long they took.

    In whole microseconds, as the columns of the page have them, so that both count alike.
    """
    return [
        (round(job.seconds, 6), job.state)
        for job in jobs
        if job.seconds is not None and job.state not in ("running", "waiting", "lost")
    ]


def histogram(values: Sequence[tuple[float, str]]) -> Histogram:
    """A histogram of durations: logarithmic when the longest is more than 20 times the shortest."""
    if not values:
        return Histogram([], False)
    seconds = [value for value, _ in values]
    longest = max(seconds)
    shortest = max(min(seconds), longest / 1e6, 1e-6)
    logarithmic = longest > 20 * shortest > 0
    edges = _powers(shortest, longest) if logarithmic else _steps(min(seconds), longest)
    if min(seconds) < edges[0]:  # next to nothing beside the longest
        edges[0] = 0.0
    buckets = [Bucket(low, high) for low, high in itertools.pairwise(edges)]
    for value, state in values:
        counted = buckets[_place(edges, value)].counts
        counted[state] = counted.get(state, 0) + 1
    return Histogram(buckets, logarithmic)


_SAME = 1e-12
"""Seconds by which an edge, a sum or product of floats, may miss what it stands for; durations are whole
microseconds. The filter of the page rounds as much.
"""


def _place(edges: Sequence[float], value: float) -> int:
    """The bucket of a value, by bisection; those beyond the ends belong to the last one there."""
    low, high = 0, len(edges) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if edges[middle] - _SAME <= value else (low, middle)
    return low


def _steps(shortest: float, longest: float) -> list[float]:
    """Edges in equal steps of 1, 2 or 5 times a power of ten."""
    step = _nice(max(longest - shortest, longest * 1e-3, 1e-6) / (BUCKETS - 4))
    first = math.floor(shortest / step)
    edges = [first * step]
    while edges[-1] - _SAME <= longest:
        edges.append((first + len(edges)) * step)
    return edges


def _nice(width: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not less."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= width * (1 - 1e-9))


def _powers(shortest: float, longest: float) -> list[float]:
    """Edges at round numbers, as many between two powers of ten as make at most `BUCKETS` bars."""
    low, high = math.floor(math.log10(shortest)), math.floor(math.log10(longest)) + 2
    edges: list[float] = []
    for factors in _FACTORS:
        every = [factor * 10.0**power for power in range(low, high) for factor in factors]
        first = max(n for n, edge in enumerate(every) if edge <= shortest)
        last = next(n for n, edge in enumerate(every) if edge - _SAME > longest)
        edges = every[first : last + 1]
        if len(edges) <= BUCKETS + 1:
            break
    return edges


_FACTORS = ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,))


# -- failures ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Failures:
    """Jobs that failed for the same kind of reason, in order."""

    kind: str
    states: Counter[str] = field(default_factory=Counter)
    jobs: list[Job] = field(default_factory=list)


def failures(jobs: Iterable[Job]) -> list[Failures]:
    """Failed jobs by the type of their error, the most frequent first."""
    groups: dict[str, Failures] = {}
    for job in jobs:
        if job.failed:
            kind = job.error_type or job.state.replace("_", " ")
            group = groups.setdefault(kind, Failures(kind))
            group.states[job.state] += 1
            group.jobs.append(job)
    return sorted(groups.values(), key=lambda group: (-len(group.jobs), group.kind))


def slowest(jobs: Iterable[Job], count: int) -> list[Job]:
    """The jobs that took longest, running ones too."""
    known = [job for job in jobs if job.seconds is not None and job.state not in ("waiting", "lost")]
    return sorted(known, key=lambda job: -(job.seconds or 0.0))[:count]


# -- workers ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Worker:
    """A worker, or a host with all its workers. busy: seconds of all attempts together. first, last: when."""

    name: str
    workers: set[str] = field(default_factory=set)
    outcomes: Counter[str] = field(default_factory=Counter)
    busy: float = 0.0
    first: float = math.inf
    last: float = 0.0

    @property
    def attempts(self) -> int:
        return sum(self.outcomes.values())

    @property
    def at_once(self) -> float:
        """How many attempts ran at once, on average, between the first and the last."""
        return self.busy / (self.last - self.first) if self.last > self.first else 0.0


def workers(run: Run, by_host: bool) -> list[Worker]:
    """Who ran attempts, by name."""
    found: dict[str, Worker] = defaultdict(lambda: Worker(""))
    for job in run.jobs:
        for one in job.attempts:
            name = (one.host if by_host else one.worker) or "unknown"
            worker = found[name]
            worker.name = name
            worker.workers.add(one.worker)
            worker.outcomes[one.outcome] += 1
            worker.busy += one.seconds or 0.0
            worker.first = min(worker.first, one.started)
            worker.last = max(worker.last, one.started + (one.seconds or 0.0))
    return [found[name] for name in sorted(found)]
