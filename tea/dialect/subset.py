"""The smallest workflow that runs one branch alone.

Every way on is written as an edge, `goto` and order included, so that a node can't go elsewhere for having other
neighbours; the exit becomes `__end__`. What nodes need around them goes along: settings, imports (their paths made
absolute), and the variables that are used, as far as that can be told by reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tea.dialect.navigate import Link, is_data_fan_out
from tea.dialect.variables import needed
from tea.graph import END, START, nearest

if TYPE_CHECKING:
    from tea.dialect.workflow import Workflow

CHUNK, CHUNK_START, CHUNK_RESULTS = "chunk", "chunk_start", "chunk_results"
"""The keys of a chunk's state: its items, the index of the first, and what became of each."""

_BODY = ("run", "script", "command", "uses", "with", "output", "steps", "subgraph", "input", "language")


def subset(workflow: Workflow, entry: str, exit: str) -> dict[str, Any]:
    """The workflow from `entry` up to, and not including, `exit`. Raises ValueError when there is no such way."""
    _known(workflow, entry, exit)
    plan = workflow.plan
    names = [name for name in plan.reachable(entry, exit) if name != START]
    if not names or entry == exit or not (exit == END or any(exit in plan.entered(name) for name in names)):
        raise ValueError(f"no path leads from '{entry}' to '{exit}'")
    ordered = [name for name in plan.nodes if name in set(names)]
    nodes = [_node(workflow, name) for name in ordered]
    starts = plan.links[START] if entry == START else [Link(START, entry, ())]
    links = [*starts, *(link for name in ordered for link in plan.links[name])]
    ends = {link.fan_in for link in links} | {plan.fan_in_after(name) for name in ordered}
    if exit in ends:  # a fan-out that ends at the exit still needs a place to end
        nodes.append({"name": exit, "fan_in": True})
        links.append(Link(exit, END, ()))
        exit = END
    return _around(workflow, nodes, [_edge(link, exit) for link in links])


def subset_item(workflow: Workflow, node: str, chunk: bool) -> dict[str, Any]:
    """The workflow of one item, or of a chunk of items. Raises ValueError when the node has no items."""
    _known(workflow, node)
    spec = workflow.plan.nodes.get(node, {})
    if not is_data_fan_out(spec):
        raise ValueError(f"node '{node}' does not fan out over data")
    body = absolute(_item_body(spec), workflow.folder)
    nodes = [_chunk_node(spec, body) if chunk else {"name": node, **body}]
    edges = [{"from": START, "to": node}, {"from": node, "to": END}]
    return _around(workflow, nodes, edges)


def _known(workflow: Workflow, *names: str) -> None:
    known = [*workflow.plan.nodes, START, END]
    for name in names:
        if name not in known:
            raise ValueError(f"there is no node '{name}' in {workflow.name}{nearest(name, known)}")


def _node(workflow: Workflow, name: str) -> dict[str, Any]:
    spec = workflow.plan.nodes[name]
    return absolute({key: value for key, value in spec.items() if key != "goto"}, workflow.folder)


def absolute(spec: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A node whose sub-workflows, its own and its steps', are named by absolute paths."""
    result = dict(spec)
    if isinstance(path := result.get("subgraph"), str) and "{{" not in path:
        result["subgraph"] = str((folder / Path(path).expanduser()).absolute())
    for key in ("steps", "body"):
        if isinstance(steps := result.get(key), list):
            result[key] = [absolute(step, folder) for step in steps]
    if isinstance(action := result.get("action"), Mapping):
        result["action"] = absolute(action, folder)
    return result


def _edge(link: Link, exit: str) -> dict[str, Any]:
    """A link as an edge; a way to the exit ends the workflow."""
    edge: dict[str, Any] = {"from": link.source, "to": END if link.target == exit else link.target}
    if link.fan_in is not None:
        edge.update(parallel=True, fan_in=link.fan_in)
        if link.strategy is not None:
            edge["parallel_strategy"] = link.strategy
        if link.config is not None:
            edge["parallel_config"] = dict(link.config)
    if link.guard is not None:
        edge.update(link.guard.keys())
    return edge


def _item_body(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What one item runs, as keys of a plain node."""
    if isinstance(action := spec.get("action"), Mapping):
        return {key: value for key, value in action.items() if key != "name"}
    dynamic = spec.get("type") == "dynamic_parallel"  # its `output` is the list of results, not the item's
    return {key: spec[key] for key in _BODY if key in spec and not (dynamic and key == "output")}


def _chunk_node(spec: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    item_var, index_var = overlay_names(spec)
    return {
        "name": spec["name"],
        "type": "for_each",
        "items": "{{ state." + CHUNK + " }}",
        "start": "{{ state." + CHUNK_START + " }}",
        "item_var": item_var,
        "index_var": index_var,
        "output": CHUNK_RESULTS,
        **({"steps": body["steps"]} if "steps" in body else {"action": dict(body)}),
    }


def overlay_names(spec: Mapping[str, Any]) -> tuple[str, str | None]:
    """The names under which a branch sees its item and its index."""
    if spec.get("type") == "dynamic_parallel":
        return spec.get("item_var", "item"), spec.get("index_var", "index")
    return ("matrix", None) if "matrix" in (spec.get("strategy") or {}) else ("item", "item_index")


def _around(workflow: Workflow, nodes: list[dict[str, Any]], edges: list[dict[str, Any]]) -> dict[str, Any]:
    """The workflow around some of its nodes."""
    raw = workflow.raw
    result: dict[str, Any] = {"name": workflow.name}
    if raw.get("state_schema"):
        result["state_schema"] = raw["state_schema"]
    if variables := needed(workflow.variables, nodes, edges, bool(raw.get("imports"))):
        result["variables"] = variables
    result["settings"] = {**(raw.get("settings") or {}), "folder": str(workflow.folder)}
    if config := {key: value for key, value in (raw.get("config") or {}).items() if key in _KEPT_CONFIG}:
        result["config"] = config
    if raw.get("imports"):
        result["imports"] = [_import(one, workflow.folder) for one in raw["imports"]]
    result["nodes"] = nodes
    result["edges"] = edges
    return result


_KEPT_CONFIG = ("raise_exceptions", "max_workers")


def _import(one: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    if "path" not in one:
        return dict(one)
    return {**one, "path": str((folder / Path(one["path"]).expanduser()).absolute())}
