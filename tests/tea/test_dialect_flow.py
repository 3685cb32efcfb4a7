"""Where a workflow goes: precedence of goto, edges and order, the ends of branches, and what may not be."""

from __future__ import annotations

from textwrap import dedent

import pytest

from tea.dialect import Workflow, WorkflowError, load_text


def flow(text: str) -> Workflow:
    return load_text(dedent(text), "f")


def ways(text: str) -> dict[str, list[str]]:
    return {name: [link.target for link in links] for name, links in flow(text).plan.links.items()}


def errors(text: str) -> list[str]:
    with pytest.raises(WorkflowError) as caught:
        flow(text)
    return [str(problem) for problem in caught.value.problems if problem.level == "error"]


def warnings(text: str) -> list[str]:
    return [str(problem) for problem in flow(text).problems]


def test_order_alone() -> None:
    assert ways("nodes: [{name: a}, {name: b}, {name: c}]") == {
        "__start__": ["a"],
        "a": ["b"],
        "b": ["c"],
        "c": ["__end__"],
    }


def test_goto_wins_over_edges_and_edges_over_order() -> None:
    text = """
    nodes: [{name: a, goto: c}, {name: b}, {name: c}, {name: d}]
    edges:
      - {from: a, to: b}
      - {from: c, to: b, when: "state.again"}
      - {from: c, to: __end__}
    """
    assert ways(text) == {"__start__": ["a"], "a": ["c"], "b": ["c"], "c": ["b", "__end__"], "d": ["__end__"]}
    assert warnings(text) == [
        "f:4:5: warning: edges from 'a' are not used, for its 'goto' wins (remove one of them)",
        "f:2:51: warning: no path reaches node 'd'",
    ]


def test_goto_without_a_rule_that_always_holds_goes_on_in_order() -> None:
    text = "nodes: [{name: a, goto: [{if: state.x, to: c}]}, {name: b}, {name: c}]"
    assert ways(text)["a"] == ["c", "b"]


def test_rules_after_one_that_always_holds_are_not_taken() -> None:
    text = "nodes: [{name: a, goto: [{if: state.x, to: c}, {to: b}, {to: a}]}, {name: b}, {name: c}]"
    assert ways(text)["a"] == ["c", "b"]


def test_start_edge_and_types_of_edges() -> None:
    text = """
    nodes: [{name: a}, {name: b}]
    edges: [{type: entry, to: b}, {from: b, to: a, type: normal}, {from: a, type: finish}]
    """
    assert ways(text) == {"__start__": ["b"], "b": ["a"], "a": ["__end__"]}


FAN = """
nodes:
  - {name: split}
  - {name: a}
  - {name: a2}
  - {name: b}
  - {name: merge, fan_in: true}
  - {name: last}
edges:
"""


@pytest.mark.parametrize(
    "edges",
    [
        "  - {from: split, to: [a, b], parallel: true, fan_in: merge}",
        "  - {from: split, to: a, parallel: true, fan_in: merge}\n"
        "  - {from: split, to: b, parallel: true, fan_in: merge}",
        "  - {from: split, to: a, type: parallel, fan_in: merge}\n"
        "  - {from: split, to: b, type: parallel, fan_in: merge}",
    ],
)
def test_both_spellings_of_a_fan_out(edges: str) -> None:
    plan = flow(FAN + edges + "\n  - {from: a, to: a2}").plan
    assert [(branch.source, branch.entry, branch.fan_in) for branch in plan.branches()] == [
        ("split", "a", "merge"),
        ("split", "b", "merge"),
    ]
    assert {name: [link.target for link in plan.links[name]] for name in ("a", "a2", "b", "merge", "last")} == {
        "a": ["a2"],
        "a2": ["merge"],
        "b": ["merge"],
        "merge": ["last"],
        "last": ["__end__"],
    }


def test_a_node_in_a_branch_ends_it_instead_of_going_on_in_order() -> None:
    assert ways(FAN + "  - {from: split, to: [a, b], parallel: true, fan_in: merge}")["a"] == ["merge"]


def test_order_skips_nodes_of_branches() -> None:
    text = """
    nodes: [{name: s}, {name: m, fan_in: true}, {name: x}, {name: y}, {name: last}]
    edges: [{from: s, to: [x, y], parallel: true, fan_in: m}]
    """
    assert ways(text)["m"] == ["last"]


def test_branches_from_the_start() -> None:
    text = """
    nodes: [{name: x}, {name: y}, {name: m, fan_in: true}]
    edges: [{from: __start__, to: [x, y], parallel: true, fan_in: m}]
    """
    assert ways(text) == {"__start__": ["x", "y"], "x": ["m"], "y": ["m"], "m": ["__end__"]}


def test_nested_fan_out_goes_on_to_the_outer_fan_in() -> None:
    text = """
    nodes: [{name: s}, {name: x}, {name: x1}, {name: x2}, {name: y}, {name: inner, fan_in: true},
            {name: m, fan_in: true}]
    edges:
      - {from: s, to: [x, y], parallel: true, fan_in: m}
      - {from: x, to: [x1, x2], parallel: true, fan_in: inner}
    """
    assert ways(text)["x1"] == ["inner"]
    assert ways(text)["inner"] == ["m"]


def test_data_fan_out_goes_to_its_fan_in() -> None:
    text = """
    nodes:
      - {name: s, run: x = 1, strategy: {matrix: {os: [a, b]}}, fan_in: m}
      - {name: between}
      - {name: m, fan_in: true}
    edges: [{from: m, to: between}, {from: between, to: __end__}]
    """
    assert ways(text) == {"__start__": ["s"], "s": ["m"], "between": ["__end__"], "m": ["between"]}


def test_data_fan_out_that_collects_itself_goes_on_in_order() -> None:
    text = "nodes: [{name: s, type: dynamic_parallel, items: [1], action: {run: x = 1}}, {name: b}]"
    assert ways(text)["s"] == ["b"]


@pytest.mark.parametrize(
    ("edges", "says"),
    [
        (
            "  - {from: split, to: [a, b], parallel: true, fan_in: merge}\n  - {from: a, to: last}\n"
            "  - {from: last, to: __end__}",
            "f:10:24: branch 'a' leaks: it reaches '__end__' without passing its fan-in 'merge': "
            "a -> last -> __end__",
        ),
        (
            "  - {from: split, to: [a, b], parallel: true, fan_in: merge}\n  - {from: b, to: split}",
            "f:10:27: branch 'b' leaks: it reaches 'split' without passing its fan-in 'merge': b -> split",
        ),
        (
            "  - {from: split, to: [a, b], parallel: true, fan_in: merge}\n  - {from: b, to: b}",
            "f:10:27: branch 'b' never reaches its fan-in 'merge'",
        ),
        (
            "  - {from: split, to: a, parallel: true, fan_in: merge}\n"
            "  - {from: split, to: b, parallel: true, fan_in: last}",
            "f:11:50: node 'last' collects results but has no 'fan_in: true'",
        ),
        (
            "  - {from: split, to: a, parallel: true, fan_in: merge}\n"
            "  - {from: split, to: b, parallel: true, fan_in: last}",
            "f:11:50: branches of 'split' have different values of 'fan_in': 'merge' and 'last'",
        ),
        (
            "  - {from: split, to: a, parallel: true, fan_in: merge, parallel_strategy: thread}\n"
            "  - {from: split, to: b, parallel: true, fan_in: merge, parallel_strategy: process}",
            "branches of 'split' have different values of 'parallel_strategy': 'thread' and 'process'",
        ),
        (
            "  - {from: split, to: a, parallel: true, fan_in: merge}\n  - {from: split, to: b}",
            "f:11:5: 'split' has parallel and other edges",
        ),
        (
            "  - {from: split, to: [a, b], parallel: true, fan_in: merge}\n"
            "  - {from: a, to: [a2, last], parallel: true, fan_in: merge}",
            "node 'a' fans out inside branch 'a' but shares its fan-in 'merge'",
        ),
        ("  - {from: split, to: last}", "no path reaches the fan-in 'merge'"),
    ],
)
def test_what_may_not_be(edges: str, says: str) -> None:
    found = errors(FAN + edges)
    assert any(says in line for line in found), found


def test_leak_through_goto_and_through_a_nested_fan_out() -> None:
    text = """
    nodes:
      - {name: s}
      - {name: x}
      - {name: x1}
      - {name: inner, fan_in: true, goto: [{if: state.bad, to: __end__}]}
      - {name: m, fan_in: true}
    edges:
      - {from: s, to: [x], parallel: true, fan_in: m}
      - {from: x, to: [x1], parallel: true, fan_in: inner}
    """
    assert errors(text) == [
        "f:9:20: branch 'x' leaks: it reaches '__end__' without passing its fan-in 'm': x -> inner -> __end__ "
        "(a branch ends where its fan-in begins; lead it to 'm')"
    ]


def test_node_without_a_way_on_in_two_branches_with_different_ends() -> None:
    text = """
    nodes: [{name: s}, {name: x}, {name: shared}, {name: m, fan_in: true}, {name: y}, {name: n, fan_in: true}]
    edges:
      - {from: s, to: [x], parallel: true, fan_in: m}
      - {from: x, to: shared}
      - {from: m, to: [y], parallel: true, fan_in: n}
      - {from: y, to: shared}
    """
    assert "node 'shared' belongs to branches that end at 'm' and 'n' (say 'goto:')" in errors(text)[0]


def test_data_fan_out_can_go_nowhere_else() -> None:
    text = """
    nodes:
      - {name: s, run: x = 1, parallel_each: [1], fan_in: m}
      - {name: m, fan_in: true}
    edges: [{from: s, to: __end__}]
    """
    assert "'s' goes to its fan_in 'm' and nowhere else" in errors(text)[0]


def test_warnings_about_edges_that_are_never_taken() -> None:
    text = """
    nodes: [{name: a}, {name: b}]
    edges:
      - {from: a, to: b, when: false}
      - {from: a, to: b}
      - {from: a, to: __end__, when: state.x}
    """
    assert [line.split("(")[0].strip() for line in warnings(text)] == [
        "f:4:28: warning: this edge from 'a' is never taken",
        "f:6:5: warning: this edge from 'a' is never reached: the one to 'b' is always taken",
    ]


def test_a_misspelled_target_has_no_follow_up_errors() -> None:
    found = errors(FAN + "  - {from: split, to: [a, bb], parallel: true, fan_in: merge}")
    assert len(found) == 1
    assert "there is no node 'bb'" in found[0]


@pytest.mark.parametrize(
    "text",
    [
        "nodes: [{name: a, goto: b}, {name: b, goto: a}]",
        "nodes: [{name: a}, {name: b, goto: b}]",
        """
        nodes: [{name: s}, {name: a, goto: [{if: x, to: m}, {to: b}]}, {name: b, goto: b}, {name: m, fan_in: true}]
        edges: [{from: s, to: [a], parallel: true, fan_in: m}]
        """,
    ],
)
def test_a_loop_that_nothing_leaves_is_an_error(text: str) -> None:
    (error,) = errors(text)
    assert "has no way out (give one of its nodes a `goto` or an edge with a condition" in error


def test_a_loop_that_the_run_is_interrupted_in_has_a_way_out() -> None:
    assert warnings("config: {interrupt_after: [b]}\nnodes: [{name: a, goto: b}, {name: b, goto: a}]") == []
    assert warnings("nodes: [{name: a}, {name: b, goto: [{if: state.x, to: a}]}]") == []


def test_a_branch_cannot_be_interrupted() -> None:
    text = """
    config: {interrupt_before: [m], interrupt_after: [b]}
    nodes: [{name: a}, {name: b}, {name: m, fan_in: true}]
    edges: [{from: a, to: [b], parallel: true, fan_in: m}]
    """
    assert errors(text) == [
        "f:2:51: node 'b' is in a branch, and branches can't be interrupted (name the node before the fan-out, or "
        "its fan-in 'm')"
    ]
