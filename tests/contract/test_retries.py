"""Retries with back-off: how many, of what, and that nobody waits for them."""

from __future__ import annotations

import itertools
import json
import threading
from pathlib import Path

import pytest

from tea import CancellationToken
from tests.contract.world import World
from tests.support import wait_until


def counting(folder: Path, name: str, fail: int, error: str = "OSError") -> str:
    """Code that fails its first attempts and notes when each began."""
    return f"""
import time
path = {str(folder / name)!r}
open(path, 'a').write(str(time.time()) + '\\n')
attempt = len(open(path).readlines())
if attempt <= {fail}:
    raise {error}(f'attempt {{attempt}}')
return {{'attempts': attempt}}
"""


def attempts(folder: Path, name: str) -> list[float]:
    return [float(line) for line in (folder / name).read_text().split()]


RETRY = {"max_retries": 3, "base_delay": 0.02, "backoff_multiplier": 2.0}


def test_a_branch_that_comes_round(world: World) -> None:
    ran = world.run(world.edges({"a": counting(world.folder, "a", fail=2), "b": ""}, {"retry": RETRY}))
    result = ran.of("a")
    assert (result.success, result.outcome, result["attempts"], result.retry_count) == (True, "succeeded", 3, 2)
    assert result.error is None
    assert result.attempt_errors == [
        {"attempt": 0, "error": "attempt 1", "error_type": "OSError"},
        {"attempt": 1, "error": "attempt 2", "error_type": "OSError"},
    ]
    assert ran.of("b").retry_count == 0
    job = Path(str(result.job))
    assert [json.loads((job / f"result.{n}.json").read_bytes())["success"] for n in (1, 2, 3)] == [False, False, True]


def test_a_branch_that_never_does(world: World) -> None:
    ran = world.run(world.edges({"a": counting(world.folder, "a", fail=99)}, {"retry": RETRY}))
    (result,) = ran.results
    assert len(attempts(world.folder, "a")) == 4
    assert (result.success, result.outcome, result.retry_count) == (False, "failed", 3)
    assert result.error == "attempt 4"
    assert [error["attempt"] for error in result.attempt_errors] == [0, 1, 2, 3]


def test_back_off_grows_and_is_capped(world: World) -> None:
    retry = {"max_retries": 3, "base_delay": 0.1, "backoff_multiplier": 3.0, "max_delay": 0.4}
    world.run(world.edges({"a": counting(world.folder, "a", fail=3)}, {"retry": retry}))
    began = attempts(world.folder, "a")
    waits = [later - earlier for earlier, later in itertools.pairwise(began)]
    assert all(wait >= least * 0.95 for wait, least in zip(waits, (0.1, 0.3, 0.4), strict=True)), waits


@pytest.mark.parametrize(
    ("retry_on", "error", "expected"),
    [
        (["OSError"], "FileNotFoundError", 3),
        (["OSError"], "ValueError", 1),
        (["ValueError", "KeyError"], "KeyError", 3),
        (["Exception"], "OSError", 3),
        (["json.decoder.JSONDecodeError"], "ValueError", 1),
    ],
)
def test_retry_on(world: World, retry_on: list[str], error: str, expected: int) -> None:
    retry = {"max_retries": 2, "base_delay": 0.01, "retry_on": retry_on}
    ran = world.run(world.edges({"a": counting(world.folder, "a", 99, error)}, {"retry": retry}))
    assert len(attempts(world.folder, "a")) == expected
    assert ran.results[0].retry_count == expected - 1
    assert ran.results[0].error_type == error


def test_a_waiting_retry_holds_nobody_up(world: World) -> None:
    """One slot, one branch that waits for its second attempt: others run meanwhile. When they have, that is all."""
    if world.strategy == "workers":
        pytest.skip("the worker of the tests has more slots than one")
    token = CancellationToken()
    marks = [world.folder / f"b{i}" for i in range(3)]

    def enough() -> None:
        wait_until(lambda: all(mark.exists() for mark in marks), what="the others to run")
        token.cancel()

    helper = threading.Thread(target=enough)
    helper.start()
    others = {mark.name: f"open({str(mark)!r}, 'x').close()" for mark in marks}
    flaky = counting(world.folder, "a", fail=1)
    retry = {"max_retries": 1, "base_delay": 600.0, "max_delay": 600.0}
    ran = world.run(world.edges({"a": flaky, **others}, {"max_workers": 1, "retry": retry}), cancel_token=token)
    helper.join()
    assert all(mark.exists() for mark in marks)
    assert len(attempts(world.folder, "a")) == 1
    assert ran.of("a").outcome == "cancelled"


def test_timeout_total_covers_all_attempts(world: World) -> None:
    """Back-off that would exceed it is not even begun."""
    retry = {"max_retries": 50, "base_delay": 0.2, "backoff_multiplier": 100.0}
    settings = {"timeout_total": 15, "retry": retry}
    ran = world.run(world.edges({"a": counting(world.folder, "a", fail=99)}, settings))
    assert len(attempts(world.folder, "a")) == 2
    assert (ran.results[0].success, ran.results[0].error_type) == (False, "OSError")


def test_the_number_of_kept_errors_is_bounded(python_world: World) -> None:
    graph = python_world.edges({"a": "raise OSError('no')"}, {"retry": {"max_retries": 7, "base_delay": 0.0}})
    (result,) = python_world.run(graph).results
    assert result.retry_count == 7
    assert [error["attempt"] for error in result.attempt_errors] == [3, 4, 5, 6, 7]


def test_a_worker_that_is_killed_does_not_eat_retries(process_world: World) -> None:
    """Killed from outside: the attempt is lost, and the branch runs again."""
    flag = process_world.folder / "flag"
    code = f"""
import os, signal
if not os.path.exists({str(flag)!r}):
    open({str(flag)!r}, 'x').close()
    os.kill(os.getpid(), signal.SIGKILL)
return {{'x': 1}}
"""
    ran = process_world.run(process_world.edges({"a": code, "b": ""}))
    assert ran.column("success") == [True, True]
    assert ran.results[0]["x"] == 1
    assert ran.results[0].attempt_errors == []


def test_a_branch_that_kills_its_workers_is_given_up(process_world: World) -> None:
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    ran = process_world.run(process_world.edges({"a": code, "b": ""}, {"max_lost": 1}))
    assert ran.column("outcome") == ["lost", "succeeded"]
    assert "its worker died 2 times" in str(ran.results[0].error)


def test_a_branch_that_crashes_its_process_fails(process_world: World) -> None:
    code = "import os\nprint('last words', flush=True)\nos.abort()"
    settings = {"max_workers": 1, "retry": {"max_retries": 1, "base_delay": 0}}
    ran = process_world.run(process_world.edges({"a": code, "b": ""}, settings))
    assert ran.column("outcome") == ["failed", "succeeded"]
    assert ran.column("retry_count") == [1, 0]
    assert (ran.results[0].error_type, ran.results[0].exit_code) == ("WorkerDied", -6)
    job = Path(str(ran.results[0].job))
    assert (job / "stdout.1.log").read_text() == (job / "stdout.2.log").read_text() == "last words\n"
    assert not (job / "result.3.json").exists()
