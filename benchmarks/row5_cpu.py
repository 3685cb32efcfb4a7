"""Row 5: branches that compute in Python, in two worker processes and in threads.

What two processors give at all is measured beside it: the same work in two bare processes and in one, for whoever
else computes on this machine takes his share of every figure.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import harness

GOAL = 1.9
STEPS = 4_000_000
CODE = "for _ in range({jobs}):\n t = 0\n for n in range({steps}): t += n * n % 7"


def main() -> None:
    args = harness.options(__doc__, jobs=12, repeat=5)
    row = harness.row(5, "CPU-bound branches: 2 processes and threads", args)
    with harness.places(args) as places:
        folder = next(iter(places.values()))
        cases = {
            "thread": lambda: tea_run(folder, "thread", args.jobs),
            "process": lambda: tea_run(folder, "process", args.jobs),
            "one bare process": lambda: bare(1, args.jobs),
            "two bare processes": lambda: bare(2, args.jobs),
        }
        medians = harness.interleaved(row, args.repeat, cases)
    row.add("tea run, thread", medians["thread"], "s")
    speedup = _speedup(row, "thread", "process")
    possible = _speedup(row, "one bare process", "two bare processes")
    row.add(
        "tea run, process",
        medians["process"],
        "s",
        peer="thread's speed",
        ratio=speedup,
        goal=f">= {GOAL} x thread",
        ok=speedup >= GOAL,
    )
    row.add("two bare processes", medians["two bare processes"], "s", peer="one's speed", ratio=possible)
    row.finish()


def _speedup(row: harness.Row, slow: str, fast: str) -> float:
    return statistics.median(a / b for a, b in zip(row.samples[slow], row.samples[fast], strict=True))


def tea_run(folder: Path, strategy: str, jobs: int) -> float:
    path = Path(__file__).with_name("cpu.yaml")
    text = json.dumps({"jobs": jobs, "steps": STEPS})
    options = ("--strategy", strategy, "--max-workers", "2", "--spool", "spool")
    with harness.scratch(folder) as root:
        return harness.seconds(lambda: harness.tea("run", path, "--input", text, *options, cwd=root))


def bare(processes: int, jobs: int) -> float:
    """The same computation in so many bare Python processes that share it."""
    argv = [sys.executable, "-c", CODE.format(jobs=jobs // processes, steps=STEPS)]

    def run() -> None:
        started = [subprocess.Popen(argv) for _ in range(processes)]
        codes = [process.wait() for process in started]
        assert not any(codes)

    return harness.seconds(run)


if __name__ == "__main__":
    main()
