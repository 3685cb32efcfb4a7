"""Threads that wait for work."""

from __future__ import annotations

import os
import threading

import pytest

from executors import threads
from tests.support import wait_until


@pytest.fixture
def no_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_idle", [])


def ran_in() -> tuple[threading.Event, list[int], threads.Task]:
    done, idents = threading.Event(), []

    def task() -> None:
        idents.append(threading.get_ident())
        done.set()

    return done, idents, task


@pytest.mark.usefixtures("no_idle")
def test_a_thread_that_is_free_takes_the_next_task() -> None:
    first, idents, task = ran_in()
    threads.run_in_thread(task)
    assert first.wait(240)
    wait_until(lambda: threads._idle)
    second, more, task = ran_in()
    threads.run_in_thread(task)
    assert second.wait(240)
    assert more == idents


@pytest.mark.usefixtures("no_idle")
def test_a_task_that_never_ends_keeps_nobody_waiting() -> None:
    release = threading.Event()
    threads.run_in_thread(lambda: release.wait(240) and None)
    done, _, task = ran_in()
    threads.run_in_thread(task)
    assert done.wait(240)
    release.set()


@pytest.mark.usefixtures("no_idle")
def test_threads_without_work_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "IDLE", 0.01)
    done, idents, task = ran_in()
    threads.run_in_thread(task)
    assert done.wait(240)
    wait_until(lambda: idents[0] not in {thread.ident for thread in threading.enumerate()})
    assert threads._idle == []


@pytest.mark.usefixtures("no_idle")
def test_a_forked_child_does_not_wait_for_threads_it_does_not_have() -> None:
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
