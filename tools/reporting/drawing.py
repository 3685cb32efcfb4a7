"""The workflow of a run as a picture, with what became of its branches on the arrows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from spool.errors import SpoolError
from spool.publish import read_bytes
from tea.dialect.problems import WorkflowError
from tea.dialect.workflow import load_text
from tea.draw import Picture, picture, svg_text
from tools.reporting.record import STATES, Run

BOXES = 300
"""Nodes beyond which a workflow is not drawn: nobody could read it."""

Counts = Mapping[tuple[str, str], Counter[str]]


def drawing(run: Run) -> tuple[str, str]:
    """The picture as SVG without a style of its own, and why there is none; one of both is empty."""
    try:
        text = read_bytes(run.files.workflow).decode("utf-8", "replace")
        drawn = picture(load_text(text, run.record.get("workflow") or run.files.workflow, run.record.get("folder")))
    except FileNotFoundError:
        return "", "the run has no workflow.yaml"
    except (SpoolError, WorkflowError, OSError, ValueError) as error:
        return "", str(error)
    if len(drawn.boxes) > BOXES:
        return "", f"its {len(drawn.boxes):,} nodes are more than the {BOXES} that are drawn; see `tea graph`"
    label(drawn, branch_counts(run))
    return svg_text(drawn, style=""), ""


def branch_counts(run: Run) -> Counts:
    """How many jobs are in which state, by the node that fans out and the branch."""
    found: dict[tuple[str, str], Counter[str]] = {}
    names: dict[int, tuple[str, list[str]]] = {}
    for place, fanout in enumerate(run.fanouts):
        branches = fanout.record.get("branches")
        names[place] = str(fanout.record.get("source")), branches if isinstance(branches, list) else []
        if fanout.unmade and len(names[place][1]) == 1:
            found[names[place][0], str(names[place][1][0])] = Counter(waiting=fanout.unmade)
    for job in run.jobs:
        source, branches = names[job.fanout]
        index = job.name.rpartition("/")[2].partition("-")[0]
        one = len(branches) == 1
        if one or (index.isdecimal() and int(index) < len(branches)):
            branch = str(branches[0 if one else int(index)])
            found.setdefault((source, branch), Counter())[job.state] += 1
    return found


def label(drawn: Picture, counts: Counts) -> None:
    """Put counts on arrows: into a branch; out of a node that fans out over data, which is its own branch."""
    for place, arrow in enumerate(drawn.arrows):
        key = (arrow.source, arrow.target if arrow.kind == "parallel" else arrow.source)
        if key in counts:
            text = told(counts[key])
            drawn.arrows[place] = replace(arrow, label=f"{arrow.label}: {text}" if arrow.label else text)


def told(counts: Counter[str]) -> str:
    """`485 of 500 succeeded, 15 failed`."""
    total = sum(counts.values())
    parts = [f"{counts[state]:,} {state.replace('_', ' ')}" for state in STATES if counts[state]]
    if len(parts) > 1:
        first, _, rest = parts[0].partition(" ")
        parts[0] = f"{first} of {total:,} {rest}"
    return ", ".join(parts)
