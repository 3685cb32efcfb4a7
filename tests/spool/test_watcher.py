"""The watcher: every finished job is named once; events only make it quick."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spool import tickets
from spool.watcher import HINTED_SHARE, LONGEST, SHARE, Watcher
from tests.faults.kit import need
from tests.spool.kit import Bench
from tests.spool.test_worker import Clock
from tests.support import ROOT, cannot, wait_until


@pytest.fixture
def bench(spool_dir: Path) -> Bench:
    return Bench(spool_dir)


def collect(watcher: Watcher, count: int, timeout: float = 240.0) -> list[str]:
    """Names from the watcher until there are `count` of them."""
    names: list[str] = []

    def enough() -> bool:
        watcher.wait(0.05)
        names.extend(watcher.finished())
        return len(names) >= count

    wait_until(enough, timeout, interval=0)
    return names


def test_a_poll_finds_each_finished_job_once_wherever_its_ticket_lies(bench: Bench) -> None:
    made = [job.name for job in bench.jobs(4)]
    with Watcher(bench.fanout) as watcher:
        assert watcher.poll() == []
        for name, kind in zip(made, tickets.FINISHED, strict=False):
            tickets.move(bench.fanout, name, kind)
        assert sorted(watcher.poll()) == made[:3]
        assert watcher.poll() == []
        tickets.move(bench.fanout, made[3], "done")
        assert watcher.poll() == made[3:]


def test_polls_come_at_intervals_and_hints_between_them(bench: Bench) -> None:
    made = [job.name for job in bench.jobs(2)]
    clock = Clock()
    watcher = Watcher(bench.fanout, interval=5.0, clock=clock)
    tickets.move(bench.fanout, made[0], "done")
    assert watcher.due == 5.0
    assert watcher.finished() == []
    watcher.hint(made[1])
    watcher.hint(made[1])
    assert watcher.finished() == [made[1]]
    assert watcher.finished() == []
    clock.now += 5.0
    assert watcher.due == 0.0
    assert watcher.finished() == [made[0]]
    assert watcher.due == 5.0


def test_a_hint_costs_no_listing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = Watcher(bench.fanout, clock=Clock())
    monkeypatch.setattr(os, "listdir", None)
    watcher.hint("0000-branch")
    assert watcher.finished() == ["0000-branch"]


def test_a_hint_that_was_early_is_forgotten_and_the_job_named_again(bench: Bench) -> None:
    [job] = bench.jobs()
    watcher = Watcher(bench.fanout)
    watcher.hint(job.name)
    assert watcher.finished() == [job.name]
    watcher.forget(job.name)
    assert watcher.poll() == []
    tickets.move(bench.fanout, job.name, "done")
    assert watcher.poll() == [job.name]


def test_listings_take_a_small_share_of_the_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    watcher = Watcher(bench.fanout, interval=0.2, clock=clock)
    listed = os.listdir

    def slow(path: str) -> list[str]:
        clock.now += takes
        return listed(path)

    takes = 0.02

    monkeypatch.setattr(os, "listdir", slow)
    watcher.poll()
    assert watcher.due == pytest.approx(3 * takes * SHARE)
    watcher.hint(bench.jobs()[0].name)
    watcher.finished()
    watcher.poll()
    assert watcher.due == pytest.approx(3 * takes * HINTED_SHARE)  # who finishes jobs says so
    watcher.poll()
    assert watcher.due == pytest.approx(3 * takes * SHARE)  # nobody did, so that only listings tell
    takes = 40.0  # the file server was away
    watcher.poll()
    assert watcher.due == LONGEST


def test_waiting_ends_with_a_hint(bench: Bench) -> None:
    watcher = Watcher(bench.fanout, interval=600.0)
    threading.Timer(0.05, watcher.hint, ["0000-branch"]).start()
    watcher.wait(240)
    assert watcher.finished() == ["0000-branch"]


def test_a_hint_between_collecting_and_waiting_is_not_slept_over(bench: Bench) -> None:
    watcher = Watcher(bench.fanout, interval=600.0)
    watcher.finished()
    watcher.hint("0000-branch")
    waiting = threading.Thread(target=watcher.wait, args=[600.0], daemon=True)
    waiting.start()
    waiting.join(240)
    assert not waiting.is_alive()


def test_a_folder_that_is_gone_is_an_empty_one(bench: Bench) -> None:
    os.rmdir(bench.fanout.tickets("done"))
    assert Watcher(bench.fanout).poll() == []


# -- events -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("move", [tickets.move, tickets.settle])
def test_events_name_finished_jobs_without_a_poll(bench: Bench, move: Callable[..., Any]) -> None:
    """Tickets that are moved into a folder, and those that are made there."""
    made = [job.name for job in bench.jobs(30)]
    clock = Clock()  # stands still: no poll is ever due
    with Watcher(bench.fanout, interval=600.0, events=True, clock=clock) as watcher:
        for number, name in enumerate(made):
            move(bench.fanout, name, tickets.FINISHED[number % 3])
        assert sorted(collect(watcher, 30)) == made
        assert watcher.poll() == []


def test_events_stop_with_the_watcher(bench: Bench) -> None:
    before = set(threading.enumerate())  # other tests of this process may have left some that end meanwhile
    with Watcher(bench.fanout, events=True):
        watching = set(threading.enumerate()) - before
        assert watching
    wait_until(lambda: not any(thread.is_alive() for thread in watching))


@pytest.mark.parametrize("after", range(3))
def test_without_watches_polling_does_the_work_and_says_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, after: int
) -> None:
    """The limit may be hit at any of the three folders; those that had begun are given up."""
    from watchdog.observers.inotify import InotifyEmitter

    started = []
    start = InotifyEmitter.on_thread_start

    def limited(emitter: InotifyEmitter) -> None:
        if len(started) == after:
            raise OSError(errno.ENOSPC, "inotify watch limit reached")
        started.append(emitter)
        start(emitter)

    monkeypatch.setattr(InotifyEmitter, "on_thread_start", limited)
    before = threading.active_count()
    made = [job.name for job in bench.jobs(10)]
    with (
        caplog.at_level(logging.WARNING, "tea.spool"),
        Watcher(bench.fanout, interval=0.05, events=True) as watcher,
    ):
        assert "no file events (" in caplog.text
        assert "polling every 0.05 s instead" in caplog.text
        wait_until(lambda: threading.active_count() <= before)
        for name in made:
            tickets.move(bench.fanout, name, "done")
        assert sorted(collect(watcher, 10)) == made


LIMITED = """
import os, sys
from pathlib import Path
for name in ("max_user_instances", "max_user_watches"):
    Path(f"/proc/sys/user/max_inotify_{name.removeprefix('max_user_')}").write_text("0")
from spool import tickets
from spool.watcher import Watcher
from tests.spool.kit import Bench
from tests.spool.test_watcher import collect
bench = Bench(sys.argv[1])
made = [job.name for job in bench.jobs(10)]
with Watcher(bench.fanout, interval=0.05, events=True) as watcher:
    assert watcher._observer is None, "there were events after all"
    for name in made:
        tickets.move(bench.fanout, name, "done")
    print(*sorted(collect(watcher, 10)))
"""


def test_with_inotify_used_up_all_results_come_within_an_interval(tmp_path: Path) -> None:
    argv = [need("unshare"), "--user", "--map-root-user", sys.executable, "-c", LIMITED, str(tmp_path / "spool")]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    if "unshare failed" in done.stderr or "max_inotify" in done.stderr:
        cannot(f"no user namespace with limits of its own here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 10
    assert "no file events" in done.stderr
