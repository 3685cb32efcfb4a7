"""Real ssh servers on this machine, each a host of its own: own key, own port, own log; ended with the test."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import children_of, is_running, kill_all, marked_with, wait_until

PYTHON = os.path.dirname(os.path.realpath(sys.executable))
"""Where `python3` is on every host: the one of the tests, without what is installed beside it for them."""

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin:/sbin:/bin")


@dataclass
class Host:
    """One sshd. `alias` is its name in the ssh_config of its `Hosts`."""

    alias: str
    folder: Path
    port: int
    lines: list[str] = field(default_factory=list)
    address: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()
    """What starts sshd somewhere else: in a network namespace."""
    process: subprocess.Popen[bytes] | None = None
    reserved: socket.socket | None = None
    """Bound to the port, but not listening: sshd may use it all the same, and nobody else is given it."""

    @property
    def workdir(self) -> Path:
        """Where the tests let tea work on this host."""
        return self.folder / "work"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def start(self, *lines: str) -> None:
        """Start it, with more lines of sshd_config."""
        assert SSHD is not None
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        (self.folder / "sshd_config").write_text("\n".join([*lines, *self.lines, ""]))
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        wait_until(self._answers, what=f"sshd of {self.alias}")

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.address, self.port), 1) as connection:
            return connection.recv(4) == b"SSH-"
        return False

    def sessions(self) -> set[int]:
        """The processes of its logins, and all that they run, also what has outlived its login."""
        assert self.process is not None
        return children_of(self.process.pid) | marked_with(f"HOME={self.folder / 'home'}\0")

    def cut(self) -> None:
        """Kill the sshd processes of all logins; what they run notices only that its stdin ends."""
        kill_all(self._held_logins())

    def _held_logins(self) -> set[int]:
        """The sshd processes of all logins, stopped, so that none of them makes another one meanwhile."""
        held: set[int] = set()
        while more := {pid for pid in self.sessions() if _is_sshd(pid)} - held:
            _signal_all(more, signal.SIGSTOP)
            held |= more
        return held

    def stop(self) -> None:
        """End it with its logins."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGSTOP)  # from now on it lets nobody in
            wait_until(lambda: _state(self.process.pid) in "TZX", what=f"sshd of {self.alias} to stop")  # type: ignore[union-attr]
        logins = self._held_logins()
        self.process.kill()
        self.process.wait(240)
        kill_all(logins)
        self.process = None


def _state(pid: int) -> str:
    """What a process does, in one letter; see proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _signal_all(pids: set[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _is_sshd(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().startswith("sshd")
    return False


class Link:
    """A network namespace and a virtual cable to it, named after the process that makes them. Needs root."""

    host: Host

    def __init__(self) -> None:
        self.name = f"{_LINK}{os.getpid()}"
        row, place = divmod(os.getpid() % (64 * 250), 64)  # runs of these tests may meet on one machine
        self.here, self.there = f"10.213.{row}.{4 * place + 1}", f"10.213.{row}.{4 * place + 2}"

    def make(self) -> None:
        """Make both, when what runs that were killed have left is gone: it may have our name, or our addresses."""
        for name in _namespaces():
            if name == self.name or not is_running(int(name.removeprefix(_LINK))):
                _remove(name)
        outer, inner = f"{self.name}a", f"{self.name}b"
        _ip("netns", "add", self.name)
        _ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", self.name)
        _ip("addr", "add", f"{self.here}/30", "dev", outer)
        _ip("link", "set", outer, "up")
        _ip("-n", self.name, "addr", "add", f"{self.there}/30", "dev", inner)
        _ip("-n", self.name, "link", "set", inner, "up")
        _ip("-n", self.name, "link", "set", "lo", "up")

    def cut(self) -> None:
        """Nothing passes any more, and nobody is told."""
        _ip("-n", self.name, "link", "set", f"{self.name}b", "down")

    def remove(self) -> None:
        _remove(self.name)


_LINK = "tea-"


def _namespaces() -> list[str]:
    """The network namespaces of these tests: of runs that go on, and of some that were killed."""
    listed = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True, timeout=30).stdout
    return [name for line in listed.splitlines() if re.fullmatch(rf"{_LINK}\d+", name := line.split()[0])]


def _remove(name: str) -> None:
    for command in (["ip", "link", "del", f"{name}a"], ["ip", "netns", "del", name]):
        subprocess.run(command, check=False, stderr=subprocess.DEVNULL)


def _ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, timeout=30)


class Hosts:
    """Hosts, and the ssh_config of the user who reaches them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = folder / "id"
        keygen(self.key)
        self.hosts: list[Host] = []
        self.names: dict[str, Host] = {}

    @property
    def config(self) -> Path:
        return self.folder / "ssh_config"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def alias(self, name: str, host: Host) -> None:
        """Another name for a host."""
        self.names[name] = host
        self._write_config()

    @contextlib.contextmanager
    def behind_a_link(self, alias: str) -> Iterator[Link]:
        """A host in a network namespace, at the other end of a link that can be cut."""
        link = Link()
        try:
            link.make()
            host = self.add(alias, address=link.there, prefix=("ip", "netns", "exec", link.name))
            link.host = host
            yield link
            host.stop()
        finally:
            link.remove()

    def add(
        self,
        alias: str,
        *lines: str,
        known: bool = True,
        address: str = "127.0.0.1",
        prefix: tuple[str, ...] = (),
    ) -> Host:
        """A new host, started; with more lines of sshd_config, which come first and win."""
        folder = self.folder / alias
        (folder / "home").mkdir(parents=True)
        keygen(folder / "host_key")
        shutil.copy(f"{self.key}.pub", folder / "authorized_keys")
        reserved = reserve_port()
        host = Host(alias, folder, reserved.getsockname()[1], address=address, prefix=prefix, reserved=reserved)
        host.lines = [
            f"Port {host.port}",
            f"ListenAddress {address}",
            f"HostKey {folder / 'host_key'}",
            f"AuthorizedKeysFile {folder / 'authorized_keys'}",
            "PidFile none",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            "MaxStartups 100",
            # Not what the start files of whoever runs the tests make of it: those may take longer than a session.
            f"SetEnv HOME={folder / 'home'} PATH={PYTHON}:/usr/local/bin:/usr/bin:/bin",
        ]
        self.hosts.append(host)
        self.names[alias] = host
        host.start(*lines)
        if known:
            self.know(host)
        self._write_config()
        return host

    def know(self, host: Host) -> None:
        """Put its key into known_hosts."""
        key = (host.folder / "host_key.pub").read_text()
        with open(self.known_hosts, "a") as file:
            file.write(f"[{host.address}]:{host.port} {key}")

    def _write_config(self) -> None:
        parts = [f"Host {name}\n  HostName {host.address}\n  Port {host.port}\n" for name, host in self.names.items()]
        parts.append(
            f"Host *\n  User {getpass.getuser()}\n  IdentityFile {self.key}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {self.known_hosts}\n  GlobalKnownHostsFile /dev/null\n"
        )
        self.config.write_text("".join(parts))

    def stop(self) -> None:
        for host in self.hosts:
            host.stop()
            if host.reserved is not None:
                host.reserved.close()


def keygen(path: Path) -> None:
    """A new key without a passphrase."""
    path.unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=30)


def reserve_port() -> socket.socket:
    """A socket bound to a free port, which is nobody else's until it is closed; sshd shares it (SO_REUSEADDR)."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


@contextlib.contextmanager
def hosts(folder: Path) -> Iterator[Hosts]:
    """No hosts yet; those that are added end with the block."""
    made = Hosts(folder)
    try:
        yield made
    finally:
        made.stop()
