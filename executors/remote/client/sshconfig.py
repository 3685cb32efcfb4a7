"""What ssh_config says of a host: paramiko parses and matches, what it leaves out is done here.

That is `Include`, the tokens (`%h`, `%r`), several files in one value, and what comes first, a ProxyJump or a
ProxyCommand.
"""

from __future__ import annotations

import getpass
import glob
import os
import re
import shlex
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import paramiko

from executors.remote.client import Failed

DEPTH = 16
"""Files that may include each other, as in OpenSSH."""

_DEFAULT_KEYS = ("~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ed25519")
_USER_HOSTS = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
_GLOBAL_HOSTS = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
_SPEC = re.compile(r"(?:ssh://)?(?:(?P<user>[^@]*)@)?(?P<host>\[[^]]+\]|[^:]+)(?::(?P<port>\d+))?/?")


class _Raw(paramiko.SSHConfig):
    """Without paramiko's own tokens: it knows neither `%%` nor `%n`."""

    TOKENS_BY_CONFIG_KEY = {  # noqa: RUF012 - as paramiko has it
        "match-exec": ["%C", "%d", "%h", "%L", "%l", "%n", "%p", "%r", "%u"],
    }


@dataclass(frozen=True)
class Place:
    """A host as somebody names it: on the command line, in ProxyJump."""

    name: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def of(cls, text: str) -> Place:
        """`user@host:port`, with or without user and port. Raises Failed."""
        match = _SPEC.fullmatch(text.strip())
        if match is None:
            raise Failed(f"Bad configuration option: ProxyJump {text!r}")
        port = match["port"]
        return cls(match["host"].strip("[]"), match["user"] or None, int(port) if port else None)


@dataclass(frozen=True)
class Target:
    """A host as ssh_config describes it. Times in seconds.

    key_name: under what known_hosts knows it. agent: the socket; None for the environment's, "none" for no agent.
    """

    host: str
    port: int
    user: str
    key_name: str
    identities: tuple[str, ...]
    identities_only: bool
    agent: str | None
    user_known_hosts: tuple[str, ...]
    global_known_hosts: tuple[str, ...]
    hash_known_hosts: bool
    proxy_command: str | None
    proxy_jump: tuple[Place, ...]
    connect_timeout: float | None
    family: socket.AddressFamily
    bind_address: str | None


class Config:
    """The ssh_config of a user.

    Args:
        path: this file alone; None for the user's and the system's.
    """

    def __init__(self, path: str | None = None) -> None:
        self._path = path

    def target(self, place: Place) -> Target:
        """What is said of a host. Raises Failed, also for a file that cannot be used."""
        reading = _Reading(place)
        if self._path is not None:
            reading.take(os.path.expanduser(self._path), "~/.ssh", must=True)
        else:
            reading.take(os.path.expanduser("~/.ssh/config"), "~/.ssh", private=True)
            reading.lines.append(_ALWAYS)
            reading.take("/etc/ssh/ssh_config", "/etc/ssh")
        try:
            return _target(place, reading.found())
        except (paramiko.SSHException, ValueError, KeyError, ImportError) as error:
            raise Failed(f"Bad configuration option for {place.name}: {error}") from None


_ALWAYS = "Host *"


class _Reading:
    """The lines of all files that are about a host."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.lines = [f"User {place.user}"] if place.user else []
        self.lines += [f"Port {place.port}"] if place.port else []

    def found(self, *more: str) -> Mapping[str, Any]:
        """What the lines so far say, and those that follow."""
        found: Mapping[str, Any] = _Raw.from_text("\n".join([*self.lines, *more])).lookup(self._place.name)
        return found

    def take(self, path: str, base: str, *, must: bool = False, private: bool = False, depth: int = 0) -> None:
        """Read a file, and those that it includes. Raises Failed.

        base: where included files lie. private: whether nobody else may write to it.
        """
        if depth > DEPTH:
            raise Failed(f"Bad configuration option: {path} includes itself")
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                status = os.fstat(file.fileno())
                if private and (status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022):
                    raise Failed(f"Bad owner or permissions on {path}")
                text = file.read()
        except OSError as error:
            if must:
                raise Failed(f"Can't open user config file {path}: {error.strerror}") from None
            return
        block = _ALWAYS
        for line in text.splitlines():
            word, _, rest = line.strip().replace("=", " ", 1).partition(" ")
            if word.lower() == "include":
                # In a block that is not about this host, it includes nothing; after it, the block goes on.
                if block == _ALWAYS or "included" in self.found(block, "Included yes"):
                    for name in shlex.split(rest, comments=True):
                        whole = os.path.join(os.path.expanduser(base), os.path.expanduser(name))
                        for one in sorted(glob.glob(whole)):
                            self.take(one, base, private=private, depth=depth + 1)
                            self.lines.append(block)
                continue
            if word.lower() in ("host", "match"):
                block = line
            self.lines.append(line)


def _target(place: Place, found: Mapping[str, Any]) -> Target:
    me = getpass.getuser()
    user, port = str(found.get("user", me)), int(found.get("port", 22))
    host = _expanded(str(found["hostname"]), {"h": place.name})
    tokens = {
        "h": host,
        "n": place.name,
        "p": str(port),
        "r": user,
        "u": me,
        "d": os.path.expanduser("~"),
        "l": socket.gethostname(),
        "L": socket.gethostname().partition(".")[0],
        "i": str(os.getuid()),
        "k": str(found.get("hostkeyalias", place.name)),
    }

    def files(key: str, default: str) -> tuple[str, ...]:
        return tuple(_path(name, tokens) for name in shlex.split(str(found.get(key, default))) if name != "none")

    if str(found.get("revokedhostkeys", "none")).lower() != "none":
        raise Failed("Bad configuration option: transport sftp cannot read RevokedHostKeys; use openssh")
    jump, command = _proxy(found)
    timeout = str(found.get("connecttimeout", "none"))
    agent = found.get("identityagent")
    return Target(
        host=host,
        port=port,
        user=user,
        key_name=_key_name(found, host, port, tokens),
        identities=tuple(
            _path(name, tokens) for name in found.get("identityfile", _DEFAULT_KEYS) if name.lower() != "none"
        ),
        identities_only=_yes(found, "identitiesonly"),
        agent=None if agent in (None, "SSH_AUTH_SOCK") else _path(str(agent), tokens),
        user_known_hosts=files("userknownhostsfile", _USER_HOSTS),
        global_known_hosts=files("globalknownhostsfile", _GLOBAL_HOSTS),
        hash_known_hosts=_yes(found, "hashknownhosts"),
        proxy_command=_expanded(command, tokens) if command else None,
        proxy_jump=tuple(Place.of(one) for one in _expanded(jump, tokens).split(",")) if jump else (),
        connect_timeout=None if timeout.lower() == "none" else float(timeout),
        family=_FAMILIES[str(found.get("addressfamily", "any")).lower()],
        bind_address=found.get("bindaddress"),
    )


_FAMILIES = {"any": socket.AF_UNSPEC, "inet": socket.AF_INET, "inet6": socket.AF_INET6}


def _proxy(found: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """ProxyJump or ProxyCommand: the one that was found first, as ssh has it. paramiko keeps that order."""
    first = next((key for key in found if key in ("proxyjump", "proxycommand")), None)
    value = str(found[first]) if first and found[first] else "none"
    if value.lower() == "none":
        return None, None
    return (value, None) if first == "proxyjump" else (None, value)


def _key_name(found: Mapping[str, Any], host: str, port: int, tokens: Mapping[str, str]) -> str:
    alias = found.get("hostkeyalias")
    name = _expanded(str(alias), tokens) if alias else host if port == 22 else f"[{host}]:{port}"
    return name.lower()


def _yes(found: Mapping[str, Any], key: str) -> bool:
    return str(found.get(key, "no")).lower() in ("yes", "true")


def _path(name: str, tokens: Mapping[str, str]) -> str:
    """A file name with its tokens, its `~` and its variables."""
    if name.startswith("$") and "{" not in name:  # IdentityAgent $NAME
        name = f"${{{name[1:]}}}"
    named = re.sub(r"\$\{(\w+)\}", lambda match: os.environ.get(match[1], ""), name)
    return _expanded(os.path.expanduser(named), tokens)


def _expanded(text: str, tokens: Mapping[str, str]) -> str:
    """Raises KeyError for a token that is not known here."""
    return re.sub("%(.)", lambda match: "%" if match[1] == "%" else tokens[match[1]], text)
