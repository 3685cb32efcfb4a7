"""What does not belong into a spool: nothing outside is touched, nothing hangs, the reason is told, others go on."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spool import job as jobs
from spool import tickets
from spool.attempts import Outcome
from spool.claim import try_claim
from spool.job import read_accepted
from spool.layout import is_name
from spool.run import all_fanouts, fanouts, runs
from spool.worker import Observer
from tests.faults.work import doubled, heal
from tests.spool.kit import ALICE, Bench, as_user, result

CANARY = b'{"precious": true}'


@pytest.fixture
def bench(spool_dir: Path) -> Bench:
    return Bench(spool_dir)


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file and a folder outside the spool, which must be as they were when the test ends."""
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o700)
    file = outside / "file"
    file.write_bytes(CANARY)
    os.chmod(file, 0o600)
    yield file
    assert file.read_bytes() == CANARY
    assert file.stat().st_mode & 0o777 == 0o600
    assert os.listdir(outside) == ["file"]


PLANTS: dict[str, Callable[[str, Path], None]] = {
    "symbolic link to a file": lambda path, canary: os.symlink(canary, path),
    "symbolic link to a folder": lambda path, canary: os.symlink(canary.parent, path),
    "dangling link": lambda path, canary: os.symlink("nowhere", path),
    "link to itself": lambda path, _: os.symlink(path, path),
    "hard link": lambda path, canary: os.link(canary, path),
    "fifo": lambda path, _: os.mkfifo(path, 0o600),
    "folder": lambda path, _: os.mkdir(path, 0o700),
    "empty": lambda path, _: _write(path, b""),
    "truncated": lambda path, _: _write(path, b'{"id": "0000-bran'),
    "NaN": lambda path, _: _write(path, b'{"id": NaN}'),
    "deep": lambda path, _: _write(path, b'{"a":' * 50_000),
    "huge": lambda path, _: os.truncate(_write(path, b"{"), 1 << 40),
    "not UTF-8": lambda path, _: _write(path, b'{"id": "\xff\xfe"}'),
    "others may write": lambda path, _: os.chmod(_write(path, b"{}"), 0o666),
}


def _write(path: str, data: bytes) -> str:
    Path(path).write_bytes(data)
    os.chmod(path, 0o600)
    return path


def plant(path: str, kind: str, canary: Path) -> None:
    if os.path.lexists(path):
        os.unlink(path)
    PLANTS[kind](path, canary)


@pytest.mark.parametrize("kind", PLANTS)
@pytest.mark.parametrize("name", ["job.json", "input.json"])
def test_a_job_with_such_a_file_fails_and_the_other_is_done(bench: Bench, canary: Path, kind: str, name: str) -> None:
    bad, good = bench.jobs(2)
    record = jobs.read_job(bad)
    plant(f"{bad.path}/{name}", kind, canary)
    heal(bench)
    assert bench.tickets() == {"done": [good.name], "failed": [bad.name]}
    assert doubled(good)
    failed = read_accepted(bad, record.input_sha256)
    assert failed is not None
    assert failed["error_type"] in ("CorruptFileError", "ForeignFileError")
    assert f"{bad.path}/{name}" in failed["error"]


@pytest.mark.parametrize("kind", PLANTS)
@pytest.mark.parametrize("name", ["result.1.json", "result.json"])
@pytest.mark.parametrize("claimed", [False, True])
def test_such_a_result_is_put_aside_and_the_job_is_done(
    bench: Bench, canary: Path, kind: str, name: str, claimed: bool
) -> None:
    bad, good = bench.jobs(2)
    plant(f"{bad.path}/{name}", kind, canary)
    if claimed:
        try_claim(bad, 1, ALICE)
    heal(bench)
    assert bench.tickets() == {"done": [bad.name, good.name]}
    assert doubled(bad)
    assert doubled(good)
    assert [one for one in os.listdir(bad.path) if one.startswith(f"{name}.corrupt")]


@pytest.mark.parametrize("kind", PLANTS)
def test_whatever_stands_where_a_claim_belongs_is_no_living_worker(bench: Bench, canary: Path, kind: str) -> None:
    bad, good = bench.jobs(2)
    plant(bad.claim(1), kind, canary)
    heal(bench)
    assert bench.tickets() == {"done": [bad.name, good.name]}
    assert doubled(bad)


@pytest.mark.parametrize("kind", PLANTS)
@pytest.mark.parametrize("name", ["worker.json", "beat", "now", "lock"])
def test_such_a_file_in_a_workers_folder_holds_nobody_up(bench: Bench, canary: Path, kind: str, name: str) -> None:
    [job] = bench.jobs()
    folder = Path(bench.spool.worker("here-1-aaaaaaaa").path)
    folder.mkdir()
    plant(f"{folder}/{name}", kind, canary)
    observer = Observer(bench.spool)
    observer.dead_workers()
    observer.is_alive("eve@here:1:aaaaaaaa")
    heal(bench)
    assert doubled(job)


# -- names ------------------------------------------------------------------------------------------------------

HOSTILE = [
    b"-rf",
    b".hidden",
    b"a b",
    b"a\nb",
    b"\xff\xfe",
    "日本".encode(),
    b"x" * 101,
    b"x" * 255,
    b"'; touch pwned; '",
    b"$(touch pwned)",
    b"%2e%2e",
]


@pytest.mark.parametrize("name", HOSTILE, ids=repr)
@pytest.mark.parametrize("make", [os.mkdir, lambda path: Path(os.fsdecode(path)).write_bytes(b"")])
def test_hostile_names_are_passed_over_everywhere(
    bench: Bench, canary: Path, name: bytes, make: Callable[[bytes], None]
) -> None:
    [job] = bench.jobs()
    places = [bench.spool.runs, bench.spool.workers, bench.run.fanouts, bench.fanout.jobs, job.path]
    places += [bench.fanout.tickets(kind) for kind in tickets.TICKETS]
    for place in places:
        make(os.fsencode(place) + b"/" + name)
    heal(bench)
    assert doubled(job)
    assert tickets.counts(bench.fanout) == {"todo": 0, "done": 1, "failed": 0, "cancelled": 0}
    assert runs(bench.spool) == [bench.run]
    assert fanouts(bench.run.fanouts) == [bench.fanout]
    assert list(all_fanouts(bench.run)) == [bench.fanout]
    assert Observer(bench.spool).dead_workers() == []
    assert not is_name(os.fsdecode(name))


@pytest.mark.parametrize("name", ["0000-gone", "x" * 100, "0000"])
def test_tickets_of_jobs_that_do_not_exist_are_dropped(bench: Bench, name: str) -> None:
    [job] = bench.jobs()
    _write(bench.fanout.ticket("todo", name), b"")
    heal(bench)
    assert bench.tickets() == {"done": [job.name]}
    assert os.listdir(bench.fanout.jobs) == [job.name]


def test_a_workers_note_leads_nobody_out_of_the_fanout(bench: Bench, canary: Path) -> None:
    """A dead worker's `now` names the job to look at first."""
    [job] = bench.jobs()
    folder = Path(bench.spool.worker("here-1-aaaaaaaa").path)
    folder.mkdir()
    _write(f"{folder}/now", f"{bench.fanout.path} ../../../../../outside 1 0.0 0.0".encode())
    heal(bench)
    assert doubled(job)


# -- another user -----------------------------------------------------------------------------------------------

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as two users")


@pytest.mark.root
@root
@pytest.mark.parametrize("mode", [0o644, 0o600])
@pytest.mark.parametrize("name", ["result.1.json", "result.json"])
@pytest.mark.parametrize("claimed", [False, True])
def test_a_result_of_another_user_is_never_accepted_however_good_it_looks(
    bench: Bench, mode: int, name: str, claimed: bool
) -> None:
    job, record = bench.job()
    if claimed:
        try_claim(job, 1, ALICE)
    planted = f"{job.path}/{name}"
    _write(planted, json.dumps(result(job, record, 1, state={"doubled": "planted"})).encode())
    os.chmod(planted, mode)
    os.chown(planted, 12345, 12345)
    heal(bench)
    assert doubled(job)
    assert os.path.exists(f"{planted}.corrupt")
    assert os.stat(job.accepted).st_uid == os.geteuid()


@pytest.mark.root
@root
@pytest.mark.parametrize("name", ["job.json", "input.json"])
def test_a_job_of_another_user_is_not_run(bench: Bench, name: str) -> None:
    job, record = bench.job()
    os.chown(f"{job.path}/{name}", 12345, 12345)
    heal(bench)
    failed = read_accepted(job, record.input_sha256)
    assert failed is not None
    assert (failed["outcome"], failed["error_type"]) == (Outcome.FAILED.value, "ForeignFileError")
    assert "12345" in failed["error"]


@pytest.fixture
def shared_room() -> Iterator[Path]:
    """A folder that an ordinary user can reach."""
    path = Path(tempfile.mkdtemp(prefix="tea-user-", dir="/tmp"))
    os.chown(path, 12345, 12345)
    yield path
    shutil.rmtree(path)


@pytest.mark.root
@root
@pytest.mark.parametrize("locked", ["job.json", "input.json"])
def test_a_file_that_may_not_be_read_fails_its_job_with_the_reason(shared_room: Path, locked: str) -> None:
    def run() -> str:
        bench = Bench(shared_room / "spool")
        bad, good = bench.jobs(2)
        record = jobs.read_job(bad)
        os.chmod(f"{bad.path}/{locked}", 0)
        heal(bench)
        failed = read_accepted(bad, record.input_sha256) or {}
        assert doubled(good)
        return f"{bench.tickets()} {failed['error']}"

    said = as_user(12345, run)
    assert "{'done': ['0001-branch'], 'failed': ['0000-branch']}" in said
    assert "you may not read it" in said


@pytest.mark.root
@root
def test_a_job_directory_that_may_not_be_entered_is_told_and_the_others_are_done(shared_room: Path) -> None:
    """Nothing can be written into it, not even that it failed: it waits, and goes on when it may be entered."""

    def run() -> str:
        from spool.queue import TROUBLE, Queue
        from tests.spool.test_worker import Clock

        bench = Bench(shared_room / "spool")
        bad, good = bench.jobs(2)
        os.chmod(bad.path, 0)
        clock, told, taken = Clock(), [], []
        queue = Queue(bench.fanout, ALICE, Observer(bench.spool), clock=clock)
        for _ in range(4):
            try:
                if (claim := queue.take()) is not None:
                    taken.append(claim.job.name)
                    end = result(claim.job, claim.record, claim.attempt)
                    jobs.finish(bench.fanout, claim.job, claim.record, claim.attempt, end)
            except OSError as error:
                told.append(str(error))
            clock.now += TROUBLE
        assert taken == [good.name], taken
        os.chmod(bad.path, 0o700)
        heal(bench)
        assert doubled(bad)
        return told[0]

    said = as_user(12345, run)
    assert "Permission denied" in said
    assert "0000-branch" in said


@pytest.mark.root
@root
def test_another_users_spool_is_refused(shared_room: Path) -> None:
    def make() -> None:
        os.umask(0)
        Bench(shared_room / "spool")

    as_user(12345, make)
    with pytest.raises(Exception, match="belongs to user 12345"):
        Bench(shared_room / "spool")


def test_the_fanouts_own_folders_are_private(bench: Bench) -> None:
    bench.jobs(2, base=b'{"shared":"%s"}' % (b"x" * 2000))
    heal(bench)
    for folder, folders, names in os.walk(bench.spool.path):
        for name in (*folders, *names):
            mode = os.lstat(f"{folder}/{name}").st_mode
            assert os.path.islink(f"{folder}/{name}") or mode & 0o077 == 0, f"{folder}/{name}"
