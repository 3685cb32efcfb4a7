"""`command`: a program. A list is started as it is, a string by `/bin/sh`; templates never split a word in two.

The program gets no input, and its own process group, so that it can be stopped with all its children: a
cancelled token sends TERM, and KILL after a grace. Both of its outputs are read as they come, so that neither can
block it, and at most `MAX_OUTPUT` bytes of each are kept; what is left out is marked in the text.
"""

from __future__ import annotations

import atexit
import codecs
import math
import os
import selectors
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from tea import templates
from tea.nodes.context import Context, Step, Updates

MAX_OUTPUT = 64 * 1024 * 1024
"""Bytes of each output that are kept."""

TAIL = 4096
"""Bytes of each output that an error keeps."""

GRACE = 5.0
"""Seconds between TERM and KILL."""

LINGER = 5.0
"""Seconds to go on reading after the program ended, when something in the background holds its output."""

INHERIT_FDS: set[int] = set()
"""Descriptors that programs inherit: a worker adds its lock, which so outlives it as long as a program runs."""

RUNNING: set[int] = set()
"""Programs that run now, each the leader of its process group (with OWN_GROUP), for whoever must stop them all."""

OWN_GROUP = True
"""Whether each program gets a process group of its own. A worker that is killed as a group sets it to False: its
programs then die with it, and cancelling stops the program alone."""

_POLL = 0.1
"""Seconds between two looks at the cancellation token."""


class CommandFailed(RuntimeError):
    """A program ended with a code other than 0, or could not be started.

    command: its words, or the text for the shell. exit_code: negative for a signal, 127 when there is no such
    program, 126 when it can't be started. stdout, stderr: the last bytes of each, as text.
    """

    def __init__(self, command: str, exit_code: int, stdout: str = "", stderr: str = "") -> None:
        self.command, self.exit_code, self.stdout, self.stderr = command, exit_code, stdout, stderr
        super().__init__(command, exit_code, stdout, stderr)

    def __str__(self) -> str:
        lines = self.stderr.strip().splitlines()[-5:]
        reason = ": " + "\n".join(lines) if lines else ""
        command = self.command if len(self.command) <= 300 else self.command[:297] + "..."
        return f"command `{command}` {_how(self.exit_code)}{reason}"


class CommandCancelled(CommandFailed):
    """A program that was stopped because its branch was cancelled."""

    def __str__(self) -> str:
        return f"command `{self.command[:300]}` was stopped: its branch was cancelled"


def _how(exit_code: int) -> str:
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    with suppress(ValueError):
        return f"was killed by {signal.Signals(-exit_code).name}"
    return f"was killed by signal {-exit_code}"


def command_step(command: str | list[Any], output: str | None, name: str, context: Context) -> Step:
    """The step that runs a program. With `output` its result goes there; without, its output is passed on."""
    variables = context.variables

    def step(offered: Mapping[str, Any]) -> Updates:
        words = _words(command, offered["state"], variables, name)
        result = run_program(words, offered.get("cancel_token"))
        if output is not None:
            return {output: result}
        sys.stdout.write(result["stdout"])
        sys.stderr.write(result["stderr"])
        return {}

    return step


def _words(command: str | list[Any], state: Any, variables: Any, name: str) -> str | list[str]:
    if isinstance(command, str):
        return _word(templates.render(command, state, variables), command, name)
    return [_word(templates.render(word, state, variables), word, name) for word in command]


def _word(value: Any, template: Any, name: str) -> str:
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError(f"node '{name}': {template!r} has a null character, which no command can take")
        return value
    if isinstance(value, int | float):
        return str(value)
    raise TypeError(
        f"node '{name}': {template!r} gives {type(value).__name__}, but a word of a command is text or a number"
    )


def run_program(command: str | list[str], cancel_token: Any = None) -> dict[str, Any]:
    """Run a program to its end: `{exit_code, stdout, stderr}`.

    Raises CommandFailed when it ends with anything but 0 or can't be started, CommandCancelled when the token
    stopped it.
    """
    shown = command if isinstance(command, str) else shlex.join(command)
    arguments = ["/bin/sh", "-c", command] if isinstance(command, str) else command
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0 if OWN_GROUP else None,
            pass_fds=tuple(INHERIT_FDS),
        )
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise CommandFailed(shown, 127 if missing else 126, "", str(error)) from error
    RUNNING.add(process.pid)
    try:
        outputs = _Outputs(process)
        cancelled = outputs.follow(cancel_token)
    except BaseException:  # interrupted: nothing may go on behind the user's back
        _stop(process, GRACE)
        raise
    finally:
        RUNNING.discard(process.pid)
    if process.returncode == 0 and not cancelled:
        return {"exit_code": 0, "stdout": outputs.text(0), "stderr": outputs.text(1)}
    kind = CommandCancelled if cancelled else CommandFailed
    raise kind(shown, process.returncode, outputs.tail(0), outputs.tail(1))


def stop_all(grace: float = GRACE) -> None:
    """Stop all programs that run: this process ends, and the threads that would wait for them end with it."""
    groups = set(RUNNING) if OWN_GROUP else set()
    deadline = time.monotonic() + grace
    try:
        for group in groups:
            _signal_group(group, signal.SIGTERM)
        while time.monotonic() < deadline and any(_signal_group(group, 0) for group in groups):
            time.sleep(0.02)
    finally:
        for group in groups:
            _signal_group(group, signal.SIGKILL)


atexit.register(stop_all)


def _signal_group(group: int, number: int) -> bool:
    """Whether there was anybody to take the signal."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
        return True
    return False


def _stop(process: subprocess.Popen[bytes], grace: float) -> None:
    """TERM to the program's group, KILL after the grace. The group may outlive the program: it gets both."""
    _signal(process, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(grace)
    _signal(process, signal.SIGKILL)
    process.wait()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    if not OWN_GROUP:
        process.send_signal(number)  # does nothing once the program has ended
        return
    _signal_group(process.pid, number)


class _Kept:
    """One output: its beginning, its end, and how much is missing in between."""

    def __init__(self) -> None:
        self.head: list[bytes] = []
        self.size = 0
        self.total = 0
        self.last = b""

    def add(self, data: bytes) -> None:
        self.total += len(data)
        room = MAX_OUTPUT - self.size
        if room > 0:
            self.head.append(data[:room])
            self.size += len(self.head[-1])
        self.last = (self.last + data)[-TAIL:]

    def text(self) -> str:
        text = _decode(b"".join(self.head))
        if self.total > self.size:
            missing = self.total - self.size
            text += f"\n[tea: {missing} bytes are left out here, for the output is longer than {MAX_OUTPUT} bytes]\n"
        return text


def _decode(data: bytes) -> str:
    return codecs.decode(data, "utf-8", "replace")


class _Outputs:
    """Both outputs of a program, read as they come until the program is over."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.kept = [_Kept(), _Kept()]
        self.selector = selectors.DefaultSelector()
        for n, pipe in enumerate((process.stdout, process.stderr)):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
            self.selector.register(pipe, selectors.EVENT_READ, self.kept[n])

    def text(self, n: int) -> str:
        return self.kept[n].text()

    def tail(self, n: int) -> str:
        return _decode(self.kept[n].last)

    def follow(self, cancel_token: Any) -> bool:
        """Read until the program is over; True when the token cut it short."""
        until = math.inf
        cancelled = False
        try:
            while self.selector.get_map():
                late = time.monotonic() > until  # asked before the last look, which finds what the program said last
                self.read(0 if late else _POLL)
                if late:
                    break
                if until == math.inf and self.process.poll() is not None:
                    until = time.monotonic() + LINGER
                if not cancelled and _is_cancelled(cancel_token):
                    cancelled = True
                    _stop(self.process, GRACE)
            return self.wait(cancel_token) or cancelled
        finally:
            self.close()

    def wait(self, cancel_token: Any) -> bool:
        """The outputs are closed; the program may still run. True when the token stopped it."""
        while True:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_POLL if cancel_token is not None else None)
                return False
            if _is_cancelled(cancel_token):
                _stop(self.process, GRACE)
                return True

    def read(self, timeout: float) -> None:
        """Take what has come."""
        for key, _ in self.selector.select(timeout):
            data = self.take(key.fd)
            if data == b"":
                self.selector.unregister(key.fileobj)
            elif data:
                key.data.add(data)

    @staticmethod
    def take(fd: int) -> bytes | None:
        try:
            return os.read(fd, 65536)
        except BlockingIOError:
            return None

    def close(self) -> None:
        self.selector.close()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


def _is_cancelled(token: Any) -> bool:
    return token is not None and bool(token.is_cancelled())
