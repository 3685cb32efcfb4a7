"""What comes to a host before its jobs, as its Python takes it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from executors.remote.arrival import Arrival
from executors.remote.folder import Folder
from executors.remote.frames import Frame

EXTRACT = tarfile.TarFile.extractall


def of_python_3_11_2(archive: tarfile.TarFile, path: str = ".", *, numeric_owner: bool = False) -> None:
    """As the Python of Debian 12 has it: without filters, which came with 3.11.4."""
    EXTRACT(archive, path, numeric_owner=numeric_owner)


def packed(**files: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return made.getvalue()


@pytest.mark.parametrize("old", [False, True])
def test_files_are_unpacked_by_any_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool) -> None:
    monkeypatch.chdir(tmp_path)
    if old:
        monkeypatch.setattr(tarfile.TarFile, "extractall", of_python_3_11_2)
    data = packed(one=b"1", two=b"2" * 10_000)
    with Folder() as folder:
        arrival = Arrival(folder)
        arrival.files(Frame({"op": "files", "last": False}, data[:50]))
        arrival.files(Frame({"op": "files", "last": True}, data[50:]))
        assert Path(folder.files, "one").read_bytes() == b"1"
        assert Path(folder.files, "two").read_bytes() == b"2" * 10_000
        assert sorted(path.name for path in Path(folder.path).iterdir()) == ["files", "lock"]


@pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="Python before 3.11.4 has no filters")
def test_no_file_lands_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Folder() as folder:
        with pytest.raises(tarfile.OutsideDestinationError):
            Arrival(folder).files(Frame({"op": "files", "last": True}, packed(**{"../../out": b"x"})))
        assert not list(tmp_path.rglob("out"))
