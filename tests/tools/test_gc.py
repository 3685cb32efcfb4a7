"""`tea spool gc`: what goes, and above all what stays."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from spool.claim import host_name
from tests.support import tea_cmd, wait_until
from tests.tools.kit import Start, files_of, job, read, run, start, text, verb, write_workflow


@pytest.fixture
def here(tmp_path: Path) -> Path:
    write_workflow(tmp_path, retries=0)
    return tmp_path


def runs(here: Path) -> list[str]:
    return sorted(path.name for path in (here / ".tea" / "spool" / "runs").iterdir())


def gc(here: Path, *arguments: str) -> Any:
    return read(here, "gc", *arguments)


def make_older(here: Path, name: str, days: float) -> None:
    path = here / ".tea" / "spool" / "runs" / name / "run.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "finished": time.time() - days * 86400}))


def held_by(path: Path) -> tuple[int, int]:
    inodes = {
        (s.st_dev, s.st_ino): s.st_size
        for p in path.rglob("*")
        if not p.is_dir() or p.is_symlink()
        for s in [p.lstat()]
    }
    return len(inodes), sum(inodes.values())


def test_without_yes_nothing_goes(here: Path) -> None:
    run(here)
    before = files_of(here)
    told = text(here, "gc", "--older-than", "0s")
    assert "would remove 1 run and 0 dead workers: " in told
    assert told.rstrip().endswith("--yes does it")
    assert files_of(here) == before


def test_by_age_and_what_is_freed(here: Path) -> None:
    run(here)
    run(here)
    old, new = runs(here)
    make_older(here, old, 8)
    expected = held_by(here / ".tea" / "spool" / "runs" / old)
    found = gc(here, "--yes")
    assert [one["run"] for one in found["runs"]] == [old]
    assert (found["files"], found["bytes"], found["dry_run"]) == (*expected, False)
    assert runs(here) == [new]
    assert read(here, "status")["state"] == "done"


def test_keep_the_newest(here: Path) -> None:
    for year in (2021, 2022, 2023):  # names sort by the second
        run(here)
        new = here / ".tea" / "spool" / "runs" / runs(here)[-1]
        new.rename(new.with_name(f"{year}{new.name[4:]}"))
    known = runs(here)
    assert [one["run"] for one in gc(here, "--keep", "2", "--yes")["runs"]] == known[:1]
    assert runs(here) == known[1:]


def test_by_outcome_and_with_replays(here: Path) -> None:
    run(here)
    verb(here, "replay", "3")
    name = runs(here)[0]
    assert gc(here, "--older-than", "0", "--outcome", "failed", "--yes")["runs"] == []
    replays = here / ".tea" / "spool" / "replays" / name
    assert replays.is_dir()
    assert gc(here, "--older-than", "0", "--outcome", "done", "--yes")["runs"][0]["state"] == "done"
    assert not replays.exists()
    assert runs(here) == []
    assert tea_cmd("spool", "doctor", "--quick", cwd=here).returncode == 0


def test_a_live_run_stays(here: Path, start_tea: Start) -> None:
    process = start(here, start_tea)
    found = gc(here, "--older-than", "0", "--yes")
    assert (found["runs"], found["workers"]) == ([], [])
    assert found["kept"][0]["why"] == "a coordinator drives it"
    (here / "block").unlink()
    assert process.wait(240) == 0


def test_a_run_whose_lock_is_held_stays(here: Path) -> None:
    run(here)
    lock = here / ".tea" / "spool" / "runs" / runs(here)[0] / "coordinator.lock"
    with open(lock, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"me@{os.uname().nodename}:{os.getpid()}\n")
        file.flush()
        assert gc(here, "--older-than", "0", "--yes")["runs"] == []
    assert len(runs(here)) == 1


def test_a_run_whose_jobs_others_run_stays(here: Path, start_tea: Start) -> None:
    (here / "block").touch()
    process = start_tea("run", "w.yaml", "--strategy", "workers", "--input", state_of(here), cwd=here)
    wait_until(lambda: len(list(here.glob(".tea/spool/runs/*/fanouts/*/todo/*"))) == 4)
    start_tea("worker", ".tea/spool", cwd=here)
    wait_until(lambda: (lines := read(here, "list")) and [one["state"] for one in lines].count("running") == 1)
    process.send_signal(signal.SIGKILL)
    process.wait(240)
    wait_until(lambda: job(here, 2).joinpath("claim.1").is_symlink())
    found = gc(here, "--older-than", "0", "--yes")
    assert [one["why"] for one in found["kept"]] == ["a worker is at one of its jobs"]
    (here / "block").unlink()


def test_dead_workers_go_and_what_their_job_printed_is_kept(here: Path, start_tea: Start) -> None:
    process = start(here, start_tea)
    process.send_signal(signal.SIGKILL)
    process.wait(240)
    wait_until(lambda: not any(one["alive"] for one in read(here, "status")["workers"]))
    found = gc(here, "--yes")
    assert found["runs"] == []
    assert len(found["workers"]) >= 1
    wait_until(lambda: gc(here, "--yes") and not list((here / ".tea" / "spool" / "workers").iterdir()))  # late ones
    assert (job(here, 2) / "stdout.1.log").read_text() == "about to 2\n"


def test_a_worker_that_was_killed_without_a_record_goes_too(here: Path) -> None:
    """It died while it began, or while it ended; one that may be beginning at this moment stays."""
    run(here)
    workers = here / ".tea" / "spool" / "workers"
    gone = subprocess.Popen(["true"])
    gone.wait()
    for pid in (gone.pid, os.getpid()):
        (workers / f"{host_name()}-{pid}-0123456789ab").mkdir()
    assert gc(here, "--yes")["workers"] == [f"{host_name()}-{gone.pid}-0123456789ab"]
    assert [path.name for path in workers.iterdir()] == [f"{host_name()}-{os.getpid()}-0123456789ab"]


def test_what_a_killed_removal_left(here: Path) -> None:
    run(here)
    folder = here / ".tea" / "spool" / "runs"
    (folder / runs(here)[0]).rename(folder / f".removed-{runs(here)[0]}")
    verb(here, "gc", "--yes")
    assert runs(here) == []


def test_packed_runs_go_like_others(here: Path) -> None:
    run(here)
    run(here)
    first, second = runs(here)
    make_older(here, first, 8)
    verb(here, "pack", first, second)
    packs = here / ".tea" / "spool" / "packed"
    (found,) = gc(here)["runs"]
    assert (found["run"], found["state"], found["packed"], found["files"]) == (first, "done", True, 1)
    assert found["bytes"] == (packs / f"{first}.zip").stat().st_size
    assert "done, packed" in text(here, "gc")
    assert gc(here, "--older-than", "0", "--outcome", "failed")["runs"] == []
    assert [one["run"] for one in gc(here, "--keep", "1", "--yes")["runs"]] == [first]
    assert [path.name for path in packs.glob("*.zip")] == [f"{second}.zip"]
    (packs / f"{second}.zip").write_bytes(b"PK")
    found = gc(here, "--older-than", "0", "--yes")
    assert found["runs"] == []
    assert "no packed run" in found["kept"][0]["why"]
    assert (packs / f"{second}.zip").exists()


def test_a_run_and_its_pack_go_together(here: Path) -> None:
    run(here)
    verb(here, "pack", "--keep")
    gc(here, "--older-than", "0", "--yes")
    assert runs(here) == list((here / ".tea" / "spool" / "packed").glob("*.zip")) == []


def test_what_a_killed_unpacking_left(here: Path) -> None:
    run(here)
    (here / ".tea" / "spool" / "runs" / ".unpacking-x").mkdir()
    verb(here, "gc")
    assert len(runs(here)) == 2
    verb(here, "gc", "--yes")
    assert len(runs(here)) == 1


def test_a_paused_run_stays(here: Path, start_tea: Start) -> None:
    process = start(here, start_tea)
    verb(here, "pause")
    process.kill()
    process.wait(240)
    wait_until(lambda: not any(one["alive"] for one in read(here, "status")["workers"]))
    assert gc(here, "--older-than", "0", "--yes")["kept"][0]["why"].startswith("it is paused by ")


@pytest.mark.parametrize("age", ["soon", "7 days", "-1d"])
def test_an_age_that_is_none(here: Path, age: str) -> None:
    assert "is no span of time" in verb(here, "gc", f"--older-than={age}", code=2).stderr


def state_of(here: Path) -> str:
    from tests.tools.kit import state

    return state(here)
