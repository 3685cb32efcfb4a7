"""Completion of RUN and JOB, as a shell asks for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import clean_env, tea_cmd
from tests.tools.kit import read, run, write_workflow


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has ended, with two failed jobs; only to be read."""
    folder = tmp_path_factory.mktemp("ended")
    write_workflow(folder, retries=0)
    run(folder, bad=(1, 3))
    return folder


def offered(here: Path, *words: str) -> list[str]:
    """What bash would be offered for the last word."""
    env = {"_TEA_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(["tea", *words]), "COMP_CWORD": str(len(words))}
    done = tea_cmd(cwd=here, env=env)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.split()]


def test_jobs(here: Path) -> None:
    every = [f"001-split/000{n}-split" for n in range(4)]
    assert offered(here, "spool", "show", "001") == every
    assert offered(here, "spool", "logs", "0003") == ["0003-split"]
    assert offered(here, "spool", "explain", "001-split/0002") == ["001-split/0002-split"]
    assert offered(here, "spool", "replay", "nothing") == []


def test_only_jobs_that_the_verb_is_for(here: Path) -> None:
    assert offered(here, "spool", "retry", "001") == ["001-split/0001-split", "001-split/0003-split"]
    assert offered(here, "spool", "cancel", "001") == []


def test_runs(here: Path) -> None:
    name = read(here, "status")["run"]
    for words in (["resume"], ["spool", "status"], ["spool", "list"], ["spool", "report"], ["spool", "retry"]):
        assert offered(here, *words, name[:8]) == [name]
    assert offered(here, "spool", "cancel", name[-4:-1]) == [name[-4:]]


def test_packed_runs(tmp_path: Path) -> None:
    write_workflow(tmp_path, retries=0)
    run(tmp_path)
    name = read(tmp_path, "status")["run"]
    assert offered(tmp_path, "spool", "unpack", "2") == []
    read(tmp_path, "pack")
    assert offered(tmp_path, "spool", "unpack", "2") == offered(tmp_path, "spool", "status", "2") == [name]


def test_files_and_folders(here: Path) -> None:
    assert offered(here, "spool", "replay", "7", "--workflow", "w") == ["w"]
    assert offered(here, "run", "w") == ["w"]
    assert offered(here, "spool", "status", "--spool", "w") == ["w"]


def test_the_spool_that_is_named(here: Path, tmp_path: Path) -> None:
    assert offered(tmp_path, "spool", "show", "001") == []
    assert len(offered(tmp_path, "spool", "show", "--spool", str(here / ".tea" / "spool"), "001")) == 4


def test_in_a_real_bash(here: Path) -> None:
    tea = Path(sys.executable).with_name("tea")
    if not tea.exists():
        pytest.skip("tea is not installed beside this Python")
    script = (
        f'PATH="{tea.parent}:$PATH"; eval "$(_TEA_COMPLETE=bash_source tea)"; '
        'COMP_WORDS=(tea spool show 0003); COMP_CWORD=3; _tea_completion tea; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script], cwd=here, env=clean_env(), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.stdout == "0003-split\n", done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_set_up_of_each_shell(tmp_path: Path, shell: str) -> None:
    done = tea_cmd(cwd=tmp_path, env={"_TEA_COMPLETE": f"{shell}_source"})
    assert "_TEA_COMPLETE" in done.stdout
