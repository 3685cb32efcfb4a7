"""Row 7: how long a person waits for `tea --version`, and for `tea spool status` of a run with 100,000 jobs."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import harness

VERSION, STATUS = 0.15, 1.0


def main() -> None:
    args = harness.options(__doc__, jobs=100_000, repeat=10)
    row = harness.row(7, "start-up", args)
    with harness.places(args) as places:
        place, folder = next(iter(places.items()))
        measure(row, args, place, folder)
    row.finish()


def measure(row: harness.Row, args: Namespace, place: str, folder: Path) -> None:
    workflow = Path(__file__).with_name("noop.yaml")
    harness.tea("run", workflow, "--input", f'{{"jobs": {args.jobs}}}', "--spool", "spool", cwd=folder)
    cases = {
        "bare Python": lambda: harness.seconds(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True)),
        "version": lambda: harness.seconds(lambda: harness.tea("--version", cwd=folder)),
        "status": lambda: harness.seconds(lambda: harness.tea("spool", "status", "--spool", "spool", cwd=folder)),
    }
    medians = harness.interleaved(row, args.repeat, cases)
    bare = medians["bare Python"]
    row.add("python -c pass", bare, "s")
    _add(row, "tea --version", medians["version"], bare, VERSION, "")
    _add(row, f"tea spool status, {args.jobs:,} jobs", medians["status"], bare, STATUS, place)


def _add(row: harness.Row, what: str, value: float, bare: float, goal: float, place: str) -> None:
    more = {"peer": "python -c pass", "ratio": value / bare}
    row.add(what, value, "s", place=place, goal=f"<= {goal:g} s", ok=value <= goal, **more)


if __name__ == "__main__":
    main()
