"""The journal: lines that never mix, and a disk that refuses costs events only."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest

from spool.journal import Journal, read_journal
from spool.layout import RunFiles
from tests.spool.kit import Bench, python


@pytest.fixture
def run(spool_dir: Path) -> RunFiles:
    return Bench(spool_dir).run


def events(run: RunFiles) -> list[str]:
    return [event["event"] for event in read_journal(run)]


def test_events_are_read_as_they_were_written(run: RunFiles) -> None:
    assert events(run) == []
    journal = Journal(run)
    journal.write("started", jobs=3)
    journal.write("failed", job="0001-b", error="é\nx")
    journal.close()
    first, second = read_journal(run)
    assert (first["event"], first["jobs"]) == ("started", 3)
    assert first["at"] <= second["at"]
    assert second["error"] == "é\nx"
    assert len(Path(run.events).read_bytes().splitlines()) == 2


def test_a_resumed_run_appends(run: RunFiles) -> None:
    for event in ("one", "two"):
        journal = Journal(run)
        journal.write(event)
        journal.close()
    assert events(run) == ["one", "two"]


@pytest.mark.parametrize("cut", [b'{"event": "x', b"\0\0\0\n", b"5\n", b"[]\n", b"\xff\n", b"\n"])
def test_lines_that_a_crash_left_are_passed_over(run: RunFiles, cut: bytes) -> None:
    journal = Journal(run)
    journal.write("before")
    journal.close()
    with open(run.events, "ab") as file:
        file.write(cut + b"\n")
    journal = Journal(run)
    journal.write("after")
    journal.close()
    assert events(run) == ["before", "after"]


def test_a_full_disk_costs_events_and_one_warning(
    run: RunFiles, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(run)
    journal.write("before")
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))  # the last bytes that there were
    journal.write("cut")

    def full(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    journal._cut = False
    with caplog.at_level(logging.WARNING, "tea.spool"):
        journal.write("lost")
        journal.write("lost, too")
    assert len(caplog.records) == 1
    assert run.events in caplog.text
    monkeypatch.undo()
    journal.write("after")
    assert events(run) == ["before", "after"]


WRITER = """
import sys
from spool.journal import Journal
from spool.layout import RunFiles
journal = Journal(RunFiles(sys.argv[1]))
for number in range(200):
    journal.write(sys.argv[2], text="x" * 3000)
"""


def test_lines_of_several_writers_never_mix(run: RunFiles) -> None:
    writers = [python(WRITER, run.path, name) for name in "abc"]
    for writer in writers:
        writer.communicate(timeout=240)
    assert sorted(events(run)) == ["a"] * 200 + ["b"] * 200 + ["c"] * 200


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_a_journal_that_is_no_file_is_not_followed_and_not_waited_for(
    run: RunFiles, tmp_path: Path, kind: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    os.symlink(victim, run.events) if kind == "link" else os.mkfifo(run.events, 0o600)
    with pytest.raises(OSError, match=run.events):
        Journal(run)
    if kind == "link":
        with pytest.raises(OSError, match=run.events):
            list(read_journal(run))
    else:
        assert list(read_journal(run)) == []
    assert victim.read_text() == "precious"
