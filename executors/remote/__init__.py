"""`remote`: branches run on hosts that are reached by ssh.

    coordinator                                             host
    claims jobs in the spool on the host's behalf
    one `ssh` for each host   --- job files, on stdin -->   a worker with a spool of its own, made for this fan-out
    publishes the results     <-- results, on stdout ---    and removed with it; its slots run the jobs

Everything goes through the one session that a host gets: no login for a job, no program on the host but Python.
When the session ends, for whatever reason, the worker on the host ends with its jobs, and the jobs go to other hosts.
A result can therefore come only from a session that lives: none comes late.

    settings   what the user asked for          bootstrap  what runs on the host before tea is there
    frames     messages on a pipe               link       one host: connect, send, receive, connect again
    failures   what ssh's errors mean           feeder     which job goes to which host
    parcel     what is copied                   serve, fed the worker on the host
    reply      what comes back                  arrival    what it is sent before its first job
    examine    what hosts are like              cleaning   what runs have left there, by `sweep`
    session    a connection, and its end        openssh    the program that holds it: `ssh`
                                                sftp       or tea's own `client`, made of paramiko

With `launcher: parallel`, GNU Parallel carries jobs and results, in batches; all else goes through the session.

    batches    what goes into which batch       courier    what GNU Parallel runs on the host for a batch
    parallel   GNU Parallel's command line      intake     where the worker takes it, in the folder of `transit`
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from executors.remote.executor import RemoteExecutor
    from executors.remote.settings import RemoteConfig, RemoteHost

__all__ = ["RemoteConfig", "RemoteExecutor", "RemoteHost"]

_HOME = {"RemoteConfig": "settings", "RemoteExecutor": "executor", "RemoteHost": "settings"}


def __getattr__(name: str) -> Any:
    """Loaded when asked for: `client` is a program of its own, and needs none of it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
