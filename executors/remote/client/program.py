"""Bytes to and fro: what comes on stdin goes to a command on the host, what it says to stdout and stderr."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import select
import sys
import threading
import time

import paramiko

from executors.remote.client import Failed
from executors.remote.client.reach import PATIENCE, Way, Wishes, reach
from executors.remote.client.sshconfig import Config, Place

ALIVE = 2.0
"""Seconds between two questions whether the host is there."""

SILENCE = 8.0
"""Seconds in which nothing comes after which the link counts as dead."""

AFTER = 10.0
"""Seconds after the end of a command's output in which the host may say how it ended."""

CHUNK = 1 << 18
WINDOW = 1 << 22
"""Bytes that the host may send ahead."""


def main(argv: list[str]) -> int:
    """Run the program; its exit code is the command's, or 255."""
    logging.getLogger("paramiko").addHandler(logging.NullHandler())  # what went wrong is said once, below
    logging.getLogger("paramiko").propagate = False
    asked = _arguments(argv)
    try:
        config = Config(asked.config)
        wishes = Wishes(config, asked.timeout, asked.host_keys == "accept-new", asked.compress)
        return _Pump(reach(Place(asked.host, asked.user, asked.port), wishes), asked.command).run()
    except Failed as failed:
        print(failed, file=sys.stderr)
        return 255


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="executors.remote.client", description="tea's own ssh")
    parser.add_argument("--config", help="read this ssh_config alone")
    parser.add_argument("--port", type=int)
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds to connect")
    parser.add_argument("--host-keys", choices=("strict", "accept-new"), default="strict")
    parser.add_argument("--compress", action="store_true")
    parser.add_argument("target", help="USER@HOST, or an alias of ssh_config")
    parser.add_argument("command")
    asked = parser.parse_args(argv)
    user, _, asked.host = asked.target.rpartition("@")
    asked.user = user or None
    return asked


class _Pump:
    """Bytes to and fro, and an eye on the link."""

    def __init__(self, way: Way, command: str) -> None:
        self._way, self._transport = way, way.transport
        try:
            self._channel = self._transport.open_session(window_size=WINDOW, timeout=PATIENCE)
            self._channel.exec_command(command)
        except (paramiko.SSHException, EOFError) as error:
            raise Failed(f"ssh: the host runs no command ({error})") from None

    def run(self) -> int:
        """Pass on until the command has ended; its exit code, 255 when it cannot be had."""
        errors = threading.Thread(target=self._errors, daemon=True)
        errors.start()
        for work in (self._send, self._ask, self._watch):
            threading.Thread(target=work, daemon=True).start()
        with contextlib.suppress(OSError):
            while data := self._channel.recv(CHUNK):
                _write(1, data)
        errors.join(AFTER)
        # paramiko would wait for ever for an exit code that never comes.
        if self._channel.status_event.wait(AFTER) and self._channel.exit_status >= 0:
            return self._channel.exit_status
        return self._lost("Connection closed by remote host")

    def _send(self) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            while data := os.read(0, 1 << 15):
                self._channel.sendall(data)
            self._channel.shutdown_write()

    def _errors(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._channel.recv_stderr(CHUNK):
                _write(2, data)

    def _ask(self) -> None:
        """The host must answer, if only that it does not know the question."""
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            while self._transport.is_active():
                self._transport.global_request("keepalive@openssh.com")
                time.sleep(ALIVE)

    def _watch(self) -> None:
        """End when the link is dead, and when nobody reads any more what we write."""
        poll = select.poll()
        poll.register(1, 0)
        while not poll.poll(0):
            if time.monotonic() - self._way.line.heard > SILENCE:
                os._exit(self._lost("Timeout, server not responding"))
            time.sleep(0.5)
        os._exit(255)

    def _lost(self, text: str) -> int:
        error = self._transport.get_exception()
        print(f"{text}{f' ({error})' if error else ''}.", file=sys.stderr, flush=True)
        return 255


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
