"""Whether a folder's file system does what a spool needs: every promise is tried, none is looked up in a table.

    exclusive names   symlink, link, create: two processes race, and each name must have one winner
    renames, links    over an existing name; how many links one file may have
    locks             seen by another process, freed when that is killed
    durability        fsync of files and folders
    events, clock     does inotify tell; how far is the file system's clock from this host's
    room              bytes, inodes, length of names and paths, capitals

Everything happens in a temporary folder inside, which is removed at the end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from filelock import lock_descriptor

from spool.finding import Findings
from spool.mounts import Mount, mount_of
from spool.probe import Partner
from spool.publish import replace, sync_folder, unique, write_exclusive
from spool.worker import is_locked

ROUNDS = 30
"""Names for which two processes race."""

LINKS = 64
"""Links that are tried; GlusterFS stops at about 45."""

EVENT_PATIENCE = 10.0
"""Seconds for which a file event is waited for."""

CLOCK_OFFSET = 2.0
"""Seconds between two clocks that are worth a warning."""

LONGEST_NAME = 150
"""Bytes of the longest name that a spool makes: a worker's scratch name, with what is added to it."""

LONGEST_BELOW = 700
"""Bytes of a path below the spool, without fan-outs inside branches."""

FEW_BYTES, FEW_INODES, SMALL_SHARE = 1_000_000_000, 10_000, 0.05
"""A disk is nearly full when less than both is free: so many, and this share of all."""

LEAST_BYTES, LEAST_INODES = 1_000_000, 200
"""With less a disk is full: not even what is tried here finds room, so the answers would be wrong."""


def examine(path: str, findings: Findings) -> None:
    """Try everything in a folder. Raises nothing: a folder that cannot be used is a finding."""
    mount = mount_of(path)
    _file_system(path, mount, findings)
    if not room(path, findings):
        return
    try:
        folder = f"{path}/.tmp-{unique()}"
        os.mkdir(folder, 0o700)
    except OSError as error:
        remedy = "take a folder of yours on a disk that can be written, with --spool DIR"
        findings.error("writable", path, f"nothing can be made here ({error.strerror})", remedy)
        return
    try:
        for check in (_renames, _links, _names, _paths, _capitals, _durability, _clock):
            _tried(check, folder, findings)
        _tried(_with_partner, folder, findings)
        _tried(_events, folder, findings)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _tried(check: Callable[[str, Findings], None], folder: str, findings: Findings) -> None:
    """One check; a disk that refuses something unforeseen is a finding, and the other checks follow."""
    try:
        check(folder, findings)
    except OSError as error:
        name = check.__name__.strip("_").replace("_", "-")
        findings.error(name, os.path.dirname(folder), f"could not be tried: {error}", _ELSEWHERE)


_ELSEWHERE = "put the spool on another file system, with --spool DIR"


def _where(folder: str) -> str:
    """The folder that is examined, around the temporary one."""
    return os.path.dirname(folder)


# -- what kind of place it is -----------------------------------------------------------------------------------


def _file_system(path: str, mount: Mount | None, findings: Findings) -> None:
    if mount is None:
        findings.note("file-system", path, "this system does not tell which file system it is")
        return
    text = f"{mount.type}, mounted on {mount.point}"
    if mount.read_only:
        findings.error("file-system", path, f"{text}, read-only", f"remount {mount.point} to write, or {_ELSEWHERE}")
    elif mount.local_locks:
        remedy = f"drive each run from one machine only; {mount.advice}"
        findings.warning("file-system", path, f"{text}; locks are not shared ({mount.local_locks})", remedy)
    elif mount.network:
        text = f"{text}: a network file system; other machines see changes by polling"
        findings.note("file-system", path, text, mount.advice)
    elif mount.type in ("tmpfs", "ramfs"):
        findings.note("file-system", path, f"{text}: in memory, gone after a reboot", "")
    else:
        findings.ok("file-system", path, text)


def room(path: str, findings: Findings) -> bool:
    """How much is free, bytes and inodes; False when the disk is full."""
    disk = os.statvfs(path)
    free, size = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    enough = True
    if size:  # /proc has none
        enough = _room(path, findings, "bytes", (free, size, FEW_BYTES, LEAST_BYTES))
    if disk.f_files:  # 0 where inodes are made as they are needed
        inodes = (disk.f_favail, disk.f_files, FEW_INODES, LEAST_INODES)
        enough = _room(path, findings, "inodes", inodes) and enough
    return enough


def _room(path: str, findings: Findings, unit: str, numbers: tuple[int, int, int, int]) -> bool:
    free, size, few, least = numbers
    text = f"{free:,} of {size:,} {unit} are free"
    remedy = "make room; jobs wait while a disk is full, and go on when it is not"
    if free < least:
        findings.error(unit, path, f"the disk is full: {text}; what it can do was not tried", remedy)
    elif free < few and free < size * SMALL_SHARE:
        findings.warning(unit, path, f"the disk is nearly full: {text}", remedy)
    else:
        findings.ok(unit, path, text)
    return free >= least


# -- what it can do alone ---------------------------------------------------------------------------------------


def _renames(folder: str, findings: Findings) -> None:
    inner = f"{folder}/inner"
    os.mkdir(inner, 0o700)
    write_exclusive(f"{folder}/old", b"old")
    replace(f"{folder}/old", b"new")
    os.rename(f"{folder}/old", f"{inner}/new")
    with open(f"{inner}/new", "rb") as file:
        moved = file.read() == b"new" and not os.path.lexists(f"{folder}/old")
    if moved:
        findings.ok("rename", _where(folder), "files are renamed over others and from folder to folder")
    else:
        findings.error("rename", _where(folder), "a rename did not do what it said", _ELSEWHERE)


def _links(folder: str, findings: Findings) -> None:
    source = f"{folder}/linked"
    write_exclusive(source, b"x")
    made = 0
    try:
        for made in range(LINKS):
            os.link(source, f"{source}.{made}")
        made = LINKS
    except OSError as error:
        slower = (
            "no need to act: results are published by rename, and what jobs share is copied, which takes more room"
        )
        findings.warning("links", _where(folder), f"{made} links to a file, then {error.strerror}", slower)
        return
    limit = link_limit(folder)
    most = f", {limit:,} at most" if limit else ""
    findings.ok("links", _where(folder), f"{made} links to one file{most}; more are replaced by copies")


def link_limit(path: str) -> int:
    """How many links a file may have; 0 when nobody knows (the C library then answers with a small number)."""
    try:
        limit = os.pathconf(path, "PC_LINK_MAX")
    except (OSError, ValueError):
        return 0
    return limit if limit >= 1000 else 0


def _names(folder: str, findings: Findings) -> None:
    try:
        longest = os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, ValueError):
        longest = 255
    name = "n" * max(longest, 1)
    try:
        write_exclusive(f"{folder}/{name}", b"")
    except OSError as error:
        longest, why = 0, f"names of {len(name)} bytes are promised, but refused ({error.strerror})"
    else:
        why = f"names may be {longest} bytes long"
    if longest < LONGEST_NAME:
        findings.error("names", _where(folder), f"{why}; a spool needs {LONGEST_NAME}", _ELSEWHERE)
    else:
        findings.ok("names", _where(folder), why)


def _paths(folder: str, findings: Findings) -> None:
    where = _where(folder)
    used, most = len(os.fsencode(os.path.abspath(where))), 4096
    with contextlib.suppress(OSError, ValueError):
        most = os.pathconf(folder, "PC_PATH_MAX")
    text = f"its path has {used} bytes of {most}"
    if used + LONGEST_BELOW > most:
        findings.error("paths", where, f"{text}; jobs need {LONGEST_BELOW} more", "take a folder with a shorter path")
    elif used + 3 * LONGEST_BELOW > most:
        remedy = "take a folder with a shorter path if branches fan out again"
        findings.warning("paths", where, f"{text}: enough, but not for fan-outs inside branches", remedy)
    else:
        findings.ok("paths", where, text)


def _capitals(folder: str, findings: Findings) -> None:
    write_exclusive(f"{folder}/capitals", b"")
    if os.path.lexists(f"{folder}/CAPITALS"):
        remedy = "give nodes names that differ by more than capitals, or take another file system"
        findings.warning("capitals", _where(folder), "capitals make no difference in names", remedy)
    else:
        findings.ok("capitals", _where(folder), "capitals make a difference in names")


def _durability(folder: str, findings: Findings) -> None:
    began = time.perf_counter()
    try:
        write_exclusive(f"{folder}/synced", b"x", sync=True)
        sync_folder(folder)
    except OSError as error:
        remedy = "do not rely on `durability: power` here"
        findings.warning("fsync", _where(folder), f"fsync is refused ({error.strerror})", remedy)
        return
    milliseconds = (time.perf_counter() - began) * 1000
    findings.ok("fsync", _where(folder), f"a file and its folder are synced in {milliseconds:.1f} ms")


def _clock(folder: str, findings: Findings) -> None:
    before = time.time()
    write_exclusive(f"{folder}/clock", b"x")
    after = time.time()
    offset = os.stat(f"{folder}/clock").st_mtime - (before + after) / 2
    text = f"the file system's clock is {round(offset, 1) + 0.0:+.1f} s from this host's"
    if abs(offset) - (after - before) > CLOCK_OFFSET:
        remedy = "nothing depends on it but the times that are shown; `chronyc tracking` on both machines tells more"
        findings.warning("clock", _where(folder), text, remedy)
    else:
        findings.ok("clock", _where(folder), text)


# -- what it does for two ---------------------------------------------------------------------------------------


def _with_partner(folder: str, findings: Findings) -> None:
    with Partner(folder) as partner:
        for kind in ("symlink", "link", "create"):
            _exclusive(partner, kind, folder, findings)
        _locks(partner, folder, findings)


_NEEDED = {
    "symlink": "claims are symbolic links",
    "link": "results are published by a link",
    "create": "tickets are created",
}


def _exclusive(partner: Partner, kind: str, folder: str, findings: Findings) -> None:
    """Each name must have one winner, and the winner must stand in it."""
    name = f"exclusive-{kind}"
    try:
        races = partner.race(kind, ROUNDS)
    except OSError as error:
        text = f"{kind} is refused ({error.strerror or error}); {_NEEDED[kind]}"
        if kind == "link":  # there is another way
            findings.warning(name, _where(folder), text, "no need to act: a reservation and a rename take its place")
        else:
            findings.error(name, _where(folder), text, _ELSEWHERE)
        return
    wrong = sum(1 for owner, ours, theirs in races if ours == theirs or owner != ("here" if ours else "there"))
    if wrong:
        text = f"{wrong} of {len(races)} names had two winners, or the wrong one; {_NEEDED[kind]}"
        findings.error(name, _where(folder), text, _ELSEWHERE)
    else:
        ours = sum(ours for _, ours, _ in races)
        text = f"two processes raced for {len(races)} names: {ours} and {len(races) - ours}, each name once"
        findings.ok(name, _where(folder), text)


def _locks(partner: Partner, folder: str, findings: Findings) -> None:
    where = _where(folder)
    try:
        with _locked(f"{folder}/lock"):
            seen = partner.sees_lock("lock")
    except OSError as error:
        text = f"locks are refused ({error.strerror}): workers are watched by their beat alone, no run can be driven"
        findings.error("locks", where, text, _ELSEWHERE)
        return
    partner.hold_lock("theirs")
    held = is_locked(f"{folder}/theirs")
    partner.kill()
    freed = not is_locked(f"{folder}/theirs")  # the kernel frees it before the death can be waited for
    if seen and held and freed:
        findings.ok("locks", where, "another process sees a lock, and a killed one loses it")
    elif seen and held:
        findings.error("locks", where, "the lock of a killed process is still held", _ELSEWHERE)
    else:
        findings.error("locks", where, "two processes held one lock at once", _ELSEWHERE)


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """A lock of ours; raises OSError where there are none."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        lock_descriptor(fd)
        yield
    finally:
        os.close(fd)


def _events(folder: str, findings: Findings) -> None:
    where = _where(folder)
    watched = f"{folder}/watched"
    os.mkdir(watched, 0o700)
    write_exclusive(f"{folder}/ticket", b"")
    seconds, why = _event_after(watched, lambda: os.rename(f"{folder}/ticket", f"{watched}/ticket"))
    if seconds is None:
        remedy = "no need to act: polling is used, every 0.2 s"
        findings.warning("events", where, f"no file event arrived ({why})", remedy)
    else:
        findings.ok("events", where, f"a file event arrived after {seconds * 1000:.0f} ms")


def _event_after(watched: str, action: Callable[[], None]) -> tuple[float | None, str]:
    """Seconds until an event tells of an action; None, and why, when none does."""
    from watchdog.events import FileSystemEventHandler
    from watchdog.observers import Observer

    arrived = threading.Event()

    class Arrived(FileSystemEventHandler):
        def on_any_event(self, event: Any) -> None:
            if os.path.basename(os.fsdecode(event.dest_path or event.src_path)) == "ticket":
                arrived.set()

    observer: Any = None
    try:
        observer = Observer()
        observer.schedule(Arrived(), watched)
        observer.start()
    except OSError as error:  # the limit of watches or instances
        if observer is not None:
            observer.stop()
        return None, f"{error.strerror or error}; see `sysctl fs.inotify`"
    try:
        began = time.perf_counter()
        action()
        told = arrived.wait(EVENT_PATIENCE)
        return (time.perf_counter() - began, "") if told else (None, f"within {EVENT_PATIENCE:g} s")
    finally:
        observer.stop()
        observer.join()
