"""`tea run --dry-run` of a workflow over hosts: says what would be done there, and asks no host."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.faults.kit import need
from tests.support import tea_cmd

HOSTS = [{"host": "ann@one", "slots": 3}, {"host": "two:2222", "workdir": "/scratch/tea", "env": {"KEY": "hush"}}]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with files for hosts, and an `ssh` that leaves a trace when anybody calls it."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "__pycache__").mkdir()
    (tmp_path / "lib" / "__pycache__" / "x.pyc").write_text("not copied")
    (tmp_path / "lib" / "x.py").write_text("x = 1\n")
    (tmp_path / "lib" / "y.py").write_text("")
    (tmp_path / "data.csv").write_text("1;2")
    (tmp_path / "bin").mkdir()
    ssh = tmp_path / "bin" / "ssh"
    ssh.write_text(f"#!/bin/sh\ntouch {tmp_path}/called\nexit 255\n")
    ssh.chmod(0o755)
    return tmp_path


def plan(here: Path, *more: str, code: int = 0, **remote: Any) -> str:
    settings = {"strategy": "remote", "remote": {"hosts": HOSTS, **remote}}
    nodes = [
        {
            "name": "each",
            "type": "dynamic_parallel",
            "items": [1, 2],
            "fan_in": "join",
            "action": {"run": "return {}"},
        },
        {"name": "join", "fan_in": True, "run": "return {}"},
    ]
    (here / "w.yaml").write_text(json.dumps({"settings": {"parallel": settings}, "nodes": nodes}))
    path = {"PATH": f"{here / 'bin'}:{os.environ['PATH']}", "API_TOKEN": "hush"}
    done = tea_cmd("run", "w.yaml", "--dry-run", *more, cwd=here, env=path)
    assert done.returncode == code, done.stderr
    assert not (here / "called").exists()
    assert not (here / ".tea").exists()
    return done.stdout if not code else done.stderr


def test_hosts_and_what_is_copied(here: Path) -> None:
    told = plan(here, files=["lib/", "data.csv"], env=["API_TOKEN"], workdir="/tmp/work", cleanup=False)
    lines = [" ".join(line.split()) for line in told.splitlines()]
    assert "remote, as many jobs at once as its hosts have slots" in lines
    at = lines.index("hosts ann@one, 3 slots, /tmp/work, python3")
    assert lines[at + 1 : at + 3] == [
        "two:2222, a slot for each CPU, /scratch/tea, python3, with KEY",
        "reached by transport openssh, launcher ssh",
    ]
    assert lines[at + 3].startswith("copied tea-")
    assert re.search(r"\.pyz, \d,\d{3},\d{3} bytes, ", lines[at + 3])
    assert lines[at + 4 : at + 7] == [
        "lib/, 2 files, 6 bytes",
        "data.csv, 1 file, 3 bytes",
        "the values of API_TOKEN, into the environment of the jobs",
    ]
    assert "`tea hosts clean` removes them" in lines[at + 7]
    assert "hush" not in told


def test_nothing_of_it_where_another_strategy_is_asked_for(here: Path) -> None:
    told = plan(here, "--strategy", "process")
    assert "hosts" not in told
    assert "process, default number of workers" in told


def test_files_that_are_not_there(here: Path) -> None:
    assert "nix.csv does not exist" in plan(here, files=["nix.csv"], code=2)


def test_the_command_of_gnu_parallel(here: Path) -> None:
    """It can be pasted: GNU Parallel itself says what it would run."""
    need("parallel")
    told = plan(here, launcher="parallel")
    (command,) = [line.split(maxsplit=1)[1] for line in told.splitlines() if line.split()[0] == "command"]
    argv = shlex.split(command)
    assert argv[argv.index("--sshlogin") + 1] == "3/ann@one,two:2222"
    done = subprocess.run(
        command.replace("parallel ", "parallel --dryrun ", 1),
        shell=True,
        cwd=here,
        input="0001.batch\n",
        env={**os.environ, "PATH": f"{here / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert "./python -I courier.py 0001.batch 0001.result" in done.stdout + done.stderr
