"""`tea spool pack` and `unpack`: packed runs are read like others, and changed only when they are unpacked."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

import tea
from spool import opened
from tests.support import tea_cmd
from tests.tools.kit import Start, files_of, read, run, start, text, verb, write_workflow


@pytest.fixture
def here(tmp_path: Path) -> Path:
    write_workflow(tmp_path, retries=0)
    return tmp_path


@pytest.fixture
def name(here: Path) -> str:
    """A run that has ended, with a failed job."""
    run(here)
    return str(read(here, "status")["run"])


def pack_of(here: Path, name: str) -> Path:
    return here / ".tea" / "spool" / "packed" / f"{name}.zip"


def report(here: Path) -> list[str]:
    """The page about the run, without the line that says when it was made."""
    lines = text(here, "report", "--output", "-").splitlines()
    assert len(lines) > 100
    return [line for line in lines if "Made by tea" not in line]


READING = (
    ("status", "--json"),
    ("list", "--json"),
    ("list", "--state", "failed", "--quiet"),
    ("list", "--csv", "--sort", "seconds"),
    ("show", "1", "--json"),
    ("logs", "1", "--json"),
    ("logs", "0002-split"),
    ("explain", "3", "--json"),
)


def test_it_is_read_as_before(here: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(here / "tmp"))

    def told() -> list[str]:
        return [text(here, *arguments) for arguments in READING]

    before = told()
    page = report(here)
    assert f"tea spool unpack {name}" in text(here, "pack")
    assert not (here / ".tea" / "spool" / "runs" / name).exists()
    after = told()
    assert after[1:] == before[1:]
    assert "tea-opened" not in "".join(after)
    for changing in ("coordinator_alive",):
        assert json.loads(after[0])[changing] == json.loads(before[0])[changing]
    assert json.loads(after[0])["fanouts"] == json.loads(before[0])["fanouts"]
    assert json.loads(after[0])["failures"] == json.loads(before[0])["failures"]
    assert report(here) == page
    assert list((here / "tmp").glob("tea-*")) == [], "what was restored is gone"


def test_it_may_be_named_in_part_or_by_a_path_in_it(here: Path, name: str) -> None:
    path = read(here, "show", "1")["path"]
    text(here, "pack", name[-4:])
    assert read(here, "show", path)["path"] == path
    assert read(here, "show", f"{name}/001-split/0001-split")["path"] == path
    assert read(here, "status", str(here / ".tea" / "spool" / "runs" / name))["run"] == name
    assert "packed in" in text(here, "status", name[-4:])


def test_a_job_is_replayed_from_it(here: Path, name: str) -> None:
    text(here, "pack")
    assert "it still fails, as in the record" in text(here, "replay", "1", code=1)
    folder = read(here, "replay", "3", "--set", "item=5")["folder"]
    assert folder.startswith(str(here / ".tea" / "spool" / "replays" / name))
    assert json.loads(Path(folder, "result.json").read_text())["state"] == {"value": 10}


def test_what_changes_it_says_what_to_do(here: Path, name: str) -> None:
    text(here, "pack")
    before = files_of(here)
    remedy = f"unpack it first: tea spool unpack {name}"
    for arguments in (("retry",), ("retry", "1"), ("cancel", name), ("cancel", "1"), ("pause",), ("pause", name)):
        assert remedy in verb(here, *arguments, code=2).stderr
    done = tea_cmd("resume", "--retry-failed", cwd=here)
    assert (done.returncode, remedy in done.stderr) == (2, True)
    assert tea_cmd("resume", cwd=here).returncode == 0, "the kept output of a run that is done"
    assert files_of(here) == before
    assert f"tea spool unpack {name}" in text(here, "show", "1")
    assert f"tea spool unpack {name}" in text(here, "explain", "1")
    (here / "fixed").touch()
    text(here, "unpack", name)
    assert json.loads(tea_cmd("resume", "--retry-failed", cwd=here).stdout)["values"] == [0, 2, 4, 6]


def test_a_live_run_is_refused(here: Path, start_tea: Start) -> None:
    process = start(here, start_tea)
    assert f":{process.pid}; wait for it" in verb(here, "pack", code=2).stderr
    assert not (here / ".tea" / "spool" / "packed").exists()
    process.kill()
    process.wait(240)
    told = verb(here, "pack", code=2).stderr
    assert "has not ended, so it is not packed" in told
    assert "tea spool cancel" in told


def test_packing_twice_and_unpacking_twice(here: Path, name: str) -> None:
    before = files_of(here)
    (told,) = read(here, "pack", "--keep")
    assert told["folder"] == str(here / ".tea" / "spool" / "runs" / name)
    assert told["packed_bytes"] == pack_of(here, name).stat().st_size
    (told,) = read(here, "pack")
    assert (told["folder"], told["pack"]) == (None, str(pack_of(here, name)))
    assert "is packed already" in verb(here, "pack", name).stderr
    (told,) = read(here, "unpack")
    assert told["pack"] is None
    assert [one for one in files_of(here) if f"/{name}" in one[0]] == [one for one in before if f"/{name}" in one[0]]
    assert f"run {name} is not packed" in verb(here, "unpack", code=2).stderr


def test_from_python(here: Path, name: str) -> None:
    text(here, "pack")
    spool = tea.open_spool(here / ".tea" / "spool")
    assert [(run.name, run.state, run.counts()["done"]) for run in spool.runs()] == [(name, "done", 3)]
    (failed,) = spool.run().jobs(state="failed")
    assert (failed.error, failed.stdout()) == ("ValueError: bad item 1", "about to 1\n")
    assert spool.job("3").input["item"] == 3
    opened.close_all()


def test_a_file_from_elsewhere(here: Path, name: str, tmp_path: Path) -> None:
    text(here, "pack")
    copy = shutil.copy(pack_of(here, name), tmp_path / "copy.zip")
    other = str(tmp_path / "other")
    assert "its pack is there, too" in text(here, "unpack", str(copy), "--spool", other)
    assert read(here, "status", "--spool", other)["run"] == name
    os.chmod(copy, 0o666)
    assert "others may write to it" in verb(here, "unpack", str(copy), "--spool", str(tmp_path / "b"), code=2).stderr


def test_a_damaged_pack_is_named(here: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text(here, "pack")
    whole = pack_of(here, name).read_bytes()
    pack_of(here, name).write_bytes(whole[: len(whole) // 2])
    monkeypatch.setenv("TMPDIR", str(here))
    for arguments in (("status",), ("unpack",)):
        assert f"{pack_of(here, name)}: unreadable, no packed run" in verb(here, *arguments, code=2).stderr
    assert list(here.glob("tea-*")) == []
