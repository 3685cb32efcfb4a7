"""Alive or dead: real processes, real signals; other hosts and other boots by what their folders say."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from spool import worker as module
from spool.claim import Claimant, host_name
from spool.layout import SpoolFiles
from spool.run import open_spool
from spool.worker import LEASE, Observer, Worker, boot_id, is_locked, read_now, this_worker
from tests.spool.kit import line, python, raises_errno
from tests.support import wait_until

WORKER = """
import sys, os
from spool.layout import SpoolFiles
from spool.worker import Worker
worker = Worker(SpoolFiles(sys.argv[1]), lease=float(sys.argv[2]))
worker.doing("/a path/fanouts/001-x 0000-b 1 0.0 0.0")
print(worker.text, flush=True)
if len(sys.argv) > 3:
    child = os.fork()
    if child == 0:
        import time
        os.close(0); os.close(1)
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
sys.stdin.readline()
worker.close()
"""


@pytest.fixture
def spool(spool_dir: Path) -> SpoolFiles:
    return open_spool(str(spool_dir))


@pytest.fixture
def start(spool: SpoolFiles) -> Iterator[Callable[..., tuple[subprocess.Popen[str], str]]]:
    """Start a worker process: it and its claimant."""
    started = []

    def start_one(*more: str, lease: float = LEASE) -> tuple[subprocess.Popen[str], str]:
        process = python(WORKER, spool.path, str(lease), *more)
        started.append(process)
        return process, line(process)

    yield start_one
    for process in started:
        process.kill()
        process.communicate(timeout=240)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def forge(spool: SpoolFiles, **members: Any) -> str:
    """A worker of another host, as its folder would look; its claimant."""
    claimant = Claimant("eve", "elsewhere", 4242, "0123456789ab")
    files = spool.worker(claimant.worker)
    os.mkdir(files.path)
    record = {"host": "elsewhere", "boot_id": "another", "lease": 30.0, "locked": True, **members}
    Path(files.worker).write_text(json.dumps(record))
    Path(files.lock).touch()
    Path(files.beat).write_text("1\n")
    for path in (files.worker, files.beat):
        os.chmod(path, 0o600)
    return str(claimant)


def beat(spool: SpoolFiles, claimant: str, text: str) -> None:
    files = spool.worker(Claimant.parse(claimant).worker)  # type: ignore[union-attr]
    Path(files.beat).write_text(text)
    os.chmod(files.beat, 0o600)


def folder(spool: SpoolFiles, claimant: str) -> Path:
    return Path(spool.worker(Claimant.parse(claimant).worker).path)  # type: ignore[union-attr]


# -- on this host -----------------------------------------------------------------------------------------------


def test_a_worker_that_runs_is_alive_and_one_that_was_killed_is_dead(spool: SpoolFiles, start: Any) -> None:
    process, claimant = start()
    observer = Observer(spool)
    assert observer.is_alive(claimant)
    assert observer.dead_workers() == []
    process.kill()
    process.wait(timeout=240)
    assert not observer.is_alive(claimant)  # at once: no lease has run out
    assert observer.dead_workers() == [folder(spool, claimant).name]
    assert not Observer(spool).is_alive(claimant)


def test_a_stopped_worker_of_this_host_lives_for_a_lease_and_again_when_it_goes_on(
    spool: SpoolFiles, start: Any
) -> None:
    """It holds its lock, but does nothing; its results are fenced when it comes back."""
    process, claimant = start()
    clock = Clock()
    observer = Observer(spool, clock)
    os.kill(process.pid, signal.SIGSTOP)
    wait_until(lambda: module.is_stopped(process.pid))
    try:
        assert observer.is_alive(claimant)
        clock.now += LEASE - 1
        assert observer.is_alive(claimant)
        clock.now += 1
        assert not observer.is_alive(claimant)
    finally:
        os.kill(process.pid, signal.SIGCONT)
    wait_until(lambda: observer.is_alive(claimant))
    clock.now += 10 * LEASE
    assert observer.is_alive(claimant)


def test_a_worker_that_ended_in_order_leaves_nothing_and_is_dead(spool: SpoolFiles, start: Any) -> None:
    process, claimant = start()
    observer = Observer(spool)
    assert observer.is_alive(claimant)
    process.communicate("\n", timeout=240)
    assert process.returncode == 0
    assert os.listdir(spool.workers) == []
    assert not observer.is_alive(claimant)


def test_a_child_that_inherited_the_lock_keeps_its_worker_alive(spool: SpoolFiles, start: Any) -> None:
    """The child may still be running the job: nobody may start it a second time."""
    process, claimant = start("child")
    child = int(line(process))
    observer = Observer(spool)
    process.kill()
    process.wait(timeout=240)
    assert observer.is_alive(claimant)
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: not observer.is_alive(claimant))


def test_a_worker_of_another_host_that_was_looked_at_too_early_is_alive(
    spool: SpoolFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over NFS its record is missing for up to a minute to who looked when it was not there, until a listing."""
    claimant = forge(spool)
    listed: set[str] = set()
    names, read = os.listdir, module.read_json

    def listing(path: str) -> list[str]:
        listed.add(path)
        return names(path)

    def over_nfs(path: str, most: int) -> dict[str, Any]:
        if os.path.dirname(path) not in listed:
            raise FileNotFoundError(path)
        return read(path, most)

    monkeypatch.setattr(os, "listdir", listing)
    monkeypatch.setattr(module, "read_json", over_nfs)
    assert Observer(spool).is_alive(claimant)


def test_a_file_system_that_was_away_for_all_has_killed_nobody(
    spool: SpoolFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file server that is started again holds up every worker: who is served first must not bury the others."""
    answers, asked = threading.Event(), threading.Event()
    real = module.replace

    def waits(path: str, data: bytes) -> None:
        if data != b"1\n":
            asked.set()
            assert answers.wait(240)
        real(path, data)

    claimant = forge(spool, lease=0.3)
    monkeypatch.setattr(module, "replace", waits)
    with Worker(spool, lease=0.3) as worker:
        observer = Observer(spool)
        assert observer.is_alive(claimant)
        assert asked.wait(240)
        begun = time.monotonic()
        wait_until(lambda: time.monotonic() - begun > 0.4)
        assert observer.is_alive(claimant)
        answers.set()
        wait_until(lambda: not observer.is_alive(claimant))  # a lease after everything works again
        assert int(Path(worker.files.beat).read_text()) > 1


def test_a_folder_that_open_files_keep_goes_when_they_are_closed(
    spool: SpoolFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over NFS a removed file that is open only gets another name, `.nfs...`, and its folder stays."""
    remove = shutil.rmtree

    def as_over_nfs(path: str, ignore_errors: bool) -> None:
        opened = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
        kept = any(os.path.dirname(one) == os.path.realpath(path) for one in opened)
        remove(path, ignore_errors)
        if kept:
            os.mkdir(path, 0o700)

    monkeypatch.setattr(shutil, "rmtree", as_over_nfs)
    with Worker(spool) as worker:
        assert os.path.isdir(worker.files.path)
    assert not os.path.lexists(worker.files.path)


def test_a_folder_that_is_gone_is_a_dead_worker(spool: SpoolFiles, start: Any) -> None:
    _, claimant = start(lease=1200 * LEASE)  # a beat that comes now would keep the folder
    observer = Observer(spool)
    assert observer.is_alive(claimant)
    shutil.rmtree(folder(spool, claimant))
    assert not observer.is_alive(claimant)


def test_another_boot_of_this_host_is_dead_whatever_its_pid_and_beat(spool: SpoolFiles) -> None:
    """A pid is used again after a reboot, and a beat is what it was."""
    claimant = forge(spool, host=host_name(), boot_id="before the reboot", pid=os.getpid())
    assert not Observer(spool).is_alive(claimant)


def test_another_machine_of_the_same_name_goes_by_its_beat(spool: SpoolFiles) -> None:
    """Two machines may bear one name; what looks like an earlier boot of this one is a boot of the other."""
    clock = Clock()
    claimant = forge(spool, host=host_name(), machine="another", boot_id="its boot", pid=os.getpid())
    observer = Observer(spool, clock)
    assert observer.is_alive(claimant)
    clock.now += 29
    assert observer.is_alive(claimant)
    clock.now += 2
    assert not observer.is_alive(claimant)
    observer.bury()
    assert folder(spool, claimant).is_dir()  # its own machine clears up


def test_this_boot_goes_by_the_lock_whatever_the_pid(spool: SpoolFiles) -> None:
    claimant = forge(spool, host=host_name(), boot_id=boot_id(), pid=os.getpid())
    assert not Observer(spool).is_alive(claimant)
    lock = f"{folder(spool, claimant)}/lock"
    holder = subprocess.Popen(["flock", lock, "sh", "-c", "echo held; read x"], stdin=-1, stdout=-1, text=True)
    assert line(holder) == "held"
    assert Observer(spool).is_alive(claimant)
    holder.communicate("\n", timeout=240)
    assert not Observer(spool).is_alive(claimant)


@pytest.mark.parametrize("text", ["", "?Permission denied", "nonsense", "../../x@h:1:aaaaaaaa"])
def test_a_text_that_names_no_worker_is_dead(spool: SpoolFiles, text: str) -> None:
    assert not Observer(spool).is_alive(text)


# -- other hosts ------------------------------------------------------------------------------------------------


def test_a_worker_elsewhere_lives_as_long_as_its_beat_changes(spool: SpoolFiles) -> None:
    claimant, clock = forge(spool), Clock()
    observer = Observer(spool, clock)
    for number in range(10):
        beat(spool, claimant, f"{number}\n")
        assert observer.is_alive(claimant)
        clock.now += 29
        assert observer.is_alive(claimant)


def test_a_worker_elsewhere_is_dead_a_lease_after_its_last_beat_was_seen(spool: SpoolFiles) -> None:
    """On the observer's own clock, from when it looked first: what the files' times say does not matter."""
    claimant, clock = forge(spool), Clock()
    os.utime(f"{folder(spool, claimant)}/beat", (0, 0))
    observer = Observer(spool, clock)
    assert observer.is_alive(claimant)
    clock.now += 29.9
    assert observer.is_alive(claimant)
    clock.now += 0.2
    assert not observer.is_alive(claimant)
    beat(spool, claimant, "woken\n")
    assert observer.is_alive(claimant)


def test_each_worker_says_how_long_its_lease_is(spool: SpoolFiles) -> None:
    claimant, clock = forge(spool, lease=5), Clock()
    observer = Observer(spool, clock)
    assert observer.is_alive(claimant)
    clock.now += 5
    assert not observer.is_alive(claimant)


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b'{"lease": "long"}', b'{"lease": null}', b'{"host": 1}'])
def test_a_worker_whose_record_cannot_be_read_goes_by_its_beat(spool: SpoolFiles, record: bytes) -> None:
    claimant, clock = forge(spool), Clock()
    Path(f"{folder(spool, claimant)}/worker.json").write_bytes(record)
    observer = Observer(spool, clock)
    assert observer.is_alive(claimant)
    clock.now += LEASE
    assert not observer.is_alive(claimant)


@pytest.mark.parametrize("name", ["beat", "now", "worker.json"])
@pytest.mark.parametrize("plant", [lambda p: os.mkfifo(p, 0o600), lambda p: os.symlink("/dev/zero", p), os.mkdir])
def test_what_is_planted_in_a_workers_folder_holds_nobody_up(spool: SpoolFiles, name: str, plant: Any) -> None:
    claimant, clock = forge(spool), Clock()
    path = folder(spool, claimant) / name
    path.unlink(missing_ok=True)
    plant(str(path))
    observer = Observer(spool, clock)
    assert observer.is_alive(claimant)
    clock.now += LEASE
    assert not observer.is_alive(claimant)
    assert read_now(spool.worker(path.parent.name)) == ""


def test_a_passing_fault_is_no_death(spool: SpoolFiles, start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, claimant = start()
    for number in (errno.ESTALE, errno.EIO):
        monkeypatch.setattr(os, "stat", raises_errno(number))
        assert Observer(spool).is_alive(claimant)
        monkeypatch.undo()


# -- file systems without locks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_without_locks_the_beat_alone_tells_and_nothing_takes_the_locks_place(
    spool: SpoolFiles, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(module, "lock_descriptor", raises_errno(number))
    clock = Clock()
    with Worker(spool, lease=1200 * LEASE) as worker:  # beats only when it is told to
        assert worker.lock_fd is None
        assert sorted(os.listdir(worker.files.path)) == ["beat", "lock", "now", "worker.json"]
        assert os.path.getsize(worker.files.lock) == 0
        assert json.loads(Path(worker.files.worker).read_bytes())["locked"] is False
        observer = Observer(spool, clock)
        assert observer.is_alive(worker.text)
        clock.now += 1200 * LEASE - 1
        assert observer.is_alive(worker.text)
        clock.now += 1
        assert not observer.is_alive(worker.text)
        worker._beat()
        assert observer.is_alive(worker.text)


def test_a_lock_that_the_observer_cannot_ask_leaves_it_to_the_beat(
    spool: SpoolFiles, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, claimant = start()
    clock = Clock()
    observer = Observer(spool, clock)
    process.kill()
    process.wait(timeout=240)
    monkeypatch.setattr(module, "lock_descriptor", raises_errno(errno.ENOLCK))
    assert observer.is_alive(claimant)
    clock.now += LEASE
    assert not observer.is_alive(claimant)


# -- being a worker ---------------------------------------------------------------------------------------------


def test_a_worker_beats_three_times_a_lease(spool: SpoolFiles) -> None:
    with Worker(spool, lease=0.06) as worker:
        seen = Path(worker.files.beat).read_bytes()
        wait_until(lambda: Path(worker.files.beat).read_bytes() != seen)
    assert os.listdir(spool.workers) == []


def test_a_worker_that_ends_takes_its_record_away_first(spool: SpoolFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its lock, but with its record, it would look killed to who comes by."""
    seen: list[list[str]] = []

    def remove(path: str, **options: Any) -> None:
        seen.append(sorted(os.listdir(path)))
        shutil.rmtree(path, **options)

    monkeypatch.setattr(module, "shutil", SimpleNamespace(rmtree=remove))
    Worker(spool, lease=1200 * LEASE).close()
    assert seen == [["beat", "lock", "now"]]
    assert os.listdir(spool.workers) == []


def test_a_probe_does_not_disturb_a_worker_that_is_just_being_made(
    spool: SpoolFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An observer holds the new lock for a moment to see whether anybody does."""
    real = module.lock_descriptor
    probes: list[int] = []

    def probed(fd: int, **options: Any) -> bool:
        monkeypatch.setattr(module, "lock_descriptor", real)
        path = os.readlink(f"/proc/self/fd/{fd}")
        probe = subprocess.Popen(["flock", path, "sh", "-c", "echo held; read x"], stdin=-1, stdout=-1, text=True)
        assert line(probe) == "held"
        probes.append(probe.pid)
        assert real(fd, blocking=False) is False
        probe.communicate("\n", timeout=240)
        return real(fd, **options)

    monkeypatch.setattr(module, "lock_descriptor", probed)
    with Worker(spool) as worker:
        assert probes
        assert is_locked(worker.files.lock) is True


def test_what_a_worker_does_is_read_whole_whatever_its_length(spool: SpoolFiles) -> None:
    with Worker(spool) as worker:
        assert read_now(worker.files) == ""
        for text in ("short", "/" + "long/" * 500 + "é 0000-b 1 2.0 3.0", "short again", ""):
            worker.doing(text)
            assert read_now(worker.files) == text


def test_a_process_is_one_worker_of_a_spool(spool: SpoolFiles) -> None:
    worker = this_worker(spool)
    try:
        assert this_worker(spool) is worker
        assert Observer(spool).is_alive(worker.text)
        shutil.rmtree(spool.workers)
        assert this_worker(spool) is not worker
    finally:
        this_worker(spool).close()


def test_a_forked_child_does_not_end_its_parents_registration(spool: SpoolFiles) -> None:
    with Worker(spool) as worker:
        pid = os.fork()
        if pid == 0:
            worker.close()
            os._exit(0)
        os.waitpid(pid, 0)
        assert Observer(spool).is_alive(worker.text)
        assert os.path.isdir(worker.files.path)


@pytest.mark.parametrize("plant", [lambda p: os.symlink("/etc/passwd", p), os.mkdir])
def test_a_lock_that_is_no_file_is_not_followed(tmp_path: Path, plant: Any) -> None:
    plant(f"{tmp_path}/lock")
    assert is_locked(f"{tmp_path}/lock") is None
    assert is_locked(f"{tmp_path}/absent") is False
