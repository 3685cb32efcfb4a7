"""Packed runs, readable like any other: what is asked for is restored into a private temporary folder.

    find_run, find_job --> open_run: what is little even in a large run --> fetch: a few hundred jobs at a time

Names of tickets and jobs are not restored but known (`listed`), and so is a little of each job (`brief`). The
temporary folder goes when this process ends; one that a killed process left goes when the next run is opened. `home`
tells where a path would be in the spool: nobody is shown a path that will be gone. Nothing that is written there
would last, so whoever changes runs asks `must_not_be_packed` first.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from typing import TYPE_CHECKING

from spool.errors import PackedRunError
from spool.layout import JobFiles, RunFiles, SpoolFiles, is_name
from spool.publish import process_exists

if TYPE_CHECKING:
    from spool.brief import Brief

_FOLDER = re.compile(r"tea-opened-([1-9][0-9]*)-.+")


class _Opened:
    """A packed run of which parts are restored."""

    def __init__(self, spool: SpoolFiles, name: str) -> None:
        from spool.pack import Pack  # every worker imports this module, and hardly any a pack

        self.spool, self.pack, self.process = spool, Pack(spool.pack(name)), os.getpid()
        self.there = SpoolFiles(tempfile.mkdtemp(prefix=f"tea-opened-{os.getpid()}-"))
        self.run = self.there.run(name)
        self._fetched = {0}
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        os.makedirs(self.run.path, 0o700)
        self.listed = {f"{self.run.path}/{folder}": names for folder, names in self.pack.names.items()}
        self._seen: tuple[int, dict[str, Brief]] = (0, {})
        self._restore([0])

    def close(self) -> None:
        """Remove what was restored."""
        self.pack.__exit__()
        shutil.rmtree(self.there.path, ignore_errors=True)

    def fetch(self, numbers: set[int]) -> None:
        wanted = sorted(numbers - self._fetched)
        if wanted:
            self._restore(wanted, parents=True)
            self._fetched |= numbers

    def _restore(self, numbers: list[int], *, parents: bool = False) -> None:
        from spool.pack import restore

        restore(self.pack, numbers, self.run.path, parents=parents)

    def brief(self, path: str) -> Brief | None:
        """A job in brief; those that are in its chunk are kept at hand."""
        inside = path.removeprefix(f"{self.run.path}/")
        number = self.pack.chunk_of(inside)
        if self._seen[0] != number:
            self._seen = (number, self.pack.briefs(number))
        return self._seen[1].get(inside)

    def chunks_of(self, path: str) -> set[int]:
        """The chunks that have a job, and all jobs inside it."""
        job = path.removeprefix(f"{self.run.path}/")
        return set(range(self.pack.chunk_of(job), self.pack.chunk_of(f"{job}/\U0010ffff") + 1))


_opened: dict[str, _Opened] = {}
"""By the temporary folder."""


def packed_runs(spool: SpoolFiles) -> list[str]:
    """The names of runs that are packed, and of which there is no folder; oldest first."""
    try:
        names = [name.removesuffix(".zip") for name in os.listdir(spool.packed) if name.endswith(".zip")]
    except FileNotFoundError:
        return []
    return sorted(name for name in names if is_name(name) and not os.path.lexists(spool.run(name).path))


def is_packed(spool: SpoolFiles, run: str) -> bool:
    """Whether a run is there as a pack only."""
    return not os.path.lexists(spool.run(run).path) and os.path.lexists(spool.pack(run))


def open_run(spool: SpoolFiles, name: str, *, lazily: bool = False) -> RunFiles:
    """A run that is packed, for reading only. lazily: without what is in its jobs, which `fetch` brings.

    Raises what `Pack` and `restore` raise.
    """
    found = next((one for one in _opened.values() if one.run.name == name and one.spool.path == spool.path), None)
    if found is None:
        _sweep()
        if not _opened:
            atexit.register(close_all)
        found = _Opened(spool, name)
        _opened[found.there.path] = found
    if not lazily:
        found.fetch(set(found.pack.numbers))
    return found.run


def fetch(job: JobFiles) -> None:
    """Restore the files of a job, and of jobs inside it, if it is of a run that is packed and they are not yet."""
    if _opened and (one := _around(job.path)) is not None:
        one.fetch(one.chunks_of(job.path))


def listed(folder: str) -> list[str] | None:
    """The names in a folder of tickets or jobs of a packed run; None for any other folder, which is to be listed."""
    if not _opened or (one := _around(folder)) is None:
        return None
    return one.listed.get(folder, [])


def brief(job: JobFiles) -> Brief | None:
    """A job of a packed run in brief; None for any other job, and for one of which the files are to be looked at."""
    one = _around(job.path) if _opened else None
    return None if one is None else one.brief(job.path)


def _around(path: str) -> _Opened | None:
    return next((one for folder, one in _opened.items() if path.startswith(f"{folder}/")), None)


def origin(spool: str) -> str:
    """The spool that a run was opened from; the same for any other."""
    return _opened[spool].spool.path if spool in _opened else spool


def home(path: str) -> str:
    """Where a path of an opened run would be in its spool; the same for any other."""
    one = _around(path) if _opened else None
    return path if one is None else one.spool.path + path.removeprefix(one.there.path)


def is_opened(path: str) -> bool:
    """Whether this is a path in what was restored of a packed run."""
    return bool(_opened) and _around(path) is not None


def must_not_be_packed(run: RunFiles) -> None:
    """Raises PackedRunError for a run that was opened for reading."""
    if is_opened(run.path):
        raise PackedRunError(run.name)


def close_all() -> None:
    """Remove what was restored."""
    while _opened and next(iter(_opened.values())).process == os.getpid():  # not in a fork
        _opened.popitem()[1].close()


def _sweep() -> None:
    """Remove what killed processes of this user have left."""
    folder = tempfile.gettempdir()
    for name in os.listdir(folder):
        match, path = _FOLDER.fullmatch(name), f"{folder}/{name}"
        if match and not process_exists(int(match[1])):
            shutil.rmtree(path, ignore_errors=True)  # another process may do so, too, or it is another user's
