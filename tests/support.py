"""Helpers for the tests: waiting with a deadline, running `tea`, finding processes that were left behind.

Import them (`from tests.support import wait_until`) or take the fixtures of `conftest.py`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent

# Helpers of multiprocessing that live as long as the test process, by design.
_LASTING_HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


def wait_until(
    predicate: Callable[[], T], timeout: float = 240.0, what: str | None = None, interval: float = 0.01
) -> T:
    """Call `predicate` until it gives something true, and return that.

    Raises TimeoutError, which says what was waited for, after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline:
            name = what or getattr(predicate, "__qualname__", repr(predicate))
            raise TimeoutError(f"waited {timeout:g} s for: {name}; the last answer was {value!r}")
        time.sleep(interval)


def calls(function: Callable[[], object]) -> list[str]:
    """The names of the Python functions that `function` calls, itself left out: what it costs, without a clock."""
    called: list[str] = []
    collecting = gc.isenabled()
    gc.disable()  # it calls functions, too: whoever listens to the collector
    sys.setprofile(lambda frame, event, _: called.append(frame.f_code.co_qualname) if event == "call" else None)
    try:
        function()
    finally:
        sys.setprofile(None)
        if collecting:
            gc.enable()
    return called[1:]


def clean_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of the tests without the settings of whoever runs them."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("TEA_")}
    return {**env, **(extra or {})}


def tea_argv(*args: str | os.PathLike[str]) -> list[str]:
    """The command line that runs `tea` with the interpreter of the tests."""
    return [sys.executable, "-m", "tea", *(os.fspath(arg) for arg in args)]


def tea_cmd(
    *args: str | os.PathLike[str],
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    input: str | None = None,
    timeout: float = 300.0,
) -> subprocess.CompletedProcess[str]:
    """Run `tea ARGS` to its end. A failure raises nothing: look at `returncode`, `stdout` and `stderr`."""
    return subprocess.run(
        tea_argv(*args),
        cwd=cwd,
        env=clean_env(env),
        stdin=subprocess.DEVNULL if input is None else None,
        input=input,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def cannot(reason: str) -> NoReturn:
    """This machine can't do what a test needs: skip it; where all tests must run (CI=true), fail."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"must not be skipped here: {reason}")
    pytest.skip(reason)


def is_running(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    return _state_and_parent(pid) is not None


def children_of(parent: int) -> set[int]:
    """Every living descendant of `parent`, found in /proc."""
    parents = {pid: known[1] for pid in _all_pids() if (known := _state_and_parent(pid))}
    found: set[int] = set()
    wave = {parent}
    while wave:
        wave = {pid for pid, its_parent in parents.items() if its_parent in wave} - found
        found |= wave
    return {pid for pid in found if not any(helper in command_of(pid) for helper in _LASTING_HELPERS)}


def marked_with(text: str) -> set[int]:
    """Every living process that was started with `text` in its environment, whoever its parent is now."""
    needle = text.encode()
    own = os.getpid()
    return {pid for pid in _all_pids() if pid != own and needle in _read(f"/proc/{pid}/environ")}


def lasting_helpers() -> set[int]:
    """What the workers of this process are forked from, and what watches over it; they live as long as it does."""
    pids = {forkserver._forkserver._forkserver_pid, resource_tracker._resource_tracker._pid}  # type: ignore[attr-defined]
    ours = marked_with(f"TEA_SERVER={os.getpid()}:")
    return {pid for pid in pids if pid} | {pid for pid in ours if _read(f"/proc/{pid}/comm") == b"tea-undertaker\n"}


def command_of(pid: int) -> str:
    """The command line of a process, or an empty string."""
    return _read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace").strip()


def kill_all(pids: Iterable[int]) -> None:
    """SIGKILL; those that are gone already are no error."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _state_and_parent(pid: int) -> tuple[str, int] | None:
    # The command's name, in brackets, may hold spaces and brackets itself: count from the last one.
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    if len(fields) < 2 or fields[0] in (b"Z", b"X"):
        return None
    return fields[0].decode(), int(fields[1])


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:  # gone, or another user's
        return b""
