"""Processes and their slots: deaths, starts that fail, what is left behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from executors.base import FanOutContext
from executors.held_slot import Doing, how_it_ended
from executors.policy import ParallelConfig, RetryPolicy
from executors.process import ProcessExecutor
from executors.slots import SlotsFailedError
from spool.run import create_fanout, open_spool

pytestmark = pytest.mark.usefixtures("no_leftovers")


def context(folder: Path, flows: list[Any], **more: Any) -> FanOutContext:
    import cloudpickle

    spool = open_spool(str(folder))
    fanout = create_fanout(f"{folder}/runs", 1, "src")
    return FanOutContext(spool=spool, fanout=fanout, runtime=cloudpickle.dumps(flows), **more)


def execute(folder: Path, flows: list[Any], *, workers: int = 2, **config: Any) -> Any:
    here = context(folder, flows)
    states = [{"i": i} for i in range(len(flows))]
    return ProcessExecutor(workers, here).execute(flows, states, ParallelConfig(grace_seconds=0.2, **config))


def test_every_slot_is_a_process_of_its_own(spool_dir: Path) -> None:
    results = execute(spool_dir, [lambda state: {"pid": os.getpid()}] * 6)
    pids = {result["pid"] for result in results}
    assert os.getpid() not in pids
    assert 1 <= len(pids) <= 2


def test_the_spool_keeps_no_workers_that_are_gone(spool_dir: Path) -> None:
    execute(spool_dir, [lambda state: None] * 4)
    left = [name for name in os.listdir(spool_dir / "workers") if f"-{os.getpid()}-" not in name]
    assert len(left) <= 1  # this process's own


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE])
def test_a_crash_is_the_jobs_failure(spool_dir: Path, number: signal.Signals) -> None:
    crash = lambda state: os.kill(os.getpid(), number)  # noqa: E731
    results = execute(spool_dir, [crash, lambda state: {"x": 1}], workers=1)
    assert [result.outcome for result in results] == ["failed", "succeeded"]
    assert results[0].exit_code == -number
    assert number.name in results[0].error


def test_an_exit_past_python_is_the_jobs_failure(spool_dir: Path) -> None:
    results = execute(spool_dir, [lambda state: os._exit(3), lambda state: {"x": 1}], workers=1)
    assert [result.outcome for result in results] == ["failed", "succeeded"]
    assert (results[0].exit_code, "exit code 3" in results[0].error) == (3, True)


def test_a_crash_is_tried_again_as_often_as_asked(spool_dir: Path) -> None:
    results = execute(spool_dir, [lambda state: os.abort()], workers=1, retry_policy=RetryPolicy(2, base_delay=0))
    assert results[0].retry_count == 2


def test_a_runner_that_cannot_start_says_why(spool_dir: Path) -> None:
    flows = [lambda state: None]
    here = context(spool_dir, flows, runner="executors.slot:NoSuchRunner")
    with pytest.raises(SlotsFailedError, match="NoSuchRunner"):
        ProcessExecutor(1, here).execute(flows, [{}], ParallelConfig())


def test_a_branch_may_replace_its_output_and_close_it(spool_dir: Path) -> None:
    def closes(state: Any) -> None:
        os.close(1)
        os.close(2)

    def prints(state: Any) -> None:
        print("hello")

    results = execute(spool_dir, [closes, prints], workers=1)
    assert [result.success for result in results] == [True, True]
    assert (Path(results[1].job) / "stdout.1.log").read_text() == "hello\n"


def test_what_a_slot_does_is_read_from_one_line() -> None:
    doing = Doing.parse("/a path/with spaces 0001-x 3 12.500 0.250")
    assert doing == Doing("/a path/with spaces", "0001-x", 3, 12.5, 0.25)
    for text in ("", "a b c", "/p job x 1 2"):
        assert Doing.parse(text) is None


def test_ends_in_words() -> None:
    assert how_it_ended(None) == "it did not end"
    assert how_it_ended(3) == "exit code 3"
    assert how_it_ended(-9) == "signal SIGKILL"
    assert how_it_ended(-99) == "signal 99"
