"""Transport `openssh`: the `ssh` program, with all that the user's ssh_config says."""

from __future__ import annotations

import os

from executors.remote.settings import SSH_CONFIG, RemoteConfig, RemoteHost


def program(config: RemoteConfig) -> list[str]:
    """`ssh` and its options, the same for every host."""
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": str(max(1, round(config.connect_timeout))),
        "ServerAliveInterval": "2",
        "ServerAliveCountMax": "3",
        "StrictHostKeyChecking": "yes" if config.host_keys == "strict" else "accept-new",
        "ControlMaster": "no",
        "ControlPath": "none",
        "ClearAllForwardings": "yes",
        "RemoteCommand": "none",
        "PermitLocalCommand": "no",
        "LogLevel": "ERROR",
        "Compression": "yes" if config.compress else "no",
    }
    argv = ["ssh"]
    if os.environ.get(SSH_CONFIG):
        argv += ["-F", os.environ[SSH_CONFIG]]
    argv += ["-T", "-x", "-e", "none"]
    for name, value in options.items():
        argv += ["-o", f"{name}={value}"]
    return argv


def argv(host: RemoteHost, config: RemoteConfig, command: str) -> list[str]:
    """The command line of a session: a fixed argv."""
    port = [] if host.port is None else ["-p", str(host.port)]
    return [*program(config), *port, "--", host.target, command]


def aliases() -> list[str]:
    """The hosts that ssh_config names one by one; nothing that cannot be read, or that other files hold."""
    path = os.environ.get(SSH_CONFIG) or os.path.expanduser("~/.ssh/config")
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.split("#")[0].replace("=", " ").split() for line in file]
    except OSError:
        return []
    names = [name for line in lines if line and line[0].lower() == "host" for name in line[1:]]
    return [name for name in dict.fromkeys(names) if not any(letter in name for letter in "*?!")]
