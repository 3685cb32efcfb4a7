#!/usr/bin/env python3
"""The same engine from Python: a graph of functions, its events, its results.

    python python_api.py

A node is a function. It takes what it names among `state`, `config`, `node`, `graph` and `parallel_results`, and
returns the keys of the state that it changes.
"""

from __future__ import annotations

import json
from typing import Any

from tea import END, START, ParallelConfig, RetryPolicy, StateGraph


def load(state: dict[str, Any]) -> dict[str, Any]:
    return {"numbers": [3, 1, 4, 1, 5], "text": state["text"]}


def total(state: dict[str, Any]) -> dict[str, Any]:
    return {"value": sum(state["numbers"])}


def words(state: dict[str, Any]) -> dict[str, Any]:
    return {"value": len(state["text"].split())}


def broken(state: dict[str, Any]) -> dict[str, Any]:
    raise ValueError(f"cannot make sense of {state['text']!r}")


def merge(parallel_results: list[Any]) -> dict[str, Any]:
    """One result for each branch, in the order of the edges, whatever became of it."""
    return {"merged": {result.branch: result.get("value", result.error) for result in parallel_results}}


def build() -> StateGraph:
    """Three branches between `load` and `merge`; each runs in a worker process and may try twice."""
    graph = StateGraph({"numbers": list, "text": str, "merged": dict})
    config = ParallelConfig(strategy="process", retry_policy=RetryPolicy(max_retries=1, base_delay=0.05))
    graph.add_node("load", load)
    graph.add_fanin_node("merge", merge)
    for function in (total, words, broken):
        graph.add_node(function.__name__, function)
        graph.add_parallel_edge("load", function.__name__, "merge", config)
        graph.add_edge(function.__name__, "merge")
    graph.add_edge(START, "load")
    graph.add_edge("merge", END)
    return graph.compile()


def main() -> None:
    for event in build().stream({"text": "to be or not to be"}):
        if event["type"] == "parallel_error":
            print(f"branch {event['branch']} failed: {event['error']}")
        if event["type"] == "final":
            print(json.dumps(event["state"]["merged"]))


if __name__ == "__main__":
    main()
