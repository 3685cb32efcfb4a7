"""Checking a workflow as far as that is possible without running it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tea.dialect import Workflow
    from tea.graph import Graph


def checked_graph(workflow: Workflow, strategy: str | None = None) -> Graph:
    """The workflow's graph: its imports, actions and functions are found, its sub-workflows are there.

    strategy: the one that it would be run with, whatever it says itself. The modules that it imports are imported,
    its own folder first. Raises ValueError for what is wrong.
    """
    from tea.dialect import build
    from tea.stategraph import StateGraph

    folder = str(workflow.folder)
    before = list(sys.path)
    sys.path[:] = [folder, *(entry for entry in before if entry != folder)]
    try:
        graph = build(workflow, StateGraph, strategy=strategy)
    finally:
        sys.path[:] = before
    assert isinstance(graph, StateGraph)
    graph.check()
    return graph
