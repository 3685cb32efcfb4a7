"""Every branch is a directory that can be understood and replayed alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.world import World
from tests.support import tea_cmd

BRANCHES = {
    "a": ["return {'x': state['x'] + 1}", "state['log'].append('a')\nreturn {'y': [state['x'], None, 'ü']}"],
    "b": "return {'x': -1}",
}


def read(path: Path) -> Any:
    return json.loads(path.read_bytes())


def test_a_job_directory_shows_what_the_branch_read_ran_and_gave(world: World) -> None:
    ran = world.run(world.edges(BRANCHES), {"x": 1, "log": []})
    job = Path(str(ran.of("a").job))
    assert read(job / "input.json") == {"x": 1, "log": []}
    record = read(job / "job.json")
    assert (record["id"], record["branch"], record["index"], record["entry"]) == ("0000-a", "a", 0, "a")
    assert record["exit"] == "join"
    result = read(job / "result.json")
    assert (result["success"], result["outcome"], result["attempt"]) == (True, "succeeded", 1)
    assert result["state"] == {"x": 2, "y": [2, None, "ü"], "log": ["a"]}
    assert result["input_sha256"] == record["input_sha256"]
    assert os.readlink(job / "claim.1")
    if world.kind == "yaml":
        assert "not_replayable" not in record
        subset = yaml.safe_load((job / "workflow.yaml").read_text())
        assert [node["name"] for node in subset["nodes"]] == ["a", "a_2"]
    else:
        assert "built in Python" in record["not_replayable"]


def test_the_tickets_tell_how_it_went(world: World) -> None:
    ran = world.run(world.edges({"good": "", "bad": "raise OSError"}))
    tickets = {kind: sorted(os.listdir(ran.fanout / kind)) for kind in ("todo", "done", "failed", "cancelled")}
    assert tickets == {"todo": [], "done": ["0000-good"], "failed": ["0001-bad"], "cancelled": []}


def test_no_temporary_files_are_left(world: World) -> None:
    ran = world.run(world.edges({"good": "print('x')", "bad": "raise OSError"}), {"big": "x" * 5000})
    left = [path.name for path in ran.run.rglob("*") if path.name.startswith(".") or "tmp" in path.name]
    assert left == []


def replayed(job: Path, *more: str) -> Any:
    """What `tea run workflow.yaml --input input.json` ends with, in the job directory."""
    done = tea_cmd(
        "run", job / "workflow.yaml", "--input", job / "input.json", *more, "--no-spool", "--progress", "none"
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("padding", [0, 5000])
def test_a_job_directory_replays_alone(yaml_world: World, padding: int) -> None:
    """Also when the shared state is big and lies beside the input."""
    state = {"x": 1, "log": [], "padding": "x" * padding}
    ran = yaml_world.run(yaml_world.edges(BRANCHES), state)
    for result in ran.results:
        job = Path(str(result.job))
        assert (job / "base.json").exists() == bool(padding)
        assert ("padding" in read(job / "input.json")) == (not padding)
        final = replayed(job)
        assert final == result.state
        assert {k: v for k, v in final.items() if state.get(k) != v} == read(job / "result.json")["state"]


@pytest.mark.parametrize("chunk", [1, 2])
def test_jobs_over_data_replay_alone(yaml_world: World, chunk: int) -> None:
    spec = {
        "type": "dynamic_parallel",
        "items": "{{ state.numbers }}",
        "item_var": "n",
        "chunk_size": chunk,
        "steps": [{"run": "state['log'].append(state['n'])"}, {"run": "return {'v': state['n'] * variables['by']}"}],
    }
    graph = yaml_world.over(spec, more={"variables": {"by": 7}})
    ran = yaml_world.run(graph, {"numbers": [3, 4, 5], "log": []})
    for job in sorted(ran.fanout.glob("jobs/*")):
        final, record = replayed(job), read(job / "result.json")
        for value in (final, record["state"]):
            for item in value.get("chunk_results", ()):
                item.pop("seconds")
        assert {key: final[key] for key in record["state"]} == record["state"]


def test_a_failed_job_fails_again(yaml_world: World) -> None:
    ran = yaml_world.run(yaml_world.edges({"bad": "raise OSError(state['why'])"}), {"why": "no disk"})
    job = Path(str(ran.results[0].job))
    done = tea_cmd("run", job / "workflow.yaml", "--input", job / "input.json", "--no-spool")
    assert done.returncode == 1
    assert "no disk" in done.stderr


def test_what_a_python_branch_lacks_is_said(python_world: World) -> None:
    ran = python_world.run(python_world.edges({"a": ""}), {"x": 1})
    job = Path(str(ran.results[0].job))
    assert not (job / "workflow.yaml").exists()
    done = tea_cmd("run", ran.run / "workflow.yaml", "--input", job / "input.json", "--no-spool")
    assert done.returncode == 2


def test_the_fan_out_says_what_it_was(world: World) -> None:
    ran = world.run(world.edges({"a": "", "b": ""}))
    record = read(ran.fanout / "fanout.json")
    assert (record["source"], record["fan_in"], record["strategy"], record["total"]) == (
        "src",
        "join",
        world.strategy,
        2,
    )
    assert record["branches"] == ["a", "b"]
    run = read(ran.run / "run.json")
    assert run["outcome"] == "done"
    assert run["pid"] == os.getpid()


def test_what_a_branch_prints_lies_in_its_directory(yaml_world: World) -> None:
    if yaml_world.strategy == "thread":
        pytest.skip("threads share the output of their process")
    code = "import subprocess, sys\nprint('from python')\nsubprocess.run(['echo', 'from a child'])\n"
    code += "print('to stderr', file=sys.stderr)\nassert state['ok'], 'no'"
    branches = {"a": "state['ok'] = True\n" + code, "quiet": "", "bad": "state['ok'] = False\n" + code}
    ran = yaml_world.run(yaml_world.edges(branches, {"retry": {"max_retries": 1, "base_delay": 0.01}}))
    a, quiet, bad = (Path(str(result.job)) for result in ran.results)
    assert sorted((a / "stdout.1.log").read_text().splitlines()) == ["from a child", "from python"]
    assert (a / "stderr.1.log").read_text() == "to stderr\n"
    assert not list(quiet.glob("*.log"))
    assert sorted(path.name for path in bad.glob("*.log")) == [
        "stderr.1.log",
        "stderr.2.log",
        "stdout.1.log",
        "stdout.2.log",
    ]


@pytest.mark.parametrize("strategy", ["thread", "process"])
def test_without_a_record(tmp_path: Path, strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads can do without a spool; processes say that they cannot."""
    monkeypatch.chdir(tmp_path)
    world = World(strategy, "yaml", tmp_path / "spool", tmp_path)
    graph = world.edges({"a": "return {'x': 1}"})
    if strategy == "thread":
        ran = world.run(graph, spool=False)
        assert (ran.results[0]["x"], ran.results[0].job) == (1, None)
    else:
        with pytest.raises(ValueError, match="needs a spool"):
            world.run(graph, spool=False)
    assert os.listdir(tmp_path) == []
