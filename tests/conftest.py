"""Fixtures for all tests. What they do is in `support.py`."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests import support

# How long examples take says more about the machine's other tenants than about the code.
hypothesis.settings.register_profile("tea", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("tea")

OF_TERMINALS = ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES")
"""What `rich` and others take from the environment."""

# Who is started in the background of a script ignores Ctrl-C, and so does all that it starts; it is tested here.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have TEA_SPOOL set, where the tests must not write, and may want no colours."""
    for name in [name for name in os.environ if name.startswith("TEA_") or name in OF_TERMINALS]:
        monkeypatch.delenv(name)


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    """`support.wait_until`: poll with a deadline instead of sleeping."""
    return support.wait_until


@pytest.fixture
def tea_cmd() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`support.tea_cmd`: run the command line to its end."""
    return support.tea_cmd


@pytest.fixture
def spool_dir(tmp_path: Path) -> Path:
    """Where a test may put its spool. Private, as a spool must be; made, but empty."""
    path = tmp_path / "spool"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def start_tea() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`start_tea(*args, cwd=..., env=...)` starts `tea`; it is killed when the test ends."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: str | os.PathLike[str], **options: Any) -> subprocess.Popen[str]:
        options["env"] = support.clean_env(options.get("env"))
        for stream in ("stdin", "stdout", "stderr"):
            options.setdefault(stream, subprocess.PIPE)
        process = subprocess.Popen(support.tea_argv(*args), text=True, **options)
        started.append(process)
        return process

    yield start
    for process in started:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(timeout=240)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


@pytest.fixture
def no_leftovers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail when the test leaves a process behind: a child, or anything started from it, also when orphaned.

    For a whole file: `pytestmark = pytest.mark.usefixtures("no_leftovers")`.
    """
    mark = uuid.uuid4().hex
    monkeypatch.setenv("NO_LEFTOVERS_MARK", mark)  # inherited by what the test starts; survives re-parenting
    before = support.children_of(os.getpid())

    def left() -> set[int]:
        return (support.children_of(os.getpid()) | support.marked_with(mark)) - before - support.lasting_helpers()

    yield
    try:
        support.wait_until(lambda: not left(), timeout=30)
    except TimeoutError:
        remaining = {pid: support.command_of(pid) for pid in left()}
        support.kill_all(remaining)
        pytest.fail(f"the test left processes behind: {remaining}")
