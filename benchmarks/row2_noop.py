"""Row 2: `tea run` of a workflow whose branches do nothing, from start to end, everything recorded; and its peers.

Start-up counts: the time is that of the whole program, as a user would wait for it.
"""

from __future__ import annotations

import json
import statistics
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import harness
import peers
from floor import Floor

GOALS = {
    "ProcessPoolExecutor.map": 0.5,
    "executorlib in memory": 1.0,
    "jug": 6.0,
    "GNU Parallel": 25.0,
}
RATE = 6_000
BARE = "bare file operations"
"""What this machine can do: the floor with two processes and a coordinator, without checks, workflow or start-up."""


def bare(folder: Path, jobs: int) -> float:
    """Seconds of the floor."""
    return Floor(folder, jobs).run_by_two()


def tea_run(folder: Path, jobs: int, workflow: str = "noop.yaml") -> float:
    """Seconds of a run; checks that every branch gave the right result."""
    path = Path(__file__).with_name(workflow)
    found: list[str] = []

    def run() -> None:
        done = harness.tea("run", path, "--input", f'{{"jobs": {jobs}}}', "--spool", "spool", cwd=folder)
        found.append(done.stdout)

    taken = harness.seconds(run)
    state = json.loads(found[0])
    assert (state["right"], state["all"]) == (jobs, jobs), state
    return taken


def main() -> None:
    args = harness.options(__doc__, jobs=10_000)
    row = harness.row(2, "tea run, no-op Python branches, 2 worker processes, start-up included", args)
    with harness.places(args) as places:
        for place, folder in places.items():
            measure(row, args, place, folder)
    for name in peers.KNOWN.keys() - peers.installed().keys():
        row.note(f"{name} is not installed here; no figure")
    row.finish()


def measure(row: harness.Row, args: Namespace, place: str, folder: Path) -> None:
    count = harness.jobs_on(place, args.jobs)
    rates = {"tea run": _rate(tea_run, folder, count), BARE: _rate(bare, folder, count)}
    for name, (peer, share) in peers.installed().items():
        rates[name] = _rate(peer, folder, max(int(count * share), 100))
    contenders = {f"{name}, {place}": rate for name, rate in rates.items()}
    medians = harness.interleaved(row, args.repeat, contenders)
    ours = f"tea run, {place}"
    reached = {"goal": f">= {RATE:,} jobs/s", "ok": medians[ours] >= RATE} if place != "disk" else {}
    row.add(f"tea run, {count:,} jobs", medians[ours], "jobs/s", place=place, **reached)
    row.add("  its fastest run", max(row.samples[ours]), "jobs/s", place=place)
    row.note(f"{place}: fastest over slowest run {harness.spread(row, ours):.1f}: so noisy was the machine")
    compare(row, BARE, None, place)
    for name, goal in GOALS.items():
        if name in rates:
            compare(row, name, goal, place)


def compare(row: harness.Row, name: str, goal: float | None, place: str) -> None:
    """A peer's rate, and ours over its in the same rounds."""
    theirs = row.samples[f"{name}, {place}"]
    ratio = statistics.median(a / b for a, b in zip(row.samples[f"tea run, {place}"], theirs, strict=True))
    more = {"goal": f">= {goal:g} x {name}", "ok": ratio >= goal} if goal and place != "disk" else {}
    row.add(name, statistics.median(theirs), "jobs/s", place=place, peer="this (tea)", ratio=ratio, **more)


def _rate(measure: peers.Measure, folder: Path, jobs: int) -> Callable[[], float]:
    def rate() -> float:
        with harness.scratch(folder) as root:
            return jobs / measure(root, jobs)

    return rate


if __name__ == "__main__":
    main()
