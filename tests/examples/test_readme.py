"""The quick start of the README, as a newcomer would follow it: its commands in order, and what they show."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import docs
from tests.support import ROOT, clean_env

README = ROOT / "README.md"


def quick_start() -> Iterator[docs.Block]:
    """The blocks of the chapter."""
    lines = README.read_text().splitlines()
    first = lines.index("## Quick start")
    last = next(number for number in range(first + 1, len(lines)) if lines[number].startswith("## "))
    return (block for block in docs.blocks(README) if first < block.line < last)


def typed(block: docs.Block) -> Iterator[tuple[str, str | None]]:
    """The commands of a block, each with what is shown below it; None where nothing is shown."""
    if block.language == "sh":
        yield from ((line, None) for line in block.text.splitlines())
        return
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


def without_accidents(text: str) -> str:
    """Seconds, times, the name of the run, who ran it and where are others each time."""
    text = re.sub(r"^tea: .* to do\n", "", text, flags=re.MULTILINE)  # what a slow machine shows on the way
    text = re.sub(r"\b\d+(\.\d)? s\b", "S s", text)
    text = re.sub(r"\d{8}-\d{6}-quick-start-[0-9a-f]{4}", "RUN", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", text)
    text = re.sub(r"^( +)~*\^+$", r"\1^", text, flags=re.MULTILINE)  # Python 3.13 marks more of a line
    text = re.sub(r"\S+@\S+:\d+:[0-9a-f]{12}", "CLAIMANT", text)
    return re.sub(r"/\S*/\.tea/", "/.tea/", text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A newcomer's folder, with `tea` on the way to programs."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "tea"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tea "$@"\n')
    program.chmod(0o755)
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def test_quick_start(folder: Path) -> None:
    path = f"{folder.parent / 'bin'}:{clean_env()['PATH']}"
    env = clean_env({"PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "120", "LC_ALL": "C"})
    commands = []
    for block in quick_start():
        if block.language == "yaml":
            (folder / "workflow.yaml").write_text(block.text)
            continue
        for command, output in typed(block):
            done = subprocess.run(
                ["sh", "-c", command],
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=240,
                check=False,
            )
            assert done.returncode == 0, (command, done.stdout)
            if output is not None:
                assert without_accidents(done.stdout) == without_accidents(output), command
            commands.append(command)
    assert commands[1:5] == [
        "tea spool show limit",
        "echo 42 > limit.txt",
        "tea spool replay limit",
        "tea resume --retry-failed",
    ]
