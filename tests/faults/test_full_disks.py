"""Disks that refuse: a run waits, says so, and goes on when it can; nothing is lost or half-written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.kit import HELD, NOTE, SUM, Place, as_root, debris, ended, final, kill, need, small_disk
from tests.support import clean_env, is_running, marked_with, tea_argv, wait_until

BIG = HELD.replace('return {"value"', 'return {"filling": "x" * 20000, "value"')


@pytest.fixture
def small(place: Place, request: pytest.FixtureRequest) -> Iterator[Place]:
    """A place whose spool is on a disk that is small: `bytes` or `inodes`."""
    options = "size=2m" if request.param == "bytes" else "nr_inodes=300"
    with small_disk(place.folder / "disk", options) as disk:
        place.spool = disk / "spool"
        yield place
        place.end()


def fill(place: Place, by: str) -> Callable[[], None]:
    """Fill the disk to the last byte or inode; what is given back empties it."""
    ballast = place.folder / "disk" / "ballast"
    ballast.mkdir()
    try:
        if by == "bytes":
            with open(ballast / "big", "wb", buffering=0) as file:
                while file.write(b"x" * 4096):
                    pass
        for number in range(100_000):
            (ballast / str(number)).touch()
    except OSError:
        pass
    return lambda: [path.unlink() for path in sorted(ballast.iterdir())] and None


def errors(place: Place) -> Path:
    return place.folder / "stderr"


def start(place: Place, *arguments: str) -> subprocess.Popen[str]:
    """Start `tea` with its stderr in a file, for a test to look into it."""
    with open(errors(place), "a") as err:
        return place.start(*arguments, stderr=err)


def warned(place: Place, text: str) -> None:
    wait_until(lambda: text in errors(place).read_text(), what=f"the warning '{text}'")


both = pytest.mark.parametrize(("small", "by"), [("bytes", "bytes"), ("inodes", "inodes")], indirect=["small"])


@both
@pytest.mark.parametrize("strategy", ["process", "thread"])
def test_results_that_do_not_fit_are_kept_and_written_later(small: Place, by: str, strategy: str) -> None:
    small.fan_out(BIG, strategy=strategy)
    small.hold()
    run = start(small, "run", "w.yaml", *small.input(6))
    small.wait_for("begin", 2)
    empty = fill(small, by)
    small.let_go()
    small.wait_for("end", 2)
    warned(small, "cannot write results in")
    assert run.poll() is None
    empty()
    assert final(run)["total"] == 30
    assert small.noted("begin").total() == 6  # nothing had to run again
    assert debris(small.spool) == []
    assert "No space left on device" in errors(small).read_text()


@both
def test_a_fan_out_that_begins_on_a_full_disk_waits(small: Place, by: str) -> None:
    work = {"name": "work", "strategy": {"parallel_each": "{{ state['items'] }}"}, "fan_in": "add", "run": HELD}
    first = {"name": "first", "run": HELD.replace('state["item"]', "0")}
    settings = {"parallel": {"strategy": "process", "max_workers": 2}}
    small.write(
        {"name": "t", "settings": settings, "nodes": [first, work, {"name": "add", "fan_in": True, "run": SUM}]}
    )
    small.hold()
    run = start(small, "run", "w.yaml", *small.input(4))
    small.wait_for("begin")
    empty = fill(small, by)
    small.let_go()
    warned(small, "waiting until it is possible again")
    assert run.poll() is None
    empty()
    assert final(run)["total"] == 12


@both
def test_a_coordinator_that_is_killed_on_a_full_disk_is_resumed(small: Place, by: str) -> None:
    small.fan_out(BIG)
    small.hold()
    run = start(small, "run", "w.yaml", *small.input(6))
    small.wait_for("begin", 2)
    empty = fill(small, by)
    small.let_go()
    warned(small, "cannot write results in")
    small.crash(run)
    resumed = start(small, "resume")
    warned(small, "waiting until it is possible again")
    empty()
    assert final(resumed)["total"] == 30
    assert debris(small.spool) == []


@pytest.mark.parametrize("small", ["bytes"], indirect=True)
def test_ctrl_c_on_a_full_disk(small: Place) -> None:
    small.fan_out(BIG)
    small.hold()
    run = start(small, "run", "w.yaml", *small.input(4))
    pids = small.wait_for("begin", 2)
    empty = fill(small, "bytes")
    small.let_go()
    warned(small, "cannot write results in")
    kill(run, signal.SIGINT)
    ended(run, 130)
    assert not any(map(is_running, pids))
    assert "To go on:" in errors(small).read_text()
    empty()
    assert small.resume()["total"] == 12


@pytest.mark.parametrize("small", ["bytes"], indirect=True)
def test_a_run_cannot_begin_on_a_full_disk(small: Place) -> None:
    small.fan_out()
    fill(small, "bytes")
    done = small.tea("run", "w.yaml", *small.input(2))
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert small.lines() == []


def test_a_read_only_disk_is_not_claimed_on(place: Place) -> None:
    """Workers stop claiming, and say so; when it can be written to, they go on."""
    strace = need("strace")
    place.fan_out(NOTE + "note('begin')\nreturn {'value': 1}", strategy="workers")
    run = place.run(3)
    wait_until(lambda: len(place.todo()) == 3)
    words = [strace, "-f", "-qq", "-o", "/dev/null", "-e", "inject=symlink,symlinkat:error=EROFS:when=1..3"]
    worker = subprocess.Popen(
        [*words, *tea_argv("worker", place.spool)],
        cwd=place.folder,
        env=clean_env(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    place.started.append(worker)
    assert final(run)["total"] == 3
    _, err = ended(worker)
    assert "cannot claim jobs in" in err
    assert "Read-only file system" in err
    assert place.noted("begin").total() == 3


def test_a_run_in_a_read_only_spool_is_refused_before_anything_starts(place: Place) -> None:
    with small_disk(place.folder / "disk", "size=2m") as disk:
        place.spool = disk / "spool"
        place.fan_out(NOTE + "note('begin')\nreturn {'value': 1}")
        final(place.run(2))
        place.end()
        begun = len(place.lines())
        mark = f"NO_LEFTOVERS_MARK={os.environ['NO_LEFTOVERS_MARK']}"
        wait_until(lambda: not marked_with(mark), what="an end of all that may have files open there")
        as_root("mount", "-o", "remount,ro", str(disk))
        for arguments in (["run", "w.yaml", *place.input(2)], ["resume", "--retry-failed"]):
            done = place.tea(*arguments)
            if arguments[0] == "run":
                assert done.returncode == 2
                assert "Read-only file system" in done.stderr
            assert "Traceback" not in done.stderr
        assert len(place.lines()) == begun


def test_a_job_directory_that_may_not_be_read(place: Place) -> None:
    """That job fails, with the reason; the others go on."""
    place.fan_out(HELD.replace("while os", "while state['item'] == 0 and os"), max_workers=1)
    place.hold()
    bound = []
    if os.geteuid() == 0:  # permissions do not bind root
        powers = "-dac_override,-dac_read_search"
        bound = [need("setpriv"), f"--inh-caps={powers}", f"--bounding-set={powers}"]
    run = subprocess.Popen(
        [*bound, *tea_argv("run", "w.yaml", *place.input(3))],
        cwd=place.folder,
        env={**clean_env(), "TEA_SPOOL": str(place.spool)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    place.started.append(run)
    place.wait_for("begin")
    wait_until(lambda: len(place.todo()) == 3)
    place.jobs()[1].joinpath("job.json").chmod(0)
    place.let_go()
    out, err = ended(run)
    assert json.loads(out)["total"] == 4
    assert "0001-work" in err
    results = [json.loads((job / "result.json").read_bytes()) for job in place.jobs()]
    assert [result["outcome"] for result in results] == ["succeeded", "failed", "succeeded"]
    assert "job.json" in results[1]["error"]
    assert "chmod" in results[1]["error"]
