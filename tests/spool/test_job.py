"""Job directories: made whole, read with suspicion, finished once, mended by whoever looks."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spool import job as jobs
from spool.attempts import Outcome, Policy, Verdict
from spool.claim import try_claim
from spool.errors import CorruptFileError, ForeignFileError
from spool.job import JobRecord, accept, accepted_attempt, finish, judge, look, read_accepted, read_job
from spool.layout import JobFiles
from spool.making import INLINE_BASE
from spool.publish import read_json
from tests.spool.kit import ALICE, BOB, Bench, leftovers, nobody, raises_errno, result, spec

LOST, FAILED = Outcome.LOST, Outcome.FAILED


@pytest.fixture
def bench(spool_dir: Path) -> Bench:
    return Bench(spool_dir)


def end(bench: Bench, job: JobFiles, record: JobRecord, attempt: int, outcome: Outcome = Outcome.SUCCEEDED) -> bool:
    return finish(bench.fanout, job, record, attempt, result(job, record, attempt, outcome))


def attempts(job: JobFiles, record: JobRecord) -> list[tuple[int, str, str | None]]:
    return [(a.number, a.claimant, a.ended.outcome.value if a.ended else None) for a in look(job, record).attempts]


# -- making jobs ------------------------------------------------------------------------------------------------


def test_a_job_says_all_that_is_needed_to_run_it(bench: Bench) -> None:
    [job] = bench.jobs(policy=Policy(max_retries=2))
    record = read_job(job)
    assert record.name == job.name == "0000-branch"
    assert record.policy == Policy(max_retries=2)
    assert record.data["entry"] == "first"
    assert record.data["exit"] == "join"
    assert jobs.read_input(job, record) == {"item": 0}
    assert Path(job.workflow).read_bytes() == b"name: branch\n"
    assert bench.tickets() == {"todo": [job.name]}


def test_a_small_shared_state_stands_in_each_input_and_a_large_one_is_linked(bench: Bench) -> None:
    small = json.dumps({"shared": "x"}).encode()
    [job] = bench.jobs(base=small)
    assert jobs.read_input(job, read_job(job)) == {"shared": "x", "item": 0}
    assert not os.path.lexists(job.base)


def test_a_large_shared_state_is_written_once_and_linked(bench: Bench) -> None:
    large = json.dumps({"shared": "x" * INLINE_BASE}).encode()
    made = bench.jobs(3, base=large)
    assert len({os.stat(job.base).st_ino for job in made}) == 1
    for index, job in enumerate(made):
        record = read_job(job)
        assert jobs.read_input(job, record) == {"item": index}
        assert record.data["base_sha256"] == jobs.sha256(Path(job.base).read_bytes()) == jobs.sha256(large)


@pytest.mark.parametrize("base", [b"{}", b'{"shared":1}'])
@pytest.mark.parametrize("own", [b"{}", b'{"item":1}'])
def test_inputs_without_members_are_objects_too(bench: Bench, base: bytes, own: bytes) -> None:
    bench.writer(base=base).create(replace(spec(0), own=own))
    job = bench.fanout.job("0000-branch")
    assert jobs.read_input(job, read_job(job)) == {**json.loads(base), **json.loads(own)}


def test_making_a_job_twice_changes_nothing(bench: Bench) -> None:
    assert bench.writer().create(spec(0)) is not None
    before = read_json(bench.fanout.job("0000-branch").job)
    for own in (b"{}", b'{"item":"another"}'):
        assert bench.writer().create(replace(spec(0), own=own)) is None
    assert read_json(bench.fanout.job("0000-branch").job) == before


FILES = ["job.json", "input.json", "workflow.yaml", "base.json", "input.pickle"]


@pytest.mark.parametrize("count", range(6))
def test_a_directory_that_a_dead_coordinator_left_half_made_is_made_anew(bench: Bench, count: int) -> None:
    """Whatever was written when it died; job.json is written last."""
    job = bench.fanout.job("0000-branch")
    os.mkdir(job.path)
    for name in reversed(FILES[len(FILES) - count :] if count else []):
        Path(f"{job.path}/{name}").write_bytes(b'{"id": "0000-')
    assert bench.writer().create(replace(spec(0), pickle=b"pickled")) is not None
    assert read_job(job).data["pickle_sha256"] == jobs.sha256(b"pickled")
    assert bench.tickets() == {"todo": [job.name]}


def test_a_job_that_lacks_only_its_ticket_is_given_one(bench: Bench) -> None:
    """The coordinator died, or its disk was full, between job.json and the ticket."""
    [job] = bench.jobs()
    os.unlink(bench.fanout.ticket("todo", job.name))
    assert bench.writer().create(spec(0)) is None
    assert bench.tickets() == {"todo": [job.name]}


@pytest.mark.parametrize("kind", ["todo", "done", "failed", "cancelled"])
def test_a_job_with_a_ticket_is_never_made_anew_whatever_its_state(bench: Bench, kind: str) -> None:
    """It may hold results; that its job.json cannot be read is for its reader to say."""
    job, record = bench.job()
    try_claim(job, 1, ALICE)
    jobs.write_result(job, 1, result(job, record, 1))
    os.rename(bench.fanout.ticket("todo", job.name), bench.fanout.ticket(kind, job.name))
    Path(job.job).write_bytes(b"")
    assert bench.writer().create(spec(0)) is None
    assert os.path.exists(job.result(1))
    assert bench.tickets() == {kind: [job.name]}


@pytest.mark.parametrize("call", ["mkdir", "write", "link"])
def test_a_job_that_the_disk_refused_can_be_made_when_it_has_room_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    writer = bench.writer()
    monkeypatch.setattr(os, call, raises_errno(errno.EIO if call == "link" else errno.ENOSPC))
    with pytest.raises(OSError, match=r"No space|Input/output"):
        writer.create(spec(0))
    monkeypatch.undo()
    assert bench.tickets() == {}
    writer.create(spec(0))
    assert read_job(bench.fanout.job("0000-branch")).name == "0000-branch"
    assert bench.tickets() == {"todo": ["0000-branch"]}


def test_where_links_are_refused_jobs_hold_copies(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", raises_errno(errno.EPERM))
    made = bench.jobs(3, base=json.dumps({"shared": "x" * INLINE_BASE}).encode())
    assert len({os.stat(job.base).st_ino for job in made}) == 3
    assert bench.tickets() == {"todo": [job.name for job in made]}


# -- reading jobs -----------------------------------------------------------------------------------------------


def change(path: str, **members: Any) -> None:
    data = json.loads(Path(path).read_bytes())
    data.update(members)
    Path(path).write_text(json.dumps(data))


@pytest.mark.parametrize(
    "members",
    [
        {"id": "0001-other"},
        {"input_sha256": None},
        {"index": "0"},
        {"branch": None},
        {"entry": 1},
        {"policy": [1]},
        {"policy": "x"},
        {"policy": {"max_retries": "many"}},
        {"policy": {"unknown": 1}},
    ],
)
def test_a_job_record_that_no_coordinator_wrote_is_corrupt(bench: Bench, members: dict[str, Any]) -> None:
    [job] = bench.jobs()
    change(job.job, **members)
    with pytest.raises(CorruptFileError, match=r"job\.json"):
        read_job(job)


def test_a_job_without_a_record_is_corrupt_and_one_without_a_directory_is_absent(bench: Bench) -> None:
    [job] = bench.jobs()
    os.unlink(job.job)
    with pytest.raises(CorruptFileError, match="missing"):
        read_job(job)
    with pytest.raises(FileNotFoundError):
        read_job(bench.fanout.job("0009-gone"))


@pytest.mark.parametrize("data", [b"", b'{"item": 1}', b"{", b'{"item":0} '])
def test_an_input_that_is_not_what_the_coordinator_wrote_is_refused(bench: Bench, data: bytes) -> None:
    job, record = bench.job()
    Path(job.input).write_bytes(data)
    with pytest.raises(CorruptFileError, match="sha256"):
        jobs.read_input(job, record)


# -- results ----------------------------------------------------------------------------------------------------


def test_an_attempt_has_one_result(bench: Bench) -> None:
    job, record = bench.job()
    try_claim(job, 1, ALICE)
    assert end(bench, job, record, 1) is True
    assert end(bench, job, record, 1, FAILED) is False
    assert read_accepted(job, record.input_sha256)["success"] is True  # type: ignore[index]
    assert attempts(job, record) == [(1, ALICE, "succeeded")]
    assert bench.tickets() == {"done": [job.name]}
    assert leftovers(bench.spool.path) == []


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (Outcome.SUCCEEDED, "done"),
        (Outcome.FAILED, "failed"),
        (Outcome.TIMED_OUT, "failed"),
        (Outcome.LOST, "failed"),
        (Outcome.CANCELLED, "cancelled"),
    ],
)
@pytest.mark.parametrize("sync", [False, True])
def test_a_final_result_is_accepted_and_the_ticket_moves(
    bench: Bench, outcome: Outcome, kind: str, sync: bool
) -> None:
    job, record = bench.job()
    try_claim(job, 1, ALICE)
    finish(bench.fanout, job, record, 1, result(job, record, 1, outcome), sync=sync)
    assert accepted_attempt(job) == 1
    assert bench.tickets() == {kind: [job.name]}


def test_a_failure_that_may_be_retried_is_not_accepted(bench: Bench) -> None:
    job, record = bench.job(Policy(max_retries=1))
    for attempt, tickets in ((1, {"todo": [job.name]}), (2, {"failed": [job.name]})):
        try_claim(job, attempt, ALICE)
        end(bench, job, record, attempt, FAILED)
        assert bench.tickets() == tickets
    assert accepted_attempt(job) == 2


def test_a_late_result_is_kept_aside_and_never_accepted(bench: Bench) -> None:
    job, record = bench.job()
    try_claim(job, 1, ALICE)
    try_claim(job, 2, BOB)
    assert end(bench, job, record, 1) is True
    assert os.path.exists(job.result(1))
    assert accepted_attempt(job) is None
    assert bench.tickets() == {"todo": [job.name]}
    end(bench, job, record, 2)
    assert accepted_attempt(job) == 2
    assert bench.tickets() == {"done": [job.name]}


def test_an_accepted_result_stays_when_a_newer_attempt_ends(bench: Bench) -> None:
    """A worker that was taken for dead may be between its two checks when the next attempt is claimed."""
    job, record = bench.job()
    try_claim(job, 1, ALICE)
    jobs.write_result(job, 1, result(job, record, 1))
    assert accept(job, 1)
    try_claim(job, 2, BOB)
    end(bench, job, record, 2, FAILED)
    assert not accept(job, 2)
    assert accept(job, 1) is False or accepted_attempt(job) == 1
    assert accepted_attempt(job) == 1
    judge(bench.fanout, job, record, nobody)
    assert bench.tickets() == {"done": [job.name]}


def test_of_two_results_that_race_for_acceptance_one_is_accepted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both pass the first check; the exclusive link decides."""
    job, record = bench.job()
    try_claim(job, 1, ALICE)
    jobs.write_result(job, 1, result(job, record, 1))
    link = os.link

    def claimed_meanwhile(source: str, path: str) -> None:
        monkeypatch.setattr(os, "link", link)
        try_claim(job, 2, BOB)
        jobs.write_result(job, 2, result(job, record, 2))
        assert accept(job, 2)
        link(source, path)

    monkeypatch.setattr(os, "link", claimed_meanwhile)
    assert accept(job, 1) is False
    assert accepted_attempt(job) == 2


@pytest.mark.parametrize("number", [errno.EMLINK, errno.EPERM, errno.ENOSPC, errno.EXDEV], ids=errno.errorcode.get)
def test_where_links_are_refused_one_result_is_accepted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    job, record = bench.job()
    monkeypatch.setattr(os, "link", raises_errno(number))
    try_claim(job, 1, ALICE)
    end(bench, job, record, 1)
    assert os.readlink(job.accepted) == "result.1.json"
    assert read_accepted(job, record.input_sha256)["attempt"] == 1  # type: ignore[index]
    assert bench.tickets() == {"done": [job.name]}
    monkeypatch.undo()
    jobs.write_result(job, 2, result(job, record, 2))
    assert not accept(job, 2)
    assert accept(job, 1)
    assert judge(bench.fanout, job, record, nobody).verdict is Verdict.FINISHED


# -- planted and broken results ---------------------------------------------------------------------------------


def planted(job: JobFiles, record: JobRecord) -> dict[str, bytes]:
    good = result(job, record, 1)

    def but(**members: Any) -> bytes:
        return json.dumps({**good, **members}).encode()

    return {
        "empty": b"",
        "truncated": but()[:-3],
        "NaN": b'{"job": NaN}',
        "a list": b"[]",
        "deep": b"[" * 10_000,
        "another job's": but(job="0001-branch"),
        "another attempt's": but(attempt=2),
        "attempt true": but(attempt=True),
        "another input's": but(input_sha256="0" * 64),
        "no input's but a success": but(input_sha256=""),
        "without outcome": json.dumps({k: v for k, v in good.items() if k != "outcome"}).encode(),
        "outcome unknown": but(outcome="great"),
        "outcome a list": but(outcome=[]),
        "spent a text": but(spent="long"),
        "seconds a list": but(seconds=[1]),
        "error types a number": but(error_types=5),
    }


KINDS = list(planted(JobFiles("x"), JobRecord({}, Policy(), "")))


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_that_cannot_be_trusted_is_put_aside_and_the_job_runs_again(bench: Bench, kind: str) -> None:
    """Also while the worker lives that wrote it: it does not know, and would be waited for for ever."""
    job, record = bench.job()
    try_claim(job, 1, ALICE)
    Path(job.result(1)).write_bytes(planted(job, record)[kind])
    os.chmod(job.result(1), 0o600)
    for _ in range(2):
        decision = judge(bench.fanout, job, record, lambda claimant: claimant == ALICE)
        assert (decision.verdict, decision.attempt, decision.lost) == (Verdict.FREE, 2, 1)
    assert os.path.exists(f"{job.result(1)}.corrupt")
    try_claim(job, 2, BOB)
    end(bench, job, record, 2)
    assert accepted_attempt(job) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_an_accepted_result_that_spoils_is_put_aside_and_the_job_ends_anew(bench: Bench, kind: str) -> None:
    """result.json and result.1.json are one file: both are lost, and a second attempt is not."""
    job, record = bench.job()
    try_claim(job, 1, ALICE)
    end(bench, job, record, 1)
    with open(job.accepted, "wb") as file:
        file.write(planted(job, record)[kind])
    if kind != "another attempt's":  # result.json may be any attempt's
        with pytest.raises(CorruptFileError):
            read_accepted(job, record.input_sha256)
    decision = judge(bench.fanout, job, record, lambda claimant: claimant == ALICE)
    if kind == "another attempt's":
        assert decision.verdict is Verdict.FINISHED
        return
    assert (decision.verdict, decision.attempt) == (Verdict.FREE, 2)
    assert not os.path.lexists(job.accepted)
    try_claim(job, 2, BOB)
    end(bench, job, record, 2)
    assert accepted_attempt(job) == 2
    assert read_accepted(job, record.input_sha256)["attempt"] == 2  # type: ignore[index]


def test_a_result_without_a_claim_is_nobodys(bench: Bench) -> None:
    job, record = bench.job()
    jobs.write_result(job, 1, result(job, record, 1))
    decision = judge(bench.fanout, job, record, nobody)
    assert (decision.verdict, decision.attempt) == (Verdict.FREE, 1)
    assert accepted_attempt(job) is None


PLANTED_ACCEPTED: dict[str, Callable[[str], None]] = {
    "link outside": lambda path: os.symlink("/etc/passwd", path),
    "link to the input": lambda path: os.symlink("input.json", path),
    "link to another job's result": lambda path: os.symlink("../0001-branch/result.1.json", path),
    "dangling link": lambda path: os.symlink("result.7.json", path),
    "fifo": lambda path: os.mkfifo(path, 0o600),
    "folder": lambda path: os.mkdir(path),
}


@pytest.mark.parametrize("kind", PLANTED_ACCEPTED)
def test_what_is_planted_as_accepted_result_is_refused_and_the_job_ends(bench: Bench, kind: str) -> None:
    job, record = bench.job()
    try_claim(job, 1, ALICE)
    PLANTED_ACCEPTED[kind](job.accepted)
    with pytest.raises((ForeignFileError, CorruptFileError)):
        read_accepted(job, record.input_sha256)
    assert end(bench, job, record, 1) is True
    assert judge(bench.fanout, job, record, nobody).verdict is Verdict.FINISHED
    assert read_accepted(job, record.input_sha256)["attempt"] == 1  # type: ignore[index]
    assert os.path.lexists(f"{job.accepted}.corrupt")
    assert bench.tickets() == {"done": [job.name]}


# -- mending ----------------------------------------------------------------------------------------------------


def test_a_result_that_a_dead_worker_did_not_get_accepted_is_accepted_by_who_looks(bench: Bench) -> None:
    job, record = bench.job()
    try_claim(job, 1, ALICE)
    jobs.write_result(job, 1, result(job, record, 1))
    decision = judge(bench.fanout, job, record, nobody)
    assert (decision.verdict, decision.attempt) == (Verdict.FINISHED, 1)
    assert accepted_attempt(job) == 1
    assert bench.tickets() == {"done": [job.name]}


@pytest.mark.parametrize("places", [["todo"], [], ["failed"], ["todo", "done"], ["failed", "cancelled"]])
def test_a_ticket_at_odds_with_its_job_is_mended(bench: Bench, places: list[str]) -> None:
    job, record = bench.job()
    try_claim(job, 1, ALICE)
    end(bench, job, record, 1)
    os.unlink(bench.fanout.ticket("done", job.name))
    for place in places:
        os.link(bench.fanout.blank, bench.fanout.ticket(place, job.name))
    judge(bench.fanout, job, record, nobody)
    assert bench.tickets() == {"done": [job.name]}


def test_a_worker_that_published_and_ended_between_two_looks_is_not_taken_for_dead(bench: Bench) -> None:
    job, record = bench.job()
    try_claim(job, 1, ALICE)

    def ends_now(_claimant: str) -> bool:
        if not os.path.exists(job.result(1)):
            jobs.write_result(job, 1, result(job, record, 1))
        return False

    assert judge(bench.fanout, job, record, ends_now).verdict is Verdict.FINISHED


def test_an_accepted_result_ends_a_job_whatever_was_claimed_after_it(bench: Bench) -> None:
    job, record = bench.job()
    try_claim(job, 1, ALICE)
    jobs.write_result(job, 1, result(job, record, 1))
    accept(job, 1)
    try_claim(job, 2, BOB)
    decision = judge(bench.fanout, job, record, nobody)
    assert (decision.verdict, decision.attempt) == (Verdict.FINISHED, 1)
    assert bench.tickets() == {"done": [job.name]}


# -- refusing ---------------------------------------------------------------------------------------------------


def broken(job: JobFiles) -> CorruptFileError:
    Path(job.job).write_bytes(b"{")
    return CorruptFileError(job.job, "not JSON")


def test_a_refused_job_fails_with_the_reason(bench: Bench) -> None:
    job, record = bench.job()
    jobs.refuse(bench.fanout, job, ALICE, broken(job))
    refused = read_accepted(job, record.input_sha256)
    assert refused is not None
    assert (refused["outcome"], refused["error_type"]) == ("failed", "CorruptFileError")
    assert "job.json" in refused["error"]
    assert bench.tickets() == {"failed": [job.name]}


def test_refusing_uses_ones_own_open_attempt_and_fences_anothers(bench: Bench) -> None:
    job, _ = bench.job()
    try_claim(job, 1, ALICE)
    jobs.refuse(bench.fanout, job, ALICE, broken(job))
    assert accepted_attempt(job) == 1
    other = Bench(Path(bench.spool.path).with_name("other"))
    job, record = other.job()
    try_claim(job, 1, ALICE)
    jobs.refuse(other.fanout, job, BOB, broken(job))
    finish(other.fanout, job, record, 1, result(job, record, 1))
    assert accepted_attempt(job) == 2
    assert other.tickets() == {"failed": [job.name]}


def test_refusing_a_job_that_has_ended_only_mends_its_ticket(bench: Bench) -> None:
    job, record = bench.job()
    try_claim(job, 1, ALICE)
    jobs.write_result(job, 1, result(job, record, 1))
    accept(job, 1)
    jobs.refuse(bench.fanout, job, BOB, broken(job))
    assert accepted_attempt(job) == 1
    assert not os.path.lexists(job.claim(2))
    assert bench.tickets() == {"done": [job.name]}


def test_refusing_does_not_put_a_good_result_aside(bench: Bench) -> None:
    job, record = bench.job(Policy(max_retries=1))
    try_claim(job, 1, ALICE)
    end(bench, job, record, 1, FAILED)
    jobs.refuse(bench.fanout, job, BOB, broken(job))
    assert os.path.exists(job.result(1))
    assert accepted_attempt(job) == 2
