"""Every row of the benchmarks runs alone and writes its figures. How large they are is nobody's test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, clean_env

SCRIPTS = sorted((ROOT / "benchmarks").glob("row*.py"))
FEW = {"row8_kill": "1", "row5_cpu": "2", "row6_remote": "2", "row9_latency": "5"}

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_leftovers")]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_row(script: Path, tmp_path: Path) -> None:
    jobs = FEW.get(script.stem, "20")
    options = ["--jobs", jobs, "--repeat", "1", "--dir", str(tmp_path), "--results", str(tmp_path / "results")]
    done = subprocess.run(
        [sys.executable, script, *options], env=clean_env(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "results").iterdir()
    row = json.loads(path.read_text())
    assert script.stem.startswith(f"row{row['number']}_")
    # Memory is looked at while a program runs: on a machine that stalls it may be over by then.
    assert [line for line in row["lines"] if line["value"] <= 0 and line["unit"] != "MB"] == []
    assert [name for name in tmp_path.iterdir() if name.name.startswith("tea-bench-")] == []
