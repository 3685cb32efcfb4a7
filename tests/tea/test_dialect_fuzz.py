"""Whatever stands in a file: it is a workflow that can be built, or a WorkflowError that says where it is not."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tea.dialect import Problem, Workflow, WorkflowError, build, load_dict, load_text
from tea.dialect.schema import TABLES
from tea.graph import Graph

FULL: dict[str, Any] = {
    "name": "full",
    "variables": {"k": 1},
    "state_schema": {"x": "int"},
    "settings": {
        "parallel": {
            "strategy": "thread",
            "retry": {"max_retries": 1},
            "circuit_breaker": {"failure_threshold": 1},
            "remote": {"hosts": ["a", {"host": "b", "slots": 2}]},
        },
        "spool": {"dir": "x"},
    },
    "config": {"interrupt_before": ["m"], "max_workers": 2},
    "imports": [],
    "nodes": [
        {"name": "s", "goto": [{"if": "state.x", "to": "f"}, {"to": "f"}]},
        {"name": "f"},
        {"name": "a", "run": "return {'x': 1}"},
        {"name": "b", "uses": "json:dumps", "with": {"obj": "{{ state.x }}"}, "output": "y"},
        {
            "name": "m",
            "fan_in": True,
            "steps": [{"command": ["echo", "{{ x }}"], "output": "z"}, {"script": "x = 1"}],
        },
        {
            "name": "d",
            "type": "dynamic_parallel",
            "items": "{{ state.l }}",
            "action": {"run": "x = 1"},
            "output": "o",
        },
        {"name": "g", "run": "x = 1", "strategy": {"matrix": {"v": [1, 2]}}, "fan_in": "n"},
        {"name": "n", "fan_in": True},
        {"name": "w", "type": "while_loop", "condition": "!done", "max_iterations": 3, "body": [{"run": "x = 1"}]},
        {"name": "e", "type": "for_each", "items": [1], "output": "r", "run": "x = 1"},
        {"name": "u", "subgraph": {"nodes": [{"name": "i"}]}, "input": {"q": 1}},
    ],
    "edges": [
        {"from": "__start__", "to": "s"},
        {"from": "f", "to": ["a", "b"], "parallel": True, "fan_in": "m", "parallel_config": {"retry": None}},
        {"from": "m", "to": "d", "condition": {"type": "expression", "value": "state.x"}, "when": False},
        {"from": "m", "to": "d"},
    ],
}

KEYS = sorted({key for table in TABLES.values() for key in table.keys})
SCARS = ["", ":", "- ", "\t", "'", '"', "{", "]", "&a ", "*a", "!x ", "|", "#", "\n", "%", "\u2028"]
NAMES = ["s", "a", "m", "n", "__start__", "__end__", "zz"]
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.floats(),
    st.sampled_from([*NAMES, "", " ", "{{ x", "{{ x }}", "x = (", "!", "thread", "parallel", "while_loop", "a\n\0b"]),
    st.lists(st.sampled_from(NAMES), max_size=2),
    st.dictionaries(st.sampled_from(KEYS), st.sampled_from([1, "s", None, [], {}]), max_size=2),
    st.lists(st.dictionaries(st.sampled_from(KEYS), st.sampled_from([1, "s", "m", True]), max_size=3), max_size=2),
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a workflow, as a container and a key."""
    found = []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in pairs:
        found += [(value, key), *places(one)]
    return found


@st.composite
def damaged(draw: Any) -> dict[str, Any]:
    config = copy.deepcopy(FULL)
    for _ in range(draw(st.integers(0, 3))):
        container, key = draw(st.sampled_from(places(config)))
        action = draw(st.sampled_from(["replace", "remove", "add", "twice"]))
        if action == "replace":
            container[key] = draw(JUNK)
        elif action == "remove":
            del container[key]
        elif isinstance(container, list):
            container.append(copy.deepcopy(container[key]) if action == "twice" else draw(JUNK))
        else:
            container[draw(st.sampled_from(KEYS))] = draw(JUNK)
    return config


def test_the_full_one_is_valid() -> None:
    assert load_dict(FULL).problems == []


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(damaged())
def test_any_damage_is_reported_or_harmless(config: dict[str, Any]) -> None:
    try:
        workflow = load_dict(config)
        build(workflow, Graph)
    except WorkflowError as error:
        said = [problem.message for problem in error.problems]
        workflow = None
    if workflow is None:
        assert said
        assert all(said)
        return
    again = load_text(Workflow.dump(workflow.raw), "again.yaml", workflow.folder)
    assert again.raw == workflow.raw or "nan" in repr(workflow.raw)
    for branch in workflow.plan.branches():
        build(load_dict(workflow.subset(branch.entry, branch.fan_in)), Graph)


@settings(max_examples=150, deadline=None)
@given(damaged(), st.data())
def test_any_cut_or_scar_in_the_text_is_reported_with_its_place(config: dict[str, Any], data: Any) -> None:
    text = Workflow.dump(config)
    at = data.draw(st.integers(0, len(text)))
    scar = data.draw(st.sampled_from(SCARS))
    scarred = text[:at] + scar + text[at + data.draw(st.integers(0, 3)) :]
    assert all(problem.line > 0 and problem.column > 0 for problem in problems_of(scarred))


def problems_of(text: str) -> list[Problem]:
    try:
        return load_text(text, "scar.yaml").problems
    except WorkflowError as error:
        return error.problems
