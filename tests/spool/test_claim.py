"""Claims: exactly one winner, whatever the file system answers."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spool.claim import Claimant, claimed_by, host_name, try_claim, user_name
from spool.layout import JobFiles, is_name
from tests.spool.kit import ALICE, BOB, line, python, raises_errno, together


@pytest.fixture
def job(tmp_path: Path) -> JobFiles:
    return JobFiles(str(tmp_path))


def test_the_first_has_it_and_the_second_has_not(job: JobFiles) -> None:
    assert claimed_by(job, 1) is None
    assert try_claim(job, 1, ALICE)
    assert not try_claim(job, 1, BOB)
    assert claimed_by(job, 1) == ALICE
    assert os.readlink(f"{job.path}/claim.1") == ALICE


def test_attempts_are_claimed_one_by_one(job: JobFiles) -> None:
    assert try_claim(job, 1, ALICE)
    assert try_claim(job, 2, BOB)
    assert (claimed_by(job, 1), claimed_by(job, 2)) == (ALICE, BOB)


def test_ones_own_claim_is_no_obstacle_unless_a_new_one_is_wanted(job: JobFiles) -> None:
    assert try_claim(job, 1, ALICE)
    assert try_claim(job, 1, ALICE)
    assert not try_claim(job, 1, ALICE, anew=True)
    assert try_claim(job, 2, ALICE, anew=True)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
def test_who_stands_in_the_link_decides_not_the_error(
    job: JobFiles, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """sshfs answers EPERM for a taken name; a request that NFS sent twice meets its own success."""
    try_claim(job, 1, ALICE)
    monkeypatch.setattr(os, "symlink", raises_errno(number))
    assert try_claim(job, 1, ALICE)
    assert not try_claim(job, 1, BOB)
    with pytest.raises(OSError, match=re.escape(os.strerror(number))):
        try_claim(job, 2, BOB)


def test_a_claim_that_was_reported_as_failed_but_happened_is_ours(
    job: JobFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    symlink = os.symlink

    def twice(text: str, path: str) -> None:
        symlink(text, path)
        symlink(text, path)

    monkeypatch.setattr(os, "symlink", twice)
    assert try_claim(job, 1, ALICE)


@pytest.mark.parametrize("plant", [os.mkdir, os.mkfifo, lambda path: Path(path).write_text("x")])
def test_what_is_no_link_is_nobodys_and_never_free(job: JobFiles, plant) -> None:  # type: ignore[no-untyped-def]
    plant(job.claim(1))
    assert not try_claim(job, 1, ALICE)
    assert (claimed_by(job, 1) or "").startswith("?")
    assert Claimant.parse(claimed_by(job, 1) or "") is None


def test_a_claim_in_a_job_that_is_gone_brings_nothing_back(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        try_claim(JobFiles(str(tmp_path / "gone")), 1, ALICE)
    assert not (tmp_path / "gone").exists()


RACER = """
import sys
from spool.claim import try_claim
from spool.layout import JobFiles
folder, me = sys.argv[1:]
jobs = [JobFiles(f"{folder}/{number}") for number in range(300)]
print("ready", flush=True); sys.stdin.readline()
print(*[number for number, job in enumerate(jobs) if try_claim(job, 1, f"u@h:{me}:aaaaaaaa")], flush=True)
"""


def test_of_four_processes_that_race_exactly_one_wins_each_claim(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / str(number)).mkdir()
    racers = [python(RACER, str(tmp_path), str(i)) for i in range(4)]
    together(racers)
    wins = [line(racer).split() for racer in racers]
    for racer in racers:
        racer.communicate(timeout=240)
    assert sorted(int(name) for won in wins for name in won) == list(range(300))
    for me, won in enumerate(wins):
        assert all(claimed_by(JobFiles(f"{tmp_path}/{name}"), 1) == f"u@h:{me}:aaaaaaaa" for name in won)


# -- claimants --------------------------------------------------------------------------------------------------

users = st.text(st.characters(exclude_characters="@/"), min_size=1, max_size=64)
hosts = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,51}", fullmatch=True)
tokens = st.from_regex(r"[0-9a-f]{12}", fullmatch=True)


@given(users, hosts, st.integers(1, 2**22), tokens)
def test_a_claimant_is_read_as_it_was_written(user: str, host: str, pid: int, token: str) -> None:
    claimant = Claimant(user, host, pid, token)
    assert Claimant.parse(str(claimant)) == claimant
    assert is_name(claimant.worker)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "?Permission denied",
        "a@b:1",
        "a@b:x:aaaaaaaa",
        "a@../b:1:aaaaaaaa",
        "a@b/c:1:aaaaaaaa",
        "a@b:1:../../x",
        "a@b:1:aaaaaaaa\n",
        "a@b:1:AAAAAAAA",
        "@b:1:aaaaaaaa",
        f"a@{'b' * 61}:1:aaaaaaaa",
        "a@-b:1:aaaaaaaa",
        "/a@b:1:aaaaaaaa",
    ],
)
def test_what_names_no_claimant(text: str) -> None:
    assert Claimant.parse(text) is None


@given(st.text(st.characters()))
def test_no_text_names_a_worker_outside_its_folder(text: str) -> None:
    claimant = Claimant.parse(text)
    assert claimant is None or is_name(claimant.worker)


def test_this_process_can_be_named() -> None:
    claimant = Claimant(user_name(), host_name(), os.getpid(), "0123456789ab")
    assert Claimant.parse(str(claimant)) == claimant
