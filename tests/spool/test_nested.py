"""The record of a branch's own fan-outs, from one machine to another."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from pathlib import Path

import pytest

from spool import nested
from spool.errors import CorruptFileError
from spool.layout import JobFiles
from spool.run import create_fanout, fanouts
from spool.tar import END, Entry, Kind, head_of, padding

FANOUT = "fanouts/001-inner"


def job(folder: Path) -> JobFiles:
    folder.mkdir()
    return JobFiles(str(folder))


def with_fan_out(folder: Path) -> JobFiles:
    """A job that has fanned out into two jobs, the second of which has left a pickle."""
    made = job(folder)
    fanout = create_fanout(made.fanouts, 1, "inner")
    Path(fanout.fanout).write_text("{}")
    Path(fanout.workflow("inner")).write_text("folder: /there")
    for name in ("0000-a", "0001-b"):
        inner = fanout.job(name)
        os.mkdir(inner.path)
        os.link(fanout.workflow("inner"), inner.workflow)
        os.symlink("ann@there:1:ab", inner.claim(1))
        Path(inner.result(1)).write_text(name)
        os.link(inner.result(1), inner.accepted)
        Path(fanout.ticket("done", name)).touch()
    Path(fanout.job("0001-b").result_pickle(1)).write_bytes(b"pickle")
    return made


def here(text: bytes) -> bytes:
    return text.replace(b"/there", b"/long/way/here")


def paths(root: str) -> set[str]:
    return {os.path.relpath(f"{place}/{name}", root) for place, _, names in os.walk(root) for name in names}


def test_a_record_arrives_as_it_was(tmp_path: Path) -> None:
    there, home = with_fan_out(tmp_path / "there"), job(tmp_path / "home")
    nested.take(home, nested.packed(there, here), "x")
    assert paths(home.path) == {path for path in paths(there.path) if not path.endswith(".pickle")}
    (fanout,) = fanouts(home.fanouts)
    inner = fanout.job("0000-a")
    assert Path(inner.workflow).read_text() == "folder: /long/way/here"
    assert os.readlink(inner.claim(1)) == "ann@there:1:ab"
    assert os.path.samefile(inner.result(1), inner.accepted)
    assert (
        os.stat(inner.result(1)).st_mtime_ns
        == os.stat(there.fanouts + "/001-inner/jobs/0000-a/result.json").st_mtime_ns
    )


def test_that_of_another_attempt_comes_beside_it(tmp_path: Path) -> None:
    there, home = with_fan_out(tmp_path / "there"), job(tmp_path / "home")
    for _ in range(2):
        nested.take(home, nested.packed(there, here), "x")
    assert sorted(os.listdir(home.fanouts)) == ["001-inner", "002-inner"]


def test_most_jobs_have_none(tmp_path: Path) -> None:
    assert nested.packed(job(tmp_path / "job"), here) == b""


def test_a_large_one_stays(tmp_path: Path) -> None:
    there = with_fan_out(tmp_path / "there")
    with open(f"{there.path}/{FANOUT}/state.json", "wb") as file:
        file.truncate(nested.MAX_BYTES + 1)
    with pytest.raises(nested.TooMuchError, match="larger than 64 MiB"):
        nested.packed(there, here)


def archive(entries: Iterable[Entry]) -> bytes:
    parts = [head_of(entry) + b"x" * entry.size + padding(entry.size) for entry in entries]
    return zlib.compress(b"".join([*parts, END]))


GOOD = [Entry(FANOUT, Kind.FOLDER, 0o700), Entry(f"{FANOUT}/fanout.json", Kind.FILE, 0o600, 0, 2)]


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (Entry("fanouts/../../escaped", Kind.FILE), "leads outside"),
        (Entry("/etc/passwd", Kind.FILE), "leads outside"),
        (Entry("result.json", Kind.FILE, 0o600), "a name that no record has"),
        (Entry(f"{FANOUT}/.hidden", Kind.FILE, 0o600), "a name that no record has"),
        (Entry(f"{FANOUT}/-rf", Kind.FILE, 0o600), "a name that no record has"),
        (Entry(f"{FANOUT}/new\nline", Kind.FILE, 0o600), "a name that no record has"),
        (Entry(f"{FANOUT}/state.pickle", Kind.FILE, 0o600), "a pickle"),
        (Entry(f"{FANOUT}/fanout.json", Kind.FILE, 0o600), "it has no place"),
        (Entry(f"{FANOUT}/fanout.json/x", Kind.FILE, 0o600), "it has no place"),
        (Entry(f"{FANOUT}/jobs/a", Kind.FILE, 0o600), "it has no place"),
        (Entry(f"{FANOUT}/state.json", Kind.SYMLINK, 0o777, 0, 0, "other"), "a symbolic link"),
        (Entry(f"{FANOUT}/claim.1", Kind.SYMLINK, 0o777, 0, 0, "/etc/passwd"), "outside its folder"),
        (Entry(f"{FANOUT}/state.json", Kind.LINK, target="fanouts/../input.json"), "leads outside"),
        (Entry(f"{FANOUT}/state.json", Kind.LINK, target="input.json"), "which is no file"),
        (Entry(f"{FANOUT}/state.json", Kind.FILE, 0o4755), "mode"),
    ],
)
def test_what_no_record_has_is_refused(tmp_path: Path, entry: Entry, why: str) -> None:
    home = job(tmp_path / "home")
    with pytest.raises(CorruptFileError, match=why):
        nested.take(home, archive([*GOOD, entry]), "host:job")
    assert (os.listdir(home.fanouts), os.listdir(tmp_path)) == ([], ["home"])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"rubbish", "incorrect header"),
        (archive(GOOD)[:-20], "in the middle"),
        (archive(GOOD) + b"more", "something follows"),
    ],
)
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes, why: str) -> None:
    home = job(tmp_path / "home")
    with pytest.raises(CorruptFileError, match=why):
        nested.take(home, data, "host:job")
    assert os.listdir(home.fanouts) == []


def test_what_inflates_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nested, "MAX_ENTRIES", 10)
    monkeypatch.setattr(nested, "MAX_BYTES", 1 << 20)
    home = job(tmp_path / "home")
    with pytest.raises(CorruptFileError, match="too large"):
        nested.take(home, archive([*GOOD, Entry(f"{FANOUT}/state.json", Kind.FILE, 0o600, 0, 4 << 20)]), "host:job")
    assert os.listdir(home.fanouts) == []
