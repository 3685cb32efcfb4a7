"""A run into its pack and back, so that a kill at any moment leaves the folder, the pack, or both.

pack      write a temporary file --> read it again, all of it --> see that the folder has not changed --> name it -->
          move the folder aside, remove it
unpack    restore into a folder aside --> name it --> remove the pack

Where both are there the folder counts, and the next call of either finishes. A run is packed when nothing will happen
in it any more: it has ended, nobody drives it, no job waits, no worker is at one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from filelock import lock_descriptor

from spool import inspect, tickets
from spool.errors import CorruptFileError, SpoolError
from spool.layout import REMOVED, UNPACKING, RunFiles, SpoolFiles
from spool.pack import Pack, Seal, difference, restore
from spool.packwrite import about, write
from spool.publish import read_quietly, sweep, sync_folder, unique
from spool.run import CoordinatorLock, fanouts
from spool.tree import Tree

MOMENT = 2 * 10**9
"""Nanoseconds: what was changed so shortly before a run is packed may be changed again without a later time of change
(file systems count in steps), so such a run is compared with its pack byte by byte.
"""


@dataclass(frozen=True, slots=True)
class Packed:
    """A run that was packed or unpacked.

    path: of the pack. files, bytes: in the run's folder; size: bytes of the pack. folder, pack: which of the two is
    there now.
    """

    run: RunFiles
    path: str
    files: int
    bytes: int
    size: int
    folder: bool
    pack: bool


def pack_run(spool: SpoolFiles, run: RunFiles, *, keep: bool = False) -> Packed:
    """Make a pack of a run and remove its folder, unless that is to be kept.

    Raises RunBusyError when somebody drives it, SpoolError when it has not ended or holds what no pack can,
    OSError when the disk refuses: then the folder is as it was.
    """
    path = spool.pack(run.name)
    lock = CoordinatorLock(run, sign=False)
    try:
        _must_have_ended(spool, run)
        with alone(spool):
            if not _is_packed(path, run):
                _write(spool, run, path)
            sync_folder(spool.packed)
            if not keep:
                remove_folder(spool, run)
    finally:
        lock.release()
    return _told(run, path, folder=keep)


def remove_folder(spool: SpoolFiles, run: RunFiles) -> None:
    """Remove the folder of a run: moved aside first, so that nobody sees half of it.

    Only for who holds the run's lock and is `alone`.
    """
    aside = spool.removed(run.name)
    os.rename(run.path, aside)
    shutil.rmtree(aside)


def _must_have_ended(spool: SpoolFiles, run: RunFiles) -> None:
    record = read_quietly(run.run)
    if not record.get("outcome"):
        raise SpoolError(
            f"run {run.name} has not ended, so it is not packed; go on with it (tea resume {run.name}), or give it "
            f"up (tea spool cancel {run.name})"
        )
    waiting = sum(len(tickets.names(fanout, "todo")) for fanout in fanouts(run.fanouts))
    if waiting:
        raise SpoolError(
            f"run {run.name} has {waiting:,} {'job' if waiting == 1 else 'jobs'} to do, so it is not packed; go on "
            f"with it (tea resume {run.name}), or give them up (tea spool cancel {run.name})"
        )
    for worker in inspect.workers(spool):
        if worker.alive and worker.running and worker.running.job.path.startswith(f"{run.path}/"):
            who = worker.running.claimant or worker.name
            raise SpoolError(f"run {run.name} is not packed: {who} is at {worker.running.job.path}; wait for it")


def _is_packed(path: str, run: RunFiles) -> bool:
    """Whether an earlier call was killed when it had packed the run as it is now, or was to keep the folder."""
    try:
        with Pack(path) as pack:
            return pack.name == run.name and difference(pack, run.path) is None
    except (FileNotFoundError, CorruptFileError):
        return False


def _write(spool: SpoolFiles, run: RunFiles, path: str) -> None:
    temporary = f"{spool.packed}/.tmp-{unique()}"
    try:
        tree = Tree(run.path)
        with open(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            began = os.fstat(file.fileno()).st_ctime_ns
            seals = write(tree, run, file, about(run))
            file.flush()
            os.fsync(file.fileno())
        with Pack(temporary) as pack:
            _must_be_readable(pack, seals)
            changed = tree.changed() if tree.newest < began - MOMENT else difference(pack, run.path)
        if changed is not None:
            raise SpoolError(f"{run.path}/{changed}: it has changed while the run was packed; try again")
        os.rename(temporary, path)
    except BaseException:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise


def _must_be_readable(pack: Pack, seals: list[Seal]) -> None:
    """What is read is what was written, to the last byte, and every entry in it is understood as it was meant."""
    for number, seal in enumerate(seals):
        if pack.seal(number) != seal:
            raise SpoolError(f"{pack.path}: it is not read as it was written; is the disk, or the memory, in order?")


def unpack_run(spool: SpoolFiles, path: str, *, keep: bool = False) -> Packed:
    """Make the folder of a run from a pack, as it was to the last byte, and remove the pack unless it is to be kept.

    A pack that lies elsewhere than in the spool stays in any case. Raises FileNotFoundError, ForeignFileError,
    CorruptFileError, SpoolError when there is no room or the run is here already, OSError when the disk refuses.
    """
    with Pack(path) as pack, alone(spool):
        run, ours = spool.run(pack.name), os.path.abspath(path) == os.path.abspath(spool.pack(pack.name))
        if os.path.dirname(os.path.abspath(path)) == os.path.abspath(spool.packed) and not ours:
            raise CorruptFileError(path, f"the pack of another run, {pack.name}; it was renamed")
        if not os.path.lexists(run.path):
            _restore(spool, pack, run)
        elif not ours:
            raise SpoolError(f"run {run.name} is in {spool.path} already")
        told = _told(run, path, folder=True)
        if ours and not keep:
            os.sync()  # what is restored was not synced file by file
            os.unlink(path)
    return Packed(told.run, path, pack.files, pack.bytes, told.size, True, keep or not ours)


def _restore(spool: SpoolFiles, pack: Pack, run: RunFiles) -> None:
    aside = spool.unpacking(run.name)
    os.mkdir(aside, 0o700)
    try:
        restore(pack, pack.numbers, aside)
        os.rename(aside, run.path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


@contextmanager
def alone(spool: SpoolFiles) -> Iterator[None]:
    """Nobody else packs, unpacks or removes runs in this spool meanwhile; what a killed one has left is removed."""
    os.makedirs(spool.packed, 0o700, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(spool.packing_lock, flags, 0o600), "rb") as lock:
        lock_descriptor(lock.fileno(), blocking=True)
        sweep(spool.packed)
        for name in os.listdir(spool.runs):
            if UNPACKING.fullmatch(name) or REMOVED.fullmatch(name):
                shutil.rmtree(f"{spool.runs}/{name}", ignore_errors=True)
        yield


def _told(run: RunFiles, path: str, *, folder: bool) -> Packed:
    with Pack(path) as pack:
        return Packed(run, path, pack.files, pack.bytes, os.stat(path).st_size, folder, True)


def remove_pack(spool: SpoolFiles, run: str) -> None:
    """Remove the pack of a run, if there is one. Raises OSError when the disk refuses."""
    with alone(spool):
        try:
            os.unlink(spool.pack(run))
        except FileNotFoundError:
            pass
