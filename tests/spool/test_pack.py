"""Packed runs: the way there and back loses nothing, a kill at any moment neither, and strange packs are refused."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spool import opened, pack, packing, tickets
from spool.errors import CorruptFileError, ForeignFileError, RunBusyError, SpoolError
from spool.find import find_job, short_path, spool_of
from spool.inspect import accepted_of, job_line
from spool.layout import FanOutFiles, RunFiles, SpoolFiles
from spool.pack import Pack, difference, restore
from spool.packing import pack_run, unpack_run
from spool.publish import Linker
from spool.run import CoordinatorLock, create_fanout, create_run, find_run, open_spool, run_names, runs, update_run
from spool.tar import END, Entry, Kind, Reader, head_of, padding
from spool.worker import Observer


@pytest.fixture
def spool(spool_dir: Path) -> Iterator[SpoolFiles]:
    yield open_spool(str(spool_dir))
    opened.close_all()


def make_run(spool: SpoolFiles, jobs: int = 5, inside: int = 2) -> RunFiles:
    """A run that has ended, with links of all kinds, odd modes and times, and fan-outs inside branches."""
    run = create_run(spool, "demo", {}, b"nodes: []\n")
    fill(run.fanouts, jobs, inside)
    Path(run.path, "events.jsonl").write_text("{}\n")
    CoordinatorLock(run).release()
    update_run(run, outcome="done", finished=1.0)
    return run


def fill(folder: str, jobs: int, inside: int) -> None:
    fanout = create_fanout(folder, 1, "split")
    Path(fanout.fanout).write_text(json.dumps({"total": jobs}))
    state, workflow, blank = (
        Linker(fanout.state, b"{}"),
        Linker(fanout.workflow("w"), b"n"),
        Linker(fanout.blank, b""),
    )
    for number in range(jobs):
        job = fanout.job(f"{number:04d}-split")
        os.mkdir(job.path, 0o700)
        state.link(job.base)
        workflow.link(job.workflow)
        os.symlink(f"me@here:{number}:abc", job.claim(1))
        Path(job.result(1)).write_text(json.dumps({"attempt": 1, "outcome": "succeeded", "number": number}))
        os.link(job.result(1), job.accepted)
        os.utime(job.claim(1), ns=(5, 1_700_000_000_123_456_789 + number), follow_symlinks=False)
        blank.link(fanout.ticket("done", job.name))
        if number < inside:
            fill(job.fanouts, 2, 0)
    os.utime(fanout.tickets("done"), ns=(1, 2))


def tree(folder: str | Path) -> list[tuple[Any, ...]]:
    """Everything that may be known of a folder, but for inode numbers: names of one file are grouped instead."""
    found: list[tuple[Any, ...]] = []
    first: dict[int, str] = {}
    for path in sorted([Path(folder), *Path(folder).rglob("*")]):
        status, name = path.lstat(), str(path.relative_to(folder))
        kind = stat.S_IFMT(status.st_mode)
        held: Any = os.readlink(path) if path.is_symlink() else path.read_bytes() if stat.S_ISREG(kind) else None
        same = first.setdefault(status.st_ino, name)
        found.append((name, kind, stat.S_IMODE(status.st_mode), status.st_mtime_ns, held, same))
    return found


class TestThereAndBack:
    def test_nothing_is_lost(self, spool: SpoolFiles, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pack, "CHUNK_JOBS", 2)
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
        log.write_bytes(os.urandom(3 * pack.PIECE + 5))
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

    def test_what_changes_meanwhile(self, spool: SpoolFiles, monkeypatch: pytest.MonkeyPatch) -> None:
        run = make_run(spool)
        monkeypatch.setattr(packing, "about", lambda run: os.utime(run.run) or {"record": {}})
        write = packing.write

        def late(run: RunFiles, *rest: Any) -> None:
            write(run, *rest)
            Path(run.path, "events.jsonl").write_text("more")

        monkeypatch.setattr(packing, "write", late)
        with pytest.raises(SpoolError, match=r"events.jsonl: it has changed"):
            pack_run(spool, run)
        assert os.path.isdir(run.path)
        assert os.listdir(spool.packed) == [".lock"]


class TestReading:
    def test_jobs_are_found_and_read_a_few_at_a_time(
        self, spool: SpoolFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pack, "CHUNK_JOBS", 2)
        run = make_run(spool, jobs=9)
        pack_run(spool, run)
        found = find_run(spool, lazily=True)
        assert found.path != run.path
        outer = FanOutFiles(f"{found.fanouts}/001-split")
        assert len(tickets.names(outer, "done")) == 9
        job = find_job(spool, "7")
        assert os.path.exists(job.accepted)
        assert not os.path.exists(outer.job("0002-split").accepted)
        assert accepted_of(outer.job("0002-split"))["number"] == 2
        assert job_line(outer, "0003-split", "done", Observer(spool)).outcome == "succeeded"
        assert spool_of(job.path).path == spool.path
        assert short_path(job.path) == f"{run.name}/001-split/0007-split"
        assert opened.home(job.path) == f"{run.path}/fanouts/001-split/jobs/0007-split"
        nested = find_job(spool, "0001-split/001-split/1")
        assert os.path.exists(nested.accepted)
        assert opened.is_opened(nested.path)
        find_run(spool)
        assert os.path.exists(outer.job("0002-split").accepted)

    def test_what_is_restored_goes_with_the_process(self, spool: SpoolFiles) -> None:
        run = make_run(spool)
        pack_run(spool, run)
        code = (
            "import os, sys; from spool.run import find_run, find_spool; "
            "print(find_run(find_spool(sys.argv[1])).path); sys.stdout.flush(); "
            "os.kill(os.getpid(), 9) if sys.argv[2] == 'die' else None"
        )

        def child(how: str) -> str:
            done = subprocess.run(
                [sys.executable, "-c", code, spool.path, how], capture_output=True, text=True, check=False, timeout=60
            )
            return done.stdout.strip()

        killed = child("die")
        assert os.path.isdir(killed)
        ended = child("end")
        assert ended
        assert not os.path.lexists(ended)
        assert not os.path.lexists(killed), "the next one removes what a killed one has left"


# -- hostile packs --------------------------------------------------------------------------------------------------


def write_pack(path: Path, *chunks: bytes, **index: Any) -> str:
    """A pack with these archives."""
    import lzma

    from spool import jsonio

    about = {
        "format": 1,
        "run": "evil",
        "files": 1,
        "bytes": 1,
        "names": {},
        "record": {},
        "chunks": [{"first": "" if n < 2 else "fanouts/1/jobs/1", "bytes": len(c)} for n, c in enumerate(chunks)],
    }
    with zipfile.ZipFile(path, "w") as out:
        for number, chunk in enumerate(chunks):
            out.writestr(f"{number:06d}.tar.xz", lzma.compress(chunk))
        out.writestr("pack.json", jsonio.dumps({**about, **index}))
    os.chmod(path, 0o600)
    return str(path)


def archive(*entries: tuple[Entry, bytes] | Entry) -> bytes:
    out = b""
    for one in entries:
        entry, data = one if type(one) is tuple else (one, b"")  # type: ignore[misc]
        out += head_of(entry) + data + padding(len(data))
    return out + END


ROOT = Entry(".", Kind.FOLDER, 0o700)


def raw(**members: Any) -> bytes:
    """An archive that the library's `tarfile` writes, as others might."""
    info = tarfile.TarInfo(members.pop("name", "a"))
    for key, value in members.items():
        setattr(info, key, value)
    return info.tobuf() + END


class TestHostilePacks:
    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (archive(ROOT, Entry("../out", Kind.FILE, 0o600)), "leads outside"),
            (archive(ROOT, Entry("/tmp/out", Kind.FILE, 0o600)), "leads outside"),
            (archive(ROOT, Entry("a/../../out", Kind.FILE, 0o600)), "leads outside"),
            (archive(ROOT, Entry("a//b", Kind.FILE, 0o600)), "leads outside"),
            (archive(ROOT, Entry("claim.1", Kind.SYMLINK, 0o777, target="/etc/passwd")), "outside its folder"),
            (archive(ROOT, Entry("claim.1", Kind.SYMLINK, 0o777, target="..")), "outside its folder"),
            (archive(ROOT, Entry("a", Kind.LINK, target="/etc/passwd")), "leads outside"),
            (archive(ROOT, Entry("a", Kind.LINK, target="../../spool.json")), "leads outside"),
            (archive(ROOT, Entry("a", Kind.LINK, target="not-there")), "no place"),
            (archive(ROOT, Entry("a", Kind.FILE, 0o600), Entry("a", Kind.FILE, 0o600)), "no place"),
            (archive(ROOT, Entry("a", Kind.FILE, 0o600), Entry("a/b", Kind.FILE, 0o600)), "no place"),
            (archive(ROOT, Entry("a", Kind.FILE, 0o4755)), "mode 4755"),
            (archive(ROOT, Entry("a", Kind.FOLDER, 0o000)), "mode 0"),
            (raw(type=tarfile.CHRTYPE, devmajor=1, devminor=3), "neither a file"),
            (raw(type=tarfile.FIFOTYPE), "neither a file"),
            (raw(type=tarfile.GNUTYPE_SPARSE), "neither a file"),
            (archive(ROOT)[:-1024], "ends in the middle"),
            (archive((Entry("a", Kind.FILE, 0o600, size=5000), b"x" * 5000))[:2048], "ends in the middle"),
            (archive(ROOT) + b"\0" * 512, "follows its end"),
            (archive(ROOT).replace(b"ustar", b"USTAR"), "checksum"),
        ],
    )
    def test_entries(self, spool: SpoolFiles, tmp_path: Path, content: bytes, why: str) -> None:
        path = write_pack(tmp_path / "evil.zip", content, archive())
        with pytest.raises(CorruptFileError, match=why):
            unpack_run(spool, path)
        assert os.listdir(spool.runs) == []
        assert not (tmp_path / "out").exists()

    def test_a_link_that_is_taken_for_a_folder(self, spool: SpoolFiles, tmp_path: Path) -> None:
        inside = archive(
            ROOT, Entry("claim.1", Kind.SYMLINK, 0o777, target="b"), Entry("claim.1/x", Kind.FILE, 0o600)
        )
        with pytest.raises(CorruptFileError, match="no place"):
            unpack_run(spool, write_pack(tmp_path / "evil.zip", inside, archive()))

    def test_a_bomb(self, spool: SpoolFiles, tmp_path: Path) -> None:
        size = 8 << 20
        bomb = archive(ROOT, (Entry("a", Kind.FILE, 0o600, size=size), bytes(size)))
        path = write_pack(tmp_path / "evil.zip", bomb, archive())
        assert os.path.getsize(path) < 8_000
        honest = [{"first": "", "bytes": len(bomb)}, {"first": "", "bytes": 1024}]
        lying = write_pack(tmp_path / "lying.zip", bomb, archive(), chunks=[{"first": "", "bytes": 4096}, honest[1]])
        with pytest.raises(CorruptFileError, match="more than it announces"):
            unpack_run(spool, lying)
        huge = write_pack(tmp_path / "huge.zip", bomb, archive(), chunks=[{"first": "", "bytes": 1 << 60}, honest[1]])
        with pytest.raises(SpoolError, match="may take"):
            unpack_run(spool, huge)
        assert os.listdir(spool.runs) == []

    @pytest.mark.parametrize(
        "index",
        [{"run": "../x"}, {"format": 2}, {"chunks": 3}, {"chunks": [{"first": "", "bytes": -1}]}, {"names": []}],
    )
    def test_an_index_that_is_none(self, tmp_path: Path, index: dict[str, Any]) -> None:
        with pytest.raises(CorruptFileError, match="pack"):
            Pack(write_pack(tmp_path / "evil.zip", archive(ROOT), archive(), **index))

    def test_files_that_are_none(self, spool: SpoolFiles, tmp_path: Path) -> None:
        path = tmp_path / "x.zip"
        path.write_bytes(b"PK\x03\x04 nothing")
        os.chmod(path, 0o600)
        with pytest.raises(CorruptFileError, match="no packed run"):
            Pack(str(path))
        os.chmod(path, 0o666)
        with pytest.raises(ForeignFileError, match="others may write"):
            Pack(str(path))
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(ForeignFileError, match="not a regular file"):
            Pack(str(path))
        path.unlink()
        path.symlink_to("/etc/passwd")
        with pytest.raises(ForeignFileError):
            Pack(str(path))

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
    def test_one_of_somebody_else(self, tmp_path: Path) -> None:
        path = write_pack(tmp_path / "x.zip", archive(ROOT), archive())
        os.chown(path, 1, 1)
        with pytest.raises(ForeignFileError, match="belongs to user 1"):
            Pack(path)

    def test_each_bit_counts(self, spool: SpoolFiles) -> None:
        """A pack in which one byte has changed is refused, or still holds the same."""
        run = make_run(spool, jobs=2, inside=0)
        told = pack_run(spool, run, keep=True)
        whole = Path(told.path).read_bytes()
        for position in range(0, len(whole), max(1, len(whole) // 150)):
            spoiled = bytearray(whole)
            spoiled[position] ^= 0x10
            Path(told.path).write_bytes(spoiled)
            try:
                with Pack(told.path) as one:
                    same = difference(one, run.path) is None
            except CorruptFileError:
                continue
            assert same, position

    def test_what_is_cut_short(self, spool: SpoolFiles) -> None:
        told = pack_run(spool, make_run(spool, jobs=2, inside=0))
        whole = Path(told.path).read_bytes()
        for length in range(0, len(whole), max(1, len(whole) // 40)):
            Path(told.path).write_bytes(whole[:length])
            with pytest.raises(CorruptFileError), Pack(told.path) as one:
                restore(one, one.numbers, spool.runs)


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


class TestKilled:
    def test_at_any_moment_the_folder_or_the_pack_is_there(
        self, spool: SpoolFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "sync", lambda: None)  # slow, and of no use against a kill
        monkeypatch.setattr(os, "fsync", lambda _fd: None)
        run = make_run(spool, jobs=1, inside=0)
        before, path, kills = tree(run.path), spool.pack(run.name), 0
        while killed_at(kills, lambda: pack_run(spool, run)):
            self.nothing_is_lost(spool, run, before)
            if os.path.lexists(run.path):
                pack_run(spool, run)
            assert not os.path.lexists(run.path)
            unpack_run(spool, path)
            assert tree(run.path) == before
            self.nothing_is_left(spool, run)
            kills += 2
        assert kills > 30
        assert not os.path.lexists(run.path)
        kills = 0
        while killed_at(kills, lambda: unpack_run(spool, path)):
            self.nothing_is_lost(spool, run, before)
            if os.path.lexists(path):
                unpack_run(spool, path)
            assert tree(run.path) == before
            pack_run(spool, run)
            self.nothing_is_left(spool, run)
            kills += 2
        assert kills > 30

    @staticmethod
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

    @staticmethod
    def nothing_is_left(spool: SpoolFiles, run: RunFiles) -> None:
        assert set(os.listdir(spool.runs)) <= {run.name}
        assert set(os.listdir(spool.packed)) <= {".lock", f"{run.name}.zip"}


def test_a_reader_wants_no_more_than_it_asks_for() -> None:
    class Bytes(io.BytesIO):
        def finish(self) -> None:
            assert self.read() == b""

    entries = [(Entry("a", Kind.FILE, 0o600, size=700), b"x" * 700), (Entry("b" * 150, Kind.FOLDER, 0o700, -5), b"")]
    stream = Bytes(archive(*entries))
    assert list(Reader(stream, "x")) == [entry for entry, _ in entries]
