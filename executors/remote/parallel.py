"""Launcher `parallel`: the command line of GNU Parallel, one run of it, and what its log says.

GNU Parallel decides which host gets which batch of jobs, brings it there and fetches the results:

    names of batches, on stdin --> parallel --> rsync 0007.batch --> courier.py on the host --> rsync 0007.result

It is no judge of jobs: a batch counts as done when its results are here, whatever GNU Parallel says of it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pkgutil import get_data

from executors import undertaker
from executors.remote import openssh
from executors.remote.settings import RemoteConfig, RemoteHost

COURIER = "courier.py"
RETRIES = 3
"""How often GNU Parallel gives a batch to a host before it gives it back to tea."""

AHEAD = 2
"""Batches that a host has at once: one is worked on, the next one is brought meanwhile."""

_LOGIN = re.compile(r"([A-Za-z0-9_][A-Za-z0-9._-]*@)?[A-Za-z0-9._-]+(:[0-9]{1,5})?")
"""What GNU Parallel takes for a host, and a shell for nothing else."""


def check(config: RemoteConfig) -> None:
    """Raises ValueError, with a remedy, when GNU Parallel cannot be used here or cannot reach these hosts."""
    text = _missing()
    if text is not None:
        raise ValueError(f"launcher 'parallel': {text}; or use launcher ssh, which needs neither, and is quicker")
    if config.transport == "sftp":
        raise ValueError("launcher 'parallel' needs ssh and rsync: use transport openssh, or launcher ssh")
    for host in config.hosts:
        if not _LOGIN.fullmatch(host.host):
            raise ValueError(
                f"launcher 'parallel' can't hand the host {host.host!r} to GNU Parallel: give it a plain name in "
                "~/.ssh/config, or use launcher ssh"
            )


@lru_cache(maxsize=1)
def _missing() -> str | None:
    """What is not installed here."""
    if shutil.which("parallel") is None:
        return "GNU Parallel is not installed here; install the package `parallel`"
    said = subprocess.run(
        ["parallel", "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    ).stdout
    if not said.startswith("GNU parallel"):
        return (
            f"{shutil.which('parallel')} is not GNU Parallel but another program of that name (moreutils?); install "
            "the package `parallel`"
        )
    for program in ("rsync", "ssh"):
        if shutil.which(program) is None:
            return f"{program} is not installed here, and GNU Parallel needs it; install the package `{program}`"
    return None


def command(
    config: RemoteConfig,
    *,
    hosts: Sequence[RemoteHost] | None = None,
    workdir: str = "/tmp/tea-TOKEN",
    joblog: str = "parallel.joblog",
    timeout: float | None = None,
    control: str | None = None,
    courier: str = COURIER,
) -> list[str]:
    """The command line with which GNU Parallel distributes the batches of a fan-out, as `shlex.join` can show it.

    Args:
        hosts: those that take part, `config.hosts` without it.
        workdir: the folder of the batches, the same on every host; a run chooses the TOKEN.
        joblog: the file that GNU Parallel writes a line into for each batch.
        timeout: seconds that a batch may take; None for no limit.
        courier: the file to copy to each host first; each run has one of its own, as it removes it in the end.
        control: where ssh keeps the socket of a connection that several logins share; None for a connection each.

    It starts in the folder of the batches, whose names it reads from stdin. No secret is on it.
    """
    argv = ["parallel", "--plain", "--ungroup", f"-j{AHEAD}", "--ssh", shlex.join(_ssh(config, control))]
    argv += ["--sshlogin", ",".join(_login(host) for host in hosts or config.hosts)]
    argv += ["--workdir", workdir, "--basefile", courier, "--transferfile", "{}", "--return", "{.}.result"]
    argv += ["--cleanup", "--joblog", f"+{joblog}", "--retries", str(RETRIES)]
    if timeout is not None:
        argv += ["--timeout", f"{timeout:g}"]
    return [*argv, f"./python -I {courier} {{}} {{.}}.result"]


def _login(host: RemoteHost) -> str:
    return f"{host.slots}/{host.host}" if host.slots else host.host


def _ssh(config: RemoteConfig, control: str | None) -> list[str]:
    """The same options as tea's own sessions have, but for the connection that the logins of a batch share."""
    argv = openssh.program(config)
    if control is not None:  # of several values, ssh takes the first
        argv[1:1] = ["-o", "ControlMaster=auto", "-o", f"ControlPath={control}", "-o", "ControlPersist=5"]
    return argv


class Desk:
    """The folder here that batches go out from and results come back to, and all that runs for it.

    Everything goes with this process, also when it is killed: nothing that GNU Parallel has started outlives it.
    """

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix="tea-parallel-")
        self.mark = f"{os.getpid()}:{os.path.basename(self.path)}:{self.path}"
        self._couriers = 0
        _employ(self.mark)

    def file(self, name: str) -> str:
        """The path of a file there."""
        return f"{self.path}/{name}"

    def courier(self) -> str:
        """The name of a new courier."""
        text = get_data("executors.remote", COURIER)
        assert text is not None
        self._couriers += 1
        name = f"courier-{self._couriers}.py"
        with open(self.file(name), "wb") as file:
            file.write(text)
        return name

    @property
    def control(self) -> str | None:
        """Where ssh keeps its sockets; None when their paths would be longer than a socket's may be."""
        path = self.file("%C")
        return path if len(path) + 38 + 17 < 104 else None

    @property
    def environment(self) -> dict[str, str]:
        """For GNU Parallel: its own folder is here, its shell is a plain one, and the undertaker knows it."""
        return {
            **os.environ,
            "PARALLEL_HOME": self.path,
            "PARALLEL_SHELL": "/bin/sh",
            undertaker.SERVER: self.mark,
        }

    def clear(self, batch: str) -> None:
        """Remove the files of a batch; GNU Parallel has noted their sizes by now."""
        for suffix in ("batch", "result"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.file(f"{batch}.{suffix}"))

    def close(self) -> None:
        """End what still runs, and remove the folder."""
        undertaker.end(self.mark, 5.0)
        shutil.rmtree(self.path, ignore_errors=True)


def _employ(mark: str) -> None:
    """Have an undertaker for what carries this mark; it is there when this returns."""
    root = os.path.dirname(os.path.dirname(undertaker.__file__))
    code = "import sys; sys.path.insert(0, sys.argv[1]); import executors.undertaker"
    environment = {**os.environ, undertaker.SERVER: mark}
    subprocess.run([sys.executable, "-I", "-S", "-c", code, root], env=environment, check=True, timeout=60)


class Round:
    """One run of GNU Parallel, over hosts that can be used now.

    It reads the names of batches one by one. While it waits for one it neither notices the end of others nor tries
    them again, and it may wait for one although it has enough, so `close` it when there is none for now, or when
    something seems to be wrong: it goes on with those that it has, and ends.
    brought: whether any batch has come through to a host.
    """

    def __init__(self, argv: list[str], desk: Desk, hosts: Iterable[str]) -> None:
        self.hosts = frozenset(hosts)
        self.open, self.brought = True, False
        self._said = tempfile.TemporaryFile(prefix="tea-parallel-")  # noqa: SIM115 - closed with the round
        self._process = subprocess.Popen(
            argv,
            cwd=desk.path,
            env=desk.environment,
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=self._said,
            start_new_session=True,
        )

    def feed(self, batch: str) -> None:
        """Give it the name of a batch."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, and `over` tells
            self._process.stdin.write(batch.encode() + b"\n")
            self._process.stdin.flush()

    def close(self) -> None:
        """There are no more batches."""
        if self.open:
            self.open = False
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()  # type: ignore[union-attr]

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def wait(self, seconds: float) -> None:
        """Wait for its end, at most so long."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def end(self) -> None:
        """End it with its batches: told twice to terminate, GNU Parallel ends what it has started, too."""
        for _ in range(2):
            if not self.over:
                self._process.send_signal(signal.SIGTERM)
                self.wait(0.3)
        self.wait(3.0)
        if not self.over:
            self._process.kill()
        self._process.wait()
        self.close()

    def said(self) -> str:
        """The last line that it, or what it has started, has printed."""
        size = os.fstat(self._said.fileno()).st_size
        text = os.pread(self._said.fileno(), 8192, max(0, size - 8192)).decode("utf-8", "replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1][:300] if lines else ""


class JobLog:
    """GNU Parallel's log: a line for each batch that it has done with, for better or worse."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._read = os.path.getsize(path) if os.path.exists(path) else 0

    def news(self) -> Iterator[tuple[str, str]]:
        """The batches that have been logged since the last call, each with the last host that it was on."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self._read)
                data = file.read()
        except FileNotFoundError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.decode("utf-8", "replace").splitlines():
            if (found := re.search(r"\b([0-9]+)\.batch\b", line)) is not None:
                yield found[1], line.split("\t")[1]
