"""`tea spool list`: what holds together, in order, as CSV."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from spool.claim import host_name
from tests.tools.kit import job, read, run, text, verb, write_workflow


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 5 jobs that has ended, with made-up durations; only to be read."""
    folder = tmp_path_factory.mktemp("ended")
    write_workflow(folder, retries=0)
    run(folder, items=5, bad=(1, 3))
    for item, seconds in ((0, 30.0), (1, 5.0), (2, 90.0), (3, 40.0), (4, 1.0)):
        change(job(folder, item), seconds=seconds)
    return folder


def change(path: Path, **members: Any) -> None:
    """Change the result of a job."""
    result = path / "result.json"
    result.write_text(json.dumps({**json.loads(result.read_text()), **members}))


def items(here: Path, *arguments: str) -> list[int]:
    return [int(line["job"].split("/")[1][:4]) for line in read(here, "list", *arguments)]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--slower-than", "20s"], [0, 2, 3]),
        (["--slower-than", "1m"], [2]),
        (["--slower-than", "20s", "--state", "failed"], [3]),
        (["--error", "ITEM 1"], [1]),
        (["--error", "valueerror"], [1, 3]),
        (["--host", host_name()], [0, 1, 2, 3, 4]),
        (["--host", "elsewhere"], []),
        (["--branch", "split"], [0, 1, 2, 3, 4]),
        (["--branch", "s*t", "--limit", "2"], [0, 1]),
        (["--branch", "other"], []),
        (["--sort", "seconds"], [2, 3, 0, 1, 4]),
        (["--sort", "seconds", "--limit", "1"], [2]),
        (["--sort", "state"], [0, 2, 4, 1, 3]),
        (["--sort", "error"], [1, 3, 0, 2, 4]),
    ],
)
def test_filters_and_order(here: Path, arguments: list[str], found: list[int]) -> None:
    assert items(here, *arguments) == found


def test_names_only_with_filters(here: Path) -> None:
    assert text(here, "list", "-q", "--error", "item 3") == "001-split/0003-split\n"
    assert text(here, "list", "-q", "--sort", "seconds", "--limit", "1") == "001-split/0002-split\n"
    assert text(here, "list", "-q", "--branch", "nothing") == ""


def test_csv(here: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(text(here, "list", "--csv", "--state", "failed"))))
    assert [(row["job"], row["seconds"], row["error"]) for row in rows] == [
        ("001-split/0001-split", "5.0", "ValueError: bad item 1"),
        ("001-split/0003-split", "40.0", "ValueError: bad item 3"),
    ]
    assert "contradict" in verb(here, "list", "--csv", "--json", code=2).stderr


def test_a_time_that_is_none(here: Path) -> None:
    assert "is no span of time" in verb(here, "list", "--slower-than", "long", code=2).stderr


def test_an_error_does_not_move_the_cursor(tmp_path: Path) -> None:
    write_workflow(tmp_path, retries=0)
    run(tmp_path)
    error = "\x1b[31mred\x1b[0m \x1b]0;title\x07 \u202egpj.exe" + " and so on" * 100
    change(job(tmp_path, 1), error=error)
    for words in (["list"], ["status"], ["explain", "1"], ["show", "1"]):
        shown = text(tmp_path, *words)
        assert all(letter.isprintable() or letter == "\n" for letter in shown)
        assert max(map(len, shown.splitlines())) < 600
    assert read(tmp_path, "list", "--state", "failed")[0]["error"] == f"ValueError: {error}"
