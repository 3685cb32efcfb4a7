"""Row 8: from `kill -9` of a worker until its job runs again, on the same machine.

The clock is the machine's monotonic one, which all processes share. With `process` the run has one worker process;
with `workers` two `tea worker` wait at the spool, and the slot that runs the job is killed.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import harness

GOAL = 1.0
WORKFLOW = Path(__file__).with_name("kill.yaml")


def main() -> None:
    args = harness.options(__doc__, jobs=10, repeat=1)
    row = harness.row(8, "kill -9 of a worker until its job runs again", args)
    with harness.places(args) as places:
        for place, folder in places.items():
            for strategy in ("process", "workers"):
                name = f"{strategy}, {place}"
                row.samples[name] = [one_kill(folder, strategy) for _ in range(args.jobs)]
                median, most = statistics.median(row.samples[name]), max(row.samples[name])
                row.add(f"{strategy}, median of {args.jobs}", median, "s", place=place)
                row.add("  the longest", most, "s", place=place, goal=f"<= {GOAL:g} s", ok=most <= GOAL)
    row.finish()


def one_kill(place: Path, strategy: str) -> float:
    with harness.scratch(place) as folder, ExitStack() as running:
        text = json.dumps({"folder": str(folder)})
        options = ("--strategy", strategy, "--max-workers", "1", "--spool", "spool", "--progress", "none")
        run = running.enter_context(_started(folder, "run", WORKFLOW, "--input", text, *options))
        if strategy == "workers":
            _await(lambda: list(folder.glob("spool/runs/*/fanouts/*/todo/*")))
            for _ in range(2):
                running.enter_context(_started(folder, "worker", "spool", "--follow"))
        first = _await(lambda: set(folder.glob("began-*"))).pop()
        killed = time.monotonic()
        os.kill(int(first.name.partition("-")[2]), signal.SIGKILL)
        again = _await(lambda: set(folder.glob("began-*")) - {first}).pop()
        assert run.wait(30) == 0
        return float(again.read_text()) - killed


@contextmanager
def _started(folder: Path, *args: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """`tea ARGS` in the background; killed at the end. Its stdin stays open: a worker ends with its parent."""
    argv = [sys.executable, "-m", "tea", *map(str, args)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(argv, cwd=folder, stdin=subprocess.PIPE, env=harness.clean_env(), **quiet)
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.terminate()
        process.wait(30)


def _await(found: harness.Callable[[], harness.Any], patience: float = 60.0) -> harness.Any:
    deadline = time.monotonic() + patience
    while not (value := found()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {patience:g} s")
        time.sleep(0.001)
    return value


if __name__ == "__main__":
    main()
