"""Is a spool in order, is a folder fit to be one? `examine` finds out, and mends what may be mended.

    spool         format, owner, permissions, disk
    workers       dead, stopped and silent ones, what they left                       (here)
    runs          stopped ones, ones that two could drive                             (here)
    fan-outs      tickets against job directories                                     (`checkup.py`)
    jobs          claims, results, acceptance, inputs                                 (`checkjob.py`)
    packs         can they be read?                                                   (`checkpack.py`)
    everything    links, fifos, devices, other users' files, names, leftovers         (`examination.py`)
    folder        does its file system do what a spool needs?                         (`fitness.py`)

Nothing is deleted that anybody may still want: files that cannot be trusted are put aside, and what is removed was
left by the dead and is read by nobody. A live run is looked at, and only such things are mended in it that any worker
would mend. Not promised: that a spool is as it was found while somebody works in it.
"""

from __future__ import annotations

import os
import shlex
import stat
import time
from dataclasses import dataclass
from typing import Any

from spool import tickets
from spool.checkpack import check_packs, is_leftover
from spool.checkup import SECOND_LOOK, check_fanouts, maker
from spool.errors import SpoolError
from spool.examination import OTHERS_MAY_WRITE, Examination, Scope
from spool.finding import Findings, Mend
from spool.fitness import examine as examine_folder
from spool.fitness import room
from spool.inspect import at_work
from spool.job import sha256
from spool.layout import FORMAT, RunFiles, SpoolFiles, WorkerFiles, is_name
from spool.publish import process_exists, read_bytes, read_quietly
from spool.run import coordinator, fanouts, open_spool
from spool.worker import LEASE, is_here, is_stopped

OTHERS_MAY_READ = 0o055


def is_spool(path: str) -> bool:
    """Whether a folder is a spool, also one that has lost its spool.json."""
    files = SpoolFiles(path)
    return os.path.lexists(files.spool) or (os.path.isdir(files.runs) and os.path.isdir(files.workers))


def examine(path: str, *, fix: bool = False, quick: bool = False) -> Findings:
    """Examine the folder at a path, and the spool in it if there is one.

    quick: only tickets and workers. Raises NotADirectoryError or FileNotFoundError for a path that is no folder.
    """
    path = os.path.abspath(path)
    if not stat.S_ISDIR(os.stat(path).st_mode):
        raise NotADirectoryError(20, "not a folder, so no spool can be in it", path)
    findings = Findings(fix)
    if is_spool(path):
        _spool(SpoolFiles(path), findings, quick)
    if quick:
        room(path, findings)
    else:
        examine_folder(path, findings)
    return findings


# -- the spool ------------------------------------------------------------------------------------------------------


def _spool(spool: SpoolFiles, findings: Findings, quick: bool) -> None:
    if not _is_ours(spool.path, findings) or not _format(spool, findings):
        return
    exam = Examination(spool, findings, quick=quick)
    entries = exam.entries(spool.path, findings, live=True)
    for name in ("runs", "workers"):
        path = f"{spool.path}/{name}"
        if name not in entries:
            findings.error("missing", path, "the folder is missing, or not trusted", "", maker(path))
            return
        if not exam.must_be(findings, "folder", path, entries[name]):
            return
    _workers(exam)
    _runs(exam)
    check_packs(exam)


def _is_ours(path: str, findings: Findings) -> bool:
    status = os.stat(path)
    if status.st_uid != os.geteuid():
        text = f"it belongs to user {status.st_uid}, not to you ({os.geteuid()}); a spool is private"
        findings.error("foreign", path, text, "examine it as that user, or use another with --spool DIR")
        return False
    if status.st_mode & OTHERS_MAY_WRITE:
        text = f"others may write to it (mode {stat.S_IMODE(status.st_mode):o}), so nothing in it can be trusted"
        findings.error("exposed", path, text, f"chmod 700 {shlex.quote(path)}, if you trust what is in it")
    elif status.st_mode & OTHERS_MAY_READ:
        text = f"others may read it (mode {stat.S_IMODE(status.st_mode):o}): inputs, results and output of your jobs"
        findings.warning("exposed", path, text, f"chmod 700 {shlex.quote(path)}", _closer(path))
    return True


def _closer(path: str) -> Mend:
    def mend() -> bool:
        os.chmod(path, 0o700)
        return True

    return mend


def _format(spool: SpoolFiles, findings: Findings) -> bool:
    """Whether this version can read it."""
    record = read_quietly(spool.spool)
    if not record and os.path.isdir(spool.runs) and not os.listdir(spool.runs):
        return True  # it is just being made
    if not record:
        findings.error("format", spool.spool, "it is missing", "", lambda: bool(open_spool(spool.path)))
        return True
    if why := record.get("$unreadable"):
        remedy = f"if nothing else is wrong, move it away: a new one is made, of format {FORMAT}"
        findings.error("format", spool.spool, str(why), remedy)
        return False
    if record.get("format") != FORMAT:
        text = f"format {record.get('format')!r}; this version reads format {FORMAT}"
        findings.error("format", spool.spool, text, "use the version of tea that wrote it, or another --spool")
        return False
    return True


# -- runs -----------------------------------------------------------------------------------------------------------


def _runs(exam: Examination) -> None:
    """All runs. One that seems to have stopped may just be taken up, or end: it is looked at a second time."""
    folder = exam.spool.runs
    seem_stopped = []
    for name, status in sorted(exam.entries(folder, exam.findings, live=True).items()):
        if is_leftover(exam, name, status):
            continue
        if not is_name(name):
            exam.name_is_wrong(f"{folder}/{name}")
        elif exam.must_be(exam.findings, "folder", f"{folder}/{name}", status):
            exam.findings.counts["runs"] += 1
            look = _look_at(exam, exam.spool.run(name))
            if look.seems_stopped:
                seem_stopped.append(look.run)
            else:
                _run(exam, look)
    if seem_stopped:
        time.sleep(SECOND_LOOK)
    for run in seem_stopped:
        _run(exam, _look_at(exam, run))


@dataclass(frozen=True, slots=True)
class _Look:
    """A run at one moment. Whether it is driven is asked first: its outcome is written before its lock is freed."""

    run: RunFiles
    driven: bool | None
    live: bool
    record: dict[str, Any]

    @property
    def ended(self) -> bool:
        return bool(self.record.get("outcome"))

    @property
    def done(self) -> bool:
        return self.record.get("outcome") == "done"

    @property
    def seems_stopped(self) -> bool:
        return not self.live and not self.ended


def _look_at(exam: Examination, run: RunFiles) -> _Look:
    driven = exam.is_driven(run)
    live = driven is not False or exam.writer_of(run.events) is not None
    return _Look(run, driven, live, read_quietly(run.run))


def _run(exam: Examination, look: _Look) -> None:
    run, live, findings = look.run, look.live, exam.findings
    entries = exam.entries(run.path, findings, live=live)
    for name, kind in _RUN_FILES.items():
        exam.must_be(findings, kind, f"{run.path}/{name}", entries.get(name))
    if not look.record:
        if not live and not exam.is_young(os.stat(run.path)):
            text = "run.json is missing: the run never began, or it was removed"
            findings.warning("half-made", run.path, text, f"rm -r {shlex.quote(run.path)}")
        return
    if why := look.record.get("$unreadable"):
        findings.error("corrupt", run.run, str(why), "put back a copy, if there is one")
        return
    _driver(exam, look)
    resume = "" if look.done else _resume(look)
    if look.seems_stopped and not _is_beginning(exam, look, entries):
        waiting = sum(len(tickets.names(fanout, "todo")) for fanout in fanouts(run.fanouts))
        text = f"its coordinator ({_who(look)}) is gone, and it has not ended; {waiting:,} jobs are left"
        findings.error("stopped-run", run.path, text, resume)
    if not look.done:
        _workflow(exam, look)
    check_fanouts(exam, run.fanouts, Scope(run, live, False, resume))
    if look.done and not live:
        _unfinished(exam, run)


_RUN_FILES = {
    "run.json": "file",
    "workflow.yaml": "file",
    "input.json": "file",
    "output.json": "file",
    "coordinator.lock": "file",
    "events.jsonl": "file",
    "fanouts": "folder",
}


def _resume(look: _Look) -> str:
    if look.record.get("python_graph"):
        return "resume it from the program that started it"
    return f"tea resume {shlex.quote(look.run.path)}"


def _list(path: str) -> str:
    return f"ls -ld {shlex.quote(path)}"


def _who(look: _Look) -> str:
    record = look.record
    return coordinator(look.run) or f"{record.get('user')}@{record.get('host')}:{record.get('pid')}"


def _is_beginning(exam: Examination, look: _Look, entries: dict[str, os.stat_result]) -> bool:
    """Whether a coordinator has made its run, but not yet its lock."""
    made = entries.get("run.json")
    if "coordinator.lock" in entries or made is None or not exam.is_young(made):
        return False
    pid = look.record.get("pid")
    return not is_here(look.record) or (isinstance(pid, int) and process_exists(pid))


def _driver(exam: Examination, look: _Look) -> None:
    """Whether two could drive it."""
    lock, writer = look.run.lock, exam.writer_of(look.run.events)
    if look.driven is None:
        text = "this file system does not tell whether anybody holds it: whether the run is driven is not known"
        exam.findings.warning("driver", lock, text, "put the spool on a file system with locks, with --spool DIR")
    elif not look.driven and writer is not None and process_exists(writer) and not look.ended:
        text = f"process {writer} drives the run, but its lock is free: a second process could drive it, too"
        remedy = f"do not resume the run before process {writer} has ended, or end it: kill {writer}"
        exam.findings.error("driver", lock, text, remedy)


def _workflow(exam: Examination, look: _Look) -> None:
    """A run that may be resumed goes on with the workflow that it began with."""
    path, wanted = look.run.workflow, look.record.get("sha256")
    try:
        data = read_bytes(path)
    except FileNotFoundError:
        exam.findings.error("missing", path, "it is missing, so the run cannot be resumed", "put back a copy")
        return
    except (OSError, SpoolError) as error:
        exam.findings.error("unreadable", path, f"cannot be read: {error}", _list(path))
        return
    if isinstance(wanted, str) and wanted != sha256(data):
        text = "it is not the one that the run began with (sha256 differs); a resumed run goes on with this one"
        exam.findings.warning("workflow", path, text, "put back a copy, unless you have changed it on purpose")


def _unfinished(exam: Examination, run: RunFiles) -> None:
    """The jobs of a run that is done have ended. (Those inside a branch that was ended from outside need not.)"""
    for fanout in fanouts(run.fanouts):
        names = tickets.names(fanout, "todo")
        if names:
            text = f"the run is done, but {len(names):,} of its jobs are not, among them {min(names)}"
            remedy = f"tea spool show {shlex.quote(fanout.job(min(names)).path)}"
            exam.findings.error("unfinished", fanout.tickets("todo"), text, remedy)


# -- workers --------------------------------------------------------------------------------------------------------


def _workers(exam: Examination) -> None:
    folder, findings = exam.spool.workers, exam.findings
    dead = set(exam.observer.dead_workers())
    for name, status in sorted(exam.entries(folder, findings, live=True).items()):
        if not is_name(name):
            exam.name_is_wrong(f"{folder}/{name}")
        elif exam.must_be(findings, "folder", f"{folder}/{name}", status):
            findings.counts["workers"] += 1
            _worker(exam, exam.spool.worker(name), status, name in dead)


def _worker(exam: Examination, files: WorkerFiles, status: os.stat_result, dead: bool) -> None:
    entries = exam.entries(files.path, exam.findings, live=not dead)
    for name, entry in entries.items():
        exam.must_be(exam.findings, "file", f"{files.path}/{name}", entry)
    if "worker.json" not in entries:
        if dead and not exam.is_young(status):
            text = "worker.json is missing: the worker died while it began or ended"
            exam.findings.warning("half-made", files.path, text, f"rm -r {shlex.quote(files.path)}")
        return
    record = exam.json(files.worker)
    if record is None:
        return
    if dead:
        _dead_worker(exam, files, record)
    else:
        _living_worker(exam, files, record, entries)


def _dead_worker(exam: Examination, files: WorkerFiles, record: dict[str, object]) -> None:
    who = f"{record.get('user')}@{record.get('host')}:{record.get('pid')}"
    writer = exam.writer_of(files.now)
    if writer is not None:
        text = (
            f"{who} lives (process {writer}), but its lock is free: others take its jobs for lost, and run them again"
        )
        exam.findings.error("unlocked-worker", files.lock, text, f"end it: kill {writer}")
        return
    running = next(iter(at_work(files)), None)
    text = f"{who} is dead"
    if running is not None:
        text += f"; it had attempt {running.attempt} of {running.job.path}"
        run = _run_of(exam, running.job.path)
        if run is not None and exam.is_live(run):
            exam.findings.note("dead-worker", files.path, f"{text}, whose run goes on: it clears this away itself")
            return
    exam.findings.warning("dead-worker", files.path, text, "", _burier(exam, files))


def _run_of(exam: Examination, path: str) -> RunFiles | None:
    inside = path.removeprefix(f"{exam.spool.runs}/")
    return exam.spool.run(inside.partition("/")[0]) if inside != path else None


def _burier(exam: Examination, files: WorkerFiles) -> Mend:
    """Keep what its job had printed, then remove the folder."""

    def mend() -> bool:
        running = next(iter(at_work(files)), None)
        if running is not None and os.path.isdir(running.job.path):
            exam.observer.inherit(running.job, running.attempt)
        exam.observer.bury({files.name})
        return not os.path.lexists(files.path)

    return mend


def _living_worker(
    exam: Examination, files: WorkerFiles, record: dict[str, object], entries: dict[str, os.stat_result]
) -> None:
    pid, lease = record.get("pid"), record.get("lease")
    if is_here(record) and isinstance(pid, int):
        if process_exists(pid) and is_stopped(pid):
            text = f"process {pid} is stopped, and keeps its job"
            remedy = f"let it go on: kill -CONT {pid}, or end it: kill -KILL {pid}"
            exam.findings.warning("stopped-worker", files.path, text, remedy)
        return
    beat = entries.get("beat")
    limit = float(lease) if isinstance(lease, int | float) else LEASE
    if beat is not None and exam.now - beat.st_mtime > limit:
        silent = exam.now - beat.st_mtime
        text = f"no beat from {record.get('host')} for {silent:,.0f} s, and {limit:g} s without one is dead"
        remedy = "whoever works on the spool takes its jobs over; if that host is gone for good, remove the folder"
        exam.findings.warning("silent-worker", files.path, text, remedy)
