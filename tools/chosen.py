"""Which runs and jobs a person names, where a verb takes both. No verb; several use it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from spool.errors import AmbiguousNameError, UnknownNameError
from spool.find import find_job, run_at, run_of
from spool.layout import JobFiles, RunFiles, SpoolFiles
from spool.run import find_run, find_spool, runs


@dataclass(slots=True)
class Chosen:
    """A run, whole or only some jobs of it."""

    run: RunFiles
    whole: bool = False
    jobs: list[JobFiles] = field(default_factory=list)


def chosen(spool: str, texts: Sequence[str], *, newest: bool = True) -> list[Chosen]:
    """What is named, by run, in the order of naming; the newest run when nothing is, where `newest` allows that.

    A text that is a run's name, or the end of one, is that run; what fits a job is that job; what fits none may be
    any other part of a run's name. Raises UnknownNameError for a text that is neither.
    """
    if not texts:
        if not newest:
            raise UnknownNameError("name a RUN or a JOB; `tea spool list` names the jobs of the newest run")
        return [Chosen(find_run(find_spool(spool)), whole=True)]
    found: dict[str, Chosen] = {}
    for text in texts:
        run, job = _one(spool, text)
        one = found.setdefault(run.path, Chosen(run))
        if job is None:
            one.whole = True
        elif job not in one.jobs:
            one.jobs.append(job)
    return list(found.values())


def _one(spool: str, text: str) -> tuple[RunFiles, JobFiles | None]:
    folder, name = run_at(spool, text)
    if name != text:  # the path of a run
        return find_run(find_spool(folder), name), None
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
    fits = [run for run in runs(files) if f"-{run.name}".endswith(f"-{text}")]
    return fits[0] if len(fits) == 1 else None


def _run_of_part(files: SpoolFiles | None, text: str, no_job: UnknownNameError) -> RunFiles:
    if files is None or "/" in text or text.isdecimal():
        raise no_job
    try:
        return find_run(files, text)
    except UnknownNameError as error:
        raise UnknownNameError(f"'{text}' is no job of any run, and as a run: {error}") from None
