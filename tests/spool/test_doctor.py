"""Spools that are damaged in every way we know: the finding, the mending, and a look at what is left.

Each fault is planted in a spool that was in order. `cured` examines it three times: without `fix` the fault is found
and nothing changes, with `fix` it is mended, and then it is gone.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from spool import checkup, doctor, inspect, jsonio
from spool import job as jobs
from spool.attempts import Outcome, Policy
from spool.claim import Claimant, host_name, try_claim
from spool.examination import YOUNG
from spool.finding import Finding, Findings, Severity
from spool.job import JobRecord
from spool.layout import JobFiles
from spool.publish import publish, quarantine
from spool.retry import send_back
from spool.run import CoordinatorLock, create_fanout, update_run
from spool.worker import Observer, Worker, boot_id
from tests.spool.kit import ALICE, Bench, line, python, result, spec
from tests.support import wait_until

DEAD = f"eve@{host_name()}:4194305:0123456789ab"  # a pid that no kernel gives out
GONE = 4194305


@pytest.fixture(autouse=True)
def _no_fitness(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system is not what is examined here, and it takes as long as all the rest."""
    monkeypatch.setattr(doctor, "examine_folder", lambda _path, _findings: None)


@pytest.fixture
def soon_certain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a fault is there to stay, one more look shows that."""
    monkeypatch.setattr(checkup, "PATIENCE", 0.0)


class Ward(Bench):
    """A spool in order: a run that is done, with three jobs that succeeded, one of them with output."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        publish(self.fanout.fanout, jsonio.pretty({"total": 3, "source": "split"}))
        self.made = self.jobs(3, Policy(max_retries=1), base=b'{"shared": "' + b"x" * 2000 + b'"}')
        for job in self.made:
            self.finish(job)
        CoordinatorLock(self.run).release()
        update_run(self.run, outcome="done", **self.who())

    def who(self) -> dict[str, Any]:
        return {"host": host_name(), "pid": GONE, "user": "eve", "sha256": jobs.sha256(b"name: test\n")}

    def finish(self, job: JobFiles, attempt: int = 1, outcome: Outcome = Outcome.SUCCEEDED) -> None:
        record = jobs.read_job(job)
        assert try_claim(job, attempt, ALICE)
        assert jobs.finish(self.fanout, job, record, attempt, result(job, record, attempt, outcome))

    def stop(self) -> None:
        """The run has not ended, and its coordinator is dead."""
        update_run(self.run, outcome=None)

    def fresh(self, index: int = 3) -> tuple[JobFiles, JobRecord]:
        """One more job, not begun, of a run that has stopped."""
        self.stop()
        one = spec(index, 4)
        self.writer(Policy(max_retries=1)).create(one)
        job = self.fanout.job(one.name)
        return job, jobs.read_job(job)

    def found(self, *, fix: bool = False, quick: bool = False) -> dict[str, list[Finding]]:
        """Everything that is not well, by kind."""
        found: dict[str, list[Finding]] = {}
        for finding in doctor.examine(self.spool.path, fix=fix, quick=quick):
            if finding.severity not in (Severity.OK, Severity.NOTE):
                found.setdefault(finding.kind, []).append(finding)
        return found

    def cured(self, kind: str, path: str, *, left: set[str] | None = None, quick: bool = False) -> Finding:
        """This fault and no other is found, mended, and gone; `left` is what remains for a person."""
        before = snapshot(self.spool.path)
        first = self.found(quick=quick)
        assert set(first) - (left or set()) == {kind}
        [finding] = first[kind]
        assert (finding.path, finding.fixable, finding.fixed) == (path, True, False)
        assert snapshot(self.spool.path) == before, "examining changed something"
        [mended] = self.found(fix=True, quick=quick)[kind]
        assert mended.fixed, mended.text
        assert not mended.needs_person
        assert set(self.found(quick=quick)) == (left or set())
        return finding

    def told(self, kind: str, path: str, *, left: set[str] | None = None) -> Finding:
        """This fault and no other is found, with something to do, and `fix` changes nothing."""
        before = snapshot(self.spool.path)
        for fix in (False, True):
            found = self.found(fix=fix)
            assert set(found) - (left or set()) == {kind}
            [finding] = found[kind]
            assert (finding.path, finding.fixable, finding.fixed) == (path, False, False)
            assert finding.remedy
            assert snapshot(self.spool.path) == before
        return finding


def snapshot(folder: str) -> dict[str, tuple[int, str]]:
    """Every name below a folder, with what it is and says."""
    seen = {}
    for where, folders, names in os.walk(folder):
        for path in [f"{where}/{name}" for name in folders + names]:
            status = os.lstat(path)
            text = os.readlink(path) if os.path.islink(path) else ""
            if os.path.isfile(path) and not text:
                text = Path(path).read_bytes().decode("latin-1")
            seen[path] = (status.st_mode, text)
    return seen


def write(path: str, text: str) -> None:
    """Overwrite a file in place, as no program of ours does."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, 0o600)


def age(path: str, seconds: float = YOUNG * 2) -> None:
    at = os.lstat(path).st_mtime - seconds
    os.utime(path, (at, at), follow_symlinks=False)


@pytest.fixture
def ward(spool_dir: Path) -> Ward:
    return Ward(spool_dir)


def test_a_spool_in_order_has_no_findings(ward: Ward) -> None:
    before = snapshot(ward.spool.path)
    found = doctor.examine(ward.spool.path, fix=True)
    assert list(found) == []
    assert found.counts == {"runs": 1, "fan-outs": 1, "jobs": 3}
    assert snapshot(ward.spool.path) == before


def test_a_folder_that_is_no_spool_is_not_made_one(spool_dir: Path) -> None:
    assert list(doctor.examine(str(spool_dir), fix=True)) == []
    assert os.listdir(spool_dir) == []


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        doctor.examine(str(tmp_path / "file"))
    with pytest.raises(FileNotFoundError):
        doctor.examine(str(tmp_path / "none"))


# -- the spool ------------------------------------------------------------------------------------------------------


class TestTheSpool:
    def test_without_spool_json(self, ward: Ward) -> None:
        os.unlink(ward.spool.spool)
        ward.cured("format", ward.spool.spool)

    @pytest.mark.parametrize("text", ["", "{", '{"format": 99}'])
    def test_of_another_format(self, ward: Ward, text: str) -> None:
        write(ward.spool.spool, text)
        os.unlink(ward.fanout.ticket("done", ward.made[0].name))  # is not looked for in a format we do not know
        ward.told("format", ward.spool.spool)

    def test_that_others_may_read(self, ward: Ward) -> None:
        os.chmod(ward.spool.path, 0o755)
        assert ward.cured("exposed", ward.spool.path).severity is Severity.WARNING
        assert os.stat(ward.spool.path).st_mode & 0o777 == 0o700

    def test_that_others_may_write_to(self, ward: Ward) -> None:
        os.chmod(ward.spool.path, 0o777)
        assert "nothing in it can be trusted" in ward.told("exposed", ward.spool.path).text

    @pytest.mark.parametrize("name", ["runs", "workers"])
    def test_without_its_folders(self, ward: Ward, name: str) -> None:
        shutil.rmtree(f"{ward.spool.path}/{name}")
        ward.cured("missing", f"{ward.spool.path}/{name}")

    @pytest.mark.root
    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders away")
    def test_of_another_user(self, ward: Ward) -> None:
        os.chown(ward.spool.path, 12345, -1)
        ward.told("foreign", ward.spool.path)


# -- tickets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quick", [False, True])
class TestTickets:
    def test_two_of_one_job(self, ward: Ward, quick: bool) -> None:
        job = ward.made[1]
        for kind in ("todo", "failed"):
            publish(ward.fanout.ticket(kind, job.name), b"")
        left = {"unfinished"}
        first = ward.found(quick=quick)
        assert set(first) == {"double-ticket", *left}
        [finding] = first["double-ticket"]
        assert "todo/, done/, failed/" in finding.text
        ward.found(fix=True, quick=quick)
        assert ward.found(quick=quick) == {}
        assert ward.tickets() == {"done": [job.name for job in ward.made]}

    def test_none_though_the_job_is_finished(self, ward: Ward, quick: bool) -> None:
        job = ward.made[1]
        os.unlink(ward.fanout.ticket("done", job.name))
        ward.cured("no-ticket", job.path, quick=quick)
        assert ward.tickets() == {"done": [job.name for job in ward.made]}

    def test_none_though_the_job_is_made(self, ward: Ward, quick: bool) -> None:
        job, _ = ward.fresh()
        os.unlink(ward.fanout.ticket("todo", job.name))
        ward.cured("no-ticket", job.path, left={"stopped-run"}, quick=quick)
        assert ward.tickets()["todo"] == [job.name]

    def test_of_a_job_to_do_that_is_gone(self, ward: Ward, quick: bool) -> None:
        job, _ = ward.fresh()
        shutil.rmtree(job.path)
        ward.cured("stray-ticket", ward.fanout.ticket("todo", job.name), left={"stopped-run"}, quick=quick)

    def test_half_a_job(self, ward: Ward, quick: bool) -> None:
        job, _ = ward.fresh()
        os.unlink(ward.fanout.ticket("todo", job.name))
        os.unlink(job.job)
        ward.cured("half-made", job.path, left={"stopped-run"}, quick=quick)
        assert not os.path.lexists(job.path)


def test_a_ticket_of_a_finished_job_that_is_gone_is_for_a_person(ward: Ward) -> None:
    shutil.rmtree(ward.made[0].path)
    ward.told("lost-job", ward.fanout.ticket("done", ward.made[0].name))


@pytest.mark.parametrize("wrong", ["todo", "failed", "cancelled"])
def test_a_finished_jobs_ticket_in_the_wrong_folder(ward: Ward, wrong: str) -> None:
    job = ward.made[1]
    os.rename(ward.fanout.ticket("done", job.name), ward.fanout.ticket(wrong, job.name))
    first = ward.found()
    [finding] = first["misfiled"]
    assert finding.path == ward.fanout.ticket(wrong, job.name)
    ward.found(fix=True)
    assert ward.found() == {}


def test_an_unfinished_jobs_ticket_among_the_finished(ward: Ward) -> None:
    job, _ = ward.fresh()
    os.rename(ward.fanout.ticket("todo", job.name), ward.fanout.ticket("done", job.name))
    ward.cured("misfiled", ward.fanout.ticket("done", job.name), left={"stopped-run"})
    assert ward.tickets()["todo"] == [job.name]


def test_a_missing_ticket_folder(ward: Ward) -> None:
    os.rmdir(ward.fanout.tickets("failed"))
    ward.cured("missing", ward.fanout.tickets("failed"))


def test_a_fan_out_that_was_only_begun(ward: Ward) -> None:
    ward.stop()
    second = create_fanout(ward.run.fanouts, 2, "later")
    ward.told("half-made", second.path, left={"stopped-run"})


def test_a_job_that_was_half_made_is_left_where_a_coordinator_lives(ward: Ward) -> None:
    job, _ = ward.fresh()
    os.unlink(ward.fanout.ticket("todo", job.name))
    os.unlink(job.job)
    lock = CoordinatorLock(ward.run)
    try:
        assert ward.found(fix=True) == {}
    finally:
        lock.release()
    assert os.path.isdir(job.path)


def test_tickets_are_not_mended_in_a_run_that_is_taken_up_meanwhile(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our question and our act: only who holds the coordinator's lock may make tickets."""
    job, _ = ward.fresh()
    os.unlink(ward.fanout.ticket("todo", job.name))
    lock = CoordinatorLock(ward.run)
    monkeypatch.setattr(checkup.Examination, "is_live", lambda _self, _run: False)
    monkeypatch.setattr(checkup.Examination, "is_driven", lambda _self, _run: False)
    try:
        [finding] = ward.found(fix=True)["no-ticket"]
    finally:
        lock.release()
    assert not finding.fixed
    assert "is driven by" in finding.text
    assert ward.tickets() == {"done": [job.name for job in ward.made]}


# -- jobs -----------------------------------------------------------------------------------------------------------


class TestResults:
    def test_that_were_not_accepted(self, ward: Ward) -> None:
        """The worker died between publishing and accepting."""
        job, record = ward.fresh()
        try_claim(job, 1, DEAD)
        jobs.write_result(job, 1, result(job, record, 1))
        ward.cured("not-accepted", job.path, left={"stopped-run"})
        assert jobs.accepted_attempt(job) == 1
        assert job.name in ward.tickets()["done"]

    def test_of_a_failure_that_may_be_retried_are_no_finding(self, ward: Ward) -> None:
        job, record = ward.fresh()
        try_claim(job, 1, DEAD)
        jobs.write_result(job, 1, result(job, record, 1, Outcome.FAILED))
        assert set(ward.found()) == {"stopped-run"}

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", '{"job": "0000-branch"}', '{"job": "0001-branch", "attempt": 1}']
    )
    def test_that_cannot_be_read(self, ward: Ward, text: str) -> None:
        """`result.1.json` and `result.json` are one file, so both are lost."""
        job = ward.made[1]
        write(job.result(1), text)
        [finding] = ward.found()["result"]
        assert finding.path == job.result(1)
        [mended] = ward.found(fix=True)["result"]
        assert mended.fixed
        assert set(ward.found()) == {"quarantined", "unfinished"}  # a person must know that the job has no result
        assert ward.tickets()["todo"] == [job.name]
        assert Path(f"{job.result(1)}.corrupt").read_text() == text

    @pytest.mark.parametrize("member", ["job", "input_sha256"])
    def test_of_another_job_or_input(self, ward: Ward, member: str) -> None:
        job = ward.made[1]
        record = jobs.read_job(job)
        right = result(job, record, 1)
        write(job.result(1), json.dumps({**right, member: "another"}))
        assert [finding.path for finding in ward.found()["result"]] == [job.result(1)]
        ward.found(fix=True)
        assert jobs.read_accepted(job, record.input_sha256) is None

    def test_of_another_attempt(self, ward: Ward) -> None:
        job, record = ward.fresh()
        try_claim(job, 1, ALICE)
        publish(job.result(1), jsonio.dumps(result(job, record, 2)))
        assert [finding.path for finding in ward.found()["result"]] == [job.result(1)]
        ward.found(fix=True)
        assert set(ward.found()) == {"stopped-run", "quarantined"}

    def test_that_were_accepted_and_then_spoiled(self, ward: Ward) -> None:
        """The attempt's own result is still good: it is accepted again."""
        job = ward.made[1]
        os.unlink(job.accepted)
        write(job.accepted, "{")
        [finding] = ward.found()["accepted"]
        assert finding.path == job.accepted
        ward.found(fix=True)
        assert set(ward.found()) == {"quarantined"}
        assert jobs.accepted_attempt(job) == 1

    def test_that_were_put_aside_are_for_a_person(self, ward: Ward) -> None:
        job, _ = ward.fresh()
        try_claim(job, 1, DEAD)
        write(job.result(1), "{")
        quarantine(job.result(1))
        ward.told("quarantined", f"{job.result(1)}.corrupt", left={"stopped-run"})

    def test_without_a_claim(self, ward: Ward) -> None:
        job, record = ward.fresh()
        jobs.write_result(job, 1, result(job, record, 1))
        ward.told("unclaimed", job.result(1), left={"stopped-run"})

    def test_that_a_person_sent_back(self, ward: Ward) -> None:
        job, _ = ward.fresh()
        for attempt in (1, 2):
            ward.finish(job, attempt, Outcome.FAILED)
        assert send_back(ward.fanout, job)
        assert set(ward.found()) == {"stopped-run"}

    def test_that_came_late_are_no_finding(self, ward: Ward) -> None:
        """A frozen worker publishes what it has after another attempt was accepted."""
        job, record = ward.fresh()
        try_claim(job, 1, DEAD)
        ward.finish(job, 2)
        jobs.write_result(job, 1, result(job, record, 1))
        assert set(ward.found()) == {"stopped-run"}

    def test_where_links_are_refused(self, ward: Ward) -> None:
        """There `result.json` is a symbolic link to the result beside it."""
        job = ward.made[1]
        os.unlink(job.accepted)
        os.symlink("result.1.json", job.accepted)
        assert ward.found() == {}

    def test_whose_pickle_was_changed(self, ward: Ward) -> None:
        job, record = ward.fresh()
        try_claim(job, 1, ALICE)
        publish(job.result_pickle(1), b"pickle")
        more = {"pickle_sha256": jobs.sha256(b"pickle")}
        jobs.finish(ward.fanout, job, record, 1, result(job, record, 1, **more))
        assert set(ward.found()) == {"stopped-run"}
        write(job.result_pickle(1), "another")
        assert [finding.path for finding in ward.found()["pickle"]] == [job.result_pickle(1)]
        assert ward.found(fix=True)["pickle"][0].fixed
        assert set(ward.found()) == {"stopped-run", "quarantined"}
        assert ward.tickets()["todo"] == [job.name]


class TestFiles:
    def test_job_json(self, ward: Ward) -> None:
        for text in ("", "{", "{}", '{"id": "another"}'):
            write(ward.made[0].job, text)
            ward.told("job-file", ward.made[0].job)

    def test_the_input(self, ward: Ward) -> None:
        job, _ = ward.fresh()
        write(job.input, '{"item": 999}')
        assert "sha256" in ward.told("input", job.input, left={"stopped-run"}).text

    def test_the_shared_state_is_checked_once_and_told_for_each_job(self, ward: Ward) -> None:
        write(ward.made[0].base, '{"shared": "y"}')  # one file with many names
        found = ward.found()
        assert [finding.path for finding in found["input"]] == [job.base for job in ward.made]

    @pytest.mark.parametrize("what", ["symlink", "fifo", "socket"])
    @pytest.mark.parametrize("name", ["input.json", "result.1.json", "job.json", "notes"])
    def test_that_are_no_files(self, ward: Ward, what: str, name: str) -> None:
        path = f"{ward.made[0].path}/{name}"
        if os.path.lexists(path):
            os.unlink(path)
        if what == "symlink":
            os.symlink("/etc/passwd", path)
        elif what == "fifo":
            os.mkfifo(path)
        else:
            make_socket(path)
        [finding] = ward.found()["type"]
        assert finding.path == path
        assert finding.needs_person
        ward.found(fix=True)
        assert Path("/etc/passwd").read_text()

    def test_a_link_where_a_job_belongs(self, ward: Ward, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        path = f"{ward.fanout.jobs}/0009-x"
        os.symlink(tmp_path / "elsewhere", path)
        ward.told("type", path)

    def test_a_file_where_a_claim_belongs(self, ward: Ward) -> None:
        path = ward.made[0].claim(2)
        write(path, "")
        ward.told("type", path)

    def test_names_outside_the_grammar(self, ward: Ward) -> None:
        folders = (ward.spool.runs, ward.spool.workers, ward.run.fanouts, ward.fanout.jobs)
        for folder in folders:
            os.mkdir(f"{folder}/ü", 0o700)
        write(f"{ward.fanout.tickets('todo')}/-rf\n", "")
        os.mkdir(os.fsencode(ward.fanout.jobs) + b"/\xff", 0o700)
        found = ward.found(fix=True)
        assert set(found) == {"name"}
        assert len(found["name"]) == len(folders) + 2

    def test_that_others_may_write_to(self, ward: Ward) -> None:
        os.chmod(ward.made[0].job, 0o666)
        found = ward.found(fix=True)
        assert [finding.path for finding in found["exposed"]] == [ward.made[0].job]

    @pytest.mark.root
    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_of_another_user(self, ward: Ward) -> None:
        """A result that somebody else planted is never taken, and its job counts as not finished."""
        job = ward.made[0]
        os.chown(job.result(1), 12345, -1)
        found = ward.found()
        assert {finding.path for finding in found["foreign"]} == {job.result(1), job.accepted}
        ward.found(fix=True)
        assert job.name in ward.tickets()["todo"]


def make_socket(path: str) -> None:
    """A socket's own path may not be long, so go there."""
    with socket.socket(socket.AF_UNIX) as made:
        before = os.getcwd()
        os.chdir(os.path.dirname(path))
        try:
            made.bind(os.path.basename(path))
        finally:
            os.chdir(before)


class TestClaims:
    def test_of_a_dead_worker_where_nobody_sees_it(self, ward: Ward) -> None:
        job, _ = ward.fresh()
        try_claim(job, 1, DEAD)
        finding = ward.told("orphan", job.claim(1), left={"stopped-run"})
        assert f"tea resume {ward.run.path}" in finding.remedy
        assert DEAD in finding.text

    def test_of_nobody(self, ward: Ward) -> None:
        job, _ = ward.fresh()
        try_claim(job, 1, "../../etc/passwd")
        ward.told("claim", job.claim(1), left={"stopped-run"})

    def test_of_a_worker_that_lives(self, ward: Ward) -> None:
        job, _ = ward.fresh()
        with Worker(ward.spool) as worker:
            try_claim(job, 1, worker.text)
            assert set(ward.found(fix=True)) == {"stopped-run"}


# -- leftovers ------------------------------------------------------------------------------------------------------


class TestLeftovers:
    def test_of_a_writer_that_is_gone(self, ward: Ward) -> None:
        path = f"{ward.made[0].path}/.tmp-{GONE}-0123abcd-7"
        write(path, "half")
        age(path)
        assert ward.cured("leftover", path).severity is Severity.WARNING

    def test_anywhere_in_a_spool(self, ward: Ward) -> None:
        with Worker(ward.spool) as worker:
            folders = (
                ward.spool.path,
                ward.spool.runs,
                ward.run.path,
                ward.fanout.path,
                ward.fanout.shared,
                ward.fanout.jobs,
                ward.fanout.tickets("done"),
                worker.files.path,
            )
            for folder in folders:
                write(f"{folder}/.tmp-{GONE}-0123abcd-7", "")
                age(f"{folder}/.tmp-{GONE}-0123abcd-7")
            found = ward.found(fix=True)
            assert set(found) == {"leftover"}
            assert {os.path.dirname(finding.path) for finding in found["leftover"]} == set(folders)
            assert ward.found() == {}

    def test_of_an_examination_that_was_killed(self, ward: Ward) -> None:
        path = f"{ward.spool.path}/.tmp-{GONE}-0123abcd-7"
        os.mkdir(path, 0o700)
        write(f"{path}/symlink.1", "")
        age(path)
        ward.cured("leftover", path)

    def test_of_a_living_process_stay(self, ward: Ward) -> None:
        process = python("input()")
        try:
            path = f"{ward.made[0].path}/.tmp-{process.pid}-0123abcd-7"
            write(path, "half")
            age(path)
            assert ward.found(fix=True) == {}
            assert os.path.lexists(path)
        finally:
            process.communicate("\n", timeout=240)
        ward.cured("leftover", path)

    def test_of_a_worker_on_another_host_stay(self, ward: Ward) -> None:
        forge(ward, host="elsewhere", pid=GONE)
        path = f"{ward.made[0].path}/.tmp-{GONE}-0123abcd-7"
        write(path, "half")
        age(path)
        assert ward.found(fix=True) == {}
        assert os.path.lexists(path)

    def test_that_are_young_stay(self, ward: Ward) -> None:
        """The writer may be a process of another host that nobody knows."""
        path = f"{ward.made[0].path}/.tmp-{GONE}-0123abcd-7"
        write(path, "half")
        assert ward.found(fix=True) == {}
        assert os.path.lexists(path)

    def test_a_reservation_whose_file_never_came(self, ward: Ward) -> None:
        """It would keep everybody from ever writing that file."""
        path = f"{ward.fanout.path}/.reserved-breaker.json"
        write(path, "")
        assert ward.found(fix=True) == {}  # somebody may be about to publish
        age(path)
        ward.cured("reservation", path)

    def test_a_reservation_beside_its_file_is_as_it_should_be(self, ward: Ward) -> None:
        path = f"{ward.made[0].path}/.reserved-result.1.json"
        write(path, "")
        age(path)
        assert ward.found(fix=True) == {}
        assert os.path.lexists(path)


# -- runs -----------------------------------------------------------------------------------------------------------

DRIVER = """
import sys, os
from spool.journal import Journal
from spool.layout import RunFiles
from spool.run import CoordinatorLock
run = RunFiles(sys.argv[1])
lock, journal = CoordinatorLock(run), Journal(run)
print("drives", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def driver(ward: Ward) -> Iterator[subprocess.Popen[str]]:
    """Another process drives the run, which has not ended."""
    ward.stop()
    process = python(DRIVER, ward.run.path)
    assert line(process) == "drives"
    yield process
    process.kill()
    process.communicate(timeout=240)


class TestRuns:
    def test_whose_coordinator_died(self, ward: Ward, driver: subprocess.Popen[str]) -> None:
        assert ward.found() == {}
        driver.kill()
        driver.wait(timeout=240)
        finding = ward.told("stopped-run", ward.run.path)
        assert finding.remedy == f"tea resume {ward.run.path}"
        assert f":{driver.pid}" in finding.text

    def test_that_is_driven_without_its_lock(self, ward: Ward, driver: subprocess.Popen[str]) -> None:
        """Somebody removed the lock: a second coordinator would take a new one."""
        os.unlink(ward.run.lock)
        finding = ward.told("driver", ward.run.lock)
        assert f"kill {driver.pid}" in finding.remedy

    def test_of_a_python_graph_are_resumed_by_their_program(self, ward: Ward) -> None:
        ward.stop()
        update_run(ward.run, python_graph=True)
        assert "program" in ward.told("stopped-run", ward.run.path).remedy

    def test_that_are_done_with_jobs_left(self, ward: Ward) -> None:
        ward.fresh()
        update_run(ward.run, outcome="done")
        ward.told("unfinished", ward.fanout.tickets("todo"))

    def test_that_were_interrupted_in_order_are_no_finding(self, ward: Ward) -> None:
        ward.fresh()
        update_run(ward.run, outcome="interrupted")
        assert ward.found() == {}

    def test_whose_workflow_was_changed(self, ward: Ward) -> None:
        ward.stop()
        write(ward.run.workflow, "name: another\n")
        ward.told("workflow", ward.run.workflow, left={"stopped-run"})

    @pytest.mark.parametrize("text", ["", "{", "[]"])
    def test_without_a_record_that_can_be_read(self, ward: Ward, text: str) -> None:
        write(ward.run.run, text)
        ward.told("corrupt", ward.run.run)

    def test_that_never_began(self, ward: Ward) -> None:
        run = ward.spool.run("20261124-053012-x-7f3a")
        os.mkdir(run.path, 0o700)
        assert ward.found(fix=True) == {}  # perhaps it is just being made
        age(run.path)
        ward.told("half-made", run.path)

    def test_that_are_just_being_made(self, ward: Ward) -> None:
        os.unlink(ward.run.lock)
        update_run(ward.run, outcome=None, pid=os.getpid())
        assert ward.found() == {}
        update_run(ward.run, pid=GONE)
        assert set(ward.found()) == {"stopped-run"}


def test_a_run_that_is_taken_up_at_this_moment_has_not_stopped(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    ward.stop()
    taken: list[CoordinatorLock] = []
    sleep = SimpleNamespace(sleep=lambda _seconds: taken.append(CoordinatorLock(ward.run)))
    monkeypatch.setattr(doctor, "time", sleep)  # its own only: other threads of this process sleep, too
    try:
        assert ward.found() == {}
    finally:
        taken[0].release()


def test_a_lock_that_is_just_being_taken_is_not_probed(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe would keep the coordinator out. It has opened the file, and has not yet written who it is."""
    ward.stop()
    os.truncate(ward.run.lock, 0)
    monkeypatch.setattr(inspect, "is_locked", lambda path: pytest.fail(f"{path} was probed"))
    assert ward.found() == {}
    age(ward.run.lock)
    monkeypatch.undo()
    assert set(ward.found()) == {"stopped-run"}


# -- fan-outs inside branches ---------------------------------------------------------------------------------------


class TestInsideBranches:
    @pytest.fixture
    def inner(self, ward: Ward) -> Ward:
        """The ward's fan-out is one inside a branch now: all that is done to it happens there."""
        outer, around = ward.fanout, ward.made[0]
        ward.fanout = create_fanout(around.fanouts, 1, "inner")
        publish(ward.fanout.fanout, jsonio.pretty({"total": 2}))
        ward.made = ward.jobs(2)
        for job in ward.made:
            ward.finish(job)
        assert ward.fanout.path.startswith(outer.path)
        return ward

    def test_are_examined(self, inner: Ward) -> None:
        assert doctor.examine(inner.spool.path).counts["jobs"] == 5
        job = inner.made[1]
        os.rename(inner.fanout.ticket("done", job.name), inner.fanout.ticket("failed", job.name))
        inner.cured("misfiled", inner.fanout.ticket("failed", job.name))

    def test_half_a_job_there_is_left_to_the_next_attempt(self, inner: Ward) -> None:
        inner.stop()
        job = inner.fanout.job("0007-branch")
        os.mkdir(job.path, 0o700)
        found = inner.found(fix=True)
        assert set(found) == {"stopped-run", "half-made"}
        assert os.path.isdir(job.path)

    def test_open_ends_of_a_run_that_is_done_are_no_findings(self, inner: Ward) -> None:
        """A branch whose time was up is killed, with what fanned out in it."""
        [spare] = [spec(5, 6)]
        inner.writer().create(spare)
        try_claim(inner.fanout.job(spare.name), 1, DEAD)
        assert inner.found() == {}


# -- workers --------------------------------------------------------------------------------------------------------

WORKER = """
import sys
from spool.layout import SpoolFiles
from spool.worker import Worker
worker = Worker(SpoolFiles(sys.argv[1]), lease=36000.0)  # no beat changes a file while the test looks
worker.doing(sys.argv[2])
with open(worker.files.stdout, "w") as file:
    file.write("said before the end\\n")
print(worker.name, flush=True)
sys.stdin.readline()
"""


def forge(ward: Ward, host: str, pid: int, **members: Any) -> str:
    """The folder of a worker of another host; its path."""
    claimant = Claimant("eve", host, pid, "0123456789ab")
    files = ward.spool.worker(claimant.worker)
    os.mkdir(files.path, 0o700)
    record = {"host": host, "pid": pid, "boot_id": boot_id(), "lease": 30.0, "locked": True, "user": "eve", **members}
    write(files.worker, json.dumps(record))
    write(files.lock, "")
    write(files.beat, "1\n")
    return files.path


@pytest.fixture
def worker(ward: Ward) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A worker of this host that runs attempt 1 of a job: its process and its folder."""
    job, _ = ward.fresh()
    process = python(WORKER, ward.spool.path, f"{ward.fanout.path} {job.name} 1 0.0 0.0")
    path = ward.spool.worker(line(process)).path
    [record] = [json.loads(Path(path, "worker.json").read_text())]
    token = path.rpartition("-")[2]
    try_claim(job, 1, f"{record['user']}@{record['host']}:{record['pid']}:{token}")
    yield process, path
    process.kill()
    process.communicate(timeout=240)


class TestWorkers:
    def test_that_live(self, ward: Ward, worker: Any) -> None:
        assert set(ward.found(fix=True)) == {"stopped-run"}

    def test_that_were_killed(self, ward: Ward, worker: Any) -> None:
        process, path = worker
        process.kill()
        process.wait(timeout=240)
        finding = ward.cured("dead-worker", path, left={"stopped-run", "orphan"})
        assert "attempt 1 of" in finding.text
        job = ward.fanout.job(ward.tickets()["todo"][0])
        assert Path(job.stdout(1)).read_text() == "said before the end\n"  # kept, before the folder went

    def test_that_were_killed_in_a_live_run_are_its_coordinators_business(
        self, ward: Ward, worker: Any, driver: Any
    ) -> None:
        process, path = worker
        process.kill()
        process.wait(timeout=240)
        assert ward.found(fix=True) == {}
        notes = [f for f in doctor.examine(ward.spool.path) if f.severity is Severity.NOTE]
        assert [(note.kind, note.path) for note in notes] == [("dead-worker", path)]
        assert os.path.isdir(path)

    def test_of_an_earlier_boot(self, ward: Ward) -> None:
        path = forge(ward, host_name(), 1, boot_id="another")
        ward.cured("dead-worker", path)

    def test_that_are_stopped(self, ward: Ward, worker: Any) -> None:
        process, path = worker
        os.kill(process.pid, signal.SIGSTOP)
        try:
            wait_until(lambda: "stopped-worker" in ward.found(), what="the process to be stopped")
            finding = ward.told("stopped-worker", path, left={"stopped-run"})
        finally:
            os.kill(process.pid, signal.SIGCONT)
        assert f"kill -CONT {process.pid}" in finding.remedy
        assert finding.severity is Severity.WARNING

    def test_whose_lock_was_removed(self, ward: Ward, worker: Any) -> None:
        process, path = worker
        os.unlink(f"{path}/lock")
        finding = ward.told("unlocked-worker", f"{path}/lock", left={"stopped-run", "orphan"})
        assert f"kill {process.pid}" in finding.remedy

    def test_of_another_host_that_have_not_been_heard_of(self, ward: Ward) -> None:
        path = forge(ward, "elsewhere", 4242)
        assert ward.found() == {}
        age(f"{path}/beat", 60)
        assert ward.told("silent-worker", path).severity is Severity.WARNING

    def test_whose_record_cannot_be_read(self, ward: Ward) -> None:
        path = forge(ward, host_name(), 4242)
        write(f"{path}/worker.json", "{")
        assert [f.path for f in ward.found(fix=True)["corrupt"]] == [f"{path}/worker.json"]
        assert os.path.isdir(path)

    def test_that_are_just_being_made(self, ward: Ward) -> None:
        path = f"{ward.spool.workers}/{host_name()}-4242-0123456789ab"
        os.mkdir(path, 0o700)
        assert ward.found(fix=True) == {}
        age(path)
        ward.told("half-made", path)


def test_buries_only_whom_it_is_told_to(ward: Ward) -> None:
    one, two = (forge(ward, host_name(), pid, boot_id="another") for pid in (11, 12))
    Observer(ward.spool).bury({os.path.basename(one)})
    assert (os.path.isdir(one), os.path.isdir(two)) == (False, True)


# -- a live run -----------------------------------------------------------------------------------------------------


def test_looking_again_forgives_what_was_just_being_done(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ticket that moves between two listings is no finding in a live run, also when its worker is held up."""
    job, record = ward.fresh()
    with Worker(ward.spool) as worker:
        try_claim(job, 1, worker.text)
        jobs.write_result(job, 1, result(job, record, 1))  # the worker is between publishing and accepting

        steps = iter(
            [
                lambda: None,
                lambda: jobs.accept(job, 1),
                lambda: os.rename(ward.fanout.ticket("todo", job.name), ward.fanout.ticket("done", job.name)),
            ]
        )
        monkeypatch.setattr(checkup, "time", SimpleNamespace(sleep=lambda _seconds: next(steps)()))
        assert set(ward.found(fix=True)) == {"stopped-run"}
        assert next(steps, None) is None


@pytest.mark.usefixtures("soon_certain")
def test_in_a_live_run_a_ticket_in_the_wrong_folder_is_mended(ward: Ward, driver: subprocess.Popen[str]) -> None:
    """As any worker would that came across it."""
    job = ward.made[0]
    os.rename(ward.fanout.ticket("done", job.name), ward.fanout.ticket("failed", job.name))
    [finding] = ward.found(fix=True)["misfiled"]
    assert finding.fixed
    assert ward.found() == {}


@pytest.mark.usefixtures("soon_certain")
def test_in_a_live_run_a_lost_ticket_is_told_not_made(ward: Ward, driver: subprocess.Popen[str]) -> None:
    """A coordinator that makes one at this moment would find it there already."""
    job = ward.made[0]
    os.unlink(ward.fanout.ticket("done", job.name))
    assert "resume" in ward.told("no-ticket", job.path).remedy
    driver.kill()
    driver.wait(timeout=240)
    ward.cured("no-ticket", job.path, left={"stopped-run"})


WORKFLOW = """
name: busy
nodes:
  - name: split
    type: dynamic_parallel
    items: "{{ state.items }}"
    fan_in: merge
    action: {run: 'print("x"); return {"value": state["item"] * 2}'}
  - {name: merge, fan_in: true, run: 'return {"sum": sum(r.state["value"] for r in state["parallel_results"])}'}
"""


@pytest.mark.parametrize("strategy", ["process", "thread"])
def test_a_live_run_is_not_disturbed(tmp_path: Path, start_tea: Any, strategy: str) -> None:
    """Examined, and mended, again and again while its jobs are made, run, finished and collected."""
    (tmp_path / "w.yaml").write_text(WORKFLOW)
    count = 300
    given = ("--input", json.dumps({"items": list(range(count))}), "--strategy", strategy, "--progress", "none")
    process = start_tea("run", "w.yaml", *given, "--spool", "s", cwd=tmp_path)
    path = str(tmp_path / "s")
    wait_until(lambda: os.path.isdir(f"{path}/runs") or process.poll() is not None, what="the spool to be there")
    looks = 0
    while process.poll() is None or not looks:
        wrong = [finding for finding in doctor.examine(path, fix=True) if finding.severity is not Severity.OK]
        assert [finding for finding in wrong if finding.severity is not Severity.NOTE] == []
        looks += 1
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert json.loads(out)["sum"] == sum(range(count)) * 2
    assert list(doctor.examine(path, fix=True)) == []


# -- findings -------------------------------------------------------------------------------------------------------


class TestFindings:
    def test_mend_only_when_asked_to(self) -> None:
        findings = Findings(fix=False)
        findings.error("x", "/x", "broken", mend=lambda: 1 / 0 > 0)
        [finding] = findings
        assert (finding.fixable, finding.fixed, finding.needs_person) == (True, False, True)

    def test_say_why_they_could_not_be_mended(self) -> None:
        def full() -> bool:
            raise OSError(28, "No space left on device", "/x")

        findings = Findings(fix=True)
        findings.error("x", "/x", "broken", mend=full)
        findings.error("y", "/y", "broken", mend=lambda: False)
        first, second = findings
        assert "No space left" in first.text
        assert "changed meanwhile" in second.text
        assert first.needs_person
        assert second.needs_person

    def test_a_warning_needs_nobody(self) -> None:
        findings = Findings()
        findings.warning("x", "/x", "odd")
        assert not any(finding.needs_person for finding in findings)
