"""Row 9: from the end of a branch until the fan-in has its result.

A branch gives the machine's monotonic time as its last act; a callback of the coordinator takes the time when the
result has been read, checked and put into its slot. So writing the result is part of the figure, and the time from
the finished file to the fan-in is less.
"""

from __future__ import annotations

import random
import statistics
import time
from pathlib import Path
from typing import Any

import harness

from tea import END, START, ParallelConfig, StateGraph

GOAL = 10.0


class Arrivals:
    """A callback that notes when results arrive."""

    def __init__(self) -> None:
        self.milliseconds: list[float] = []

    def on_flow_complete(self, context: Any, result: Any) -> None:
        self.milliseconds.append((time.monotonic() - result["ended"]) * 1000)


def main() -> None:
    args = harness.options(__doc__, jobs=100, repeat=3)
    row = harness.row(9, "end of a branch until the fan-in has its result (median)", args)
    with harness.places(args) as places:
        for place, folder in places.items():
            name = f"process, {place}"
            row.samples[name] = [value for _ in range(args.repeat) for value in latencies(folder, args.jobs)]
            values = sorted(row.samples[name])
            median = statistics.median(values)
            goal = {"goal": f"<= {GOAL:g} ms", "ok": median <= GOAL}
            row.add(f"process, median of {len(values)}", median, "ms", place=place, **goal)
            row.add("  99 of 100 within", values[int(len(values) * 0.99)], "ms", place=place)
    row.finish()


def latencies(place: Path, jobs: int) -> list[float]:
    arrivals = Arrivals()
    graph = StateGraph({"pauses": list})
    graph.add_node("begin", lambda state: {})
    graph.add_fanin_node("merge", lambda parallel_results: {"right": sum(r.success for r in parallel_results)})
    config = ParallelConfig(strategy="process", max_workers=2)
    for i in range(jobs):
        graph.add_node(f"branch{i}", _branch(random.uniform(0.005, 0.05)))
        graph.add_parallel_edge("begin", f"branch{i}", "merge", config)
        graph.add_edge(f"branch{i}", "merge")
    graph.add_edge(START, "begin")
    graph.add_edge("merge", END)
    graph.compile(parallel_callbacks=[arrivals])
    with harness.scratch(place) as folder:
        *_, final = graph.invoke({}, {"spool": str(folder / "spool")})
    assert final["state"]["right"] == len(arrivals.milliseconds) == jobs, final
    return arrivals.milliseconds


def _branch(pause: float) -> harness.Callable[[Any], dict[str, float]]:
    def branch(state: Any) -> dict[str, float]:
        import time

        time.sleep(pause)
        return {"ended": time.monotonic()}

    return branch


if __name__ == "__main__":
    main()
