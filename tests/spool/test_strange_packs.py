"""Packs that are damaged, or were made to do harm."""

from __future__ import annotations

import io
import lzma
import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spool import jsonio, opened
from spool.errors import CorruptFileError, ForeignFileError, SpoolError
from spool.layout import SpoolFiles
from spool.pack import Pack, difference, restore
from spool.packing import pack_run, unpack_run
from spool.run import open_spool
from spool.tar import END, Entry, Kind, Reader, head_of, padding
from tests.spool.packs import make_run


@pytest.fixture
def spool(spool_dir: Path) -> Iterator[SpoolFiles]:
    yield open_spool(str(spool_dir))
    opened.close_all()


def write_pack(path: Path, *chunks: bytes, **index: Any) -> str:
    """A pack with these archives."""
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
            (archive(ROOT).replace(b"ustar", b"USTAR"), "none"),
            (archive(ROOT).replace(b"0000700", b"0000+00"), "none"),
            (archive(ROOT).replace(b"0000700", b"0000800"), "none"),
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


def test_a_reader_wants_no_more_than_it_asks_for() -> None:
    class Bytes(io.BytesIO):
        def finish(self) -> None:
            assert self.read() == b""

    entries = [(Entry("a", Kind.FILE, 0o600, size=700), b"x" * 700), (Entry("b" * 150, Kind.FOLDER, 0o700, -5), b"")]
    stream = Bytes(archive(*entries))
    assert list(Reader(stream, "x")) == [entry for entry, _ in entries]
