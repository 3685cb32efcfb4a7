"""A disk that refuses, at any call: what it refused is not acknowledged, is told, and is done when it works again."""

from __future__ import annotations

import json
import os
from itertools import count
from pathlib import Path

import pytest

from spool.layout import SpoolFiles
from spool.worker import Observer, Worker
from tests.faults.traced import need_strace, traced
from tests.faults.work import check_finished, check_whole, heal, work
from tests.spool.kit import Bench


@pytest.fixture(scope="module", autouse=True)
def _strace() -> None:
    need_strace()


FAULTS = [
    ("fsync", "EIO"),
    ("fsync", "EDQUOT"),
    ("write", "ENOSPC"),
    ("write", "EDQUOT"),
    ("write", "EIO"),
    ("close", "EIO"),
    ("close", "EDQUOT"),
    ("?symlink,symlinkat", "ENOSPC"),
    ("?symlink,symlinkat", "EROFS"),
    ("?link,linkat", "EIO"),
    ("?rename,?renameat,renameat2", "EIO"),
    ("?mkdir,mkdirat", "ENOSPC"),
    ("openat", "ENOSPC"),
    ("openat", "EMFILE"),
    ("openat", "ESTALE"),
    ("openat", "EIO"),
    ("read", "EIO"),
    ("read", "ESTALE"),
    ("newfstatat,?fstat,?stat,?lstat,?statx", "ESTALE"),
]
WORDS = {
    "EIO": "Input/output error",
    "EDQUOT": "Disk quota exceeded",
    "ENOSPC": "No space left",
    "EROFS": "Read-only file system",
    "ESTALE": "Stale file handle",
    "EMFILE": "Too many open files",
}


@pytest.mark.parametrize(("call", "error"), FAULTS, ids=[f"{c.split(',')[0]}-{e}" for c, e in FAULTS])
def test_what_the_disk_refused_is_told_and_done_later(tmp_path: Path, call: str, error: str) -> None:
    told = 0
    for n in count(1):
        bench = Bench(tmp_path / f"spool-{n}")
        bench.jobs(1)
        ended = traced(lambda bench=bench: work(bench), f"{call}:error={error}:when={n}")  # type: ignore[misc]
        assert not ended.killed
        assert "broken" not in ended.said, ended.said
        check_whole(bench)
        if call == "fsync" and ended.hit:
            assert ended.said.startswith("refused")
            assert bench.tickets() == {"todo": ["0000-branch"]}, "acknowledged, but not safe on the disk"
        if ended.said.startswith("refused"):
            told += 1
            if "stat" not in call:  # makedirs tells what it met before
                assert WORDS[error] in ended.said
        heal(bench)
        check_finished(bench)
        if not ended.hit:
            break
    assert told


@pytest.mark.parametrize("error", ["EMLINK", "EPERM", "ENOSPC", "EOPNOTSUPP", "EXDEV"])
def test_where_all_links_are_refused_copies_and_renames_do(tmp_path: Path, error: str) -> None:
    bench = Bench(tmp_path / "spool")

    def all_of_it() -> str:
        bench.jobs(2, base=b'{"shared":"%s"}' % (b"x" * 2000))
        return work(bench)

    assert traced(all_of_it, f"?link,linkat:error={error}").said == "finished"
    job = bench.fanout.job("0000-branch")
    assert os.readlink(job.accepted) == "result.1.json"
    assert os.stat(job.base).st_nlink == 1
    assert heal(bench) == [("0001-branch", 1)]
    check_whole(bench)
    assert bench.tickets() == {"done": ["0000-branch", "0001-branch"]}


@pytest.mark.parametrize("error", ["EMLINK", "EPERM", "ENOSPC"])
def test_where_links_are_refused_now_and_then_one_result_is_accepted(tmp_path: Path, error: str) -> None:
    for n in count(1):
        bench = Bench(tmp_path / f"spool-{n}")
        bench.jobs(1)
        ended = traced(lambda bench=bench: work(bench), f"?link,linkat:error={error}:when={n}")  # type: ignore[misc]
        assert ended.said == "finished"
        check_finished(bench)
        if not ended.hit:
            assert n > 3
            break


@pytest.mark.parametrize("error", ["ENOLCK", "ENOSYS", "EOPNOTSUPP"])
def test_where_locks_are_refused_the_beat_alone_tells(tmp_path: Path, error: str) -> None:
    """No other kind of lock takes its place."""
    bench = Bench(tmp_path / "spool")
    bench.jobs(1)

    def look() -> str:
        with Worker(bench.spool) as worker:
            record = json.loads(Path(worker.files.worker).read_bytes())
            alive = Observer(SpoolFiles(bench.spool.path)).is_alive(worker.text)
            return json.dumps([record["locked"], alive, sorted(os.listdir(worker.files.path))])

    assert json.loads(traced(look, f"flock:error={error}").said) == [
        False,
        True,
        ["beat", "lock", "now", "worker.json"],
    ]
    assert traced(lambda: work(bench), f"flock:error={error}").said == "finished"
    check_finished(bench)
