"""Checking a workflow as far as that is possible without running it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tea.dialect import Workflow
    from tea.graph import Graph


def checked_graph(workflow: Workflow) -> Graph:
    """The workflow's graph: its imports and actions are found, its sub-workflows are there.

    The modules that it imports are imported, its own folder first. Raises ValueError for what is wrong.
    """
    from tea.dialect import build
    from tea.stategraph import StateGraph

    folder = str(workflow.folder)
    before = list(sys.path)
    sys.path[:] = [folder, *(entry for entry in before if entry != folder)]
    try:
        graph = build(workflow, StateGraph)
    finally:
        sys.path[:] = before
    assert isinstance(graph, StateGraph)
    graph.check()
    return graph
