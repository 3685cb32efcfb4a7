"""One session on a host: a program here holds the connection, and its stdin and stdout are those of Python there.

    tea  -- stdin -->  the transport's program  -- ssh -->  sshd  -->  Python: `bootstrap`, then the worker
         <- stdout --                           <--------         <--

The transport is only a command line: a program that logs in, runs one command, passes its bytes on and tells by words
on stderr and an exit code 255 what went wrong. As it is a process, it can be killed whatever it waits for, and takes
neither this process's memory nor its time. What is said on a session is the same over every transport.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pkgutil import get_data
from typing import Any

from executors.bundle import running_bundle
from executors.remote import openssh, sftp
from executors.remote.failures import HostError, of_refusal, of_ssh
from executors.remote.frames import Frame, FrameError, FrameReader, FrameWriter
from executors.remote.settings import RemoteConfig, RemoteHost

_LOADER = (
    "import os;f=os.fdopen(0,'rb',0,closefd=False);"
    "r=lambda n:(lambda b:b+r(n-len(b)))(os.read(0,n)) if n else b'';"
    "exec(r(int(f.readline())))"
)
"""What Python is told on the command line: to run what comes on stdin. The same for every host and job."""


_TRANSPORTS = {"openssh": openssh.argv, "sftp": sftp.argv}


def _source(name: str) -> bytes:
    """The text of a program of this package."""
    text = get_data("executors.remote", name)
    assert text is not None
    return text


class Session:
    """One connection to a host, from the login to the end.

    Raises HostError when there is no program for the transport.
    """

    def __init__(self, host: RemoteHost, config: RemoteConfig) -> None:
        self.host = host
        command = f"exec {host.python or 'python3'} -IS -c {shlex.quote(_LOADER)}"
        self._said = tempfile.TemporaryFile(prefix="tea-ssh-")  # noqa: SIM115 - closed with the session
        try:
            self._process = subprocess.Popen(
                _TRANSPORTS[config.used_transport()](host, config, command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                bufsize=0,
                start_new_session=True,
                env=_environment(),
            )
        except FileNotFoundError as error:
            self._said.close()
            text = f"there is no `{error.filename}` here"
            raise HostError(host.host, text, "install it, or use another `transport`", lasting=True) from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.writer = FrameWriter(self._process.stdin.fileno())
        self.reader = FrameReader(self._process.stdout.fileno(), lambda: self.writer.moved)
        self._outbox: queue.SimpleQueue[bytes | Frame | Iterator[Frame] | None] = queue.SimpleQueue()
        self._writing = threading.Thread(target=self._write, name=f"tea-to-{host.host}", daemon=True)
        self._writing.start()

    # -- what is said -------------------------------------------------------------------------------------------

    def send(self, message: bytes | Frame | Iterator[Frame]) -> None:
        """Send when the link takes it; never waits. Messages of an iterator are made when it is their turn."""
        self._outbox.put(message)

    def probe(self, mark: str, asked: dict[str, Any], patience: float) -> dict[str, Any]:
        """Start `bootstrap` on the host and ask it (`bootstrap.probe` says what); its answer.

        Raises HostError for a host that cannot be used, TimeoutError after `patience` seconds, FrameError when it
        speaks otherwise.
        """
        text = _source("bootstrap.py")
        self.send(f"{len(text)}\n".encode() + text)
        self.send(Frame({"op": "probe", "mark": mark, **asked}))
        return self.answer(mark, patience)

    def run(self, program: str, mark: str, asked: dict[str, Any], patience: float) -> dict[str, Any]:
        """Run one of our programs there that needs nothing but `bootstrap`, instead of a worker; its answer.

        Raises as `probe` does.
        """
        text = _source("bootstrap.py")
        self.send(f"{len(text)}\n".encode() + text)
        self.send(Frame({"op": "run", "mark": mark}, _source(program)))
        self.send(Frame({"mark": mark, **asked}))
        return self.answer(mark, patience)

    def answer(self, mark: str, patience: float) -> dict[str, Any]:
        """What the host says after `mark`. Raises as `probe` does."""
        answer = self.reader.skip_to(mark, patience)
        if answer is None:
            raise self.failure()
        if "refused" in answer:
            raise of_refusal(self.host, answer["refused"], str(answer.get("text")))
        return answer

    def _write(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # the session is over; the reader tells
            while (message := self._outbox.get()) is not None:
                if isinstance(message, Frame):
                    self.writer.write(*message)
                elif isinstance(message, bytes):
                    self.writer.raw(message)
                else:
                    for frame in message:
                        self.writer.write(*frame)
        with contextlib.suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]

    # -- its end ------------------------------------------------------------------------------------------------

    def failure(self) -> HostError:
        """Why the session ended before tea had answered."""
        try:
            code = self._process.wait(2)
        except subprocess.TimeoutExpired:
            code = None
        return of_ssh(self.host, code, self.said())

    def said(self) -> str:
        """The end of what the transport, and the programs on the host, have printed to stderr."""
        size = os.fstat(self._said.fileno()).st_size
        return os.pread(self._said.fileno(), 8192, max(0, size - 8192)).decode("utf-8", "replace")

    def kill(self) -> None:
        """End the program here and what it started, a ProxyCommand for instance."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def end(self, patience: float) -> None:
        """End the worker on the host by the end of its stdin; what is not over in `patience` s is killed here."""
        self._outbox.put(None)
        deadline = time.monotonic() + patience
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError, FrameError, OSError):
                if self.reader.read(max(0.01, deadline - time.monotonic())) is None:
                    break
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, deadline - time.monotonic()) if patience else 0)
        self.kill()
        self._process.wait()
        self._writing.join(5)
        self._process.stdout.close()  # type: ignore[union-attr]
        self._said.close()


def _environment() -> dict[str, str] | None:
    """For a program of ours that a zip application starts: it, too, finds tea in there."""
    program = running_bundle()
    if program is None:
        return None
    before = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([program, *([before] if before else [])])}
