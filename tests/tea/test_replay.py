"""Replaying with what does not fit, or what cannot be read: refused or told, not guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import tea_cmd

WORKFLOW = """\
nodes:
  - {name: each, strategy: {parallel_each: [1]}, run: "return {'v': state['item']}", fan_in: all}
  - {name: all, fan_in: true}
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job that has ended, of a run in `tmp_path`."""
    (tmp_path / "w.yaml").write_text(WORKFLOW)
    assert tea_cmd("run", "w.yaml", cwd=tmp_path).returncode == 0
    (found,) = tmp_path.glob(".tea/spool/runs/*/fanouts/*/jobs/*")
    return found


def test_a_workflow_without_the_jobs_node_is_refused(job: Path, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(WORKFLOW.replace("each,", "eachh,"))
    done = tea_cmd("spool", "replay", "0", "--workflow", "other.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "other.yaml: it has no node 'each' (did you mean 'eachh'?)" in done.stderr


def test_an_accepted_result_that_cannot_be_trusted_is_told(job: Path, tmp_path: Path) -> None:
    path = job / "result.json"
    path.unlink()
    path.write_text("{")
    done = tea_cmd("spool", "replay", "0", cwd=tmp_path)
    assert done.returncode == 0
    assert f"warning: {path}: unreadable, not JSON" in done.stderr
