"""Threads that wait for work: what costs most of a small fan-out in threads is starting them.

A thread that has done its task waits for another, `IDLE` seconds at most. There is no limit here; whoever hands out
tasks keeps one. A thread whose task never ends is simply never free again. The threads are daemons: they keep no
program from ending.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable

IDLE = 10.0
"""Seconds after which a thread without work ends."""

Task = Callable[[], None]

_idle: list[queue.SimpleQueue[Task]] = []
_lock = threading.Lock()


def run_in_thread(task: Task) -> None:
    """Run a task in a thread, one that waits for work if there is one. The task must not raise."""
    with _lock:
        inbox = _idle.pop() if _idle else None
    if inbox is not None:
        inbox.put(task)
    else:
        threading.Thread(target=_serve, args=(task,), name="tea-branch", daemon=True).start()


def _serve(task: Task) -> None:
    inbox: queue.SimpleQueue[Task] = queue.SimpleQueue()
    while True:
        task()
        del task  # it holds a state; nobody needs that while this thread waits
        with _lock:
            _idle.append(inbox)
        try:
            task = inbox.get(timeout=IDLE)
        except queue.Empty:
            with _lock:
                if inbox in _idle:
                    _idle.remove(inbox)
                    return
            task = inbox.get()  # somebody has just taken this thread to give it a task


def _forget_threads() -> None:
    """A forked child has none of its parent's threads, and perhaps its lock in a hand that is gone."""
    global _lock
    _lock = threading.Lock()
    _idle.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
