"""Threads that wait for work."""

from __future__ import annotations

import os
import threading
from importlib import util
from typing import Any

import pytest

from tests.support import wait_until


@pytest.fixture
def threads() -> Any:
    """The module, made anew: threads that other tests have left busy come back to the other one."""
    spec = util.find_spec("executors.threads")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.IDLE = 240.0  # type: ignore[attr-defined]
    return module


def ran_in() -> tuple[threading.Event, list[threading.Thread], Any]:
    done: threading.Event = threading.Event()
    workers: list[threading.Thread] = []

    def task() -> None:
        workers.append(threading.current_thread())
        done.set()

    return done, workers, task


def test_a_thread_that_is_free_takes_the_next_task(threads: Any) -> None:
    first, workers, task = ran_in()
    threads.run_in_thread(task)
    assert first.wait(240)
    wait_until(lambda: threads._idle)
    second, more, task = ran_in()
    threads.run_in_thread(task)
    assert second.wait(240)
    assert more == workers


def test_a_task_that_never_ends_keeps_nobody_waiting(threads: Any) -> None:
    release = threading.Event()
    threads.run_in_thread(lambda: release.wait(240) and None)
    done, _, task = ran_in()
    threads.run_in_thread(task)
    assert done.wait(240)
    release.set()


def test_threads_without_work_end(threads: Any) -> None:
    threads.IDLE = 0.01
    done, workers, task = ran_in()
    threads.run_in_thread(task)
    assert done.wait(240)
    wait_until(lambda: not workers[0].is_alive())
    assert threads._idle == []


def test_a_forked_child_does_not_wait_for_threads_it_does_not_have(threads: Any) -> None:
    done, _, task = ran_in()
    threads.run_in_thread(task)
    assert done.wait(240)
    wait_until(lambda: threads._idle)
    child = os.fork()
    if child == 0:
        again, _, task = ran_in()
        threads.run_in_thread(task)
        os._exit(0 if again.wait(240) else 1)
    assert os.waitpid(child, 0)[1] == 0
