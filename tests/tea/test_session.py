"""A run as the command line drives it: input, run, resume, how it ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spool.errors import RunBusyError, UnknownNameError
from tea.asked import RunOptions
from tea.cli.ending import finish
from tea.dialect import load_dict
from tea.given import InputError, final_json, load_input
from tea.record import Run
from tea.resume import resume
from tea.session import run

NODES = [
    {
        "name": "each",
        "strategy": {"parallel_each": "{{ state.numbers }}"},
        "run": "import os\nopen(state['log'], 'a').write(str(state['item']))\n"
        "assert os.path.exists(state['log'] + '.ok') or state['item'] != 2, 'not yet'\nreturn {'v': state['item']}",
        "fan_in": "join",
    },
    {"name": "join", "fan_in": True, "run": "return {'got': [r.get('v') for r in parallel_results]}"},
]
SMALL = [
    {"name": "each", "strategy": {"parallel_each": [1]}, "run": "return {'v': 1}", "fan_in": "join"},
    {"name": "join", "fan_in": True, "run": "return {}"},
]


def workflow(folder: Path, nodes: Any = None, **parallel: Any) -> Any:
    return load_dict({"name": "w", "settings": {"parallel": parallel}, "nodes": nodes or NODES}, folder)


def options(spool: Path, **more: Any) -> RunOptions:
    return RunOptions(spool=str(spool), **more)


def read(path: Any) -> Any:
    return json.loads(Path(path).read_bytes())


class TestInput:
    def test_objects_and_files_later_keys_win(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text('{"a": 1, "b": 1}')
        assert load_input([str(tmp_path / "a.json"), '{"b": 2}']) == {"a": 1, "b": 2}
        assert load_input([f"@{tmp_path / 'a.json'}"]) == {"a": 1, "b": 1}
        assert load_input([]) == {}

    @pytest.mark.parametrize(
        ("text", "message"),
        [("{", "not JSON"), ("/no/such/file", "No such file"), ("{} x", "not JSON")],
    )
    def test_what_is_wrong(self, text: str, message: str) -> None:
        with pytest.raises(InputError, match=message):
            load_input([text])

    def test_a_list_is_no_state(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text("[1]")
        with pytest.raises(InputError, match="a JSON list, but a state is an object"):
            load_input([str(tmp_path / "a.json")])


def test_the_final_state_as_json() -> None:
    shown = json.loads(final_json({"x": 1, "odd": {2}, "pair": (1, {3}), "parallel_results": [1]}))
    assert (shown["x"], shown["odd"]["$not_json"], shown["pair"][0]) == (1, "builtins.set", 1)
    assert "parallel_results" not in shown


@pytest.mark.parametrize("strategy", ["thread", "process"])
def test_run_resume_and_retry(tmp_path: Path, spool_dir: Path, strategy: str) -> None:
    """What succeeded does not run again; what failed does when it is asked for."""
    log = tmp_path / "log"
    ended = run(
        workflow(tmp_path, strategy=strategy, max_workers=1),
        {"numbers": [1, 2, 3], "log": str(log)},
        options(spool_dir),
    )
    assert ended.state is not None
    assert (ended.state["got"], ended.failed, ended.error) == ([1, None, 3], 1, None)
    assert [failure.error for failure in ended.failures] == ["not yet"]
    assert sorted(log.read_text()) == ["1", "2", "3"]
    assert ended.run is not None
    assert read(ended.run.run)["outcome"] == "done"

    again = resume(str(spool_dir), None, options(spool_dir))
    assert again.state is not None
    assert again.state["got"] == [1, None, 3]
    assert sorted(log.read_text()) == ["1", "2", "3"]

    (tmp_path / "log.ok").touch()
    retried = resume(str(spool_dir), ended.run.name, options(spool_dir), retry_failed=True)
    assert retried.state is not None
    assert (retried.state["got"], retried.failed) == ([1, 2, 3], 0)
    assert sorted(log.read_text()) == ["1", "2", "2", "3"]


def test_from_one_node_up_to_another(tmp_path: Path, spool_dir: Path) -> None:
    nodes = [{"name": name, "run": f"return {{'{name}': 1}}"} for name in "abc"]
    ended = run(workflow(tmp_path, nodes), {}, options(spool_dir, entry="b", exit="c"))
    assert ended.state == {"b": 1}
    with pytest.raises(InputError, match="no node 'd'"):
        run(workflow(tmp_path, nodes), {}, options(spool_dir, entry="d"))


def test_a_node_that_fails(tmp_path: Path, spool_dir: Path) -> None:
    ended = run(workflow(tmp_path, [{"name": "a", "run": "raise OSError('no')"}]), {}, options(spool_dir))
    assert (ended.state, ended.error, ended.node) == (None, "OSError: no", "a")
    assert ended.traceback is not None
    assert ended.run is not None
    record = read(ended.run.run)
    assert (record["outcome"], record["node"]) == ("failed", "a")


def test_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run(workflow(tmp_path, SMALL), {}, RunOptions(record=False))
    assert (ended.run, ended.error) == (None, None)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_resumed(tmp_path: Path, spool_dir: Path) -> None:
    ended = run(workflow(tmp_path, [SMALL[0], {**SMALL[1], "run": "raise OSError"}]), {}, options(spool_dir))
    with pytest.raises(UnknownNameError):
        resume(str(spool_dir), "nothing-like-it", options(spool_dir))
    assert ended.run is not None
    from spool.run import find_spool

    holder = Run.resume(find_spool(str(spool_dir)), ended.run)
    try:
        with pytest.raises(RunBusyError, match="is driven by"):
            resume(str(spool_dir), None, options(spool_dir))
    finally:
        holder.close()


def test_a_run_of_a_python_graph_is_resumed_by_its_program(spool_dir: Path) -> None:
    from tea import StateGraph

    graph = StateGraph({})
    graph.add_node("src")
    graph.add_node("a")
    graph.add_fanin_node("join")
    graph.set_entry_point("src")
    graph.add_parallel_edge("src", "a", "join")
    graph.add_edge("a", "join")
    graph.set_finish_point("join")
    list(graph.compile().invoke({}, {"spool": spool_dir}))
    with pytest.raises(InputError, match="built in Python"):
        resume(str(spool_dir), None, options(spool_dir))


def test_warnings_are_told_and_kept(tmp_path: Path, spool_dir: Path) -> None:
    said: list[str] = []
    ended = run(workflow(tmp_path, SMALL, strategy="quantum"), {}, options(spool_dir, warn=said.append))
    assert said == ended.warnings
    assert any("quantum" in text for text in said)
    assert ended.run is not None
    assert read(ended.run.run)["warnings"] == said
    with pytest.raises(ValueError, match="quantum"):
        run(workflow(tmp_path, SMALL, strategy="quantum"), {}, options(spool_dir, strict=True))


class TestInterrupts:
    """`interrupt_before` and `interrupt_after` stop a run; the next resume goes on from there."""

    NODES = (
        SMALL[0],
        {"name": "join", "fan_in": True, "run": "return {'sum': parallel_results[0]['v'], 'kept': {1, 2}}"},
        {"name": "ask", "run": "return {'asked': sorted(state['kept'])}"},
        {
            "name": "more",
            "strategy": {"parallel_each": "{{ state.asked }}"},
            "run": "return {'w': state['item'] * 10}",
            "fan_in": "all",
        },
        {"name": "all", "fan_in": True, "run": "return {'ws': [r['w'] for r in parallel_results]}"},
    )

    def test_one_after_the_other(self, tmp_path: Path) -> None:
        config = {"interrupt_before": ["ask", "all"], "interrupt_after": ["ask"]}
        flow = load_dict({"name": "w", "config": config, "nodes": list(self.NODES)}, tmp_path)
        spool = str(tmp_path / "spool")
        ended = run(flow, {}, options(tmp_path / "spool"))
        stops = [ended.interrupted_at]
        while ended.state is None:
            ended = resume(spool, None, RunOptions())
            stops.append(ended.interrupted_at)
        assert stops == ["ask", "ask", "all", None]
        assert (ended.state["ws"], ended.state["asked"], ended.state["sum"]) == ([10, 20], [1, 2], 1)
        assert ended.run is not None
        assert len(list(Path(ended.run.fanouts).iterdir())) == 2
        assert read(ended.run.run)["outcome"] == "done"

    def test_a_failure_after_one_goes_on_from_there(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        failing = "import os\nassert os.path.exists(state['log']), 'not yet'\nreturn {'b': state['a']}"
        nodes = [{"name": "a", "run": "return {'a': state.get('a', 0) + 1}"}, {"name": "b", "run": failing}]
        flow = load_dict({"name": "w", "config": {"interrupt_before": ["b"]}, "nodes": nodes}, tmp_path)
        spool, log = str(tmp_path / "spool"), tmp_path / "log"
        assert run(flow, {"log": str(log)}, options(tmp_path / "spool")).interrupted_at == "b"
        failed = resume(spool, None, RunOptions())
        assert "not yet" in str(failed.error)
        assert finish(failed, 1, None, False) == 1
        assert "tea: to go on from where it was interrupted:  tea resume " in capsys.readouterr().err
        log.touch()
        assert resume(spool, None, RunOptions()).state == {"log": str(log), "a": 1, "b": 1}


def test_a_loop_that_is_cut_off_is_a_warning_of_the_run(tmp_path: Path) -> None:
    loop = {
        "name": "grow",
        "type": "while_loop",
        "condition": "true",
        "max_iterations": 2,
        "body": [{"run": "return {'n': state.get('n', 0) + 1}"}],
    }
    in_branch = {**loop, "name": "own", "fan_in": False}
    nodes = [loop, {"name": "s"}, in_branch, {"name": "m", "fan_in": True}]
    edges = [
        {"from": "grow", "to": "s"},
        {"from": "s", "to": ["own"], "parallel": True, "fan_in": "m"},
    ]
    flow = load_dict({"name": "w", "nodes": nodes, "edges": edges}, tmp_path)
    told: list[str] = []
    ended = run(flow, {}, options(tmp_path / "spool", warn=told.append))
    assert told == ["while_loop 'grow' stopped after 2 iterations; its condition still holds"]
    assert ended.run is not None
    assert read(ended.run.run)["warnings"] == told
    (log,) = Path(ended.run.path).rglob("stderr.1.log")
    assert log.read_text() == "while_loop 'own' stopped after 2 iterations; its condition still holds\n"


@pytest.mark.parametrize(("nodes", "where"), [([], "its start"), (SMALL, "the last fan-out")])
def test_a_run_that_fails_says_where_a_resume_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nodes: list[Any], where: str
) -> None:
    flow = workflow(tmp_path, [*nodes, {"name": "bad", "run": "return 1 / 0"}])
    assert finish(run(flow, {}, options(tmp_path / "spool")), 1, None, False) == 1
    assert f"tea: to go on from {where}:  tea resume " in capsys.readouterr().err
