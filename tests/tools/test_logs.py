"""`tea spool logs`: of finished, running, retried and killed attempts."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from spool.layout import JobFiles
from spool.output import Output
from tests.support import wait_until
from tests.tools.kit import Start, files_of, job, read, run, start, text, verb, write_workflow
from tools.logs import tame


@pytest.fixture
def here(tmp_path: Path) -> Path:
    write_workflow(tmp_path)
    return tmp_path


class TestFinished:
    @pytest.mark.parametrize("strategy", ["process", "thread"])
    def test_each_stream_goes_to_its_own(self, here: Path, strategy: str) -> None:
        run(here, strategy=strategy)
        done = verb(here, "logs", "1")
        assert (done.stdout, done.stderr) == ("about to 1\n", "careful\n")

    def test_one_stream(self, ended: Path) -> None:
        assert verb(ended, "logs", "1", "--stdout").stdout == "about to 1\n"
        done = verb(ended, "logs", "1", "--stderr")
        assert (done.stdout, done.stderr) == ("careful\n", "")

    def test_an_attempt(self, here: Path) -> None:
        run(here)
        (job(here, 1) / "stdout.1.log").write_text("the first\n")
        assert text(here, "logs", "1", "--attempt", "1") == "the first\n"
        assert text(here, "logs", "1") == "about to 1\n"
        done = verb(here, "logs", "1", "--attempt", "3", code=2)
        assert "001-split/0001-split: no attempt 3; it has 1, 2" in done.stderr

    def test_json(self, ended: Path) -> None:
        told = read(ended, "logs", "1")
        assert (told["attempt"], told["attempts"], told["ended"]) == (2, [1, 2], True)
        assert (told["stdout"], told["stderr"]) == ("about to 1\n", "careful\n")
        assert "stderr" not in read(ended, "logs", "1", "--stdout")

    def test_one_that_printed_nothing_says_so(self, here: Path) -> None:
        run(here)
        for log in job(here, 0).glob("*.log"):
            log.unlink()
        done = verb(here, "logs", "0")
        assert (done.stdout, done.stderr) == ("", "tea: attempt 1 of 001-split/0000-split printed nothing\n")

    def test_following_one_that_has_ended_begins_at_an_attempt_and_ends(self, ended: Path) -> None:
        done = verb(ended, "logs", "1", "-f", "--attempt", "1", "--stdout")
        assert done.stdout == "about to 1\nabout to 1\n"
        assert done.stderr == "tea: attempt 2 of 001-split/0001-split:\n"

    def test_nothing_is_written_by_looking(self, ended: Path) -> None:
        before = files_of(ended)
        verb(ended, "logs", "1", "-f")
        assert files_of(ended) == before


class TestRunning:
    def test_what_it_has_printed_so_far(self, here: Path, start_tea: Start) -> None:
        start(here, start_tea)
        told = wait_until(lambda: (t := read(here, "logs", "2"))["stdout"] and t["stderr"] and t)
        assert (told["stdout"], told["stderr"], told["ended"]) == ("about to 2\n", "careful\n", False)
        assert not list(job(here, 2).glob("*.log"))

    def test_following_goes_on_to_its_end(self, here: Path, start_tea: Start) -> None:
        process = start(here, start_tea, bad=(2,))
        follower = start_tea("spool", "logs", "2", "-f", "--json", cwd=here)
        assert follower.stdout
        assert json.loads(follower.stdout.readline()) == {"attempt": 1, "stream": "stdout", "text": "about to 2\n"}
        (here / "block").unlink()
        lines = follower.stdout.readlines()  # not communicate(): that passes over what readline has read ahead
        first, *second = [(p["attempt"], p["stream"], p["text"]) for p in map(json.loads, lines)]
        assert first == (1, "stderr", "careful\n")
        # In either order: it may have looked for the one stream before the job began, and for the other after.
        assert sorted(second) == [(2, "stderr", "careful\n"), (2, "stdout", "about to 2\n")]
        assert follower.wait(240) == 0
        assert process.wait(240) == 0

    def test_a_thread_says_that_it_shows_nothing_yet(self, here: Path, start_tea: Start) -> None:
        start(here, start_tea, strategy="thread")
        assert "attempt 1 of 001-split/0002-split runs in a thread" in verb(here, "logs", "2").stderr

    def test_of_a_dead_worker(self, here: Path, start_tea: Start) -> None:
        process = start(here, start_tea)
        wait_until(lambda: read(here, "logs", "2")["stderr"])
        os.kill(process.pid, signal.SIGKILL)
        process.wait(240)
        wait_until(lambda: read(here, "logs", "2")["ended"], what="the slot to be seen dead")
        done = verb(here, "logs", "2", "--follow")
        assert "about to 2\n" in done.stdout
        assert "no worker lives that could take it" in done.stderr


def test_a_long_output_whose_beginning_was_dropped_is_followed_without_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "r" / "fanouts" / "001-s" / "jobs" / "0-s"
    path.mkdir(parents=True)
    output = Output(JobFiles(str(path)), 1, ("stdout",))
    output._read["stdout"] = 110  # what was read from the scratch file, of the 120 bytes that were printed
    (path / "stdout.1.log").write_bytes(b"[tea: the first 100 bytes were dropped]\n" + b"a" * 10 + b"b" * 10)
    assert [piece.data for piece in output.more()] == [b"b" * 10]
    assert list(output.more()) == []


def test_a_terminal_keeps_its_cursor() -> None:
    assert tame("a\x1b[31mred\x1b[0m\tb\r\n\x1b[2J\x07\x9b") == "a\x1b[31mred\x1b[0m\tb\r\n?[2J??"
