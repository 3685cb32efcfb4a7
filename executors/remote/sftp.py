"""Transport `sftp`: tea's own client (`executors.remote.client`), where there is no `ssh` program.

It is a process as `ssh` is. paramiko would run in this one, too, but not everything that it waits for has a deadline,
and what it encrypts would take the coordinator's time.
"""

from __future__ import annotations

import os
import sys

from executors.remote.settings import SSH_CONFIG, RemoteConfig, RemoteHost


def argv(host: RemoteHost, config: RemoteConfig, command: str) -> list[str]:
    """The command line of a session: a fixed argv."""
    argv = [sys.executable, "-P", "-m", "executors.remote.client"]
    if os.environ.get(SSH_CONFIG):
        argv += ["--config", os.environ[SSH_CONFIG]]
    if host.port is not None:
        argv += ["--port", str(host.port)]
    argv += ["--timeout", f"{config.connect_timeout:g}", "--host-keys", config.host_keys]
    if config.compress:
        argv.append("--compress")
    return [*argv, "--", host.target, command]
