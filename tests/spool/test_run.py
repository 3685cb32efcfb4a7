"""Spools, runs and fan-outs: private, found by name, driven by one process."""

from __future__ import annotations

import errno
import gc
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest
from filelock import unlock_descriptor

from spool import run as module
from spool.errors import CorruptFileError, ForeignFileError, RunBusyError, SpoolError, UnknownNameError
from spool.layout import RunFiles, SpoolFiles
from spool.run import (
    CoordinatorLock,
    all_fanouts,
    check_private,
    coordinator,
    create_fanout,
    create_run,
    fanouts,
    find_run,
    find_spool,
    jobs_of,
    open_spool,
    runs,
    update_run,
)
from tests.spool.kit import Bench, line, python, raises_errno

# -- spools -----------------------------------------------------------------------------------------------------


def test_a_new_spool_is_private(tmp_path: Path) -> None:
    spool = open_spool(f"{tmp_path}/a/spool")
    for path in (spool.path, spool.runs, spool.workers):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    record = json.loads(Path(spool.spool).read_bytes())
    assert record["format"] == 1
    assert open_spool(f"{tmp_path}/a/spool") == spool
    assert json.loads(Path(spool.spool).read_bytes()) == record


def test_a_spool_whose_runs_were_removed_by_hand_takes_new_ones(tmp_path: Path) -> None:
    spool = open_spool(f"{tmp_path}/spool")
    os.rmdir(spool.runs)
    run = create_run(open_spool(spool.path), "x", {}, b"")
    assert runs(spool) == [run]
    assert stat.S_IMODE(os.stat(spool.runs).st_mode) == 0o700


def test_a_path_to_a_spool_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_spool("spool").path == f"{tmp_path}/spool"


def test_a_spool_that_is_looked_for_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="--spool DIR or TEA_SPOOL"):
        find_spool(f"{tmp_path}/none")
    assert not (tmp_path / "none").exists()
    open_spool(f"{tmp_path}/one")
    assert find_spool(f"{tmp_path}/one").path == f"{tmp_path}/one"


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    open_spool(f"{tmp_path}/spool")
    os.chmod(f"{tmp_path}/spool", mode)
    with pytest.raises(SpoolError, match="chmod go-w"):
        open_spool(f"{tmp_path}/spool")
    with pytest.raises(SpoolError, match="chmod go-w"):
        find_spool(f"{tmp_path}/spool")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make folders of another user")
@pytest.mark.parametrize("link", [False, True])
def test_a_folder_of_another_user_is_refused(tmp_path: Path, link: bool) -> None:
    path = tmp_path / "spool"
    open_spool(str(path))
    os.chown(path, 12345, 12345)
    if link:
        (tmp_path / "link").symlink_to(path)
        path = tmp_path / "link"
    with pytest.raises(SpoolError, match=r"user 12345|not a folder of yours"):
        check_private(str(path))


def test_a_file_is_no_spool(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("")
    with pytest.raises((SpoolError, OSError)):
        open_spool(f"{tmp_path}/spool")
    with pytest.raises(SpoolError, match="not a folder"):
        check_private(f"{tmp_path}/spool")


@pytest.mark.parametrize("number", [0, 2, "1", None, True])
def test_a_spool_of_another_format_is_refused(tmp_path: Path, number: object) -> None:
    spool = open_spool(f"{tmp_path}/spool")
    Path(spool.spool).write_text(json.dumps({"format": number}))
    if number is True:
        return  # equal to 1 in Python; nobody writes it
    with pytest.raises(SpoolError, match="this version reads format 1"):
        open_spool(f"{tmp_path}/spool")


def test_a_spool_whose_record_cannot_be_read_is_told(tmp_path: Path) -> None:
    spool = open_spool(f"{tmp_path}/spool")
    Path(spool.spool).write_bytes(b"")
    with pytest.raises(CorruptFileError, match=r"spool\.json"):
        open_spool(spool.path)
    os.unlink(spool.spool)
    os.symlink("/etc/passwd", spool.spool)
    with pytest.raises(ForeignFileError, match=r"spool\.json"):
        open_spool(spool.path)


def test_two_processes_may_make_a_spool_at_once(tmp_path: Path) -> None:
    code = "import sys; from spool.run import open_spool; open_spool(sys.argv[1])"
    makers = [python(code, f"{tmp_path}/spool") for _ in range(4)]
    for maker in makers:
        maker.communicate(timeout=240)
        assert maker.returncode == 0
    assert sorted(os.listdir(tmp_path / "spool")) == ["runs", "spool.json", "workers"]


# -- runs -------------------------------------------------------------------------------------------------------


@pytest.fixture
def spool(spool_dir: Path) -> SpoolFiles:
    return open_spool(str(spool_dir))


def test_a_run_is_named_by_time_and_workflow(spool: SpoolFiles) -> None:
    run = create_run(spool, "my ../flow", {"host": "here"}, b"name: x\n")
    assert re.fullmatch(r"\d{8}-\d{6}-my_.._flow-[0-9a-f]{6}-[0-9a-f]{4}", run.name)
    assert Path(run.workflow).read_bytes() == b"name: x\n"
    record = json.loads(Path(run.run).read_bytes())
    assert (record["format"], record["host"]) == (1, "here")
    assert runs(spool) == [run]


def test_runs_of_one_second_have_names_of_their_own(spool: SpoolFiles) -> None:
    made = {create_run(spool, "", {}, b"").name for _ in range(20)}
    assert len(made) == 20
    assert {run.name for run in runs(spool)} == made


def test_a_runs_record_changes_member_by_member(spool: SpoolFiles) -> None:
    run = create_run(spool, "x", {"host": "here"}, b"")
    assert update_run(run, outcome="succeeded")["host"] == "here"
    assert json.loads(Path(run.run).read_bytes())["outcome"] == "succeeded"


@pytest.fixture
def three(spool: SpoolFiles) -> SpoolFiles:
    for name in ("20260101-000000-apple-aaaa", "20260102-000000-apple-bbbb", "20260103-000000-pear-cccc"):
        os.mkdir(spool.run(name).path)
    os.mkdir(f"{spool.runs}/.tmp-x")
    return spool


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (None, "20260103-000000-pear-cccc"),
        ("20260101-000000-apple-aaaa", "20260101-000000-apple-aaaa"),
        ("pear", "20260103-000000-pear-cccc"),
        ("bbbb", "20260102-000000-apple-bbbb"),
        ("20260102", "20260102-000000-apple-bbbb"),
        (".tea/spool/runs/20260102-000000-apple-bbbb/", "20260102-000000-apple-bbbb"),
    ],
)
def test_a_run_is_found_by_any_part_of_its_name(three: SpoolFiles, name: str | None, found: str) -> None:
    assert find_run(three, name).name == found


def test_a_name_that_fits_several_runs_or_none_is_refused_with_examples(three: SpoolFiles) -> None:
    with pytest.raises(UnknownNameError, match=r"2 runs match 'apple'; among them .*aaaa, .*bbbb"):
        find_run(three, "apple")
    with pytest.raises(UnknownNameError, match=r"no run 'plum'; newest: .*cccc"):
        find_run(three, "plum")


def test_without_runs_the_way_to_start_one_is_told(spool: SpoolFiles) -> None:
    with pytest.raises(UnknownNameError, match="tea run WORKFLOW"):
        find_run(spool)


# -- one coordinator --------------------------------------------------------------------------------------------

HOLDER = """
import sys
from spool.layout import RunFiles
from spool.run import CoordinatorLock
lock = CoordinatorLock(RunFiles(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
lock.release()
print("released", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def run(spool: SpoolFiles) -> RunFiles:
    return create_run(spool, "x", {}, b"")


def test_a_link_to_elsewhere_is_no_run(spool: SpoolFiles, run: RunFiles, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    os.symlink(tmp_path / "elsewhere", f"{spool.runs}/zz-evil")
    Path(spool.runs, "zz-file").touch()
    assert runs(spool) == [run]
    assert find_run(spool) == run
    with pytest.raises(UnknownNameError):
        find_run(spool, "zz-evil")


def test_a_second_coordinator_is_refused_and_told_who_the_first_is(run: RunFiles) -> None:
    first = python(HOLDER, run.path)
    assert line(first) == "held"
    try:
        with pytest.raises(RunBusyError, match=f"run {run.name} is driven by .*:{first.pid};"):
            CoordinatorLock(run)
        assert coordinator(run).endswith(f":{first.pid}")
        with pytest.raises(RunBusyError):  # asking does not free the lock
            CoordinatorLock(run)
    finally:
        first.communicate("\n\n", timeout=240)
    CoordinatorLock(run).release()


def test_a_killed_coordinator_leaves_the_run_free(run: RunFiles) -> None:
    first = python(HOLDER, run.path)
    assert line(first) == "held"
    first.kill()
    first.wait(timeout=240)
    lock = CoordinatorLock(run)
    assert coordinator(run).endswith(f":{os.getpid()}")
    lock.release()
    first.communicate(timeout=240)


def test_a_released_run_may_be_driven_again(run: RunFiles) -> None:
    first = python(HOLDER, run.path)
    assert line(first) == "held"
    first.stdin.write("\n")  # type: ignore[union-attr]
    first.stdin.flush()  # type: ignore[union-attr]
    assert line(first) == "released"
    CoordinatorLock(run).release()
    first.communicate("\n", timeout=240)


def test_who_asks_whether_a_run_is_driven_keeps_no_coordinator_out(
    run: RunFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks holds the lock for a moment."""
    real, asked = module.lock_descriptor, os.open(run.lock, os.O_RDWR | os.O_CREAT, 0o600)
    assert real(asked, blocking=False)

    def tried(fd: int, **options: Any) -> bool:
        taken = real(fd, **options)
        unlock_descriptor(asked)
        return taken

    monkeypatch.setattr(module, "lock_descriptor", tried)
    lock = CoordinatorLock(run)
    assert coordinator(run).endswith(f":{os.getpid()}")
    lock.release()
    os.close(asked)


def test_nobody_drives_a_new_run(run: RunFiles) -> None:
    assert coordinator(run) == ""


def test_a_file_system_without_locks_is_told_with_the_remedy(run: RunFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "lock_descriptor", raises_errno(errno.ENOLCK))
    gc.collect()  # what is closed meanwhile must not be what other tests have left
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SpoolError, match=r"coordinator\.lock: this file system does not lock .*--spool DIR"):
        CoordinatorLock(run)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_lock_that_is_a_link_is_not_followed(run: RunFiles, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    os.symlink(victim, run.lock)
    with pytest.raises(SpoolError, match=r"coordinator\.lock"):
        CoordinatorLock(run)
    assert victim.read_text() == "precious"


# -- fan-outs ---------------------------------------------------------------------------------------------------


def test_a_fanout_that_a_dead_coordinator_began_is_completed(run: RunFiles) -> None:
    fanout = create_fanout(run.fanouts, 3, "split it")
    assert fanout.name.startswith("003-split_it-")
    os.rmdir(fanout.tickets("done"))
    os.rmdir(fanout.jobs)
    assert create_fanout(run.fanouts, 3, "split it") == fanout
    assert sorted(os.listdir(fanout.path)) == ["cancelled", "done", "failed", "jobs", "shared", "todo"]


def test_fanouts_are_in_order_of_their_numbers(run: RunFiles) -> None:
    for number in (2, 1000, 1, 999):
        create_fanout(run.fanouts, number, "s")
    os.mkdir(f"{run.fanouts}/not-one")
    assert [fanout.name for fanout in fanouts(run.fanouts)] == ["001-s", "002-s", "999-s", "1000-s"]
    assert fanouts(f"{run.path}/none") == []


def test_fanouts_inside_branches_are_found(spool_dir: Path) -> None:
    bench = Bench(spool_dir)
    first, second = bench.jobs(2)
    inner = create_fanout(second.fanouts, 1, "inner")
    deeper = create_fanout(inner.job("0000-b").fanouts, 1, "deeper")
    assert [f.path for f in all_fanouts(bench.run)] == [bench.fanout.path, inner.path, deeper.path]
    assert [job.name for job in jobs_of(bench.fanout)] == [first.name, second.name]
