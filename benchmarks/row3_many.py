"""Row 3: ten times the branches, and the fanned-out list in the state: the rate stays, memory stays bounded."""

from __future__ import annotations

import statistics
import sys
from argparse import Namespace
from pathlib import Path

import harness

GOAL, MEMORY = 0.9, 300.0


def main() -> None:
    args = harness.options(__doc__, jobs=100_000, repeat=3)
    row = harness.row(3, "ten times as many branches; the list that is fanned out in the state", args)
    with harness.places(args) as places:
        place, folder = next(iter(places.items()))
        measure(row, args, place, folder)
    row.finish()


def measure(row: harness.Row, args: Namespace, place: str, folder: Path) -> None:
    few, many = args.jobs // 10, args.jobs
    peaks: dict[str, list[float]] = {}

    def rate(workflow: str, jobs: int) -> float:
        with harness.scratch(folder) as root:
            taken, peak = run(root, workflow, jobs)
        peaks.setdefault(f"{workflow} {jobs}", []).append(peak)
        return jobs / taken

    cases = {
        "few": lambda: rate("noop.yaml", few),
        "many": lambda: rate("noop.yaml", many),
        "many, list in the state": lambda: rate("noop_list.yaml", many),
    }
    medians = harness.interleaved(row, args.repeat, cases)
    row.add(f"{few:,} branches", medians["few"], "jobs/s", place=place)
    for name, workflow in (("many", "noop.yaml"), ("many, list in the state", "noop_list.yaml")):
        pairs = zip(row.samples["few"], row.samples[name], strict=True)
        ratio = statistics.median(b / a for a, b in pairs)
        what = name.replace("many", f"{many:,} branches")
        row.add(
            what,
            medians[name],
            "jobs/s",
            place=place,
            peer=f"{few:,} branches",
            ratio=ratio,
            goal=f">= {GOAL} x the rate of {few:,}",
            ok=ratio >= GOAL,
        )
        peak = max(peaks[f"{workflow} {many}"])
        row.add("  coordinator's memory", peak, "MB", place=place, goal=f"<= {MEMORY:.0f} MB", ok=peak <= MEMORY)


def run(folder: Path, workflow: str, jobs: int) -> tuple[float, float]:
    """Seconds and the coordinator's largest memory in MB."""
    path = Path(__file__).with_name(workflow)
    argv = [sys.executable, "-m", "tea", "run", str(path), "--input", f'{{"jobs": {jobs}}}', "--spool", "spool"]
    return harness.run_peak([*argv, "--progress", "none"], folder)


if __name__ == "__main__":
    main()
