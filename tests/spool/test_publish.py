"""Publishing: complete or absent, exclusive, nothing left behind. Reading: only our files, bounded, no waiting."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from spool import publish as module
from spool.errors import CorruptFileError, ForeignFileError
from spool.publish import Linker, publish, quarantine, read_bytes, read_json, replace, unique, write_exclusive
from tests.spool.kit import as_user, line, python, raises_errno, together

REFUSALS = [errno.EMLINK, errno.EPERM, errno.ENOSPC, errno.EOPNOTSUPP, errno.EXDEV, errno.EACCES]


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path)


def names(folder: str) -> list[str]:
    return sorted(os.listdir(folder))


# -- publish ----------------------------------------------------------------------------------------------------


def test_a_published_file_holds_its_data_is_private_and_alone(folder: str) -> None:
    publish(f"{folder}/a", b"data")
    assert read_bytes(f"{folder}/a") == b"data"
    assert os.stat(f"{folder}/a").st_mode & 0o777 == 0o600
    assert names(folder) == ["a"]


def test_a_taken_name_is_never_replaced(folder: str) -> None:
    publish(f"{folder}/a", b"first")
    with pytest.raises(FileExistsError):
        publish(f"{folder}/a", b"second")
    assert read_bytes(f"{folder}/a") == b"first"
    assert names(folder) == ["a"]


def test_the_name_appears_only_with_all_data(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the kernel takes the data in small pieces."""
    write, seen = os.write, []

    def slow(fd: int, data: bytes) -> int:
        seen.append(os.path.exists(f"{folder}/a"))
        return write(fd, data[:3])

    monkeypatch.setattr(os, "write", slow)
    publish(f"{folder}/a", b"0123456789")
    assert read_bytes(f"{folder}/a") == b"0123456789"
    assert len(seen) == 4
    assert not any(seen)


@pytest.mark.parametrize("refusal", REFUSALS, ids=errno.errorcode.get)
@pytest.mark.parametrize("sync", [False, True])
def test_where_links_are_refused_a_file_is_published_all_the_same(
    folder: str, monkeypatch: pytest.MonkeyPatch, refusal: int, sync: bool
) -> None:
    monkeypatch.setattr(os, "link", raises_errno(refusal))
    publish(f"{folder}/a", b"first", sync=sync)
    with pytest.raises(FileExistsError):
        publish(f"{folder}/a", b"second", sync=sync)
    assert read_bytes(f"{folder}/a") == b"first"
    assert names(folder) == [".reserved-a", "a"]


def test_links_and_refused_links_exclude_each_other(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(f"{folder}/a", b"first")
    monkeypatch.setattr(os, "link", raises_errno(errno.EPERM))
    with pytest.raises(FileExistsError):
        publish(f"{folder}/a", b"second")
    publish(f"{folder}/b", b"first")
    monkeypatch.undo()
    with pytest.raises(FileExistsError):
        publish(f"{folder}/b", b"second")
    assert read_bytes(f"{folder}/a") == read_bytes(f"{folder}/b") == b"first"


def test_a_link_that_is_reported_as_failed_but_happened_is_a_success(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS sends a request again when the answer is lost, and then meets its own success."""
    link = os.link

    for number in (errno.EEXIST, errno.EPERM, errno.EIO):

        def twice(source: str, path: str, number: int = number) -> None:
            link(source, path)
            raise OSError(number, os.strerror(number), source, None, path)

        monkeypatch.setattr(os, "link", twice)
        publish(f"{folder}/{number}", b"data")
        assert read_bytes(f"{folder}/{number}") == b"data"
    assert not [name for name in names(folder) if name.startswith(".")]


@pytest.mark.parametrize("call", ["write", "fsync", "close", "link"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO], ids=errno.errorcode.get)
def test_a_disk_that_refuses_is_told_and_nothing_is_left_behind(
    folder: str, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    close = os.close

    def refuse(*args: Any) -> None:
        if call == "close":
            close(args[0])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refuse)
    if call == "link" and number != errno.EIO:
        monkeypatch.setattr(os, "rename", refuse)  # then the other way of publishing is refused, too
    with pytest.raises(OSError, match=os.strerror(number)):
        publish(f"{folder}/a", b"data", sync=True)
    monkeypatch.undo()
    assert names(folder) == []


def test_power_durability_syncs_the_file_before_its_name_and_then_the_folder(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, link = os.fsync, os.link

    def noted(fd: int) -> None:
        calls.append("folder" if os.path.isdir(f"/proc/self/fd/{fd}") else "file")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "link", lambda a, b: (calls.append("link"), link(a, b))[1])
    publish(f"{folder}/a", b"data")
    assert calls == ["link"]
    calls.clear()
    publish(f"{folder}/b", b"data", sync=True)
    assert calls == ["file", "link", "folder"]


def test_replace_changes_a_file_in_one_step(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    replace(f"{folder}/a", b"one")
    replace(f"{folder}/a", b"two")
    assert read_bytes(f"{folder}/a") == b"two"
    monkeypatch.setattr(os, "rename", raises_errno(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        replace(f"{folder}/a", b"three")
    assert read_bytes(f"{folder}/a") == b"two"
    assert names(folder) == ["a"]


def test_write_exclusive_takes_nothing_away_from_who_was_first(folder: str) -> None:
    write_exclusive(f"{folder}/a", b"first")
    with pytest.raises(FileExistsError):
        write_exclusive(f"{folder}/a", b"second")
    assert read_bytes(f"{folder}/a") == b"first"


def test_names_are_unique_after_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    before = unique()
    assert unique() != before
    monkeypatch.setattr(os, "getpid", lambda: 1)
    after = unique()
    assert after.startswith("1-")
    assert after.split("-")[1] != before.split("-")[1]


RACER = """
import sys
from spool.publish import publish
folder, me, refused = sys.argv[1:]
if refused:
    import errno, os
    def link(a, b): raise OSError(errno.EPERM, "refused")
    os.link = link
print("ready", flush=True); sys.stdin.readline()
won = 0
for number in range(200):
    try:
        publish(f"{folder}/{number}", f"{me} {'x' * 5000} {me}".encode())
        won += 1
    except FileExistsError:
        pass
print(won, flush=True)
"""


@pytest.mark.parametrize("refused", ["", "refused"])
def test_of_publishers_that_race_exactly_one_wins_each_name(folder: str, refused: str) -> None:
    racers = [python(RACER, folder, str(i), refused) for i in range(4)]
    together(racers)
    wins = [int(line(racer)) for racer in racers]
    for racer in racers:
        racer.communicate(timeout=240)
    assert sum(wins) == 200
    for number in range(200):
        first, _, last = read_bytes(f"{folder}/{number}").decode().split()
        assert first == last
    assert not [name for name in names(folder) if name.startswith(".tmp")]


GONE = 4194305  # a pid that no kernel gives out


@pytest.mark.parametrize("published", [False, True])
def test_of_those_who_find_a_dead_writers_reservations_exactly_one_takes_each_over(
    folder: str, published: bool
) -> None:
    """Also when what it had reserved is there: it died later, and nobody publishes a second time."""
    for number in range(200):
        write_exclusive(f"{folder}/.reserved-{number}", f"{os.uname().nodename}:{GONE}".encode())
        if published:
            write_exclusive(f"{folder}/{number}", b"first")
    racers = [python(RACER, folder, str(i), "refused") for i in range(4)]
    together(racers)
    wins = [int(line(racer)) for racer in racers]
    for racer in racers:
        racer.communicate(timeout=240)
    assert sum(wins) == (0 if published else 200)
    assert len(names(folder)) == 400


def test_a_takeover_is_taken_over_when_its_process_died_too(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", raises_errno(errno.EPERM))
    for name in (".reserved-a", ".reserved-.reserved-a"):
        write_exclusive(f"{folder}/{name}", f"{os.uname().nodename}:{GONE}".encode())
    publish(f"{folder}/a", b"data")
    assert names(folder) == [".reserved-a", "a"]


def test_what_is_reserved_by_a_process_that_lives_is_taken(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when another took it over between our two looks."""
    monkeypatch.setattr(os, "link", raises_errno(errno.EPERM))
    exclusive, dead = module.write_exclusive, f"{os.uname().nodename}:{GONE}".encode()
    write_exclusive(f"{folder}/.reserved-a", dead)

    def taken_over(path: str, data: bytes, **options: Any) -> None:
        if path.endswith(".reserved-.reserved-a"):
            replace(f"{folder}/.reserved-a", f"{os.uname().nodename}:{os.getppid()}".encode())
        exclusive(path, data, **options)

    monkeypatch.setattr(module, "write_exclusive", taken_over)
    with pytest.raises(FileExistsError):
        publish(f"{folder}/a", b"data")
    assert names(folder) == [".reserved-a"]


# -- Linker -----------------------------------------------------------------------------------------------------


def test_links_share_one_file(folder: str) -> None:
    linker = Linker(f"{folder}/source", b"data")
    linker.link(f"{folder}/a")
    linker.link(f"{folder}/b")
    assert os.stat(f"{folder}/source").st_nlink == 3
    with pytest.raises(FileExistsError):
        linker.link(f"{folder}/a")


def test_a_source_whose_links_are_used_up_is_followed_by_another(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def limited(source: str, path: str) -> None:
        if os.stat(source).st_nlink > 4:
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        link(source, path)

    monkeypatch.setattr(os, "link", limited)
    linker = Linker(f"{folder}/source", b"data")
    for number in range(10):
        linker.link(f"{folder}/{number}")
    assert {name for name in names(folder) if "source" in name} == {"source", "source.1", "source.2"}
    assert all(read_bytes(f"{folder}/{number}") == b"data" for number in range(10))
    # A coordinator that resumes begins with the first source, and takes what is there.
    again = Linker(f"{folder}/source", b"data")
    again.link(f"{folder}/more")
    assert {name for name in names(folder) if "source" in name} == {"source", "source.1", "source.2"}


@pytest.mark.parametrize("refusal", REFUSALS, ids=errno.errorcode.get)
def test_where_links_are_refused_each_name_is_a_copy(
    folder: str, monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    linker = Linker(f"{folder}/source", b"data")
    monkeypatch.setattr(os, "link", raises_errno(refusal))
    for name in "ab":
        linker.link(f"{folder}/{name}")
    assert os.stat(f"{folder}/a").st_ino != os.stat(f"{folder}/b").st_ino
    assert read_bytes(f"{folder}/a") == b"data"
    with pytest.raises(FileExistsError):
        linker.link(f"{folder}/a")


def test_other_errors_of_a_link_are_told(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    linker = Linker(f"{folder}/source", b"data")
    monkeypatch.setattr(os, "link", raises_errno(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        linker.link(f"{folder}/a")


# -- reading ----------------------------------------------------------------------------------------------------


def test_an_absent_file_is_absent(folder: str) -> None:
    with pytest.raises(FileNotFoundError):
        read_bytes(f"{folder}/a")


def plant(path: str, kind: str) -> None:
    if kind == "symbolic link":
        Path(f"{path}.target").write_bytes(b"{}")
        os.symlink(f"{path}.target", path)
    elif kind == "dangling link":
        os.symlink("nowhere", path)
    elif kind == "fifo":
        os.mkfifo(path, 0o600)
    elif kind == "folder":
        os.mkdir(path, 0o700)
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(os.path.dirname(path))  # the address of a socket is short
        try:
            socket.socket(socket.AF_UNIX).bind(os.path.basename(path))
        finally:
            os.chdir(here)


@pytest.mark.parametrize("kind", ["symbolic link", "dangling link", "fifo", "folder", "socket"])
def test_what_is_no_file_is_refused_without_waiting(folder: str, kind: str) -> None:
    path = f"{folder}/a"
    plant(path, kind)
    with pytest.raises(ForeignFileError, match="a: refused"):
        read_bytes(path)
    with pytest.raises(ForeignFileError):
        read_json(path)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_what_others_may_write_is_refused(folder: str, mode: int) -> None:
    publish(f"{folder}/a", b"{}")
    os.chmod(f"{folder}/a", mode)
    with pytest.raises(ForeignFileError, match="chmod go-w"):
        read_bytes(f"{folder}/a")
    os.chmod(f"{folder}/a", 0o644)
    assert read_bytes(f"{folder}/a") == b"{}"


def test_a_file_that_is_too_large_is_refused_before_it_is_read(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(f"{folder}/a", b"12345")
    assert read_bytes(f"{folder}/a", limit=5) == b"12345"
    monkeypatch.setattr(os, "read", raises_errno(errno.EIO))
    with pytest.raises(ForeignFileError, match="5 bytes are more than the 4"):
        read_bytes(f"{folder}/a", limit=4)


def test_a_sparse_file_of_a_terabyte_costs_nothing(folder: str) -> None:
    publish(f"{folder}/a", b"{}")
    os.truncate(f"{folder}/a", 1 << 40)
    with pytest.raises(ForeignFileError, match="bytes are more than"):
        read_json(f"{folder}/a")


def test_reads_in_pieces_give_the_whole(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(f"{folder}/a", b"0123456789")
    read = os.read
    monkeypatch.setattr(os, "read", lambda fd, size: read(fd, min(size, 3)))
    assert read_bytes(f"{folder}/a") == b"0123456789"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_a_file_of_another_user_is_refused(folder: str, mode: int) -> None:
    publish(f"{folder}/a", b"{}")
    os.chmod(f"{folder}/a", mode)
    os.chown(f"{folder}/a", 12345, 12345)
    with pytest.raises(ForeignFileError, match="belongs to user 12345"):
        read_bytes(f"{folder}/a")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_an_ordinary_user_refuses_a_file_of_root(folder: str, mode: int) -> None:
    """One that may be read and one that may not are refused alike."""
    publish(f"{folder}/a", b"{}")
    os.chmod(f"{folder}/a", mode)
    fd = os.open(folder, os.O_RDONLY)  # the other user may not pass through the folders above
    os.chmod(folder, 0o755)

    def read() -> bytes:
        os.fchdir(fd)
        return read_bytes("a")

    try:
        assert as_user(12345, read).startswith("ForeignFileError: a: refused")
    finally:
        os.close(fd)


CORRUPT = {
    "empty": b"",
    "truncated": b'{"a": 1',
    "NaN": b'{"a": NaN}',
    "infinite": b'{"a": -Infinity}',
    "deep": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a list": b"[1, 2]",
    "a number": b"1",
    "null": b"null",
    "not UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "with a tail": b'{"a": 1}{"b": 2}',
    "zeroes": bytes(4096),
}


@pytest.mark.parametrize("data", CORRUPT.values(), ids=CORRUPT)
@pytest.mark.parametrize("parser", ["orjson", "json"])
def test_what_is_no_json_object_is_corrupt(
    folder: str, monkeypatch: pytest.MonkeyPatch, data: bytes, parser: str
) -> None:
    if parser == "json":
        monkeypatch.setattr(module.jsonio, "orjson", None)
    publish(f"{folder}/a", data)
    with pytest.raises(CorruptFileError, match=f"{folder}/a"):
        read_json(f"{folder}/a")


# -- quarantine -------------------------------------------------------------------------------------------------


def test_quarantine_keeps_every_file_that_was_put_aside(folder: str) -> None:
    for text in (b"one", b"two", b"three"):
        publish(f"{folder}/a", text)
        assert quarantine(f"{folder}/a")
    assert names(folder) == ["a.corrupt", "a.corrupt.1", "a.corrupt.2"]
    assert [read_bytes(f"{folder}/{name}") for name in names(folder)] == [b"one", b"two", b"three"]


def test_quarantine_of_what_somebody_else_put_aside(folder: str) -> None:
    assert quarantine(f"{folder}/a") == ""


@pytest.mark.parametrize("kind", ["symbolic link", "dangling link", "fifo", "folder", "socket"])
def test_quarantine_moves_whatever_stands_there_and_follows_nothing(folder: str, kind: str) -> None:
    plant(f"{folder}/a", kind)
    assert quarantine(f"{folder}/a") == f"{folder}/a.corrupt"
    assert os.path.lexists(f"{folder}/a.corrupt")
    assert not os.path.lexists(f"{folder}/a")


def test_a_reader_never_sees_half_a_file(folder: str) -> None:
    """One process publishes and replaces a large file while another reads it all the time."""
    code = """
import sys
from spool.publish import replace
print("ready", flush=True)
for number in range(300):
    replace(sys.argv[1], str(number % 10).encode() * 200_000)
"""
    writer = python(code, f"{folder}/a", stdin=subprocess.DEVNULL)
    assert line(writer) == "ready"
    while writer.poll() is None:
        try:
            data = read_bytes(f"{folder}/a")
        except FileNotFoundError:
            continue
        assert len(data) == 200_000
        assert len(set(data)) == 1
    writer.communicate(timeout=240)
