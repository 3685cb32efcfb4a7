"""From a workflow to a graph that runs."""

from __future__ import annotations

import logging
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tea.dialect import WorkflowError, YAMLEngine, build, load_dict, load_file, load_text
from tea.graph import Graph
from tea.stategraph import StateGraph
from tests.support import calls


@pytest.fixture(autouse=True)
def _spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEA_SPOOL", str(tmp_path / "spool"))


def graph_of(text: str, **keywords: Any) -> Graph:
    return build(load_text(dedent(text), "f"), Graph, **keywords)


def final(config: dict[str, Any] | str, state: dict[str, Any] | None = None, **actions: Any) -> dict[str, Any]:
    workflow = load_text(dedent(config), "f") if isinstance(config, str) else load_dict(config)
    graph: Any = build(workflow, actions_registry=actions)
    *_, last = graph.compile().invoke(state or {})
    assert last["type"] == "final", last
    state = last["state"]
    return {key: value for key, value in state.items() if key != "parallel_results"}


def test_graph_has_its_workflow_nodes_and_specs() -> None:
    workflow = load_text("name: w\nnodes: [{name: a, run: x = 1}, {name: m}]\nstate_schema: {x: int}")
    graph = build(workflow, Graph)
    assert graph.workflow is workflow
    assert (graph.name, graph.state_schema) == ("w", {"x": "int"})
    assert graph.nodes["a"].spec == {"name": "a", "run": "x = 1"}
    assert graph.nodes["m"].run is None
    assert graph.successors("a") == ["m"]


def test_default_class_is_state_graph() -> None:
    assert isinstance(build(load_dict({"nodes": [{"name": "a"}]})), StateGraph)


SETTINGS = """
settings:
  parallel:
    strategy: process
    max_workers: 3
    timeout_seconds: 9
    fail_fast: true
    max_lost: 7
    grace_seconds: 0.5
    include_traceback: true
    retry: {max_retries: 3, base_delay: 0.5, retry_on: [OSError, "json:JSONDecodeError"]}
    circuit_breaker: {failure_threshold: 2}
    remote: {hosts: [me@one, {host: two, slots: 4}], workdir: /x}
nodes:
  - {name: s}
  - {name: a}
  - {name: b}
  - {name: m, fan_in: true}
  - {name: d, type: dynamic_parallel, items: [1], action: {run: x = 1}, max_concurrency: 2, fail_fast: false,
     chunk_size: 5, parallel_strategy: thread, parallel_config: {timeout_total: 4}}
  - {name: g, run: x = 1, strategy: {matrix: {a: [1]}, max_parallel: 6, fail_fast: true}, fan_in: m2}
  - {name: m2, fan_in: true}
edges:
  - {from: s, to: a, parallel: true, fan_in: m, parallel_strategy: thread,
     parallel_config: {timeout_seconds: 5, retry: {max_retries: 1}, circuit_breaker: }}
  - {from: s, to: b, parallel: true, fan_in: m}
"""


def test_settings_become_configurations() -> None:
    graph = graph_of(SETTINGS)
    config = graph.parallel_config
    assert (config.strategy, config.max_workers, config.timeout_seconds, config.fail_fast) == ("process", 3, 9, True)
    assert (config.max_lost, config.grace_seconds, config.include_traceback) == (7, 0.5, True)
    assert config.retry_policy is not None
    assert {cls.__name__ for cls in config.retry_policy.retry_on or ()} == {"OSError", "JSONDecodeError"}
    assert config.circuit_breaker is not None
    assert config.circuit_breaker.failure_threshold == 2
    assert config.remote_config == {"hosts": [{"host": "me@one"}, {"host": "two", "slots": 4}], "workdir": "/x"}
    assert graph.max_workers == 3


def test_edge_settings_are_laid_over_the_general_ones() -> None:
    first, second = graph_of(SETTINGS).edges["s"]
    assert first.config is not None
    assert second.config is not None
    assert (first.config.timeout_seconds, first.config.strategy, first.config.fail_fast) == (5, "thread", True)
    assert first.config.retry_policy is not None
    assert (first.config.retry_policy.max_retries, first.config.retry_policy.base_delay) == (1, 0.5)
    assert first.config.circuit_breaker is None
    assert (second.config.timeout_seconds, second.config.strategy) == (9, "thread")


def test_data_fan_outs_have_their_settings() -> None:
    graph = graph_of(SETTINGS)
    dynamic, matrix = graph.nodes["d"].fan_out, graph.nodes["g"].fan_out
    assert dynamic is not None
    assert matrix is not None
    assert (dynamic.kind, dynamic.max_concurrency, dynamic.fail_fast, dynamic.chunk_size) == ("dynamic", 2, False, 5)
    assert (dynamic.strategy, dynamic.output, dynamic.fan_in) == ("thread", "parallel_results", None)
    assert dynamic.config is not None
    assert (dynamic.config.timeout_total, dynamic.config.timeout_seconds) == (4, 9)
    assert (matrix.kind, matrix.max_concurrency, matrix.fail_fast, matrix.chunk_size) == ("matrix", 6, True, 1)
    assert (matrix.strategy, matrix.output, matrix.fan_in, matrix.config) == (None, None, "m2", None)


def test_retry_on_a_class_that_is_not_there() -> None:
    text = "settings: {parallel: {retry: {retry_on: [no.such:Thing]}}}\nnodes: [{name: a}]"
    with pytest.raises(WorkflowError, match=r"f:1:41: retry_on: no exception class 'no\.such:Thing'"):
        graph_of(text)


def test_a_misspelled_class_of_one_edge_is_named_where_it_stands() -> None:
    text = """
    nodes: [{name: a}, {name: b}, {name: m, fan_in: true}]
    edges:
      - {from: a, to: [b], parallel: true, fan_in: m, parallel_config: {retry: {retry_on: [OSErorr]}}}
    """
    with pytest.raises(WorkflowError, match=r"f:4:\d+: .*no exception class 'OSErorr'.*did you mean 'OSError'"):
        graph_of(text)


def test_a_workflow_that_runs_itself_without_an_end_says_so_once(tmp_path: Path) -> None:
    (tmp_path / "self.yaml").write_text("nodes: [{name: a, subgraph: self.yaml}]")
    graph: Any = build(load_file(tmp_path / "self.yaml"))
    *_, last = graph.compile().invoke({})
    assert (last["error_type"], last["error"]) == (
        "RecursionError",
        "sub-workflow 'self.yaml' runs itself without an end",
    )


def test_items_and_overlays() -> None:
    graph = graph_of(
        """
        variables: {v: [x, y]}
        nodes:
          - {name: d, type: dynamic_parallel, items: "{{ state.n | map('upper') }}", item_var: w, index_var: i,
             action: {run: x = 1}}
          - {name: g, run: x = 1, strategy: {matrix: {os: [a, b], v: "{{ variables.v }}"}}, fan_in: m}
          - {name: m, fan_in: true}
          - {name: e, run: x = 1, strategy: {parallel_each: "{{ state.n }}"}, fan_in: m3}
          - {name: m3, fan_in: true}
        """
    )
    dynamic, matrix, each = (graph.nodes[name].fan_out for name in "dge")
    assert dynamic is not None
    assert matrix is not None
    assert each is not None
    assert dynamic.items({"n": ["a", "b"]}) == ["A", "B"]
    assert dynamic.overlay("A", 3) == {"w": "A", "i": 3}
    assert matrix.items({}) == [{"os": o, "v": v} for o in "ab" for v in "xy"]
    assert matrix.overlay({"os": "a"}, 1) == {"matrix": {"os": "a"}}
    assert each.items({"n": [5]}) == [5]
    assert each.overlay(5, 0) == {"item": 5, "item_index": 0}
    assert each.items({"n": "text"}) == "text"


def test_matrix_from_a_template_must_give_lists() -> None:
    fan_out = (
        graph_of(
            "nodes:\n"
            "  - {name: g, run: x = 1, strategy: {matrix: {v: '{{ state.v }}'}}, fan_in: m}\n"
            "  - {name: m, fan_in: true}"
        )
        .nodes["g"]
        .fan_out
    )
    assert fan_out is not None
    for wrong in ([], "abc", 3):
        with pytest.raises(TypeError, match="matrix 'v' must be a non-empty list"):
            fan_out.items({"v": wrong})


# -- running -----------------------------------------------------------------------------------------------------


def test_conditions_first_match_wins() -> None:
    config = """
    nodes:
      - {name: a}
      - {name: high, run: "return {'went': 'high'}", goto: __end__}
      - {name: flagged, run: "return {'went': 'flagged'}", goto: __end__}
      - {name: other, run: "return {'went': 'other'}", goto: __end__}
    edges:
      - {from: a, to: high, when: "state['n'] > 5"}
      - {from: a, to: flagged, condition: {type: expression, value: "state.get('flag') == true"}, when: true}
      - {from: a, to: other, condition: {type: expression, value: "state.get('flag') == true"}, when: false}
    """
    assert final(config, {"n": 9, "flag": True})["went"] == "high"
    assert final(config, {"n": 1, "flag": True})["went"] == "flagged"
    assert final(config, {"n": 1})["went"] == "other"


@pytest.mark.parametrize(("state", "went"), [({}, "off"), ({"flag": True}, "on"), ({"flag": 0}, "off")])
def test_flags(state: dict[str, Any], went: str) -> None:
    config = """
    nodes:
      - {name: a}
      - {name: "on", run: "return {'went': 'on'}", goto: __end__}
      - {name: "off", run: "return {'went': 'off'}", goto: __end__}
    edges: [{from: a, to: "off", when: "!flag"}, {from: a, to: "on", when: flag}]
    """
    assert final(config, state)["went"] == went


def test_goto_loop() -> None:
    config = {
        "nodes": [
            {"name": "again", "run": "return {'n': state['n'] + 1}", "goto": [{"if": "state.n < 4", "to": "again"}]},
            {"name": "after", "run": "return {'done': True}"},
        ]
    }
    assert final(config, {"n": 0}) == {"n": 4, "done": True}


def test_fan_out_and_fan_in() -> None:
    config = """
    variables: {k: 10}
    nodes:
      - {name: s}
      - {name: a, run: "return {'v': state['x'] + variables['k']}"}
      - {name: b, command: [echo, "{{ state.x }}"], output: said}
      - {name: bad, run: "raise OSError('no')"}
      - name: m
        fan_in: true
        run: |
          return {"ok": [r.success for r in parallel_results], "v": parallel_results[0].get("v"),
                  "said": parallel_results[1].get("said")["stdout"], "why": parallel_results[2].error}
    edges: [{from: s, to: [a, b, bad], parallel: true, fan_in: m}]
    """
    assert final(config, {"x": 1}) == {"x": 1, "ok": [True, True, False], "v": 11, "said": "1\n", "why": "no"}


@pytest.mark.parametrize("chunk_size", [1, 2, 10])
def test_dynamic_parallel_in_order_and_in_chunks(chunk_size: int) -> None:
    config = {
        "nodes": [
            {
                "name": "d",
                "type": "dynamic_parallel",
                "items": "{{ state.words }}",
                "item_var": "w",
                "chunk_size": chunk_size,
                "steps": [
                    {"run": "return {'u': state['w'].upper()}"},
                    {"uses": "glue", "with": {"a": "{{ u }}"}, "output": "g"},
                ],
                "output": "res",
            },
            {"name": "end", "run": "return {'all': [r.state.get('g') for r in state['res']], 'res': None}"},
        ]
    }
    done = final(config, {"words": ["a", "b", 3]}, glue=lambda a, state: f"{a}{state['index']}")
    assert done["all"] == ["A0", "B1", None]


def test_matrix_and_each_run() -> None:
    config = """
    nodes:
      - {name: g, run: "return {'v': state['matrix']['a'] * state['matrix']['b']}",
         strategy: {matrix: {a: [1, 2], b: [3, 4]}}, fan_in: m}
      - {name: m, fan_in: true, run: "return {'grid': [r.get('v') for r in parallel_results]}"}
      - {name: e, command: [echo, "{{ item }}-{{ item_index }}"], output: o, parallel_each: [x, y], fan_in: m2}
      - {name: m2, fan_in: true, run: "return {'each': [r.get('o')['stdout'] for r in parallel_results]}"}
    """
    assert final(config) == {"grid": [3, 4, 6, 8], "each": ["x-0\n", "y-1\n"]}


def test_sub_workflows(tmp_path: Path) -> None:
    (tmp_path / "sub.yaml").write_text(
        "variables: {k: 2}\nnodes: [{name: s, run: \"return {'y': state['v'] * variables['k']}\"}]\n"
    )
    (tmp_path / "main.yaml").write_text(
        dedent(
            """\
            nodes:
              - name: d
                type: dynamic_parallel
                items: [1, 2]
                subgraph: sub.yaml
                input: {v: "{{ item }}"}
                output: res
              - {name: one, subgraph: {nodes: [{name: i, run: "return {'z': state['w']}"}]}, input: {w: 5},
                 output: sub}
              - {name: two, subgraph: "./{{ state.which }}.yaml", input: {v: 4}}
              - {name: end, run: "return {'all': [r.get('y') for r in state['res']], 'res': 0}"}
            """
        )
    )
    graph: Any = build(load_file(tmp_path / "main.yaml"))
    *_, last = graph.compile().invoke({"which": "sub"})
    state = last["state"]
    assert (state["all"], state["sub"], state["y"]) == ([2, 4], {"w": 5, "z": 5}, 8)


def test_sub_workflow_that_is_not_there() -> None:
    with pytest.raises(WorkflowError, match=r"f:1:29: there is no workflow '.*/none\.yaml'"):
        graph_of("nodes: [{name: a, subgraph: none.yaml}]")


def test_mistake_in_a_sub_workflow_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "sub.yaml").write_text("nodes: [{name: a, runn: x}]")
    (tmp_path / "main.yaml").write_text("nodes: [{name: a, subgraph: sub.yaml}]")
    graph: Any = build(load_file(tmp_path / "main.yaml"))
    *_, last = graph.compile().invoke({})
    assert f"{tmp_path}/sub.yaml:1:19: unknown key 'runn'" in last["error"]


# -- engine ------------------------------------------------------------------------------------------------------


def test_engine_gives_compiled_graphs(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(
        "config: {interrupt_before: [b], raise_exceptions: true}\n"
        "nodes: [{name: a, uses: add, with: {n: 2}, output: s}, {name: b}]"
    )
    engine = YAMLEngine(actions_registry={"add": lambda n, state: state["x"] + n})
    graph = engine.load_from_file(tmp_path / "f.yaml")
    events = list(graph.invoke({"x": 1}))
    assert [event["type"] for event in events] == ["interrupt"]
    assert events[0]["state"]["s"] == 3
    assert graph.raise_exceptions is True
    assert engine.load_from_dict({"nodes": [{"name": "a"}]}).execute_scoped({"x": 1}, "a", "__end__") == {"x": 1}


def test_engine_ignores_nothing() -> None:
    with pytest.raises(TypeError, match="lua_enabled"):
        YAMLEngine(lua_enabled=True)  # type: ignore[call-arg]


def test_engine_reaches_imported_modules(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "def register_actions(registry, engine):\n    registry['e'] = lambda: {'e': engine.actions_registry}\n"
    )
    engine = YAMLEngine({"x": len})
    config = {"imports": [{"path": "a.py", "namespace": "n"}], "nodes": [{"name": "a", "uses": "n.e"}]}
    assert engine.load_from_dict(config, tmp_path).nodes["a"].run({}) == {"e": {"x": len}}


# -- speed -------------------------------------------------------------------------------------------------------


def test_building_a_small_workflow_takes_few_steps() -> None:
    text = load_dict({"nodes": [{"name": f"n{i}", "run": "return {'x': 1}\n"} for i in range(5)]})
    yaml = text.dump(text.subset("n0", "__end__"))
    build(load_text(yaml, "f"), Graph)
    assert len(calls(lambda: build(load_text(yaml, "f"), Graph))) < 6_000


def test_calling_a_node_takes_few_steps() -> None:
    function: Any = graph_of("nodes: [{name: a, run: 'return {}'}]").nodes["a"].run
    function(state={})
    assert calls(lambda: function(state={})) == ["python_function.<locals>.run", "a"]


def test_nothing_is_logged_without_need(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        final({"nodes": [{"name": "a", "run": "return {}"}]})
    assert caplog.records == []
