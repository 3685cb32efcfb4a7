"""What the user asked for under `settings.parallel.remote`, checked before anything starts."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Self

LAUNCHERS = ("auto", "parallel", "ssh")
TRANSPORTS = ("auto", "openssh", "sftp")
HOST_KEYS = ("strict", "accept-new")

_PATH = re.compile(r"[A-Za-z0-9_.~/+-]+")
"""What a path on a host may be made of: its login shell reads it, so nothing that means something to a shell."""

_PORT = re.compile(r"(?P<target>[^:]+):(?P<port>[0-9]{1,5})")

SSH_CONFIG = "TEA_SSH_CONFIG"
"""Environment variable: a file that ssh reads instead of the user's configuration (`ssh -F`)."""


@dataclass(frozen=True, slots=True)
class RemoteHost:
    """A host: `user@name`, `user@name:port` or an alias of ssh_config, and what differs there.

    slots: jobs at once; None for one a cpu. python: its Python, 3.11 or newer; `python3` without it.
    workdir: instead of the configuration's. env: variables to set there.
    """

    host: str
    slots: int | None = None
    python: str | None = None
    workdir: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_name(self.host)
        slots = self.slots
        if slots is not None and (isinstance(slots, bool) or not isinstance(slots, int) or slots < 1):
            raise _wrong(f"hosts: slots of {self.host}", slots, "give a whole number, 1 or more")
        for name, path in (("python", self.python), ("workdir", self.workdir)):
            if path is not None:
                _check_path(f"hosts: {name} of {self.host}", path)

    @property
    def target(self) -> str:
        """The host without its port."""
        match = _PORT.fullmatch(self.host)
        return match["target"] if match else self.host

    @property
    def port(self) -> int | None:
        """The port; None leaves it to ssh."""
        match = _PORT.fullmatch(self.host)
        return int(match["port"]) if match else None


@dataclass(slots=True)
class RemoteConfig:
    """Settings of the strategy `remote`.

    hosts: at least one; each a text like `user@server`, a mapping with `host`, or a `RemoteHost`.
    basefile: the program to copy; None builds one. files: what the nodes import or read.
    workdir: folder on the hosts; None for `/tmp/tea-jobs-UID` there. cleanup: remove there what a fan-out has left.
    launcher: "auto", "parallel" or "ssh". transport: "auto", "openssh" or "sftp".
    env: names of variables to hand over. connect_timeout: seconds. compress: compress what is sent.
    host_keys: "strict" takes only hosts that are in known_hosts, "accept-new" also takes unknown ones, and keeps
        their keys; a changed key is always refused.

    Raises ValueError, which names the field and what to do.
    """

    hosts: Sequence[Any]
    basefile: str | None = None
    files: Sequence[str] = ()
    workdir: str | None = None
    cleanup: bool = True
    launcher: str = "auto"
    transport: str = "auto"
    env: Sequence[str] = ()
    connect_timeout: float = 10.0
    compress: bool = False
    host_keys: str = "strict"

    def __post_init__(self) -> None:
        self.hosts = _hosts(self.hosts)
        self.files = _texts("files", self.files, "give a list of paths")
        self.env = _texts("env", self.env, "give a list of names of variables")
        for name in self.env:
            if not name.isidentifier():
                raise _wrong("env", name, "give the name of a variable; its value is taken from the environment")
        if self.basefile is not None and (not isinstance(self.basefile, str) or not self.basefile):
            raise _wrong("basefile", self.basefile, "give the path of a program, or leave it out")
        if self.workdir is not None:
            _check_path("workdir", self.workdir)
        _one_of("launcher", self.launcher, LAUNCHERS)
        _one_of("transport", self.transport, TRANSPORTS)
        _one_of("host_keys", self.host_keys, HOST_KEYS)
        _flag("cleanup", self.cleanup)
        _flag("compress", self.compress)
        seconds = self.connect_timeout
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
            raise _wrong("connect_timeout", seconds, "give a number of seconds above 0")

    def to_json(self) -> dict[str, Any]:
        """The configuration as JSON values."""
        return {**asdict(self), "hosts": [_brief(host) for host in self.hosts]}

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> Self:
        """The configuration from a mapping, such as `settings.parallel.remote`. Raises ValueError."""
        known = [one.name for one in fields(cls)]
        unknown = sorted(str(key) for key in data if key not in known)
        if unknown:
            raise ValueError(f"RemoteConfig has no {', '.join(unknown)}; known are {', '.join(known)}")
        if "hosts" not in data:
            raise _wrong("hosts", None, "name at least one, like user@server")
        return cls(**data)

    @classmethod
    def usable(cls, value: Any) -> Self:
        """The configuration from what a `ParallelConfig` holds, when this version of tea can do what it asks for.

        Raises ValueError; nothing has been started then.
        """
        if value is None:
            raise ValueError("strategy 'remote' needs hosts: name them under settings.parallel.remote.hosts")
        config = value if isinstance(value, cls) else cls.from_mapping(value)
        config.used_transport()
        if config.launcher == "parallel":
            parallel = import_module("executors.remote.parallel")  # which imports this module
            parallel.check(config)
        config.environment()
        return config

    def used_transport(self) -> str:
        """The transport that `auto` stands for on this machine. Raises ValueError for one that is not here."""
        ssh, paramiko = shutil.which("ssh") is not None, find_spec("paramiko") is not None
        wanted = self.transport if self.transport != "auto" else "openssh" if ssh or not paramiko else "sftp"
        if wanted == "openssh" and not ssh:
            raise _wrong("transport", self.transport, "there is no `ssh` here; install it, or paramiko for 'sftp'")
        if wanted == "sftp" and not paramiko:
            raise _wrong("transport", self.transport, "there is no paramiko here; `pip install paramiko`")
        return wanted

    def environment(self) -> dict[str, str]:
        """What the hosts get of this process's environment. Raises ValueError for a variable that is not set."""
        missing = [name for name in self.env if name not in os.environ]
        if missing:
            raise _wrong("env", missing, "not set here; export what the hosts shall get")
        return {name: os.environ[name] for name in self.env}


def _brief(host: RemoteHost) -> dict[str, Any]:
    return {key: value for key, value in asdict(host).items() if value}


def _wrong(name: str, value: object, remedy: str) -> ValueError:
    return ValueError(f"RemoteConfig.{name} is {value!r}: {remedy}")


def _hosts(hosts: Any) -> list[RemoteHost]:
    if isinstance(hosts, str | bytes | Mapping) or not isinstance(hosts, Sequence) or not hosts:
        raise _wrong("hosts", hosts, "give a list of at least one host, like ['user@server']")
    made = [_host(host) for host in hosts]
    names = [host.host for host in made]
    for name in names:
        if names.count(name) > 1:
            raise _wrong("hosts", name, "it is listed twice; list it once, with more slots")
    return made


def _host(host: Any) -> RemoteHost:
    if isinstance(host, RemoteHost):
        return host
    if isinstance(host, str):
        return RemoteHost(host)
    if not isinstance(host, Mapping) or "host" not in host:
        raise _wrong("hosts", host, "a host is a text like 'user@server', or a mapping with 'host'")
    known = [one.name for one in fields(RemoteHost)]
    unknown = sorted(str(key) for key in host if key not in known)
    if unknown:
        raise _wrong("hosts", dict(host), f"a host has no {', '.join(unknown)}; known are {', '.join(known)}")
    return RemoteHost(**host)


def _check_name(host: object) -> None:
    if not isinstance(host, str) or not host or any(c.isspace() or not c.isprintable() for c in host):
        raise _wrong("hosts", host, "give a host name as ssh takes it, like user@server")
    # ssh takes what begins with '-' for an option, and an option can run a program.
    if host.startswith("-") or host.rpartition("@")[2].startswith("-"):
        raise _wrong("hosts", host, "a host name can't begin with '-'; write user@server")


def _check_path(name: str, path: object) -> None:
    if not isinstance(path, str) or not _PATH.fullmatch(path) or path.startswith("-"):
        raise _wrong(name, path, "give a path made of letters, digits and _.~/+-")


def _texts(name: str, values: Any, remedy: str) -> list[str]:
    if isinstance(values, str) or not all(isinstance(value, str) and value for value in values):
        raise _wrong(name, values, remedy)
    return list(values)


def _one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise _wrong(name, value, f"use one of {', '.join(known)}")


def _flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise _wrong(name, value, "use true or false")
