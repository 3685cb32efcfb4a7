"""What all checks of one examination share: who lives, how old things are, what stands in a folder.

A listing tells of everything in it that no spool of this user holds: links, fifos and devices where files belong,
other users' files, files that others may write, names outside the grammar, and what dead writers left behind.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass

from spool.errors import CorruptFileError, ForeignFileError
from spool.finding import Findings
from spool.inspect import is_driven
from spool.layout import RESERVED, TEMPORARY, RunFiles, SpoolFiles
from spool.publish import process_exists, read_json, read_quietly, unique, write_exclusive
from spool.run import CoordinatorLock
from spool.worker import Observer

YOUNG = 600.0
"""Seconds for which a file without a known writer is taken to be in the making, on the file system's own clock."""

OTHERS_MAY_WRITE = 0o022

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


def kind_of(status: os.stat_result) -> str:
    """`file`, `folder`, `symbolic link`, `fifo`, `socket` or `device`."""
    return _KINDS.get(stat.S_IFMT(status.st_mode), "thing")


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a fan-out is.

    live: somebody drives it, or may. nested: it is inside a branch, so its coordinator is a worker.
    resume: what to type to go on with its run; empty when the run is over.
    """

    run: RunFiles
    live: bool
    nested: bool
    resume: str


class Examination:
    """One examination of one spool.

    Args:
        spool: the spool. findings: where everything goes. quick: look at tickets and workers, not into jobs.
    """

    def __init__(self, spool: SpoolFiles, findings: Findings, *, quick: bool = False) -> None:
        self.spool, self.findings, self.quick = spool, findings, quick
        self.observer = Observer(spool)
        self.uid = os.geteuid()
        self.now = _clock_of(spool.path)
        self.writers = open_for_writing(spool.path)
        self.digests: dict[tuple[int, int], str] = {}
        """SHA-256 of files that many jobs share, by device and inode."""
        self.waited = 0.0
        """Seconds that were given to those who may be about to put right what looks wrong."""
        living = self.observer.live_workers()
        self.busy = bool(living)
        """Whether workers live, so that jobs may end and tickets move."""
        self._worker_pids = {read_quietly(self.spool.worker(name).worker).get("pid") for name in living}

    def is_young(self, status: os.stat_result) -> bool:
        """Whether somebody may still be at work on a file."""
        return self.now - status.st_mtime < YOUNG

    # -- runs -----------------------------------------------------------------------------------------------------

    def writer_of(self, path: str) -> int | None:
        """A process of this host that has this file open for writing."""
        return self.writers.get(path)

    def is_driven(self, run: RunFiles) -> bool | None:
        """Whether a coordinator drives a run; None when that can't be told from here.

        A lock in which nobody has written yet is just being taken. We do not probe it: a probe holds it for a moment,
        and would keep its coordinator out.
        """
        try:
            status = os.lstat(run.lock)
        except OSError:
            return False
        if not status.st_size and self.is_young(status):
            return True
        return is_driven(run)

    def is_live(self, run: RunFiles) -> bool:
        """Whether anybody drives a run, or may."""
        return self.is_driven(run) is not False or self.writer_of(run.events) is not None

    def alone(self, run: RunFiles, action: Callable[[], bool]) -> Callable[[], bool]:
        """The action of somebody who drives the run meanwhile, as only its coordinator may make or unmake jobs."""

        def mend() -> bool:
            if self.is_live(run):
                return False
            lock = CoordinatorLock(run)
            try:
                return action()
            finally:
                lock.release()

        return mend

    # -- listings -------------------------------------------------------------------------------------------------

    def entries(
        self, folder: str, findings: Findings, *, live: bool, links: re.Pattern[str] | None = None
    ) -> dict[str, os.stat_result]:
        """What stands in a folder and can be trusted, by name; the rest becomes findings.

        live: somebody may be at work in it. links: names that must be symbolic links.
        """
        found = {}
        try:
            with os.scandir(folder) as listing:
                for entry in listing:
                    name = entry.name
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:  # published or removed meanwhile
                        continue
                    link = links is not None and links.fullmatch(name) is not None
                    # Nearly all are plain, and one comparison each tells; the others get a closer look.
                    plain = name[0] != "." and status.st_uid == self.uid and not status.st_mode & OTHERS_MAY_WRITE
                    if (plain and not link) or (
                        not self._is_leftover(findings, folder, name, status, live)
                        and self._is_trusted(findings, entry.path, status, link)
                    ):
                        found[name] = status
        except FileNotFoundError:
            pass
        except OSError as error:
            findings.error(
                "unreadable", folder, f"cannot be listed: {error.strerror}", f"ls -ld {shlex.quote(folder)}"
            )
        return found

    def _is_trusted(self, findings: Findings, path: str, status: os.stat_result, link: bool) -> bool:
        is_link = stat.S_ISLNK(status.st_mode)
        if link and not is_link:
            text = f"a {kind_of(status)} where a claim belongs, which is a symbolic link; nobody has this attempt"
            findings.error("type", path, text, "see who made it, and remove it")
            return False
        if status.st_uid != self.uid:
            text = f"it belongs to user {status.st_uid}, not to you ({self.uid}), and is not trusted"
            findings.error("foreign", path, text, "see who made it, and remove it")
            return False
        if status.st_mode & OTHERS_MAY_WRITE and not is_link:
            remedy = f"chmod go-w {shlex.quote(path)}, if you trust what is in it"
            findings.error("exposed", path, "others may write to it, so it is not trusted", remedy)
            return False
        return True

    def must_be(self, findings: Findings, kind: str, path: str, status: os.stat_result | None) -> bool:
        """Whether this is a `file` or a `folder`; anything else becomes a finding, nothing at all does not."""
        if status is None or kind_of(status) == kind:
            return status is not None
        text = f"a {kind_of(status)} where a {kind} belongs; it is neither read nor followed"
        findings.error("type", path, text, "see who made it, and remove it")
        return False

    def name_is_wrong(self, path: str) -> None:
        """A name that no version of this program makes."""
        text = f"{os.path.basename(path)!r} is no name that a spool holds; it is passed over"
        self.findings.warning("name", path, text, "move it elsewhere, or remove it")

    def json(self, path: str) -> dict[str, object] | None:
        """A JSON file that must be there; None, and a finding, when it can't be used."""
        try:
            return read_json(path)
        except FileNotFoundError:
            self.findings.error("missing", path, "it is missing", "")
        except (CorruptFileError, ForeignFileError) as error:
            self.findings.error("corrupt", path, error.why, "put back a copy, if there is one")
        except OSError as error:
            self.findings.error("unreadable", path, f"cannot be read: {error.strerror}", f"ls -l {shlex.quote(path)}")
        return None

    # -- leftovers ------------------------------------------------------------------------------------------------

    def _is_leftover(self, findings: Findings, folder: str, name: str, status: os.stat_result, live: bool) -> bool:
        """Whether this is a writer's temporary file; one that a dead writer left is a finding."""
        if not name.startswith("."):
            return False
        path = f"{folder}/{name}"
        if match := TEMPORARY.fullmatch(name):
            if not self._is_young_or_alive(int(match[1]), status):
                text = f"left by process {match[1]}, which is gone; nobody reads it"
                findings.warning("leftover", path, text, "", lambda: _remove(path))
            return True
        if match := RESERVED.fullmatch(name):
            if not live and not self.is_young(status) and not os.path.lexists(f"{folder}/{match[1]}"):
                text = f"its writer died before {match[1]} was there, and keeps others from writing that"
                findings.error("reservation", path, text, "", lambda: _remove(path))
            return True
        return False

    def _is_young_or_alive(self, pid: int, status: os.stat_result) -> bool:
        return self.is_young(status) or process_exists(pid) or pid in self._worker_pids


def _remove(path: str) -> bool:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
    return True


def _clock_of(folder: str) -> float:
    """The time on the clock that sets the times of files in a folder; this host's where none can be made."""
    path = f"{folder}/.tmp-{unique()}"
    try:
        write_exclusive(path, b"")
        try:
            return os.stat(path).st_mtime
        finally:
            os.unlink(path)
    except OSError:
        return time.time()


# -- processes of this host -----------------------------------------------------------------------------------------


def open_for_writing(folder: str) -> dict[str, int]:
    """Files below a folder that processes of this user and host have open for writing, and one of the processes.

    A file that was removed is among them under the name that it had. Empty where there is no /proc.
    """
    found: dict[str, int] = {}
    around = os.path.realpath(folder)
    try:
        pids = [name for name in os.listdir("/proc") if name.isdecimal() and int(name) != os.getpid()]
    except OSError:
        return found
    for pid in pids:
        try:
            numbers = os.listdir(f"/proc/{pid}/fd")
        except OSError:  # gone, or another user's
            continue
        for number in numbers:
            path = _written(pid, number, around)
            if path:
                found[folder + path[len(around) :]] = int(pid)
    return found


def _written(pid: str, number: str, around: str) -> str:
    try:
        path = os.readlink(f"/proc/{pid}/fd/{number}")
        if not path.startswith(f"{around}/"):
            return ""
        with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as file:
            flags = next(int(line.split()[1], 8) for line in file if line.startswith("flags:"))
    except (OSError, ValueError, StopIteration):
        return ""
    return path.removesuffix(" (deleted)") if flags & os.O_ACCMODE != os.O_RDONLY else ""
