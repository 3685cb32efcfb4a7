"""The live display: what it shows, how rarely it looks, and that it leaves the terminal as it was."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import termios
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from executors.base import FanOutContext
from executors.board import Board
from executors.policy import ParallelConfig
from executors.result import ParallelFlowResult
from spool.layout import FanOutFiles
from tea.progress import Counts, Lines, Progress, duration, progress, speed
from tests.support import calls, clean_env, tea_argv, tea_cmd

WORKFLOW = """\
nodes:
  - name: split
    type: dynamic_parallel
    items: "{{ state.items }}"
    fan_in: merge
    action:
      run: |
        import os, sys, time
        sys.stdout.write(f"told by {state['item']}\\n")
        while os.path.exists("hold-6" if state["item"] >= 6 else "hold-0"):
            time.sleep(0.01)
        if state["item"] == 3:
            raise ValueError("bad")
        return {}
  - {name: merge, fan_in: true, run: 'return {"done": True}'}
"""


def counts(**changes: Any) -> Counts:
    zeros = dict.fromkeys(("done", "failed", "cancelled", "retries", "running", "rate"), 0)
    values: dict[str, Any] = {"name": "split", "total": 10, "seconds": 20.0, **zeros}
    return Counts(**{**values, **changes})


class TestText:
    @pytest.mark.parametrize(
        ("seconds", "text"),
        [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1:00 min"), (187, "3:07 min"), (7440, "2:04 h")],
    )
    def test_durations(self, seconds: float, text: str) -> None:
        assert duration(seconds) == text

    @pytest.mark.parametrize(("rate", "text"), [(41.4, "41/s"), (2.5, "2.5/s"), (0.2, "12/min"), (0.001, "4/h")])
    def test_speeds(self, rate: float, text: str) -> None:
        assert speed(rate) == text

    def test_under_way(self) -> None:
        shown = counts(done=4, failed=1, retries=2, running=2, rate=0.5).text()
        assert shown == "4/10 done, 1 failed, 2 retried, 2 running, 3 to do, 30/min, 10 s left"

    def test_at_the_end(self) -> None:
        assert counts(done=8, cancelled=2).text() == "8/10 done, 2 cancelled, 20 s"

    def test_before_anything_is_known(self) -> None:
        assert counts().text() == "0/10 done, 10 to do"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Shown:
    """A display that remembers."""

    interval = 1.0

    def __init__(self) -> None:
        self.calls: list[tuple[list[Counts], list[Counts]]] = []
        self.closed = False

    def show(self, live: list[Counts], ended: list[Counts]) -> None:
        self.calls.append((live, ended))

    def close(self) -> None:
        self.closed = True


def board(total: int = 3, path: str = "/s/runs/r/fanouts/001-split") -> Board:
    flows = [lambda state: state] * total
    return Board(flows, [{}] * total, ParallelConfig(), FanOutContext(fanout=FanOutFiles(path)), carry=False)


def finish(one: Board, i: int, success: bool = True) -> None:
    one.put(i, ParallelFlowResult(f"b{i}", success))


class TestProgress:
    def test_looks_at_intervals_only(self) -> None:
        clock, shown, one = Clock(), Shown(), board()
        shows = Progress(shown, clock)
        for _ in range(100):
            shows(one)
        assert len(shown.calls) == 1
        clock.now += 1.0
        shows(one)
        assert len(shown.calls) == 2

    def test_a_run_that_is_paused_says_so(self) -> None:
        shown, one = Shown(), board()
        one.paused = True
        Progress(shown, Clock())(one)
        ((live, _),) = shown.calls
        assert live[0].text() == "0/3 done, 3 to do, paused"

    def test_a_board_that_is_complete_is_shown_once_more_and_forgotten(self) -> None:
        clock, shown, one = Clock(), Shown(), board(1)
        with Progress(shown, clock) as shows:
            shows(one)
            finish(one, 0, success=False)
            shows(one)
        ((live, _), (left, ended)) = shown.calls
        assert ([c.name for c in live], left) == (["split"], [])
        assert [(c.total, c.failed, c.finished) for c in ended] == [(1, 1, 1)]
        assert shown.closed

    def test_several_boards_at_once_from_threads_of_their_own(self) -> None:
        clock, shown = Clock(), Shown()
        shows = Progress(shown, clock)
        boards = [board(1, f"/s/runs/r/fanouts/001-a/jobs/{n}-a/fanouts/001-in") for n in range(8)]
        threads = [threading.Thread(target=shows, args=(one,)) for one in boards]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        shows.close()
        live, _ = shown.calls[-1]
        assert [(c.name, c.nested) for c in live] == [("in", True)] * 8

    def test_a_resumed_fan_out_begins_with_results_and_its_rate_without_them(self) -> None:
        clock, shown, one = Clock(), Shown(), board(4)
        finish(one, 0)
        finish(one, 1)
        shows = Progress(shown, clock)
        shows(one)
        clock.now += 2.0
        finish(one, 2)
        shows(one)
        (now,) = shown.calls[-1][0]
        assert (now.done, now.rate, now.left) == (3, 0.5, 2.0)

    def test_costs_a_look_at_the_clock_next_to_a_job(self) -> None:
        shows, one = Progress(Shown(), Clock()), board()
        shows(one)
        called = calls(lambda: [shows(one), shows(one), shows(one)])
        assert called == ["Progress.__call__", "Clock.__call__"] * 3

    def test_none_is_none(self) -> None:
        assert progress("none") is None


class TestLines:
    def lines(self, *shows: tuple[list[Counts], list[Counts]]) -> list[str]:
        file = io.StringIO()
        display = Lines(file)
        for live, ended in shows:
            display.show(live, ended)
        display.close()
        return file.getvalue().splitlines()

    def test_only_what_has_changed(self) -> None:
        one, more = counts(done=1), counts(done=2)
        found = self.lines(([one], []), ([one], []), ([more], []), ([], [counts(done=10)]))
        assert [line.split(",")[0] for line in found] == [
            "tea: split: 1/10 done",
            "tea: split: 2/10 done",
            "tea: split: 10/10 done",
        ]

    def test_a_short_one_inside_a_branch_is_not_worth_a_line(self) -> None:
        assert self.lines(([], [counts(done=10, nested=True)])) == []

    def test_of_a_run(self, tmp_path: Path) -> None:
        (tmp_path / "w.yaml").write_text(WORKFLOW)
        done = tea_cmd("run", "w.yaml", "--input", '{"items": [1, 2, 3]}', cwd=tmp_path)
        assert re.search(r"^tea: split: 2/3 done, 1 failed, [\d.:]+ (s|min)$", done.stderr, re.MULTILINE)
        assert "\x1b" not in done.stderr

    def test_silence(self, tmp_path: Path) -> None:
        (tmp_path / "w.yaml").write_text(WORKFLOW.replace("sys.stdout.write", "str"))
        arguments = ("--input", '{"items": [1, 2]}', "--progress", "none")
        assert tea_cmd("run", "w.yaml", *arguments, cwd=tmp_path).stderr == ""


def plain(screen: str) -> str:
    """Without what colours text and moves the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen)


def on_a_terminal(argv: list[str], cwd: Path, shown: dict[str, str]) -> tuple[int, str, str]:
    """Run a command whose stderr is a terminal of 160 columns: exit code, stdout, what the terminal got.

    Each file of `shown` is there until the terminal has shown what fits its pattern.
    """
    for name in shown:
        (cwd / name).touch()
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 160, 0, 0))
    env = {**clean_env(), "TERM": "xterm-256color", "COLUMNS": "160"}  # that of who runs the tests would count
    process = subprocess.Popen(argv, cwd=cwd, env=env, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    data = b""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux answers EIO when the other end is closed
            break
        if not part:
            break
        data += part
        for name, pattern in shown.items():
            if re.search(pattern, plain(data.decode(errors="replace"))):
                (cwd / name).unlink(missing_ok=True)
    else:
        process.kill()
        pytest.fail(f"it has not shown all of {shown}: {plain(data.decode(errors='replace'))[-2000:]}")
    os.close(ours)
    assert process.stdout
    out = process.stdout.read().decode()
    process.stdout.close()
    return process.wait(240), out, data.decode(errors="replace")


class TestBar:
    def test_on_a_terminal(self, tmp_path: Path) -> None:
        (tmp_path / "w.yaml").write_text(WORKFLOW)
        argv = tea_argv("run", "w.yaml", "--input", json.dumps({"items": list(range(12))}), "--max-workers", "3")
        under_way = r"split [━╸╺ ]+5/12 done, 1 failed, 3 running, 3 to do, .*/(s|min), .* left"
        shown = {"hold-0": "split [━╸╺ ]+0/12 done", "hold-6": under_way}
        code, out, screen = on_a_terminal(argv, tmp_path, shown)
        assert code == 0
        assert json.loads(out)["done"] is True
        assert re.search(under_way, plain(screen))
        assert re.search(r"split  11/12 done, 1 failed, [\d.:]+ (s|min)", plain(screen))
        assert screen.count("\x1b[?25l") == screen.count("\x1b[?25h")  # the cursor is back
        assert "told by" not in screen  # it is in the record
        assert len(list(tmp_path.glob(".tea/spool/runs/*/fanouts/*/jobs/*/stdout.1.log"))) == 12

    def test_bar_may_be_asked_for(self, tmp_path: Path) -> None:
        (tmp_path / "w.yaml").write_text(WORKFLOW)
        done = tea_cmd("run", "w.yaml", "--input", '{"items": [1]}', "--progress", "bar", cwd=tmp_path)
        assert "split  1/1 done" in done.stderr
