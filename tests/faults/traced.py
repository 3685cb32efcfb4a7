"""Run an action in a forked child under strace, which kills it at a system call, or lets that call fail.

The child is attached to before it begins, so the n-th call is the action's n-th.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

_PR_SET_PTRACER, _ANYBODY = 0x59616D61, ctypes.c_ulong(-1)


@dataclass(frozen=True)
class Ended:
    """How the child ended. said: what the action returned or the OSError it raised; "" when it was killed.

    hit: whether strace got to interfere at all.
    """

    killed: bool
    said: str
    hit: bool


def traced(action: Callable[[], Any], inject: str) -> Ended:
    """Run an action with one `inject=` expression of strace (without the word)."""
    go_r, go_w = os.pipe()
    said_r, said_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(action, go_r, said_w)
    os.close(go_r)
    os.close(said_w)
    calls = inject.partition(":")[0]
    log = tempfile.NamedTemporaryFile(prefix="tea-strace-")  # noqa: SIM115
    argv = ["strace", "-f", "-o", log.name, "-e", f"trace={calls}", "-e", f"inject={inject}", "-p", str(pid)]
    strace = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    try:
        _wait_for_tracer(strace)
        os.write(go_w, b"!")
        with open(said_r, encoding="utf-8", closefd=False) as file:
            said = file.read()
        _, status = os.waitpid(pid, 0)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(go_w)
        os.close(said_r)
        strace.kill() if strace.poll() is None and not _ends(strace) else None
        strace.communicate(timeout=240)
    with log:
        killed = os.WIFSIGNALED(status)
        return Ended(killed, said, killed or b"(INJECTED)" in log.read())


def _child(action: Callable[[], Any], go: int, said: int) -> None:
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANYBODY, 0, 0, 0)  # where only parents may trace
        select.select([go], [], [])  # no read: that may be the call that is to fail
        try:
            text = str(action())
        except OSError as error:
            text = f"refused: {error}"
        except BaseException as error:
            text = f"broken: {type(error).__name__}: {error}"
        for _ in range(3):  # the fault may hit this call, too
            try:
                os.write(said, text.encode())
                break
            except OSError:
                continue
    finally:
        os._exit(0)


def _wait_for_tracer(strace: subprocess.Popen[str]) -> None:
    """Until it says that it has attached. The child has a tracer a moment sooner, but may still run."""
    assert strace.stderr is not None
    said = strace.stderr.readline()
    if "attached" not in said:
        raise PermissionError(said + strace.stderr.read())


def _ends(strace: subprocess.Popen[str]) -> bool:
    try:
        strace.wait(timeout=240)
    except subprocess.TimeoutExpired:
        return False
    return True


def need_strace() -> None:
    """Skip where strace cannot be used; on CI that is an error."""
    why = ""
    if shutil.which("strace") is None:
        why = "strace is not installed"
    else:
        try:
            if not traced(lambda: os.getppid(), "getppid:signal=KILL:when=1").killed:
                why = "strace does not inject signals here"
        except PermissionError as error:
            why = f"strace may not trace here: {error}"
    if why and os.environ.get("CI") == "true":
        pytest.fail(why)
    if why:
        pytest.skip(why)
