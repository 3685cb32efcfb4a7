"""A second process for questions that one process cannot answer: who wins a race, who sees a lock, what a kill frees.

    with Partner(folder) as partner:
        partner.race(kind, rounds)      both make the same names at once; who won each
        partner.sees_lock(path)         whether the lock that we hold is held for the other, too
        partner.hold_lock(path)         the other takes a lock, and keeps it until it is killed
        partner.kill()                  SIGKILL

The other process answers one line to each line that it is sent, and ends when its stdin does.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from typing import IO

from filelock import lock_descriptor

from spool.publish import write_exclusive

PATIENCE = 30.0
"""Seconds after which a partner that does not answer is given up."""

HEAD_START = 0.001
"""Seconds before both begin: each has gone to sleep by then, so that neither is always the first."""

_START = "import sys; sys.path[:] = sys.argv[2:]; from spool.probe import serve; serve(sys.argv[1])"


class PartnerError(OSError):
    """The second process did not start, or does not answer."""


class Partner:
    """The other process, working in the same folder."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, folder, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._expect("ready")
        except BaseException:
            self.close()
            raise

    def race(self, kind: str, rounds: int) -> list[tuple[str, bool, bool]]:
        """Make `rounds` names at once with the other process: for each, who has it, and whether we and it won.

        Raises OSError when this process cannot make such names at all.
        """
        make = MAKERS[kind]
        source = _source(self._folder, "here")
        make(source, f"{self._folder}/{kind}.alone", "here")  # in a race the other may be first every time
        outcome = []
        for number in range(rounds):
            path = f"{self._folder}/{kind}.{number}"
            start = time.monotonic() + HEAD_START
            self._send(f"{kind} {number} {start}")
            try:
                _sleep_until(start)
                ours = _attempt(make, source, path, "here")
            finally:
                theirs = self._answer()
            if theirs not in ("won", "lost"):
                raise PartnerError(f"{path}: {theirs}")
            outcome.append((_owner(path), ours, theirs == "won"))
        return outcome

    def sees_lock(self, name: str) -> bool:
        """Whether the other process finds this file locked."""
        self._send(f"try {name}")
        return self._answer() == "held"

    def hold_lock(self, name: str) -> None:
        """Let the other process lock a file, and keep it."""
        self._send(f"hold {name}")
        self._expect("free")

    def kill(self) -> None:
        """SIGKILL; returns when the process is gone."""
        self._process.kill()
        self._process.wait()

    def _send(self, text: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # the answer that does not come tells
            _pipe(self._process.stdin).write(f"{text}\n".encode())
            _pipe(self._process.stdin).flush()

    def _answer(self) -> str:
        out = _pipe(self._process.stdout)
        if not select.select([out], [], [], PATIENCE)[0]:
            raise PartnerError(f"{self._folder}: a second process did not answer within {PATIENCE:g} s")
        answer = out.readline().decode().strip()
        if not answer:
            raise PartnerError(f"{self._folder}: the second process ended with {self._process.wait()}")
        return answer

    def _expect(self, wanted: str) -> None:
        answer = self._answer()
        if answer != wanted:
            raise PartnerError(f"{self._folder}: the second process says {answer!r}")

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Partner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


# -- what both do -----------------------------------------------------------------------------------------------


def _sleep_until(when: float) -> None:
    """Return at a moment of the monotonic clock, which the processes of a machine share."""
    time.sleep(max(0.0, when - time.monotonic()))


def _symlink(_source: str, path: str, me: str) -> None:
    os.symlink(me, path)


def _link(source: str, path: str, _me: str) -> None:
    os.link(source, path)


def _create(_source: str, path: str, me: str) -> None:
    write_exclusive(path, me.encode())


MAKERS: dict[str, Callable[[str, str, str], None]] = {"symlink": _symlink, "link": _link, "create": _create}
"""How a name comes into being exclusively."""


def _attempt(make: Callable[[str, str, str], None], source: str, path: str, me: str) -> bool:
    """Whether the name is ours. sshfs answers EPERM for a taken name: an error counts when nobody has it."""
    try:
        make(source, path, me)
    except OSError:
        if not os.path.lexists(path):
            raise
        return False
    return True


def _source(folder: str, me: str) -> str:
    path = f"{folder}/source.{me}"
    if not os.path.lexists(path):
        write_exclusive(path, me.encode())
    return path


def _owner(path: str) -> str:
    """Who stands in a name: the text of the link or file."""
    if os.path.islink(path):
        return os.readlink(path)
    with open(path, encoding="ascii") as file:
        return file.read()


# -- the other process ------------------------------------------------------------------------------------------


def serve(folder: str) -> None:
    """Answer questions on stdin until it ends."""
    source = _source(folder, "there")
    _say("ready")
    kept: list[int] = []
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        try:
            _say(_done(word, rest, folder, source, kept))
        except OSError as error:
            _say(str(error.strerror))


def _done(word: str, rest: str, folder: str, source: str, kept: list[int]) -> str:
    if word in MAKERS:
        number, start = rest.split()
        _sleep_until(float(start))
        return "won" if _attempt(MAKERS[word], source, f"{folder}/{word}.{number}", "there") else "lost"
    fd = os.open(f"{folder}/{rest}", os.O_RDWR | os.O_CREAT, 0o600)
    free = lock_descriptor(fd, blocking=False)
    if word == "hold":
        kept.append(fd)
    else:
        os.close(fd)
    return "free" if free else "held"


def _say(text: str) -> None:
    print(text, flush=True)
