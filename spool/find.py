"""From what a person types to a run, a fan-out or a job, and back to the shortest name of it.

A job is named by its path, by `RUN/FANOUT/JOB`, or by any tail of that which fits only one: `001-split/0007-scale`,
`0007-scale`, `0007`, `7`, `scale`. The newest run is searched first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence

from spool.errors import AmbiguousNameError, UnknownNameError
from spool.layout import FanOutFiles, JobFiles, RunFiles, SpoolFiles, is_name
from spool.opened import fetch, is_packed, listed, open_run, origin
from spool.run import all_fanouts, fanouts, find_name, find_spool, jobs_of, readable, run_names

_PATH = re.compile(r"(?P<spool>.*)/runs/(?P<run>[^/]+)(?P<rest>(?:/fanouts/[^/]+(?:/jobs/[^/]+)?)*)/*")
_FOLDERS = frozenset({"runs", "fanouts", "jobs"})
_SHOWN = 5


def _match(path: str) -> re.Match[str]:
    match = _PATH.fullmatch(path)
    if match is None:
        raise UnknownNameError(f"{path}: not inside a run of a spool")
    return match


def spool_of(path: str) -> SpoolFiles:
    """The spool around a run, fan-out or job; of one that is packed the spool that has the pack.

    Raises UnknownNameError for a path elsewhere.
    """
    return SpoolFiles(origin(_match(path)["spool"]))


def run_of(path: str) -> RunFiles:
    """The run around a fan-out or job. Raises UnknownNameError for a path elsewhere."""
    match = _match(path)
    return SpoolFiles(match["spool"]).run(match["run"])


def short_path(path: str) -> str:
    """`RUN/FANOUT/JOB` for the path of a job, likewise for a run and a fan-out. Raises UnknownNameError."""
    match = _match(path)
    return "/".join([match["run"], *_named(match["rest"])])


def in_run(path: str) -> str:
    """`FANOUT/JOB`: the short path without its run. Raises UnknownNameError."""
    return "/".join(_named(_match(path)["rest"]))


def _named(text: str) -> list[str]:
    return [part for part in text.split("/") if part and part not in _FOLDERS]


def fanout_of(job: JobFiles) -> FanOutFiles:
    """The fan-out that a job belongs to."""
    return FanOutFiles(os.path.dirname(os.path.dirname(job.path)))


def run_at(spool: str, run: str | None) -> tuple[str, str | None]:
    """The spool and the name of a run that a person named, who may have given a path: that knows its spool. The path
    of a spool means its newest run.
    """
    if run is not None and (os.path.isdir(run) or "/" in run):
        path = os.path.abspath(run)
        if os.path.exists(SpoolFiles(path).spool):
            return path, None
        match = _PATH.fullmatch(path)
        if (
            match
            and not match["rest"]
            and (os.path.isdir(path) or is_packed(SpoolFiles(match["spool"]), match["run"]))
        ):
            return match["spool"], match["run"]
    return spool, run


# -- jobs -------------------------------------------------------------------------------------------------------


def find_job(spool: SpoolFiles | None, text: str) -> JobFiles:
    """The job that a person means, also one of a packed run; `spool` may be None when `text` is a path.

    Raises UnknownNameError when there is none, or more than one.
    """
    path = os.path.abspath(text)
    match = _PATH.fullmatch(path)
    if match and is_packed(SpoolFiles(match["spool"]), match["run"]):
        run = open_run(SpoolFiles(match["spool"]), match["run"], lazily=True)
        path = run.path + match["rest"]
        fetch(JobFiles(path))
    if match and os.path.lexists(JobFiles(path).job):
        return JobFiles(path)
    if spool is None:
        raise UnknownNameError(f"{text}: no job directory, and no spool to search; name one with --spool DIR")
    wanted = _named(text)
    if not wanted:
        raise UnknownNameError(f"'{text}' names no job; try `tea spool list`")
    known = run_names(spool)
    if not known:
        find_name(spool)  # says that there are no runs
    for name in reversed(known):
        found = _in_run(readable(spool, name, lazily=True), wanted)
        if found is not None:
            fetch(found)
            return found
    raise UnknownNameError(f"{spool.path}: no job '{text}' in any run; `tea spool list` names the jobs of the newest")


def job_at(spool: str, text: str) -> JobFiles:
    """The job that a person means, in the spool at a path; a job that is named by its own path needs no spool.

    Raises UnknownNameError, SpoolError.
    """
    files = SpoolFiles(spool)
    return find_job(find_spool(spool) if os.path.exists(files.spool) else None, text)


def _in_run(run: RunFiles, wanted: Sequence[str]) -> JobFiles | None:
    """The one job of a run that fits; None when none does. Raises UnknownNameError when several do.

    Inside branches is looked last: that takes a look at every job.
    """
    if len(wanted) > 2 and wanted[0] in run.name:
        found = _in_run(run, wanted[1:])
        if found is not None:
            return found
    for inside in (False, True):
        listed = list(all_fanouts(run)) if inside else fanouts(run.fanouts)
        for fits in (_exactly, _by_number, _loosely):
            found = _one(run, [job for one in listed for job in _jobs_fitting(one, wanted, fits)], wanted)
            if found is not None:
                return found
    return None


def _one(run: RunFiles, found: list[JobFiles], wanted: Sequence[str]) -> JobFiles | None:
    if len(found) > 1:
        some = ", ".join(in_run(job.path) for job in found[:_SHOWN])
        more = ", ..." if len(found) > _SHOWN else ""
        raise AmbiguousNameError(f"run {run.name}: '{'/'.join(wanted)}' may be any of {some}{more}; say which")
    return found[0] if found else None


def _jobs_fitting(fanout: FanOutFiles, wanted: Sequence[str], fits: Callable[[str, str], bool]) -> Iterator[JobFiles]:
    above = _named(_match(fanout.path)["rest"])
    last, rest = wanted[-1], wanted[:-1]
    if len(rest) > len(above):
        return
    if not all(fits(name, part) for name, part in zip(above[len(above) - len(rest) :], rest, strict=True)):
        return
    if fits is _exactly:  # no need to list 100,000 names
        packed = listed(fanout.jobs)
        if is_name(last) and (os.path.isdir(fanout.job(last).path) if packed is None else last in packed):
            yield fanout.job(last)
        return
    yield from (job for job in jobs_of(fanout) if fits(job.name, last))


def _exactly(name: str, part: str) -> bool:
    return name == part


def _by_number(name: str, part: str) -> bool:
    """`7`, `0007` and `7-scale` fit `0007-scale`."""
    number = name.partition("-")[0]
    if part.isdecimal():
        return number.isdecimal() and int(number) == int(part)
    return name.lstrip("0") == part.lstrip("0")


def _loosely(name: str, part: str) -> bool:
    """A tail that begins after a dash fits, as `scale` fits `0007-scale`."""
    return name.endswith(f"-{part}") or _by_number(name, part)
