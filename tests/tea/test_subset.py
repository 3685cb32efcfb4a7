"""Subsets: the smallest workflow that runs one branch, and does there what the whole would do."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tea.dialect import Workflow, build, load_dict, load_file, load_text
from tea.stategraph import StateGraph


def walk(graph: StateGraph, state: dict[str, Any], entry: str = "__start__", exit: str = "__end__") -> dict[str, Any]:
    """The state at the exit, without the results of fan-outs: they are told by what fan-ins made of them."""
    final = graph.execute_scoped(state, entry, exit, {"spool": False})
    return {key: value for key, value in final.items() if key != "parallel_results"}


def graph_of(workflow: Workflow) -> StateGraph:
    graph = build(workflow, StateGraph)
    assert isinstance(graph, StateGraph)
    return graph


def reloaded(mapping: dict[str, Any]) -> Workflow:
    """A subset as a worker meets it: written, and read again."""
    text = Workflow.dump(mapping)
    workflow = load_text(text, "subset.yaml")
    assert workflow.raw == mapping
    assert workflow.problems == []
    return workflow


FLOW = """
name: flow
description: not needed in a branch
variables: {k: 2, unused: 3}
state_schema: {x: int}
settings:
  parallel: {strategy: process, retry: {max_retries: 2}}
  spool: {dir: here}
config: {raise_exceptions: true, interrupt_before: [merge]}
nodes:
  - {name: start, run: "return {'x': 1}"}
  - name: a
    run: |
      return {"a": state["x"] * variables["k"]}
    goto: [{if: "state.a > 10", to: merge}, {to: a2}]
  - {name: b, run: "return {'b': 1}"}
  - {name: a2, run: "return {'a2': True}"}
  - {name: merge, fan_in: true, run: "return {'n': len(parallel_results)}"}
  - name: each
    type: dynamic_parallel
    items: "{{ state.todo }}"
    item_var: word
    action: {name: upper, uses: "m:upper", with: {text: "{{ word }}"}, output: up}
    output: done
  - {name: grid, run: "return {'os': state['matrix']['os']}", strategy: {matrix: {os: [a, b]}}, fan_in: last}
  - {name: last, fan_in: true}
edges:
  - {from: start, to: [a, b], parallel: true, fan_in: merge, parallel_config: {timeout_seconds: 5}}
"""


def flow() -> Workflow:
    return load_text(FLOW, "flow.yaml", "/somewhere")


def test_subset_of_a_branch() -> None:
    assert Workflow.dump(flow().subset("a", "merge")) == dedent(
        """\
        name: flow
        state_schema:
          x: int
        variables:
          k: 2
        settings:
          parallel:
            strategy: process
            retry:
              max_retries: 2
          spool:
            dir: here
          folder: /somewhere
        config:
          raise_exceptions: true
        nodes:
        - name: a
          run: |
            return {"a": state["x"] * variables["k"]}
        - name: a2
          run: 'return {''a2'': True}'
        edges:
        - from: __start__
          to: a
        - from: a
          to: __end__
          when: state.a > 10
        - from: a
          to: a2
        - from: a2
          to: __end__
        """
    )


def test_subset_is_the_same_each_time() -> None:
    assert Workflow.dump(flow().subset("a", "merge")) == Workflow.dump(flow().subset("a", "merge"))


def test_subset_without_variables_in_use_has_none() -> None:
    assert "variables" not in flow().subset("b", "merge")


@pytest.mark.parametrize(
    "code",
    [
        "return {'n': len(variables)}",
        "return {'n': variables[state['x']]}",
        "return {'n': eval('variables')}",
        "v = variables\nreturn {'n': v['k']}",
        "return {'n': globals()}",
    ],
)
def test_all_variables_where_reading_does_not_tell(code: str) -> None:
    workflow = load_dict({"variables": {"k": 1, "l": 2}, "nodes": [{"name": "n", "run": code}]})
    assert workflow.subset("n", "__end__")["variables"] == {"k": 1, "l": 2}


@pytest.mark.parametrize(
    ("node", "found"),
    [
        ({"run": "return {'n': variables['k'], 'm': variables.get('l', 3)}"}, {"k", "l"}),
        ({"command": ["echo", "{{ variables.k }}", "{{ variables['l'] }}"]}, {"k", "l"}),
        ({"command": "echo {{ variables.get('m', 0) }}"}, {"m"}),
        ({"command": "echo {{ variables.items() }}"}, {"k", "l", "m"}),
        ({"command": "echo {{ variables[state.x] }}"}, {"k", "l", "m"}),
        ({"run": {"type": "expression", "value": "variables['k']", "output_key": "x"}}, {"k"}),
        ({"goto": [{"if": "state.x > variables.k", "to": "__end__"}]}, {"k"}),
        ({"goto": [{"if": "!variables.k", "to": "__end__"}]}, {"k"}),
        ({"type": "while_loop", "condition": "variables.k", "max_iterations": 1, "body": [{"run": "x = 1"}]}, {"k"}),
        ({"uses": "m:f"}, {"k", "l", "m"}),
        ({"subgraph": {"variables": {"z": 1}, "nodes": [{"name": "s", "run": "return variables"}]}}, set()),
    ],
)
def test_only_the_variables_that_are_used(node: dict[str, Any], found: set[str]) -> None:
    workflow = load_dict({"variables": {"k": 1, "l": 2, "m": 3}, "nodes": [{"name": "n", **node}]})
    assert set(workflow.subset("n", "__end__").get("variables", {})) == found


def test_paths_are_made_absolute(tmp_path: Path) -> None:
    (tmp_path / "acts.py").write_text(
        "def register_actions(registry, engine):\n    registry['f'] = lambda: {'y': 1}\n"
    )
    (tmp_path / "sub.yaml").write_text("nodes: [{name: s, run: 'return {}'}]")
    file = tmp_path / "flow.yaml"
    file.write_text(
        "imports: [{path: acts.py, namespace: n}, {package: json, namespace: j}]\n"
        "nodes: [{name: a, uses: n.f}, {name: b, steps: [{subgraph: sub.yaml}]}]\n"
    )
    mapping = load_file(file).subset("a", "__end__")
    assert mapping["imports"] == [
        {"path": str(tmp_path / "acts.py"), "namespace": "n"},
        {"package": "json", "namespace": "j"},
    ]
    assert mapping["nodes"][1]["steps"][0]["subgraph"] == str(tmp_path / "sub.yaml")
    assert mapping["settings"]["folder"] == str(tmp_path)
    assert reloaded(mapping).folder == tmp_path


def test_subset_of_one_item() -> None:
    workflow = flow()
    assert workflow.subset_item("each")["nodes"] == [
        {"name": "each", "uses": "m:upper", "with": {"text": "{{ word }}"}, "output": "up"}
    ]
    assert workflow.subset_item("grid")["nodes"] == [{"name": "grid", "run": "return {'os': state['matrix']['os']}"}]
    for node in ("each", "grid"):
        reloaded(workflow.subset_item(node))


def test_subset_of_a_chunk_gives_what_each_item_alone_gives() -> None:
    workflow = flow()
    single = graph_of(reloaded(workflow.subset_item("grid")))
    chunk = graph_of(reloaded(workflow.subset_item("grid", chunk=True)))
    items = [{"os": "a"}, {"os": "b"}, {"wrong": 1}]
    records = walk(chunk, {"x": 1, "chunk": items, "chunk_start": 4})["chunk_results"]
    assert [one["index"] for one in records] == [4, 5, 6]
    assert [one["state"] for one in records] == [{"os": "a"}, {"os": "b"}, {}]
    assert [one["success"] for one in records] == [True, True, False]
    for item, record in zip(items[:2], records, strict=False):
        assert walk(single, {"x": 1, "matrix": item})["os"] == record["state"]["os"]


@pytest.mark.parametrize(
    "body",
    [
        {"command": ["echo", "{{ item }}"], "output": "said"},
        {"steps": [{"run": "return {'y': state['item']}"}, {"run": "return {'z': state['item_index']}"}]},
        {"subgraph": {"nodes": [{"name": "s", "run": "return {}"}]}, "input": {"v": "{{ item }}"}, "output": "sub"},
        {"script": "return {'y': state['item']}"},
        {"run": {"type": "expression", "value": "state['item']", "output_key": "y"}},
    ],
)
def test_every_kind_of_body_can_be_cut_out(body: dict[str, Any]) -> None:
    nodes = [{"name": "n", "parallel_each": [5, 6], "fan_in": "m", **body}, {"name": "m", "fan_in": True}]
    workflow = load_dict({"nodes": nodes})
    assert reloaded(workflow.subset_item("n")).raw["nodes"] == [{"name": "n", **body}]
    chunk = reloaded(workflow.subset_item("n", chunk=True))
    if "subgraph" in body:
        return
    records = walk(graph_of(chunk), {"chunk": [5], "chunk_start": 0})["chunk_results"]
    alone = walk(graph_of(reloaded(workflow.subset_item("n"))), {"item": 5, "item_index": 0})
    assert records[0]["state"] == {key: alone[key] for key in alone if key not in ("item", "item_index")}


def test_subset_across_a_fan_out_that_ends_at_its_exit() -> None:
    workflow = reloaded(flow().subset("start", "merge"))
    assert [node["name"] for node in workflow.raw["nodes"]] == ["start", "a", "b", "a2", "merge"]
    assert workflow.raw["nodes"][-1] == {"name": "merge", "fan_in": True}


def test_subset_of_the_whole() -> None:
    workflow = reloaded(flow().subset("__start__", "__end__"))
    assert {node["name"] for node in workflow.raw["nodes"]} == set(flow().plan.nodes)


@pytest.mark.parametrize(
    ("entry", "exit", "says"),
    [
        ("aa", "merge", r"there is no node 'aa' in flow"),
        ("a", "mergee", r"there is no node 'mergee' in flow \(did you mean 'merge'\?\)"),
        ("merge", "a", "no path leads from 'merge' to 'a'"),
        ("a", "a", "no path leads from 'a' to 'a'"),
    ],
)
def test_no_such_subset(entry: str, exit: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        flow().subset(entry, exit)


def test_only_data_fan_outs_have_items() -> None:
    with pytest.raises(ValueError, match="node 'a' does not fan out over data"):
        flow().subset_item("a")


# -- for any branch of any workflow ----------------------------------------------------------------------------


class Maker:
    """Draws a workflow: chains, conditions, gotos, bounded loops, nested fan-outs over branches and over data."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.nodes: list[dict[str, Any]] = []
        self.edges: list[dict[str, Any]] = []

    def new(self, **keys: Any) -> str:
        name = f"n{len(self.nodes)}"
        code = f"return {{'log': [*state.get('log', []), '{name}'], 'steps': state.get('steps', 0) + 1}}"
        if keys.get("fan_in") is True:
            code = (
                "keys = ('log', 'steps', 'item', 'matrix')\n"
                "seen = [{k: r.state.get(k) for k in keys} for r in parallel_results or []]\n"
                f"return {{'log': [*state.get('log', []), '{name}', seen], 'steps': state.get('steps', 0) + 1}}"
            )
        self.nodes.append({"name": name, "run": code, **keys})
        return name

    def piece(self, depth: int) -> tuple[str, list[str]]:
        """A piece of a flow: its entry, and the nodes that still lack a way on."""
        kinds = ["node", "node", "choice", "goto", "loop", *(["fan", "data", "chain", "chain"] if depth < 3 else [])]
        made: tuple[str, list[str]] = getattr(self, self.draw(st.sampled_from(kinds)))(depth + 1)
        return made

    def node(self, depth: int) -> tuple[str, list[str]]:
        name = self.new()
        return name, [name]

    def chain(self, depth: int) -> tuple[str, list[str]]:
        first, ends = self.piece(depth)
        second, last = self.piece(depth)
        self.join(ends, second)
        return first, last

    def choice(self, depth: int) -> tuple[str, list[str]]:
        name, left, right = self.new(), self.new(), self.new()
        self.edges.append(
            {"from": name, "to": left, "when": self.draw(st.sampled_from(["state.steps % 2 == 0", "!flag"]))}
        )
        self.edges.append({"from": name, "to": right})
        return name, [left, right]

    def goto(self, depth: int) -> tuple[str, list[str]]:
        name, left, right = self.new(), self.new(), self.new()
        self.of(name)["goto"] = [{"if": "state.steps > 2", "to": left}, {"to": right}]
        return name, [left, right]

    def loop(self, depth: int) -> tuple[str, list[str]]:
        name, after = self.new(), self.new()
        condition = f"state.log.count('{name}') < {self.draw(st.integers(1, 3))}"
        self.edges.append({"from": name, "to": name, "when": condition})
        self.edges.append({"from": name, "to": after})
        return name, [after]

    def fan(self, depth: int) -> tuple[str, list[str]]:
        name = self.new()
        pieces = [self.piece(depth) for _ in range(self.draw(st.integers(1, 3)))]
        merge = self.new(fan_in=True)
        for _, ends in pieces:
            self.join(ends, merge, implicit=True)
        self.edges.append({"from": name, "to": [entry for entry, _ in pieces], "parallel": True, "fan_in": merge})
        return name, [merge]

    def data(self, depth: int) -> tuple[str, list[str]]:
        over = self.draw(
            st.sampled_from([{"parallel_each": [1, 2]}, {"strategy": {"matrix": {"os": ["a", "b"], "n": [1]}}}])
        )
        merge = self.new(fan_in=True)
        return self.new(**over, fan_in=merge), [merge]

    def of(self, name: str) -> dict[str, Any]:
        return next(node for node in self.nodes if node["name"] == name)

    def join(self, ends: list[str], target: str, implicit: bool = False) -> None:
        for name in ends:
            if implicit and self.draw(st.booleans()):
                continue  # inside a branch, a node without a way on goes to the fan-in
            if self.draw(st.booleans()) and "goto" not in self.of(name):
                self.of(name)["goto"] = target
            else:
                self.edges.append({"from": name, "to": target})

    def workflow(self) -> dict[str, Any]:
        entry, ends = self.fan(0)
        self.join(ends, "__end__")
        edges = self.draw(st.permutations([edge for edge in self.edges if "when" not in edge]))
        conditional = [edge for edge in self.edges if "when" in edge]
        edges = [*conditional, {"from": "__start__", "to": entry}, *edges]
        return {"name": "drawn", "nodes": self.draw(st.permutations(self.nodes)), "edges": edges}


@settings(max_examples=60, deadline=None)
@given(st.composite(lambda draw: Maker(draw).workflow())(), st.booleans())
def test_every_branch_alone_does_what_it_does_in_the_whole(config: dict[str, Any], flag: bool) -> None:
    workflow = load_dict(config)
    whole = graph_of(workflow)
    for branch in workflow.plan.branches():
        mapping = workflow.subset(branch.entry, branch.fan_in)
        alone = graph_of(reloaded(mapping))
        expected = walk(whole, {"x": 1, "flag": flag}, branch.entry, branch.fan_in)
        assert walk(alone, {"x": 1, "flag": flag}) == expected
        assert {node["name"] for node in mapping["nodes"]} == set(
            workflow.plan.reachable(branch.entry, branch.fan_in)
        )
    again = graph_of(reloaded(workflow.subset("__start__", "__end__")))
    assert walk(again, {"flag": flag}) == walk(whole, {"flag": flag})
