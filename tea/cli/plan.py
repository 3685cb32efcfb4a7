"""What `tea run --dry-run` prints: what would be done, and where."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from tea.cli.errors import warn
from tea.cli.plan_remote import plan_remote

if TYPE_CHECKING:
    from tea.asked import RunOptions
    from tea.dialect import Workflow
    from tea.graph import Graph


def tell_plan(workflow: Workflow, state: dict[str, Any], options: RunOptions) -> None:
    """Check as a run would, and print the plan on stdout. Raises ValueError for what is wrong."""
    from tea.cli.check import checked_graph

    graph = checked_graph(workflow, options.strategy)
    for problem in workflow.problems:
        warn(str(problem))
    for line in list(plan(workflow, graph, state, options)):
        click.echo(line)


def plan(workflow: Workflow, graph: Graph, state: dict[str, Any], options: RunOptions) -> Iterator[str]:
    """The lines of the plan. Raises ValueError for a node or strategy that does not exist."""
    yield f"workflow   {workflow.name} ({workflow.path}), {len(workflow.plan.nodes)} nodes"
    yield f"input      {', '.join(sorted(state)) or 'empty'}"
    yield from _ends(graph, options)
    yield f"spool      {_spool(workflow, options)}"
    fan_outs = list(_fan_outs(graph, options, str(workflow.folder)))
    yield from fan_outs or ["fan-outs   none"]
    yield "nothing was started"


def _ends(graph: Graph, options: RunOptions) -> Iterator[str]:
    from tea.given import InputError
    from tea.graph import nearest

    for label, name in (("from", options.entry), ("up to", options.exit)):
        if name is None:
            continue
        if name not in graph.nodes:
            raise InputError(f"there is no node '{name}'{nearest(name, list(graph.nodes))}")
        yield f"{label:<10} {name}"


def _spool(workflow: Workflow, options: RunOptions) -> str:
    from tea.record import spool_path

    if not options.record:
        return "none (--no-spool)"
    path = spool_path(options.spool, workflow.spool.dir)
    return path if os.path.isdir(path) else f"{path} (will be made)"


def _fan_outs(graph: Graph, options: RunOptions, folder: str) -> Iterator[str]:
    told: list[Any] = []
    for name in graph.nodes:
        fan_out = graph.fan_out(name)
        if fan_out is None:
            continue
        config, wanted, limit = _configuration(graph, fan_out, options)
        strategy = _strategy(wanted, options)
        if fan_out.data is not None:
            what = "a branch for each item"
            if fan_out.data.chunk_size > 1:
                what = f"a branch for every {fan_out.data.chunk_size} items"
        else:
            what = f"{len(fan_out.edges)} branches ({', '.join(edge.target for edge in fan_out.edges)})"
        workers = limit or config.max_workers
        yield f"fan-out    {name}: {what} -> {fan_out.fan_in or 'itself'}"
        yield f"           {strategy}, {_workers(strategy, workers)}{_limits(config)}"
        if strategy == "remote" and config.remote_config not in told:
            told.append(config.remote_config)
            yield from plan_remote(config.remote_config, folder)


def _configuration(graph: Graph, fan_out: Any, options: RunOptions) -> tuple[Any, str, int | None]:
    """The configuration, strategy and number of workers of a fan-out, as far as they are known before it begins."""
    data = fan_out.data
    own = data.config if data is not None else next((edge.config for edge in fan_out.edges if edge.config), None)
    config = own or graph.parallel_config
    wanted = (data.strategy if data is not None else None) or config.strategy
    caps = [options.max_workers or config.max_workers or graph.max_workers]
    caps += [data.max_concurrency] if data is not None else []
    limit = min((cap for cap in caps if cap), default=None)
    return config, wanted, limit


def _workers(strategy: str, number: int | None) -> str:
    if strategy == "remote":
        return f"{number} jobs at once" if number else "as many jobs at once as its hosts have slots"
    return f"{number if number else 'default number of'} workers"


def _strategy(wanted: str, options: RunOptions) -> str:
    from tea.fanout import known_strategy

    return known_strategy(options.strategy or wanted, options.strict, warn)


def _limits(config: Any) -> str:
    """What bounds a branch, where anything does."""
    parts = []
    if config.timeout_seconds is not None:
        parts.append(f"{config.timeout_seconds:g} s an attempt")
    if config.timeout_total is not None:
        parts.append(f"{config.timeout_total:g} s in all")
    if config.retry_policy is not None and config.retry_policy.max_retries:
        parts.append(f"{config.retry_policy.max_retries} retries")
    if config.fail_fast:
        parts.append("fail-fast")
    if config.circuit_breaker is not None:
        parts.append(f"circuit breaker after {config.circuit_breaker.failure_threshold} failures")
    return "".join(f", {part}" for part in parts)
