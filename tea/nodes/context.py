"""What node functions are made with, and the few rules they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from executors.state import BranchState
from tea.nodes.code import Place, loose_place

KeyPath = tuple["str | int", ...]
Updates = dict[str, Any]
Offered = Mapping[str, Any]
Step = Callable[[Offered], Updates]
"""A part of a node: takes everything a node function may ask for, returns updates to the state."""


def _no_place(path: KeyPath, code: str) -> Place:
    return loose_place(code, ".".join(map(str, path)))


@dataclass(slots=True)
class Context:
    """What the nodes of one workflow are made with.

    actions: registered actions by name. place: where the code at a key path stands in the file.
    run_workflow: runs a sub-workflow (a path or a mapping) over a state and returns its final state; gets what the
        node was offered.
    """

    variables: Mapping[str, Any] = field(default_factory=dict)
    actions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    place: Callable[[KeyPath, str], Place] = _no_place
    run_workflow: Callable[[Any, dict[str, Any], Offered], dict[str, Any]] | None = None


def updates_of(name: str, result: Any) -> Updates:
    """What a node returned, as updates. Raises TypeError, naming the node, when it is not a dict."""
    if result is None:
        return {}
    if isinstance(result, dict):
        return result
    if isinstance(result, Mapping):
        return dict(result)
    close = getattr(result, "close", None)
    if hasattr(result, "cr_await") and close:  # a coroutine nobody awaits would warn, far from here
        close()
    raise TypeError(f"node '{name}' returned {type(result).__name__}, not a dict of updates to the state")


def scratch(offered: Offered) -> dict[str, Any]:
    """What a node of several steps is offered: the same, over a state that its steps may update as they go.

    A branch's state is its own already and is updated in place; copying it would copy all that it shares.
    """
    state = offered["state"]
    return {**offered, "state": state if isinstance(state, BranchState) else dict(state)}


def in_order(steps: Iterable[Step], offered: Offered) -> Updates:
    """Run steps one after the other over a scratch state, each seeing what the earlier ones did; all updates."""
    updates: Updates = {}
    for step in steps:
        if new := step(offered):
            updates.update(new)
            offered["state"].update(new)
    return updates


def place_name(node: str, path: KeyPath) -> str:
    """How an error names a part of a node: the node, and the step inside it."""
    steps = [str(part) for part in path if isinstance(part, int)]
    return f"{node}[{steps[-1]}]" if len(steps) > 1 else node
