"""The quick start of the README, as a newcomer would follow it: what it shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import docs, support
from tests.support import ROOT

README = ROOT / "README.md"
BLOCKS = list(docs.blocks(README))
WORKFLOW = next(block.text for block in BLOCKS if block.language == "yaml")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "workflow.yaml").write_text(WORKFLOW)
    return tmp_path


def shown(command: str) -> str:
    """What the README shows below a command."""
    text = next(block.text for block in BLOCKS if block.text.startswith(f"$ {command}\n"))
    return text.partition("\n")[2]


def without_accidents(text: str) -> str:
    """Seconds, and the name of the run, are others each time."""
    text = re.sub(r"\d+\.\d s", "S s", text)
    return re.sub(r"\d{8}-\d{6}-quick-start-[0-9a-f]{4}", "RUN", text)


def test_quick_start(folder: Path) -> None:
    first = support.tea_cmd("run", "workflow.yaml", cwd=folder)
    assert without_accidents(first.stderr + first.stdout) == without_accidents(shown("tea run workflow.yaml"))
    for words in (["status"], ["list", "--state", "failed"], ["show", "limit"]):
        told = support.tea_cmd("spool", *words, cwd=folder)
        assert told.returncode == 0, told.stderr
        assert "FileNotFoundError" in told.stdout
    (job,) = folder.glob(".tea/spool/runs/*/fanouts/001-load/jobs/0002-limit")
    listed = next(block.text for block in BLOCKS if block.text.startswith("$ ls ")).splitlines()[1]
    assert sorted(path.name for path in job.iterdir()) == sorted(listed.split())
    replay(folder, job)
    again = support.tea_cmd("resume", "--retry-failed", cwd=folder)
    assert without_accidents(again.stderr + again.stdout) == without_accidents(shown("tea resume --retry-failed"))


def replay(folder: Path, job: Path) -> None:
    """One branch alone, in its directory: it fails like there. Then the cause is removed."""
    alone = support.tea_cmd("run", "workflow.yaml", "--input", "input.json", "--no-spool", cwd=job)
    assert alone.returncode == 1
    assert "FileNotFoundError" in alone.stderr
    (folder / "limit.txt").write_text("42\n")
