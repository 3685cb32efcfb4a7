"""Packed runs: the way there and back loses nothing, a kill at any moment neither, and they are read like others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spool import opened, packing, packwrite, tickets
from spool.brief import LONGEST, MEMBERS, Brief
from spool.errors import RunBusyError, SpoolError
from spool.find import find_job, short_path, spool_of
from spool.jobview import accepted_of, job_line
from spool.layout import FanOutFiles, JobFiles, RunFiles, SpoolFiles
from spool.pack import Pack, restore
from spool.packing import pack_run, unpack_run
from spool.publish import read_json, read_quietly
from spool.run import CoordinatorLock, create_fanout, find_run, open_spool, run_names, runs
from spool.tar import PIECE
from spool.worker import Observer
from tests.spool.packs import make_run, tree
from tests.support import clean_env


@pytest.fixture
def spool(spool_dir: Path) -> Iterator[SpoolFiles]:
    yield open_spool(str(spool_dir))
    opened.close_all()


class TestThereAndBack:
    def test_nothing_is_lost(self, spool: SpoolFiles, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(packwrite, "CHUNK_JOBS", 2)
        run = make_run(spool)
        before = tree(run.path)
        told = pack_run(spool, run)
        assert not os.path.lexists(run.path)
        assert (told.folder, told.pack, told.size) == (False, True, os.path.getsize(told.path))
        with Pack(told.path) as packed:
            assert len(packed.numbers) == 7  # two without jobs, nine jobs in five
            assert (packed.files, packed.bytes) == (told.files, told.bytes)
        assert runs(spool) == []
        assert run_names(spool) == [run.name]
        unpack_run(spool, told.path)
        assert tree(run.path) == before
        assert not os.path.lexists(told.path)

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.dictionaries(
            st.text(st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=90)
            .filter(lambda name: name not in (".", "..") and len(name.encode()) < 200)
            .filter(lambda name: name != "fanouts"),
            st.one_of(
                st.binary(max_size=2000),
                st.sampled_from(["me@here:1:2", "x" * 300, "result.1.json"]),
                st.tuples(st.sampled_from([0o700, 0o750]), st.binary(max_size=5)),
                st.integers(0, 2**40),
            ),
            max_size=12,
        )
    )
    def test_whatever_is_in_a_job(self, tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]) -> None:
        spool = open_spool(str(tmp_path_factory.mktemp("any") / "spool"))
        run = make_run(spool, jobs=1, inside=0)
        job = Path(run.fanouts, "001-split", "jobs", "0000-split")
        for name, held in content.items():
            path = job / f"u{name}"
            match held:
                case bytes():
                    path.write_bytes(held)
                    os.chmod(path, 0o640)
                case str():
                    path.symlink_to(held)
                case tuple():
                    path.mkdir(held[0])
                    (path / "deep").write_bytes(held[1])
                case int():
                    path.touch()
                    os.utime(path, ns=(held, held * 7919))
        before = tree(run.path)
        told = pack_run(spool, run)
        unpack_run(spool, told.path)
        assert tree(run.path) == before

    def test_any_tar_unpacks_it(self, spool: SpoolFiles, tmp_path: Path) -> None:
        run = make_run(spool)
        before = tree(run.path)
        told = pack_run(spool, run)
        out = tmp_path / "by-hand"
        out.mkdir()
        with zipfile.ZipFile(told.path) as packed:
            for name in sorted(name for name in packed.namelist() if name.endswith(".tar.xz")):
                command = ["tar", "-xJp", "-C", str(out)]
                subprocess.run(command, input=packed.read(name), check=True, capture_output=True)
        shown = [(name, kind, held, same) for name, kind, _, _, held, same in tree(out)]
        assert shown == [(name, kind, held, same) for name, kind, _, _, held, same in before]

    def test_a_large_file_goes_in_pieces(self, spool: SpoolFiles, monkeypatch: pytest.MonkeyPatch) -> None:
        run = make_run(spool)
        log = Path(run.fanouts, "001-split", "jobs", "0002-split", "stdout.1.log")
        log.write_bytes(os.urandom(3 * PIECE + 5))
        before = tree(run.path)
        told = pack_run(spool, run)
        unpack_run(spool, told.path)
        assert tree(run.path) == before

    def test_both_may_be_kept(self, spool: SpoolFiles) -> None:
        run = make_run(spool)
        before = tree(run.path)
        told = pack_run(spool, run, keep=True)
        assert tree(run.path) == before
        assert os.path.lexists(told.path)
        pack_run(spool, run)
        assert unpack_run(spool, told.path, keep=True).pack
        assert os.path.lexists(told.path)
        assert tree(run.path) == before

    def test_a_pack_from_elsewhere_stays_there(self, spool: SpoolFiles, tmp_path: Path) -> None:
        run = make_run(spool)
        before = tree(run.path)
        told = pack_run(spool, run)
        elsewhere = tmp_path / "x.zip"
        os.rename(told.path, elsewhere)
        other = open_spool(str(tmp_path / "other"))
        unpack_run(other, str(elsewhere))
        assert elsewhere.exists()
        assert tree(other.run(run.name).path) == before
        with pytest.raises(SpoolError, match="already"):
            unpack_run(other, str(elsewhere))

    def test_a_folder_that_was_changed_is_packed_anew(self, spool: SpoolFiles) -> None:
        run = make_run(spool)
        pack_run(spool, run, keep=True)
        Path(run.path, "events.jsonl").write_text("{}\n{}\n")
        told = pack_run(spool, run)
        unpack_run(spool, told.path)
        assert Path(run.path, "events.jsonl").read_text() == "{}\n{}\n"


class TestRefused:
    def test_a_run_that_is_driven(self, spool: SpoolFiles) -> None:
        run = make_run(spool)
        lock = CoordinatorLock(run)
        with pytest.raises(RunBusyError, match=f"driven by .*:{os.getpid()}"):
            pack_run(spool, run)
        lock.release()
        before = tree(run.path)
        pack_run(spool, run, keep=True)
        assert tree(run.path) == before, "who packs signs nothing"

    def test_one_that_may_go_on(self, spool: SpoolFiles) -> None:
        run = make_run(spool)
        fanout = create_fanout(run.fanouts, 1, "split")
        tickets.settle(fanout, "0000-split", "todo")
        with pytest.raises(SpoolError, match="1 job to do, so it is not packed"):
            pack_run(spool, run)
        tickets.settle(fanout, "0000-split", "done")
        Path(run.run).write_text('{"format": 1}')
        with pytest.raises(SpoolError, match="has not ended"):
            pack_run(spool, run)

    @pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/etc/passwd", path)])
    def test_what_no_run_holds(self, spool: SpoolFiles, make: Callable[[str], None]) -> None:
        run = make_run(spool)
        make(f"{run.path}/odd")
        with pytest.raises(SpoolError, match="odd"):
            pack_run(spool, run)
        assert os.listdir(spool.packed) == [".lock"]
        assert os.path.isdir(run.path)

    @pytest.mark.parametrize("moment", [packing.MOMENT, -(10**20)], ids=["just made", "old"])
    @pytest.mark.parametrize(
        ("change", "what"),
        [
            (lambda run: Path(run, "events.jsonl").write_text("more"), "(events.jsonl|[.])"),
            (lambda run: os.unlink(f"{run}/fanouts/001-split/done/0003-split"), "fanouts/001-split"),
            (lambda run: Path(run, "fanouts/001-split/jobs/0004-split/new").write_text(""), "fanouts/001-split"),
            (lambda run: os.utime(f"{run}/input.json", (1, 1)), "(input.json|[.])"),
        ],
        ids=["written", "removed", "new", "time"],
    )
    def test_what_changes_meanwhile(
        self, spool: SpoolFiles, monkeypatch: pytest.MonkeyPatch, moment: int, change: Callable[[str], Any], what: str
    ) -> None:
        run = make_run(spool)
        Path(run.input).write_text("{}")
        monkeypatch.setattr(packing, "MOMENT", moment)
        write = packing.write

        def late(*args: Any) -> Any:
            seals = write(*args)
            change(run.path)
            return seals

        monkeypatch.setattr(packing, "write", late)
        with pytest.raises(SpoolError, match=rf"{what}.*: it has changed"):
            pack_run(spool, run)
        assert os.path.isdir(run.path)
        assert os.listdir(spool.packed) == [".lock"]

    def test_a_time_that_was_set_back_does_not_hide_a_change(
        self, spool: SpoolFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = make_run(spool)
        monkeypatch.setattr(packing, "MOMENT", -(10**20))
        write = packing.write

        def late(*args: Any) -> Any:
            seals, status = write(*args), os.stat(run.events)
            while os.stat(run.events).st_ctime_ns == status.st_ctime_ns:  # within one tick of the clock
                Path(run.events).write_text("[]\n")  # as many bytes
                os.utime(run.events, ns=(status.st_atime_ns, status.st_mtime_ns))
            return seals

        monkeypatch.setattr(packing, "write", late)
        with pytest.raises(SpoolError, match="it has changed"):
            pack_run(spool, run)

    def test_what_is_read_otherwise_than_it_was_written(
        self, spool: SpoolFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = make_run(spool)
        head_of = packwrite.head_of
        monkeypatch.setattr(packwrite, "head_of", lambda entry: head_of(entry._replace(mtime=entry.mtime ^ 1)))
        with pytest.raises(SpoolError, match="not read as it was written"):
            pack_run(spool, run)
        assert os.path.isdir(run.path)


class TestBriefs:
    def briefs(self, spool: SpoolFiles, run: RunFiles) -> dict[str, Brief]:
        pack_run(spool, run)
        with Pack(spool.pack(run.name)) as pack:
            return {
                path.rpartition("/")[2]: one for number in pack.numbers for path, one in pack.briefs(number).items()
            }

    def test_they_say_what_the_jobs_say(self, spool: SpoolFiles) -> None:
        run = make_run(spool, inside=0)
        job = FanOutFiles(f"{run.fanouts}/001-split").job("0002-split")
        claimed = os.lstat(job.claim(1)).st_mtime
        result = read_json(job.accepted)
        brief = self.briefs(spool, run)["0002-split"]
        assert brief.claims == {1: ("me@here:2:abc", claimed)}
        assert brief.result == {name: result[name] for name in MEMBERS if name in result}
        assert brief.result["outcome"] == "succeeded"

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda job: os.chmod(job.result(1), 0o620),
            lambda job: Path(job.result(1)).write_text("{"),
            lambda job: Path(job.result(1)).write_text(json.dumps({**read_json(job.result(1)), "job": "another"})),
            lambda job: Path(f"{job.path}/result.2.json.corrupt").write_text("x"),
            lambda job: (os.unlink(job.accepted), Path(job.accepted).write_bytes(Path(job.result(1)).read_bytes())),
            lambda job: Path(job.claim(2)).write_text("no link"),
            lambda job: os.truncate(job.result(1), LONGEST + 1),
        ],
        ids=["others may write", "no JSON", "another job", "put aside", "two files", "no claim", "large"],
    )
    def test_there_is_none_of_a_job_that_is_out_of_the_ordinary(
        self, spool: SpoolFiles, spoil: Callable[[JobFiles], Any]
    ) -> None:
        run = make_run(spool, jobs=2, inside=0)
        job = FanOutFiles(f"{run.fanouts}/001-split").job("0001-split")
        spoil(job)
        expected = read_quietly(job.accepted)
        assert self.briefs(spool, run).keys() == {"0000-split"}
        there = FanOutFiles(f"{find_run(spool, lazily=True).fanouts}/001-split")
        assert accepted_of(there.job("0001-split")) == expected


class TestReading:
    def test_jobs_are_found_and_read_a_few_at_a_time(
        self, spool: SpoolFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(packwrite, "CHUNK_JOBS", 2)
        run = make_run(spool, jobs=9)
        pack_run(spool, run)
        found = find_run(spool, lazily=True)
        assert found.path != run.path
        outer = FanOutFiles(f"{found.fanouts}/001-split")
        assert len(tickets.names(outer, "done")) == 9
        job = find_job(spool, "7")
        assert os.path.exists(job.accepted)
        assert not os.path.exists(outer.job("0002-split").accepted)
        assert accepted_of(outer.job("0002-split"))["outcome"] == "succeeded"
        assert job_line(outer, "0003-split", "done", Observer(spool)).outcome == "succeeded"
        assert spool_of(job.path).path == spool.path
        assert short_path(job.path) == f"{run.name}/001-split/0007-split"
        assert opened.home(job.path) == f"{run.path}/fanouts/001-split/jobs/0007-split"
        nested = find_job(spool, "0001-split/001-split/1")
        assert os.path.exists(nested.accepted)
        assert opened.is_opened(nested.path)
        find_run(spool)
        assert os.path.exists(outer.job("0002-split").accepted)

    def test_what_is_restored_goes_with_the_process(self, spool: SpoolFiles, tmp_path: Path) -> None:
        run = make_run(spool)
        pack_run(spool, run)
        code = (
            "import os, sys; from spool.run import find_run, find_spool; "
            "print(find_run(find_spool(sys.argv[1])).path); sys.stdout.flush(); "
            "os.kill(os.getpid(), 9) if sys.argv[2] == 'die' else None"
        )

        def child(how: str) -> str:
            done = subprocess.run(
                [sys.executable, "-c", code, spool.path, how],
                env=clean_env({"TMPDIR": str(tmp_path)}),  # where no other test opens a pack, and clears up
                capture_output=True,
                text=True,
                check=False,
                timeout=240,
            )
            return done.stdout.strip()

        killed = child("die")
        assert os.path.isdir(killed)
        ended = child("end")
        assert ended
        assert not os.path.lexists(ended)
        assert not os.path.lexists(killed), "the next one removes what a killed one has left"


# -- kills ----------------------------------------------------------------------------------------------------------

_CHANGES = (
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.utime",
    "os.truncate",
    "open",
)


def killed_at(moment: int, what: Callable[[], Any]) -> bool:
    """Do something in a process that is killed before its `moment`-th step; whether it was killed."""
    child = os.fork()
    if child == 0:
        left = [moment]

        def hook(event: str, _args: Any) -> None:
            if event in _CHANGES:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(hook)
            what()
        except BaseException:
            os._exit(3)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def test_a_kill_at_any_moment_leaves_the_folder_or_the_pack(
    spool: SpoolFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sync", lambda: None)  # slow, and of no use against a kill
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    run = make_run(spool, jobs=1, inside=0)
    before, path, kills = tree(run.path), spool.pack(run.name), 0
    while killed_at(kills, lambda: pack_run(spool, run)):
        nothing_is_lost(spool, run, before)
        if os.path.lexists(run.path):
            pack_run(spool, run)
        assert not os.path.lexists(run.path)
        unpack_run(spool, path)
        assert tree(run.path) == before
        nothing_is_left(spool, run)
        kills += 2
    assert kills > 30
    assert not os.path.lexists(run.path)
    kills = 0
    while killed_at(kills, lambda: unpack_run(spool, path)):
        nothing_is_lost(spool, run, before)
        if os.path.lexists(path):
            unpack_run(spool, path)
        assert tree(run.path) == before
        pack_run(spool, run)
        nothing_is_left(spool, run)
        kills += 2
    assert kills > 30


def nothing_is_lost(spool: SpoolFiles, run: RunFiles, before: list[tuple[Any, ...]]) -> None:
    assert run_names(spool) == [run.name]
    if os.path.lexists(run.path):
        assert tree(run.path) == before
    else:
        with Pack(spool.pack(run.name)) as packed:
            aside = f"{spool.path}/check"
            os.mkdir(aside, 0o700)
            restore(packed, packed.numbers, aside)
            assert tree(aside) == before
        subprocess.run(["rm", "-r", aside], check=True)


def nothing_is_left(spool: SpoolFiles, run: RunFiles) -> None:
    assert set(os.listdir(spool.runs)) <= {run.name}
    assert set(os.listdir(spool.packed)) <= {".lock", f"{run.name}.zip"}
