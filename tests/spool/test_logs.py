"""What a job printed: kept in its directory, or said to be lost."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

import pytest

from spool import logs
from spool.layout import JobFiles, SpoolFiles, WorkerFiles
from tests.spool.kit import raises_errno


@pytest.fixture
def worker(tmp_path: Path) -> WorkerFiles:
    """One that is dead, and whose job had printed something."""
    files = SpoolFiles(str(tmp_path)).worker("w")
    Path(files.path).mkdir(parents=True)
    Path(files.stdout).write_text("out\n")
    Path(files.stderr).write_text("err\n")
    return files


def test_what_a_dead_worker_has_left_goes_into_the_jobs_directory(worker: WorkerFiles, tmp_path: Path) -> None:
    logs.keep_logs(worker, JobFiles(str(tmp_path)), 2)
    assert (tmp_path / "stdout.2.log").read_text() == "out\n"
    assert (tmp_path / "stderr.2.log").read_text() == "err\n"


def test_what_the_disk_refuses_is_said_to_be_lost(
    worker: WorkerFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logs, "publish", raises_errno(errno.ENOSPC))
    with caplog.at_level(logging.WARNING, "tea.spool"):
        logs.keep_logs(worker, JobFiles(str(tmp_path)), 2)
    assert caplog.messages == [
        f"{tmp_path}/{name}.2.log: what the job printed is lost: No space left on device"
        for name in ("stdout", "stderr")
    ]


def test_a_job_that_was_removed_meanwhile_is_no_fault(
    worker: WorkerFiles, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Path(worker.stderr).unlink()
    logs.keep_logs(worker, JobFiles(str(tmp_path / "gone")), 2)
    assert not caplog.messages
