"""Node functions: what they are given, what they return, and how their failures read."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from executors.cancel import CancellationToken
from executors.state import BranchState
from tea.call import call, wanted
from tea.dialect import WorkflowError, build, load_dict, load_file, load_text
from tea.graph import Graph


def node(spec: dict[str, Any], actions: dict[str, Any] | None = None, **workflow: Any) -> Any:
    graph = build(load_dict({"nodes": [{"name": "n", **spec}], **workflow}), Graph, actions, functions=False)
    return graph.nodes["n"].run


def run(spec: dict[str, Any], state: dict[str, Any] | None = None, /, **offered: Any) -> Any:
    return call(node(spec), {"state": state if state is not None else {}, "config": {}, **offered})


# -- call ------------------------------------------------------------------------------------------------------


def test_call_gives_what_is_named() -> None:
    assert call(lambda state, config=None: (state, config), {"state": 1, "config": 2, "node": 3}) == (1, 2)
    assert call(lambda: 5, {"state": 1}) == 5
    assert call(lambda *args, **kwargs: (args, kwargs), {"state": 1}) == ((), {})
    assert call({"a": 1}.copy, {"state": 1}) == {"a": 1}


def test_call_of_an_object_that_can_not_be_remembered() -> None:
    class Node:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, state: int) -> int:
            return state + 1

    assert call(Node(), {"state": 1}) == 2


def test_call_says_what_is_missing() -> None:
    def needs(other: int) -> int:
        return other

    with pytest.raises(TypeError, match="missing 1 required positional argument: 'other'"):
        call(needs, {"state": 1})
    assert wanted(needs) == ("other",)


# -- run -------------------------------------------------------------------------------------------------------


def test_run_has_state_variables_json_and_parallel_results() -> None:
    code = "return {'v': variables['k'], 'j': json.dumps(state['x']), 'p': parallel_results, 'c': cancel_token}"
    function = node({"run": code}, variables={"k": 7})
    assert function(state={"x": [1]}) == {"v": 7, "j": "[1]", "p": None, "c": None}
    assert function(state={"x": [1]}, parallel_results=[2])["p"] == [2]


def test_script_and_functions_imports_and_loops_inside() -> None:
    code = """
    import math
    def twice(x):
        return x * 2 + math.floor(0.5)
    class Box:
        value = 3
    return {"y": [twice(i) for i in range(Box.value)]}
    """
    assert run({"script": dedent(code)}) == {"y": [0, 2, 4]}


def test_multi_line_text_keeps_its_indentation(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(
        'nodes:\n  - name: n\n    run: |\n      text = """a\n        b\n      c"""\n      return {"t": text}\n'
    )
    assert build(load_file(file), Graph).nodes["n"].run({}) == {"t": "a\n  b\nc"}


def test_nothing_returned_is_no_update() -> None:
    assert run({"run": "x = 1"}) == {}
    assert run({"run": "# nothing"}) == {}


@pytest.mark.parametrize(
    ("code", "kind"), [("return 3", "int"), ("return []", "list"), ("yield 1", "generator"), ("return 'x'", "str")]
)
def test_anything_but_a_dict_is_a_clear_error(code: str, kind: str) -> None:
    with pytest.raises(TypeError, match=f"node 'n' returned {kind}, not a dict of updates"):
        run({"run": code})


def test_traceback_shows_the_workflow_and_its_line(tmp_path: Path) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text("nodes:\n  - name: n\n    run: |\n\n      x = 1\n      return {'y': state['none']}\n")
    function: Any = build(load_file(file), Graph).nodes["n"].run
    with pytest.raises(KeyError) as caught:
        function(state={})
    text = "".join(traceback.format_exception(caught.value))
    assert (
        f"File \"{file}\", line 6, in n\n    return {{'y': state['none']}}\n                 ~~~~~^^^^^^^^\n" in text
    )


def test_traceback_without_a_file_shows_the_line_too() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run({"run": "x = 0\nreturn {'y': 1 / x}"})
    text = "".join(traceback.format_exception(caught.value))
    assert "nodes[0].run" in text
    assert "return {'y': 1 / x}" in text


def test_expression() -> None:
    spec = {
        "run": {"type": "expression", "value": "len(state.get('items', [])) > variables['k']", "output_key": "many"}
    }
    assert node(spec, variables={"k": 1})(state={"items": [1, 2]}) == {"many": True}
    comprehension = {
        "run": {"type": "expression", "value": "[s + variables['k'] for s in state['x']]", "output_key": "y"}
    }
    assert node(comprehension, variables={"k": 1})(state={"x": [1]}) == {"y": [2]}


def test_code_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    function = node({"run": "return {}"})
    with monkeypatch.context() as patched:  # for as short as can be: whoever imports meanwhile needs it
        patched.setattr("builtins.compile", None)
        assert function(state={}) == {}


def test_node_without_anything_to_run_has_no_function() -> None:
    assert node({}) is None


# -- uses ------------------------------------------------------------------------------------------------------


def test_action_gets_templates_with_their_types_and_what_it_names() -> None:
    def action(items: list[int], label: str, state: Any, config: Any, **more: Any) -> dict[str, Any]:
        return {"items": items, "label": label, "x": state["x"], "config": config, "more": more}

    spec = {"uses": "act", "with": {"items": "{{ state.x }}", "label": "n={{ x[0] }}", "extra": 1}}
    function = node(spec, {"act": action})
    assert function(state={"x": [1]}, config={"c": 1}) == {
        "items": [1],
        "label": "n=1",
        "x": [1],
        "config": {"c": 1},
        "more": {"extra": 1},
    }


def test_action_result_under_output_or_merged() -> None:
    actions = {"three": lambda: 3, "none": lambda: None, "pair": lambda: {"a": 1}}
    assert node({"uses": "three", "output": "x"}, actions)(state={}) == {"x": 3}
    assert node({"uses": "none"}, actions)(state={}) == {}
    assert node({"uses": "none", "output": "x"}, actions)(state={}) == {"x": None}
    assert node({"uses": "pair"}, actions)(state={}) == {"a": 1}
    with pytest.raises(TypeError, match="node 'n': 'three' returned int, not a dict; add 'output: name'"):
        node({"uses": "three"}, actions)(state={})


def test_async_action_is_refused() -> None:
    async def later() -> None: ...

    with pytest.raises(TypeError, match="is an async function"):
        node({"uses": "later", "output": "x"}, {"later": later})(state={})


def test_module_function_is_imported_at_the_first_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    function = node({"uses": "tea_test_scoring:Tools.score", "with": {"text": "{{ t }}"}, "output": "n"})
    (tmp_path / "tea_test_scoring.py").write_text("class Tools:\n    def score(text): return len(text)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert function(state={"t": "abc"}) == {"n": 3}


@pytest.mark.parametrize(
    ("uses", "says"),
    [
        ("no_such_module_at_all:f", "there is no module 'no_such_module_at_all'"),
        ("json:dump_s", r"'json' has no 'dump_s' \(did you mean 'dumps'\?\)"),
        ("json:__name__", "that is a str, not a function"),
    ],
)
def test_function_that_is_not_there(uses: str, says: str) -> None:
    with pytest.raises((ImportError, TypeError), match=says):
        node({"uses": uses})(state={})


def test_module_that_misses_a_module_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tea_test_broken.py").write_text("import not_installed_here\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="No module named 'not_installed_here'"):
        node({"uses": "tea_test_broken:f"})(state={})


def test_unknown_action_is_found_when_the_graph_is_built() -> None:
    with pytest.raises(WorkflowError, match=r"nodes\[0\].uses: there is no action 'scor' \(did you mean 'score'\?\)"):
        node({"uses": "scor"}, {"score": len})
    text = "nodes:\n  - name: n\n    steps:\n      - uses: nothing\n"
    with pytest.raises(WorkflowError, match="f:4:15: there is no action 'nothing'"):
        build(load_text(text, "f"), Graph)


def test_imported_actions(tmp_path: Path) -> None:
    code = "def register_actions(registry, engine):\n"
    code += "    registry['hi'] = lambda name, state: {'hi': name, 'x': state['x']}\n"
    (tmp_path / "acts.py").write_text(code)
    config = {
        "imports": [{"path": "acts.py", "namespace": "my"}],
        "nodes": [{"name": "n", "uses": "my.hi", "with": {"name": "{{ state.x }}"}}],
    }
    assert build(load_dict(config, tmp_path), Graph).nodes["n"].run({"x": 1}) == {"hi": 1, "x": 1}
    (tmp_path / "acts.py").write_text("raise OSError('no')")
    os.utime(tmp_path / "acts.py", (1, 1))
    with pytest.raises(WorkflowError, match=r"imports\[0\]\.path: can't import 'acts.py': OSError: no"):
        build(load_dict(config, tmp_path), Graph)


# -- steps and loops -------------------------------------------------------------------------------------------


def test_steps_see_earlier_updates_and_return_all() -> None:
    spec = {
        "steps": [
            {"name": "one", "run": "return {'a': 1}"},
            {"run": "return {'b': state['a'] + 1, 'a': 5}"},
            {"command": ["echo", "{{ a }} {{ b }}"], "output": "said"},
        ]
    }
    state = {"x": 1}
    assert run(spec, state) == {"a": 5, "b": 2, "said": {"exit_code": 0, "stdout": "5 2\n", "stderr": ""}}
    assert state == {"x": 1}


def test_steps_do_not_copy_what_they_do_not_read() -> None:
    state = BranchState({"big": [[0]]}, {})
    assert run({"steps": [{"run": "return {'a': 1}"}, {"run": "return {'b': state['a']}"}]}, state) == {
        "a": 1,
        "b": 1,
    }
    assert dict.__getitem__(state, "big") is state.base["big"]


def test_failing_step_names_itself() -> None:
    with pytest.raises(TypeError, match=r"node 'n\.two' returned int"):
        run({"steps": [{"run": "return {}"}, {"name": "two", "run": "return 1"}]})


def test_while_loop_runs_until_its_condition_fails() -> None:
    spec = {
        "type": "while_loop",
        "condition": "state.count < 5",
        "max_iterations": 10,
        "body": [{"run": "return {'count': state['count'] + 1, 'sum': state.get('sum', 0) + state['count'] + 1}"}],
    }
    assert run(spec, {"count": 0}) == {"count": 5, "sum": 15}
    assert run(spec, {"count": 7}) == {}


def test_while_loop_stops_after_max_iterations(caplog: pytest.LogCaptureFixture) -> None:
    spec = {
        "type": "while_loop",
        "condition": "!done",
        "max_iterations": 3,
        "body": [{"run": "return {'n': state['n'] + 1}"}],
    }
    assert run(spec, {"n": 0}) == {"n": 3}
    assert "'n' stopped after 3 iterations" in caplog.text


FOR_EACH = {"type": "for_each", "items": "{{ state.chunk }}", "start": "{{ state.first }}", "output": "records"}


def test_for_each_records_every_item() -> None:
    spec = {
        **FOR_EACH,
        "action": {"run": "state['log'].append(1)\nreturn {'half': 10 / state['item'] + state['index']}"},
    }
    state = {"chunk": [2, 0, 5], "first": 7, "log": []}
    records = run(spec, state)["records"]
    assert [(one["index"], one["success"], one["state"]) for one in records] == [
        (7, True, {"half": 12.0, "log": [1]}),
        (8, False, {"log": [1]}),
        (9, True, {"half": 11.0, "log": [1]}),
    ]
    assert (records[1]["error"], records[1]["error_type"]) == ("division by zero", "ZeroDivisionError")
    assert "ZeroDivisionError" in records[1]["traceback"]
    assert all(one["seconds"] >= 0 for one in records)
    assert state["log"] == []


def test_for_each_survives_sys_exit_and_stops_when_cancelled() -> None:
    token = CancellationToken()
    spec = {**FOR_EACH, "action": {"run": "import sys\nif state['item'] == 2: cancel_token.cancel()\nsys.exit(3)"}}
    records = run(spec, {"chunk": [1, 2, 3], "first": 0}, cancel_token=token)["records"]
    assert [one["error_type"] for one in records] == ["SystemExit", "SystemExit", "CancelledError"]


def test_for_each_needs_a_list() -> None:
    with pytest.raises(TypeError, match="'items' gives str, not a list"):
        run({**FOR_EACH, "run": "x = 1"}, {"chunk": "abc", "first": 0})


def test_for_each_with_steps_subgraph_and_its_own_names() -> None:
    spec = {
        **FOR_EACH,
        "item_var": "word",
        "index_var": None,
        "steps": [{"run": "return {'up': state['word'].upper()}"}],
    }
    records = run(spec, {"chunk": ["a"], "first": 0})["records"]
    assert records[0]["state"] == {"up": "A"}
