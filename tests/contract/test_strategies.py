"""Which executor runs a fan-out: settings, the switch, unknown names, plug-ins."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

import tea
from executors import base
from tests.contract.world import World
from tests.support import tea_cmd

WORKFLOW = {
    "name": "w",
    "nodes": [
        {
            "name": "each",
            "strategy": {"parallel_each": [1, 2]},
            "run": "return {'v': state['item']}",
            "fan_in": "join",
        },
        {"name": "join", "fan_in": True, "run": "return {'sum': sum(r['v'] for r in parallel_results)}"},
    ],
}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World("thread", "yaml", tmp_path / "spool", tmp_path)


def write(folder: Path, strategy: str) -> Path:
    path = folder / "w.yaml"
    path.write_text(json.dumps({**WORKFLOW, "settings": {"parallel": {"strategy": strategy}}}))
    return path


def used(ran: Any) -> str:
    return str(json.loads((ran.fanout / "fanout.json").read_bytes())["strategy"])


def test_thread_is_the_default(tmp_path: Path) -> None:
    assert tea.ParallelConfig().strategy == "thread"
    done = tea_cmd("run", _plain(tmp_path), "--spool", tmp_path / "spool")
    assert done.returncode == 0, done.stderr
    (fanout,) = (tmp_path / "spool").glob("runs/*/fanouts/*/fanout.json")
    assert json.loads(fanout.read_bytes())["strategy"] == "thread"


def _plain(folder: Path) -> Path:
    path = folder / "w.yaml"
    path.write_text(json.dumps(WORKFLOW))
    return path


@pytest.mark.parametrize("value", ["false", "FALSE", "0", "off"])
def test_the_switch_turns_every_strategy_into_threads(
    world: World, value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TEA_PARALLEL_STRATEGY_ENABLED", value)
    ran = world.run(world.edges({"a": ""}, {"strategy": "process"}))
    assert used(ran) == "thread"
    assert "TEA_PARALLEL_STRATEGY_ENABLED is off" in caplog.text


def test_the_switch_left_on_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEA_PARALLEL_STRATEGY_ENABLED", "true")
    assert used(world.run(world.edges({"a": ""}, {"strategy": "process"}))) == "process"


def test_an_unknown_strategy_falls_back_to_threads_and_says_so(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "tea"):
        ran = world.run(world.edges({"a": "return {'x': 1}"}, {"strategy": "quantum"}))
    assert ran.results[0]["x"] == 1
    assert used(ran) == "thread"
    assert "no strategy 'quantum'" in caplog.text


def test_the_command_says_so_too_and_keeps_it_in_the_record(tmp_path: Path) -> None:
    path = write(tmp_path, "quantum")
    done = tea_cmd("run", path, "--spool", tmp_path / "spool")
    assert (done.returncode, json.loads(done.stdout)["sum"]) == (0, 3)
    assert "quantum" in done.stderr
    (record,) = (tmp_path / "spool").glob("runs/*/run.json")
    assert any("quantum" in warning for warning in json.loads(record.read_bytes())["warnings"])


def test_strict_makes_it_an_error_before_anything_starts(tmp_path: Path) -> None:
    done = tea_cmd("run", write(tmp_path, "quantum"), "--spool", tmp_path / "spool", "--strict")
    assert done.returncode == 2
    assert "quantum" in done.stderr
    assert not (tmp_path / "spool").exists()


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    monkeypatch.setattr(base, "_registered", kept)
    return kept


class Backwards(tea.ThreadExecutor):
    """Runs like threads, and remembers what it was given."""

    strategy = "backwards"
    seen: tuple[Any, ...] = ()

    def execute(self, flows: Any, states: Any, config: Any) -> Any:
        Backwards.seen = (self.max_workers, [flow.branch for flow in flows], config.strategy)
        return super().execute(flows, states, config)


def test_a_registered_executor(world: World, registered: dict[str, Any]) -> None:
    tea.register_executor("backwards", Backwards)
    assert "backwards" in tea.available_strategies()
    ran = world.run(world.edges({"a": "return {'x': 1}", "b": ""}, {"strategy": "backwards"}))
    assert ran.column("success") == [True, True]
    assert Backwards.seen == (4, ["a", "b"], "backwards")
    assert isinstance(Backwards(), tea.ParallelExecutor)


def test_an_executor_of_an_installed_package(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site = tmp_path / "site"
    info = site / "sideways-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sideways\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tea.executors]\nsideways = sideways_plugin:Sideways\n")
    (site / "sideways_plugin.py").write_text(
        "from tea import ThreadExecutor\nclass Sideways(ThreadExecutor):\n    strategy = 'sideways'\n"
    )
    assert "sideways" not in tea.available_strategies()
    monkeypatch.syspath_prepend(str(site))
    assert "sideways" in tea.available_strategies()
    ran = world.run(world.edges({"a": "return {'x': 1}"}, {"strategy": "sideways"}))
    assert (ran.results[0]["x"], used(ran)) == (1, "sideways")
    assert "sideways" not in caplog.text
    sys.modules.pop("sideways_plugin", None)


def test_unknown_names_are_told_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"no strategy 'quantum'; there are .*process.*thread.*workers"):
        tea.get_executor("quantum")


def test_workers_refuse_what_only_this_process_could_run(world: World) -> None:
    graph = World("workers", "python", world.spool, world.folder).edges({"a": ""})
    with pytest.raises(ValueError, match="functions or a config of this process"):
        world.run(graph)


def test_branches_of_one_fan_out_share_one_strategy(world: World) -> None:
    from tea import GraphError, ParallelConfig, StateGraph

    graph = StateGraph({})
    graph.add_node("src")
    graph.add_fanin_node("join")
    graph.set_entry_point("src")
    for name, strategy in (("a", "thread"), ("b", "process")):
        graph.add_node(name)
        graph.add_parallel_edge("src", name, "join", ParallelConfig(strategy=strategy))
        graph.add_edge(name, "join")
    graph.set_finish_point("join")
    with pytest.raises(GraphError, match="share one strategy, not process, thread"):
        world.run(graph.compile())
