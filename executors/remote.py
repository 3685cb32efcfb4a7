"""`remote`: worker processes on hosts that are reached by ssh.

Here is what the user may ask for, `RemoteConfig`, checked when it is made. The executor is not built yet and says so
before anything starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from executors.base import FanOutContext, NotBuiltError
from executors.policy import ParallelConfig
from executors.result import ParallelFlowResult

LAUNCHERS = ("auto", "parallel", "ssh")
TRANSPORTS = ("auto", "openssh", "sftp")


@dataclass(frozen=True, slots=True)
class RemoteHost:
    """A host: `user@name` as ssh takes it, and what differs there.

    slots: jobs at once; None lets the executor choose. python, workdir: instead of the configuration's.
    env: variables to set there.
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


@dataclass(slots=True)
class RemoteConfig:
    """Settings of the strategy `remote`.

    hosts: at least one; each a text like `user@server`, a mapping with `host`, or a `RemoteHost`.
    basefile: the program to copy; None builds one. files: what the nodes import or read.
    workdir: folder on the hosts. cleanup: remove it in the end.
    launcher: "auto", "parallel" or "ssh". transport: "auto", "openssh" or "sftp".
    env: names of variables to hand over. connect_timeout: seconds. compress: compress what is sent.

    Raises ValueError, which names the field and what to do.
    """

    hosts: Sequence[Any]
    basefile: str | None = None
    files: Sequence[str] = ()
    workdir: str = "/tmp/tea-jobs"
    cleanup: bool = True
    launcher: str = "auto"
    transport: str = "auto"
    env: Sequence[str] = ()
    connect_timeout: float = 10.0
    compress: bool = False

    def __post_init__(self) -> None:
        self.hosts = _hosts(self.hosts)
        self.files = _texts("files", self.files, "give a list of paths")
        self.env = _texts("env", self.env, "give a list of names of variables")
        for name in self.env:
            if not name.isidentifier():
                raise _wrong("env", name, "give the name of a variable; its value is taken from the environment")
        if self.basefile is not None and (not isinstance(self.basefile, str) or not self.basefile):
            raise _wrong("basefile", self.basefile, "give the path of a program, or leave it out")
        if not isinstance(self.workdir, str) or not self.workdir:
            raise _wrong("workdir", self.workdir, "give the path of a folder on the hosts")
        _one_of("launcher", self.launcher, LAUNCHERS)
        _one_of("transport", self.transport, TRANSPORTS)
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


def _brief(host: RemoteHost) -> dict[str, Any]:
    return {key: value for key, value in asdict(host).items() if value}


def _wrong(name: str, value: object, remedy: str) -> ValueError:
    return ValueError(f"RemoteConfig.{name} is {value!r}: {remedy}")


def _hosts(hosts: Any) -> list[RemoteHost]:
    if isinstance(hosts, str | bytes | Mapping) or not isinstance(hosts, Sequence) or not hosts:
        raise _wrong("hosts", hosts, "give a list of at least one host, like ['user@server']")
    return [_host(host) for host in hosts]


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


class RemoteExecutor:
    """Runs branches on hosts that are reached by ssh. Not built yet: `execute` says so.

    Args:
        max_workers: jobs at once, over all hosts.
        context: where the record is kept.
    """

    strategy = "remote"

    def __init__(self, max_workers: int | None = None, context: FanOutContext | None = None) -> None:
        self.max_workers = max_workers
        self.context = context or FanOutContext()

    def execute(
        self, flows: Sequence[Any], states: Sequence[Any], config: ParallelConfig
    ) -> list[ParallelFlowResult]:
        """Raises NotBuiltError, before anything has started."""
        raise NotBuiltError(
            "strategy 'remote' is not in this version of tea yet; use 'workers' with `tea worker` on hosts that "
            "mount the spool, or 'process' on this machine"
        )
