"""What is to be drawn of a workflow: boxes, and arrows between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tea.dialect.navigate import Link, Plan, is_data_fan_out
from tea.dialect.workflow import Workflow
from tea.graph import END, START

LONGEST = 36
"""Characters of a condition or detail that are shown."""


@dataclass(frozen=True, slots=True)
class Box:
    """A node. kind: start, end, node, fan_out, each (a fan-out over data), fan_in or loop. details: further lines."""

    name: str
    kind: str
    title: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Arrow:
    """A way from one box to another. kind: plain, when (under a condition) or parallel (a branch begins)."""

    source: str
    target: str
    kind: str = "plain"
    label: str = ""


@dataclass(slots=True)
class Picture:
    """Boxes in the order of the workflow, arrows in the order in which they are tried."""

    title: str
    boxes: dict[str, Box] = field(default_factory=dict)
    arrows: list[Arrow] = field(default_factory=list)


def picture(workflow: Workflow) -> Picture:
    """The picture of a workflow."""
    plan = workflow.plan
    default = str(workflow.parallel.get("strategy") or "thread")
    drawn = Picture(workflow.name)
    for name in (START, *plan.nodes, END):
        drawn.boxes[name] = _box(name, plan, default)
    for name in (START, *plan.nodes):
        drawn.arrows += _arrows(plan.links.get(name, []))
    _fold_loops(drawn)
    if END not in {arrow.target for arrow in drawn.arrows}:
        del drawn.boxes[END]
    return drawn


def _fold_loops(drawn: Picture) -> None:
    """An arrow from a box to itself becomes a line in the box."""
    for arrow in drawn.arrows:
        if arrow.source == arrow.target:
            box = drawn.boxes[arrow.source]
            again = f"again if {arrow.label}" if arrow.label else "again"
            drawn.boxes[box.name] = replace(box, details=(*box.details, again))
    drawn.arrows = [arrow for arrow in drawn.arrows if arrow.source != arrow.target]


def _box(name: str, plan: Plan, default: str) -> Box:
    if name in (START, END):
        return Box(name, name.strip("_"), name.strip("_"))
    spec = plan.nodes[name]
    details = list(_details(spec, default))
    kind = "each" if is_data_fan_out(spec) else "loop" if spec.get("type") == "while_loop" else "node"
    if spec.get("fan_in") is True:
        kind = "fan_in" if kind == "node" else kind
        details.insert(0, "fan-in")
    branches = [link for link in plan.links.get(name, []) if link.fan_in is not None]
    if branches:
        strategy = next((link.strategy for link in branches if link.strategy), default)
        details.append(f"fans out: {strategy}")
        kind = "fan_out" if kind == "node" else kind
    return Box(name, kind, name, tuple(clip(detail) for detail in details))


def _details(spec: Mapping[str, Any], default: str) -> Iterator[str]:
    """What is worth a line below the name of a node."""
    if is_data_fan_out(spec):
        yield _items(spec)
        size = spec.get("chunk_size")
        yield f"{spec.get('parallel_strategy') or default}" + (f", {size} items a job" if size else "")
    if spec.get("type") == "while_loop":
        yield f"while {plain_expression(str(spec.get('condition')))}"
    if "steps" in spec:
        yield "steps: " + ", ".join(str(step.get("name") or n + 1) for n, step in enumerate(spec["steps"]))
    if "subgraph" in spec:
        yield f"subgraph: {spec['subgraph'] if isinstance(spec['subgraph'], str) else 'inline'}"


def _items(spec: Mapping[str, Any]) -> str:
    strategy = spec.get("strategy")
    if isinstance(strategy, Mapping) and "matrix" in strategy:
        axes = strategy["matrix"]
        return "for each of " + (" x ".join(map(str, axes)) if isinstance(axes, Mapping) else str(axes))
    items = strategy.get("parallel_each") if isinstance(strategy, Mapping) else spec.get("items")
    items = spec.get("parallel_each") if items is None else items
    return f"for each of {plain_expression(str(items))}"


def plain_expression(text: str) -> str:
    """A template that is one expression, without its braces."""
    inner = text.strip()
    if inner.startswith("{{") and inner.endswith("}}") and inner.count("{{") == 1:
        inner = inner[2:-2].strip()
    return inner


def _arrows(links: list[Link]) -> Iterator[Arrow]:
    """The arrows of one node. What follows conditions is their `else`."""
    guarded = False
    for link in links:
        kind = "parallel" if link.fan_in is not None else "when" if link.guard else "plain"
        label = ""
        if link.guard is not None:
            text = plain_expression(link.guard.text)
            label = clip(text if link.guard.wanted else f"not ({text})")
        elif guarded and link.fan_in is None:
            kind, label = "when", "else"
        guarded = guarded or link.guard is not None
        yield Arrow(link.source, link.target, kind, label)
        if link.fan_in is None and link.guard is None:
            return  # what comes after it is never taken


def clip(text: str) -> str:
    """The text in one line, not too long."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."
