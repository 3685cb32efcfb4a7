"""Which runs and jobs a person names, where a verb takes both. No verb; several use it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from spool.errors import AmbiguousNameError, UnknownNameError
from spool.find import find_job, run_at, run_of
from spool.layout import JobFiles, RunFiles, SpoolFiles
from spool.opened import must_not_be_packed
from spool.run import find_run, find_spool, readable, run_names


@dataclass(slots=True)
class Chosen:
    """A run, whole or only some jobs of it."""

    run: RunFiles
    whole: bool = False
    jobs: list[JobFiles] = field(default_factory=list)


def chosen(spool: str, texts: Sequence[str], *, newest: bool = True) -> list[Chosen]:
    """What is named, by run, in the order of naming; the newest run when nothing is, where `newest` allows that.

    A text that is a run's name, or the end of one, is that run; what fits a job is that job; what fits none may be
    any other part of a run's name. Raises UnknownNameError for a text that is neither, PackedRunError for one that
    can only be read.
    """
    if not texts:
        if not newest:
            raise UnknownNameError("name a RUN or a JOB; `tea spool list` names the jobs of the newest run")
        run = find_run(find_spool(spool), lazily=True)
        must_not_be_packed(run)
        return [Chosen(run, whole=True)]
    found: dict[str, Chosen] = {}
    for text in texts:
        run, job = _one(spool, text)
        must_not_be_packed(run)
        one = found.setdefault(run.path, Chosen(run))
        if job is None:
            one.whole = True
        elif job not in one.jobs:
            one.jobs.append(job)
    return list(found.values())


def _one(spool: str, text: str) -> tuple[RunFiles, JobFiles | None]:
    folder, name = run_at(spool, text)
    if name != text:  # the path of a run
        return find_run(find_spool(folder), name, lazily=True), None
    files = find_spool(folder) if os.path.exists(SpoolFiles(folder).spool) else None
    run = _run_ending_in(files, text)
    if run is not None:
        return run, None
    try:
        job = find_job(files, text)
        return run_of(job.path), job
    except AmbiguousNameError:
        raise
    except UnknownNameError as error:
        return _run_of_part(files, text, error), None


def _run_ending_in(files: SpoolFiles | None, text: str) -> RunFiles | None:
    """The one run with this name, or that ends in it as `...-7f3a` ends in `7f3a`. A number is that of a job."""
    if files is None or "/" in text or (text.isdecimal() and len(text) < 4):
        return None
    fits = [name for name in run_names(files) if f"-{name}".endswith(f"-{text}")]
    return readable(files, fits[0], lazily=True) if len(fits) == 1 else None


def _run_of_part(files: SpoolFiles | None, text: str, no_job: UnknownNameError) -> RunFiles:
    if files is None or "/" in text or text.isdecimal():
        raise no_job
    try:
        return find_run(files, text, lazily=True)
    except UnknownNameError as error:
        raise UnknownNameError(f"'{text}' is no job of any run, and as a run: {error}") from None
