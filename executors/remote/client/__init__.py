"""tea's own `ssh`, made of paramiko, for machines that have none: it logs in, runs one command, and passes bytes on.

    python -m executors.remote.client [--config FILE] [--port N] [--host-keys strict|accept-new] USER@HOST COMMAND

It reads the user's ssh_config and known_hosts, fails with the words of `ssh` and its exit code 255, and ends when its
stdin does, or the link is dead for eight seconds. It never asks anything.

    sshconfig    what ssh_config says of a host       login    keys and agents
    known_hosts  whether a host is who it says        reach    through proxies to a session that is safe
    program      bytes to and fro

Not in it: passwords, Kerberos, keys in hardware that no agent holds, certificates of hosts, choices of ciphers.
"""


class Failed(Exception):
    """The session cannot be had; the words are those of `ssh`."""
