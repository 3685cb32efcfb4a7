"""Every example runs as it says at its top, and gives what it promises. Real processes, started as a reader would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import support
from tests.support import ROOT, clean_env, wait_until

EXAMPLES = ROOT / "examples"
WORKFLOWS = [path for path in sorted(EXAMPLES.rglob("*.yaml")) if ".tea" not in path.parts]

pytestmark = pytest.mark.usefixtures("no_leftovers")


def run(name: str, spool: Path, *more: str) -> tuple[dict[str, Any], str]:
    """Run an example from another folder; its final state, and what it wrote to stderr."""
    done = support.tea_cmd("run", EXAMPLES / name, "--spool", spool, *more, cwd=spool.parent)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_workflows_are_valid_without_a_warning(path: Path) -> None:
    done = support.tea_cmd("validate", path)
    assert done.returncode == 0
    assert "warning" not in done.stdout + done.stderr


def test_every_example_is_in_the_readme() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    files = [*WORKFLOWS, *EXAMPLES.glob("*.py")]
    assert [path.name for path in files if str(path.relative_to(EXAMPLES)) not in text] == []


def test_strategies_give_the_same_results(spool_dir: Path) -> None:
    own, _ = run("parallel_strategies_demo.yaml", spool_dir)
    threads, _ = run("parallel_strategies_demo.yaml", spool_dir, "--strategy", "thread")
    assert own == threads == {"by_thread": [3, 2, 1], "by_process": [3, 2, 1]}


def test_strategies_with_a_worker(spool_dir: Path, start_tea: Any) -> None:
    text = json.dumps({"with_workers": True})
    example = EXAMPLES / "parallel_strategies_demo.yaml"
    coordinator = start_tea("run", example, "--input", text, "--spool", spool_dir, cwd=spool_dir.parent)
    todo = "runs/*/fanouts/003-shared/todo/*"
    wait_until(lambda: len(list(spool_dir.glob(todo))) == 3, what="all jobs: the worker ends when it finds none")
    worker = support.tea_cmd("worker", spool_dir, "--until-empty", cwd=spool_dir.parent)
    out, err = coordinator.communicate(timeout=240)
    assert worker.returncode == coordinator.returncode == 0, err
    assert json.loads(out)["by_workers"] == [3, 2, 1]


def test_retries_and_timeouts(spool_dir: Path) -> None:
    state, _ = run("retries_and_timeouts.yaml", spool_dir)
    told = {branch: (r["outcome"], r["retries"], r["answer"]) for branch, r in state["report"].items()}
    assert told == {
        "steady": ("succeeded", 0, 42),
        "flaky": ("succeeded", 2, 3),
        "hopeless": ("failed", 0, None),
        "slow": ("timed_out", 0, None),
    }
    assert not Path(state["folder"]).exists()


def test_matrix(spool_dir: Path) -> None:
    state, _ = run("matrix.yaml", spool_dir, "--input", '{"bytes": 20000}')
    assert {data: set(row) for data, row in state["table"].items()} == {
        data: {"zlib", "bz2", "lzma"} for data in ("zeros", "numbers", "noise")
    }
    assert all(row["zlib"] < 5 for data, row in state["table"].items() if data == "zeros")
    assert all(percent > 99 for percent in state["table"]["noise"].values())


@pytest.mark.parametrize("strategy", ["thread", "process"])
def test_nested(spool_dir: Path, strategy: str) -> None:
    state, _ = run("nested.yaml", spool_dir, "--strategy", strategy)
    assert [chapter["words"] for chapter in state["chapters"]] == [8, 2, 8]
    assert len(list(spool_dir.glob("runs/*/fanouts/*/jobs/*/fanouts/*/jobs/*/result.json"))) == 6


def test_nested_chapter_alone(spool_dir: Path) -> None:
    state, _ = run("nested_chapter.yaml", spool_dir, "--input", '{"chapter": {"paragraphs": ["one two", "three"]}}')
    assert state["words"] == 3


def program(name: str, folder: Path) -> list[str]:
    """Run an example that is a program; the lines it printed."""
    words = [sys.executable, os.fspath(EXAMPLES / name)]
    done = subprocess.run(
        words, cwd=folder, env=clean_env(), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_python_api(tmp_path: Path) -> None:
    failure, merged = program("python_api.py", tmp_path)
    assert failure == "branch broken failed: cannot make sense of 'to be or not to be'"
    assert json.loads(merged) == {"total": 14, "words": 6, "broken": "cannot make sense of 'to be or not to be'"}


def test_executor(tmp_path: Path) -> None:
    assert program("executor.py", tmp_path) == [
        "chunk 7 failed: list index out of range; see 001-calls/000007-count",
        "{'200': 301, '201': 299, '202': 300}",
        "without the broken line: {'200': 32, '201': 34, '202': 33}",
    ]
