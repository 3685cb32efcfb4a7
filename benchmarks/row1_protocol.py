"""Row 1: what the spool's protocol costs for each job, in one process, beside the bare file operations.

Makes job directories, claims each, reads its input, publishes a result, collects it: what `spool` does, without
workflow, worker processes or Python code of a node.
"""

from __future__ import annotations

import time
from pathlib import Path

import harness
from floor import Floor

from spool import job as jobs
from spool import jsonio
from spool.making import JobSpec, JobWriter
from spool.queue import Queue
from spool.run import create_fanout, open_spool
from spool.watcher import Watcher
from spool.worker import Observer, Worker

SUBSET = b"nodes: []\n" * 20


def protocol(root: Path, count: int) -> dict[str, float]:
    """Seconds of each phase."""
    spool = open_spool(str(root / "spool"))
    fanout = create_fanout(f"{spool.path}/runs", 1, "work")
    with Worker(spool) as worker:
        times = [time.perf_counter()]
        shas = _create(
            JobWriter(fanout, b"{}", {"work": SUBSET}, {"exit": "merge", "policy": {}, "format": 1}), count
        )
        times.append(time.perf_counter())
        _work(Queue(fanout, worker.text, Observer(spool)), fanout)
        times.append(time.perf_counter())
        with Watcher(fanout) as watcher:
            for name in watcher.poll():
                assert jobs.read_accepted(fanout.job(name), shas[name])
        times.append(time.perf_counter())
    phases = zip(("create", "run", "collect"), times, times[1:], strict=False)
    return {name: after - before for name, before, after in phases}


def _create(writer: JobWriter, count: int) -> dict[str, str]:
    shas = {}
    for i in range(count):
        name = f"{i:06d}-work"
        own = jsonio.dumps({"item": i, "index": i})
        digest = writer.create(JobSpec(name, i, "work", "work", own, "work", {}))
        assert digest is not None
        shas[name] = digest
    return shas


def _work(queue: Queue, fanout: jobs.FanOutFiles) -> None:
    while (claim := queue.take()) is not None:
        state = jobs.read_input(claim.job, claim.record)
        result = {
            "job": claim.job.name,
            "attempt": claim.attempt,
            "input_sha256": claim.record.input_sha256,
            "outcome": "succeeded",
            "success": True,
            "started": 1.5,
            "seconds": 0.5,
            "spent": 0.5,
            "host": "host",
            "pid": 1,
            "state": {"r": state["item"]},
        }
        jobs.finish(fanout, claim.job, claim.record, claim.attempt, result)


def main() -> None:
    args = harness.options(__doc__, jobs=5_000, repeat=7)
    row = harness.row(1, "spool protocol alone (create, claim, finish, collect), one process", args)
    with harness.places(args) as places:
        for place, folder in places.items():
            measure(row, args, place, folder)
    row.finish()


def measure(row: harness.Row, args: harness.argparse.Namespace, place: str, folder: Path) -> None:
    count = harness.jobs_on(place, args.jobs)
    phases: dict[str, list[float]] = {}

    def ours() -> float:
        with harness.scratch(folder) as root:
            taken = protocol(root, count)
        for name, value in taken.items():
            phases.setdefault(name, []).append(value)
        return sum(taken.values())

    def floor() -> float:
        with harness.scratch(folder) as root:
            return Floor(root, count).run()

    names = (f"floor, {place}", f"protocol, {place}")
    medians = harness.interleaved(row, args.repeat, dict(zip(names, (floor, ours), strict=True)))
    per_job = {name: value / count * 1e6 for name, value in medians.items()}
    ratios = [b / a for a, b in zip(row.samples[names[0]], row.samples[names[1]], strict=True)]
    ratio = harness.statistics.median(ratios)
    row.add("floor", per_job[names[0]], "us/job", place=place)
    row.add(
        "protocol",
        per_job[names[1]],
        "us/job",
        place=place,
        goal="<= 1.5 x floor",
        peer="floor",
        ratio=ratio,
        ok=ratio <= 1.5,
    )
    for name, values in phases.items():
        row.add(f"  {name}", harness.statistics.median(values) / count * 1e6, "us/job", place=place)


if __name__ == "__main__":
    main()
