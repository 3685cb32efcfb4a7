"""known_hosts as OpenSSH reads it (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"): patterns, hashed names, marks.

Keys are compared as the bytes that they are, so a key of a kind that nobody here knows does no harm. paramiko's own
reader raises InvalidHostKey for lines with a mark, and knows no patterns.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto


class Verdict(Enum):
    """What known_hosts says of a key."""

    KNOWN = auto()
    UNKNOWN = auto()
    CHANGED = auto()
    REVOKED = auto()


@dataclass(frozen=True)
class Entry:
    """A line about a host. mark: `@revoked`, `@cert-authority` or nothing."""

    mark: str
    kind: str
    blob: bytes
    where: str
    """FILE:LINE"""


@dataclass(frozen=True)
class Known:
    """All that is said of a host. bare: what is said of its name without the port that we go to."""

    entries: tuple[Entry, ...]
    bare: tuple[Entry, ...] = ()

    @property
    def kinds(self) -> list[str]:
        """The kinds of keys that it may be known by."""
        return [entry.kind for entry in _plain(self.entries) or _plain(self.bare)]

    @property
    def authority(self) -> Entry | None:
        """The line of who may vouch for it."""
        return next((entry for entry in self.entries if entry.mark == "@cert-authority"), None)

    def verdict(self, blob: bytes) -> tuple[Verdict, Entry | None]:
        """On a key that the host shows, with the line that says so.

        A host that is known by keys, but not by this one, has changed, of whatever kind the key is; ssh takes one of
        another kind for a new one. Where nothing is said of the port, a key that the bare name is known by will do,
        and another one is a new one: several servers may share a name.
        """
        for entry in (*self.entries, *self.bare):
            if entry.mark == "@revoked" and entry.blob == blob:
                return Verdict.REVOKED, entry
        plain = _plain(self.entries)
        for entry in plain or _plain(self.bare):
            if entry.blob == blob:
                return Verdict.KNOWN, entry
        return (Verdict.CHANGED, plain[0]) if plain else (Verdict.UNKNOWN, None)


def _plain(entries: Iterable[Entry]) -> list[Entry]:
    return [entry for entry in entries if not entry.mark]


def look(files: Iterable[str], name: str) -> Known:
    """What the files say of a host, `host` or `[host]:port`. Files that are not there say nothing."""
    entries = [*_entries(files)]
    match = re.fullmatch(r"\[(.+)\]:\d+", name)
    return Known(
        tuple(entry for names, entry in entries if _matches(names, name)),
        tuple(entry for names, entry in entries if match and _matches(names, match[1])),
    )


def _entries(files: Iterable[str]) -> Iterator[tuple[str, Entry]]:
    for path in files:
        try:
            with open(path, "rb") as file:
                lines = file.read().decode("latin-1").splitlines()
        except (FileNotFoundError, NotADirectoryError):
            continue
        for number, line in enumerate(lines, 1):
            fields = line.split()
            mark = fields.pop(0) if fields and fields[0].startswith("@") else ""
            if len(fields) < 3 or fields[0].startswith("#"):
                continue
            try:
                blob = base64.b64decode(fields[2], validate=True)
            except binascii.Error:
                continue
            yield fields[0], Entry(mark, fields[1], blob, f"{path}:{number}")


def _matches(names: str, host: str) -> bool:
    """Whether a line's first field is about a host; one pattern with `!` that matches says no."""
    if names.startswith("|1|"):
        return _hashed_matches(names, host)
    found = False
    for pattern in names.lower().split(","):
        wanted = re.escape(pattern.removeprefix("!")).replace(r"\*", ".*").replace(r"\?", ".")
        if re.fullmatch(wanted, host):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def _hashed_matches(names: str, host: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part) for part in names.removeprefix("|1|").split("|"))
    except ValueError:
        return False
    return hmac.compare_digest(hmac.digest(salt, host.encode(), hashlib.sha1), digest)


def remember(path: str, name: str, kind: str, blob: bytes, *, hashed: bool) -> None:
    """Add a host to a file, made where there is none. Raises OSError."""
    if hashed:
        salt = secrets.token_bytes(20)
        digest = hmac.digest(salt, name.encode(), hashlib.sha1)
        name = f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"
    line = f"{name} {kind} {base64.b64encode(blob).decode()}\n".encode()
    os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        size = os.fstat(fd).st_size
        torn = size and os.pread(fd, 1, size - 1) != b"\n"
        os.write(fd, (b"\n" if torn else b"") + line)
    finally:
        os.close(fd)


def fingerprint(blob: bytes) -> str:
    """As `ssh-keygen -l` shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
