"""What a folder's file system can do: on real ones, and on such that refuse or lie at one call."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from spool import fitness, mounts, probe
from spool.finding import Finding, Findings, Severity
from spool.probe import Partner, PartnerError
from tests.spool.kit import raises_errno
from tests.support import cannot, children_of, wait_until

WELL = {
    "bytes",
    "rename",
    "links",
    "names",
    "paths",
    "capitals",
    "fsync",
    "clock",
    "exclusive-symlink",
    "exclusive-link",
    "exclusive-create",
    "locks",
    "events",
}


@pytest.fixture(autouse=True)
def _events_come_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """That this process is held up says nothing of a file system."""
    monkeypatch.setattr(fitness, "EVENT_PATIENCE", 240.0)


def examined(path: Path | str) -> dict[str, Finding]:
    findings = Findings()
    fitness.examine(str(path), findings)
    return {finding.kind: finding for finding in findings}


def not_well(path: Path | str) -> dict[str, Finding]:
    usual = (Severity.OK, Severity.NOTE)
    return {kind: found for kind, found in examined(path).items() if found.severity not in usual}


def as_root(*words: str) -> None:
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    try:
        done = subprocess.run([*sudo, *words], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        cannot(f"no {error.filename}, and not root")
        return
    if done.returncode:
        cannot(f"{' '.join(words)}: {done.stderr.strip()}")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small tmpfs with these options."""
    made: list[Path] = []

    def mount(options: str) -> Path:
        path = tmp_path / f"small{len(made)}"
        path.mkdir()
        as_root("mount", "-t", "tmpfs", "-o", f"mode=700,uid={os.geteuid()},{options}", "none", str(path))
        made.append(path)
        return path

    yield mount
    for path in made:
        as_root("umount", "-l", str(path))


# -- a folder as it should be ---------------------------------------------------------------------------------------


def test_a_folder_on_a_local_disk_is_fit(tmp_path: Path) -> None:
    before = children_of(os.getpid())  # other tests of this process may have left a server of theirs
    found = examined(tmp_path)
    assert set(found) >= WELL
    assert not_well(tmp_path) == {}
    assert os.listdir(tmp_path) == []
    assert children_of(os.getpid()) <= before


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    found = examined("/proc")  # not even root writes here
    assert found["writable"].severity is Severity.ERROR
    assert set(found) <= {"file-system", "bytes", "inodes", "writable"}


@pytest.mark.root
def test_a_disk_without_inodes(small: Callable[[str], Path]) -> None:
    path = small("size=10m,nr_inodes=400")
    assert examined(path)["inodes"].severity is Severity.OK
    with contextlib.suppress(OSError):
        for number in range(500):
            (path / str(number)).touch()
    found = not_well(path)
    assert found["inodes"].text.startswith("the disk is full: 0 of 400 inodes")
    assert set(found) == {"inodes"}
    for number in range(20):
        (path / str(number)).unlink()
    assert set(not_well(path)) == {"inodes"}  # room for some of what would be tried: wrong answers, so it is not
    assert [name for name in os.listdir(path) if name.startswith(".")] == []


@pytest.mark.root
def test_a_full_disk(small: Callable[[str], Path]) -> None:
    path = small("size=4m")
    with contextlib.suppress(OSError), open(path / "big", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    assert not_well(path)["bytes"].text.startswith("the disk is full: 0 of 4,194,304 bytes")


@pytest.mark.root
def test_a_file_system_that_is_mounted_read_only(small: Callable[[str], Path]) -> None:
    path = small("size=1m")
    as_root("mount", "-o", "remount,ro", str(path))
    found = not_well(path)
    assert "read-only" in found["file-system"].text
    assert "Read-only" in found["writable"].text


@pytest.mark.parametrize(
    ("free", "size", "severity"),
    [
        (0, 10**12, Severity.ERROR),
        (10**5, 10**6, Severity.ERROR),
        (10**8, 10**12, Severity.WARNING),
        (10**10, 10**12, Severity.OK),  # 1 %, but much
        (10**8, 10**9, Severity.OK),  # little, but a tenth
    ],
)
def test_room(monkeypatch: pytest.MonkeyPatch, free: int, size: int, severity: Severity) -> None:
    values = [4096, 1, size, free, free, 0, 0, 0, 0, 255]
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result(values))
    findings = Findings()
    fitness.room("/x", findings)
    assert [(finding.kind, finding.severity) for finding in findings] == [("bytes", severity)]


# -- file systems that can't do something ---------------------------------------------------------------------------


def test_links_are_counted_until_they_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GlusterFS answers ENOSPC at about 45."""
    link, made = os.link, []

    def some(source: str, path: str) -> None:
        if "/linked" in source and len(made) >= 45:
            raise OSError(errno.ENOSPC, "No space left on device")
        link(source, path)
        made.append(path)

    monkeypatch.setattr(os, "link", some)
    found = not_well(tmp_path)
    assert set(found) == {"links"}
    assert found["links"].severity is Severity.WARNING
    assert found["links"].text.startswith("45 links")


def test_a_file_system_without_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", raises_errno(errno.EPERM))
    found = not_well(tmp_path)
    assert {kind: one.severity for kind, one in found.items()} == {
        "links": Severity.WARNING,
        "exclusive-link": Severity.WARNING,
    }
    assert found["links"].text.startswith("0 links")


def test_a_file_system_without_symbolic_links_will_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "symlink", raises_errno(errno.EPERM))
    found = not_well(tmp_path)
    assert {kind: one.severity for kind, one in found.items()} == {"exclusive-symlink": Severity.ERROR}
    assert "claims are symbolic links" in found["exclusive-symlink"].text


@pytest.mark.parametrize("kind", ["symlink", "link", "create"])
def test_two_winners_of_one_name_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A file system on which a second claim silently replaces the first."""
    make = probe.MAKERS[kind]

    def over(source: str, path: str, me: str) -> None:
        if path.endswith(".alone"):
            return
        wait_until(lambda: os.path.lexists(path), what=f"the other process to make {path}")
        os.unlink(path)
        make(source, path, me)

    monkeypatch.setitem(probe.MAKERS, kind, over)
    assert set(not_well(tmp_path)) == {f"exclusive-{kind}"}


def test_a_winner_that_does_not_stand_in_the_name_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that tells the loser that it has won: we never make a link, and say that we did."""
    monkeypatch.setitem(probe.MAKERS, "symlink", lambda _source, _path, _me: None)
    assert set(not_well(tmp_path)) == {"exclusive-symlink"}


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(fitness, "lock_descriptor", raises_errno(number))
    found = not_well(tmp_path)
    assert set(found) == {"locks"}
    assert "refused" in found["locks"].text


def test_locks_that_others_do_not_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitness, "lock_descriptor", lambda _fd: True)  # as with `local_lock=all`
    assert "two processes held one lock" in not_well(tmp_path)["locks"].text


def test_locks_that_outlive_their_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitness, "is_locked", lambda _path: True)
    assert "still held" in not_well(tmp_path)["locks"].text


def test_fsync_that_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", raises_errno(errno.EINVAL))
    assert set(not_well(tmp_path)) == {"fsync"}


def test_a_clock_that_is_a_day_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 86400)
    found = not_well(tmp_path)
    assert set(found) == {"clock"}
    told = re.search(r"is -([0-9.]+) s from", found["clock"].text)
    assert told is not None
    assert 86000 < float(told[1]) < 86800  # to the time that passed between the looks at the two clocks


def test_events_that_do_not_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from watchdog.observers import Observer

    monkeypatch.setattr(Observer, "dispatch_events", lambda _observer, queue: queue.get())
    monkeypatch.setattr(fitness, "EVENT_PATIENCE", 0.1)
    found = not_well(tmp_path)
    assert set(found) == {"events"}
    assert "polling is used" in found["events"].remedy


def test_events_that_the_kernel_has_no_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from watchdog.observers import Observer

    monkeypatch.setattr(Observer, "start", raises_errno(errno.EMFILE))
    assert "fs.inotify" in not_well(tmp_path)["events"].text


def test_a_file_system_that_ignores_capitals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exists = os.path.lexists
    monkeypatch.setattr(os.path, "lexists", lambda path: exists(str(path).replace("CAPITALS", "capitals")))
    assert set(not_well(tmp_path)) == {"capitals"}


def test_names_that_may_not_be_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """eCryptfs stops at 143 bytes."""
    real = os.pathconf
    monkeypatch.setattr(os, "pathconf", lambda path, name: 143 if name == "PC_NAME_MAX" else real(path, name))
    assert "143" in not_well(tmp_path)["names"].text


def test_names_that_are_refused_though_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pathconf
    monkeypatch.setattr(os, "pathconf", lambda path, name: 300 if name == "PC_NAME_MAX" else real(path, name))
    assert "refused" in not_well(tmp_path)["names"].text


@pytest.mark.parametrize(
    ("length", "severity"), [(3500, Severity.ERROR), (2500, Severity.WARNING), (1000, Severity.OK)]
)
def test_long_paths(tmp_path: Path, length: int, severity: Severity) -> None:
    path = str(tmp_path)
    while len(path) < length:
        path += "/" + "d" * 100
    os.makedirs(path)
    assert examined(path)["paths"].severity is severity


# -- the second process ---------------------------------------------------------------------------------------------


def test_a_partner_that_dies_is_told(tmp_path: Path) -> None:
    with Partner(str(tmp_path)) as partner:
        partner.kill()
        with pytest.raises(PartnerError, match="ended with -9"):
            partner.race("symlink", 1)


def test_a_partner_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_START", "import sys; sys.stdin.read()")
    monkeypatch.setattr(probe, "PATIENCE", 0.0)
    before = children_of(os.getpid())
    with pytest.raises(PartnerError, match="did not answer"):
        Partner(str(tmp_path))
    assert children_of(os.getpid()) <= before


def test_an_error_in_a_race_does_not_mix_up_the_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = probe.MAKERS["symlink"]

    def fails(source: str, path: str, me: str) -> None:
        if path.endswith(".alone"):
            return make(source, path, me)
        wait_until(lambda: os.path.lexists(path), what=f"the other process to make {path}")
        os.unlink(path)
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    monkeypatch.setitem(probe.MAKERS, "symlink", fails)
    with Partner(str(tmp_path)) as partner:
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            partner.race("symlink", 1)
        (tmp_path / "lock").touch()
        assert not partner.sees_lock("lock")


def test_races_are_real(tmp_path: Path) -> None:
    """Both win some, over enough of them; a race in which one is always first would show nothing."""
    with Partner(str(tmp_path)) as partner:
        won: set[bool] = set()

        def both_have_won() -> bool:
            for name in tmp_path.glob("symlink.*"):
                name.unlink()
            won.update(ours for _, ours, _ in partner.race("symlink", 20))
            return won == {True, False}

        wait_until(both_have_won, what="each process to win a race")


# -- the mount table ------------------------------------------------------------------------------------------------

TABLE = r"""
rootfs / rootfs rw 0 0
/dev/vda / ext4 rw,relatime 0 0
tmpfs /tmp tmpfs rw 0 0
server:/export /mnt/with\040blank nfs4 rw,vers=4.2,local_lock=none 0 0
server:/old /mnt/old nfs rw,vers=3,nolock 0 0
user@host: /mnt/ssh fuse.sshfs rw 0 0
//server/share /mnt/win cifs ro,nobrl 0 0
nonsense
"""


@pytest.mark.parametrize(
    ("path", "kind", "network", "locks"),
    [
        ("/", "ext4", False, ""),
        ("/home/x", "ext4", False, ""),
        ("/tmp", "tmpfs", False, ""),
        ("/tmpfile", "ext4", False, ""),
        ("/mnt/with blank/x", "nfs4", True, ""),
        ("/mnt/old/x/y", "nfs", True, "nolock"),
        ("/mnt/ssh", "fuse.sshfs", True, "fuse.sshfs"),
        ("/mnt/win/x", "cifs", True, "nobrl"),
    ],
)
def test_the_mount_of_a_path(path: str, kind: str, network: bool, locks: str) -> None:
    mount = mounts.containing(mounts.parse(TABLE), path)
    assert mount is not None
    assert (mount.type, mount.network, mount.local_locks) == (kind, network, locks)
    assert bool(mount.advice) == network


def test_the_mount_of_a_folder_here(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc")
    mount = mounts.mount_of(str(tmp_path / "link"))
    if mount is None:
        cannot("no mount table here")
        return
    assert mount.type == "proc"


@pytest.mark.parametrize("kind", sorted(mounts.NETWORK))
def test_network_file_systems_come_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    table = [mounts.Mount("server:/x", "/", kind, ("rw",))]
    monkeypatch.setattr(fitness, "mount_of", lambda path: mounts.containing(table, path))
    found = Findings()
    fitness._file_system(str(tmp_path), fitness.mount_of(str(tmp_path)), found)
    [finding] = found
    assert finding.severity in (Severity.NOTE, Severity.WARNING)
    assert kind in finding.text
    assert finding.remedy


def test_a_check_that_stumbles_does_not_keep_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "rename", stumble)  # also `replace`, and the event's
    found = not_well(tmp_path)
    assert {kind for kind, one in found.items() if one.severity is Severity.ERROR} == {"renames", "events"}
    assert "Input/output error" in found["renames"].text
