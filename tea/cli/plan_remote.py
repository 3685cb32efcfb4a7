"""What `tea run --dry-run` prints of the strategy `remote`: which hosts, how they are reached, what is copied there.

Nothing is connected: whether the hosts will do is for `tea hosts check`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from executors.remote import RemoteConfig, RemoteHost


def plan_remote(settings: Any, folder: str) -> Iterator[str]:
    """The lines about hosts. Raises ValueError for settings that cannot be used, and for files that are not there."""
    from executors.remote import RemoteConfig, parcel

    config = RemoteConfig.usable(settings)
    program = parcel.program(config, folder)
    for number, host in enumerate(config.hosts):
        yield _labelled("" if number else "hosts", _host(host, config))
    launcher = "parallel" if config.launcher == "parallel" else "ssh"
    yield _labelled("reached by", f"transport {config.used_transport()}, launcher {launcher}")
    yield _labelled("copied", f"{program.name}, {len(program.data):,} bytes, where it is not there yet")
    for one in parcel.listed(config, folder):
        files = "1 file" if one.files == 1 else f"{one.files:,} files"
        yield _labelled("", f"{one.name}, {files}, {one.bytes:,} bytes")
    if config.env:
        yield _labelled("", f"the values of {', '.join(config.env)}, into the environment of the jobs")
    if not config.cleanup:
        yield _labelled("stays", "the copies of the jobs, as cleanup is false; `tea hosts clean` removes them")
    if launcher == "parallel":
        yield _labelled("command", _command(config))


def _labelled(label: str, text: str) -> str:
    return f"           {label:<10} {text}"


def _host(host: RemoteHost, config: RemoteConfig) -> str:
    slots = f"{host.slots} slots" if host.slots else "a slot for each CPU"
    parts = [host.host, slots, host.workdir or config.workdir or "/tmp/tea-jobs-UID", host.python or "python3"]
    return ", ".join([*parts, *(f"with {name}" for name in host.env)])


def _command(config: RemoteConfig) -> str:
    from executors.remote import parallel

    return shlex.join(parallel.command(config))
