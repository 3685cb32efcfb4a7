"""Row 4: a fan-out of three branches in threads, in a process that is warm: with a record, and without.

The peer that this goal was set against, the engine whose workflow language tea understands, is not in this
environment; so only tea's own two figures are compared.
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from pathlib import Path
from typing import Any

import harness

from tea import YAMLEngine

WORKFLOW = Path(__file__).with_name("three.yaml")
GOAL = 2.0


def main() -> None:
    args = harness.options(__doc__, jobs=300, repeat=5)
    row = harness.row(4, "fan-out of 3 branches, threads, in a warm process", args)
    with harness.places(args) as places:
        for place, folder in places.items():
            measure(row, args, place, folder)
    row.note("TEA, the peer of this row, can't be installed here: no figure of it")
    row.finish()


def measure(row: harness.Row, args: Namespace, place: str, folder: Path) -> None:
    graph = YAMLEngine().load_from_file(str(WORKFLOW))

    def milliseconds(spool: Any) -> float:
        return statistics.median(harness.seconds(lambda: once(graph, spool)) * 1000 for _ in range(args.jobs))

    milliseconds(False)
    spooled, bare = f"spooled, {place}", f"no spool, {place}"
    with harness.scratch(folder) as root:
        cases = {spooled: lambda: milliseconds(str(root / "spool")), bare: lambda: milliseconds(False)}
        medians = harness.interleaved(row, args.repeat, cases)
    goal = {"goal": f"<= {GOAL:g} ms", "ok": medians[spooled] <= GOAL} if place != "disk" else {}
    row.add("with a record of each branch", medians[spooled], "ms", place=place, **goal)
    row.add("without a record", medians[bare], "ms", place=place)


def once(graph: Any, spool: Any) -> None:
    *_, final = graph.invoke({}, {"spool": spool})
    assert final["state"]["all"] == [4, 5, 6], final


if __name__ == "__main__":
    main()
