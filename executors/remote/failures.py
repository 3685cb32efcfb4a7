"""What went wrong with a host, whether trying again may help, and what to do about it.

ssh tells only in words, and by its exit code 255 that it was ssh itself that failed.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from executors.remote.settings import RemoteHost


@dataclass(frozen=True)
class HostError(Exception):
    """A host that cannot be used now. lasting: trying again does not help before somebody has done `remedy`."""

    host: str
    text: str
    remedy: str = ""
    lasting: bool = False

    def __str__(self) -> str:
        return f"host {self.host}: {self.text}" + (f"; {self.remedy}" if self.remedy else "")


_CHANGED = "REMOTE HOST IDENTIFICATION HAS CHANGED"
_REVOKED = "REVOKED HOST KEY DETECTED"
_OFFENDING = re.compile(r"Offending \S+ key in (\S+:\d+)")
_SHOWN = re.compile(r"\S+ key SHA256:\S+")
_UNKNOWN = ("host key is known", "Host key verification failed")
_DENIED = ("Permission denied (", "Too many authentication failures", "No supported authentication methods")
_CONFIG = (
    "Bad configuration option",
    "Bad owner or permissions on",
    "Can't open user config file",
    "no argument after",
)


def of_ssh(host: RemoteHost, code: int | None, said: str) -> HostError:
    """What the end of an `ssh` means that came before tea answered on the host."""
    name, tail = host.host, _tail(said)
    login = f"ssh {f'-p {host.port} ' if host.port else ''}{shlex.quote(host.target)}"
    if code == 255:
        return _of_connection(name, login, said, tail)
    if code in (126, 127):
        return HostError(
            name,
            f"there is no {host.python or 'python3'} ({tail or f'exit code {code}'})",
            "install Python 3.11 or newer there, or name it with `python:` in the host's settings",
            lasting=True,
        )
    return HostError(
        name,
        f"the login ended before tea was started (exit code {code}{f': {tail}' if tail else ''})",
        f"`{login} {host.python or 'python3'} --version` must work; a login that runs one fixed command won't do",
        lasting=True,
    )


def _of_connection(name: str, login: str, said: str, tail: str) -> HostError:
    if _REVOKED in said:
        return HostError(
            name,
            "it shows a host key that is marked as revoked in known_hosts",
            "whoever has stolen the key may answer there; give the host a new one",
            lasting=True,
        )
    if _CHANGED in said:
        old = _OFFENDING.search(said)
        return HostError(
            name,
            "its host key has changed",
            "find out why (a new installation, or somebody in between); if it is right, remove the old key"
            f"{f' in {old[1]}' if old else ''} (`ssh-keygen -R`) and connect once with `{login}`",
            lasting=True,
        )
    if any(text in said for text in _UNKNOWN):
        shown = _SHOWN.search(said)
        return HostError(
            name,
            f"its host key is not known{f' ({shown[0]})' if shown else ''}",
            f"connect once with `{login}` and compare the fingerprint, or set `host_keys: accept-new`",
            lasting=True,
        )
    if any(text in said for text in _DENIED):
        return HostError(
            name,
            f"it does not let us in ({tail})",
            f"`{login} true` must work without a password: `ssh-copy-id` puts your key there, `ssh-add` unlocks it",
            lasting=True,
        )
    if any(text in said for text in _CONFIG):
        return HostError(name, f"ssh cannot use its configuration ({tail})", "correct it", lasting=True)
    return HostError(name, f"cannot be reached ({tail or 'the connection was closed'})")


def of_refusal(host: RemoteHost, kind: str, text: str) -> HostError:
    """What the program that looks at a host said."""
    if kind == "python":
        return HostError(
            host.host,
            text,
            "tea needs Python 3.11 or newer there; name it with `python:` in the host's settings",
            True,
        )
    if kind == "workdir":
        return HostError(host.host, text, "choose another one with `workdir:`", lasting=True)
    if kind == "version":
        return HostError(host.host, text, "leave out `basefile`, or make it anew with `tea bundle`", lasting=True)
    if kind == "program":
        return HostError(
            host.host, text, "install it there; or use `launcher: ssh`, which does without it", lasting=True
        )
    if kind == "disk":
        return HostError(host.host, text, "make room there, or choose another `workdir:`")
    return HostError(host.host, text)


def _tail(said: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
