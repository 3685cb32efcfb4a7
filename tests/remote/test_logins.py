"""Logging in as ssh_config and known_hosts say: `ssh` and tea's own client do the same, with the same words."""

from __future__ import annotations

import getpass
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from executors.remote import openssh, sftp
from executors.remote.failures import HostError, of_ssh
from executors.remote.settings import RemoteConfig
from tests import sshd
from tests.support import cannot, children_of, kill_all, wait_until

ARGV = {"openssh": openssh.argv, "sftp": sftp.argv}


class Door:
    """Hosts, and how to knock there."""

    def __init__(self, transport: str, hosts: sshd.Hosts) -> None:
        self.transport, self.hosts = transport, hosts
        self.remote: dict[str, object] = {}
        self.env: dict[str, str] = {}

    def argv(self, alias: str, command: str = "echo in") -> list[str]:
        config = RemoteConfig(hosts=[alias], transport=self.transport, connect_timeout=30, **self.remote)  # type: ignore[arg-type]
        return ARGV[self.transport](config.hosts[0], config, command)

    def knock(self, alias: str) -> HostError | None:
        """None when we are let in, else what tea would say."""
        env = {**os.environ, "HOME": str(self.hosts.folder), **self.env}
        env.pop("SSH_AUTH_SOCK", None) if "SSH_AUTH_SOCK" not in self.env else None
        done = subprocess.run(self.argv(alias), capture_output=True, text=True, env=env, timeout=240, check=False)
        if done.stdout == "in\n" and done.returncode == 0:
            return None
        config = RemoteConfig(hosts=[alias])
        return of_ssh(config.hosts[0], done.returncode, done.stderr)

    def config(self, text: str) -> None:
        """These lines come first in ssh_config."""
        self.hosts.config.write_text(text + "\n" + self.hosts.config.read_text())

    def rewrite_known_hosts(self, change: Callable[[str, str, str], str]) -> None:
        """Each line anew, from its name, kind and key."""
        lines = [line.split()[:3] for line in self.hosts.known_hosts.read_text().splitlines()]
        self.hosts.known_hosts.write_text("\n".join(change(*line) for line in lines) + "\n")


@pytest.fixture(params=["openssh", "sftp"])
def door(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    if sshd.SSHD is None:
        cannot("no sshd here; scripts/setup-system.sh installs it")
    folder = tmp_path / "ssh"
    folder.mkdir(mode=0o700)
    with sshd.hosts(folder) as hosts:
        monkeypatch.setenv("TEA_SSH_CONFIG", str(hosts.config))
        yield Door(request.param, hosts)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    """The socket of an ssh-agent."""
    socket = str(tmp_path / "agent")
    env = {**os.environ, "SSH_AUTH_SOCK": socket}
    process = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    listens = lambda: subprocess.run(["ssh-add", "-l"], env=env, capture_output=True, check=False).returncode != 2  # noqa: E731
    wait_until(listens, what="the agent")
    yield socket
    process.terminate()
    process.wait(240)


# -- ssh_config -----------------------------------------------------------------------------------------------------


def test_an_alias(door: Door) -> None:
    door.hosts.add("one")
    assert door.knock("one") is None


def test_included_and_matched_settings(door: Door) -> None:
    one = door.hosts.add("one")
    more = door.hosts.folder / "more.conf"
    more.write_text(f"Host far\n  HostName 127.0.0.1\nMatch originalhost far\n  Port {one.port}\n")
    never = door.hosts.folder / "never.conf"
    never.write_text("Host far\n  Port 1\n")
    door.config(f"Host other\n  Include {never}\nHost f?r\n  Include {more}\n  User nobody-else\nHost *\n")
    error = door.knock("far")
    assert "nobody-else@127.0.0.1: Permission denied" in str(error), "the block goes on after what it includes"
    door.config(f"Include {more}\n")
    door.config(f"User {getpass.getuser()}\n")
    assert door.knock("far") is None


def test_a_user_and_a_port_on_the_command_line_win(door: Door) -> None:
    one = door.hosts.add("one")
    door.config("Host 127.0.0.1\n  User nobody\n  Port 1\n")
    assert door.knock(f"{getpass.getuser()}@127.0.0.1:{one.port}") is None


def test_hosts_on_the_way(door: Door) -> None:
    """ProxyJump over two hosts; the second one finds its way by its own alias."""
    door.hosts.add("first")
    door.hosts.add("second")
    door.hosts.add("far")
    door.config("Host far\n  ProxyJump first,second\n")
    assert door.knock("far") is None


def test_a_way_of_a_way(door: Door) -> None:
    door.hosts.add("first")
    door.hosts.add("second")
    door.hosts.add("far")
    door.config("Host far\n  ProxyJump second\nHost second\n  ProxyJump first\n")
    assert door.knock("far") is None
    assert "Accepted publickey" in door.hosts.names["first"].log


def test_an_unknown_host_on_the_way(door: Door) -> None:
    door.hosts.add("first", known=False)
    door.hosts.add("far")
    door.config("Host far\n  ProxyJump first\n")
    error = door.knock("far")
    assert error is not None
    assert "far: its host key is not known" in str(error)


def test_a_proxy_command(door: Door) -> None:
    """What it starts ends with it."""
    one = door.hosts.add("one")
    door.config(f"Host one\n  ProxyCommand ssh -F {door.hosts.config} -W %h:%p two\n")
    two = door.hosts.add("two")
    door.config(f"Host one\n  ProxyCommand ssh -F {door.hosts.config} -W %h:%p two\n")
    assert door.knock("one") is None
    assert f"port {one.port}" in two.log or "Accepted publickey" in two.log


def test_none_takes_a_proxy_back(door: Door) -> None:
    door.hosts.add("one")
    door.config("Host one\n  ProxyCommand none\nHost *\n  ProxyJump no-such-host\n")
    assert door.knock("one") is None


# -- keys -----------------------------------------------------------------------------------------------------------


def test_no_key_that_the_host_takes(door: Door) -> None:
    (door.hosts.add("one").folder / "authorized_keys").write_text("")
    error = door.knock("one")
    assert error is not None
    assert error.lasting
    assert "host one: it does not let us in" in str(error)


def test_a_key_with_a_passphrase_is_for_an_agent(door: Door, agent: str) -> None:
    door.hosts.add("one")
    subprocess.run(["ssh-add", "-q", door.hosts.key], env={**os.environ, "SSH_AUTH_SOCK": agent}, check=True)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", door.hosts.key], check=True, stdout=-3)
    error = door.knock("one")
    assert error is not None
    assert "ssh-add" in str(error)
    door.env["SSH_AUTH_SOCK"] = agent
    assert door.knock("one") is None


def test_an_agent_that_ssh_config_names_has_the_other_half_of_a_public_key(door: Door, agent: str) -> None:
    door.hosts.add("one")
    subprocess.run(["ssh-add", "-q", door.hosts.key], env={**os.environ, "SSH_AUTH_SOCK": agent}, check=True)
    door.config(f"Host *\n  IdentityAgent {agent}\n  IdentityFile {door.hosts.key}.pub\n")
    door.hosts.key.unlink()
    assert door.knock("one") is None


def test_only_the_named_keys_of_an_agent(door: Door, agent: str) -> None:
    """A host that takes few attempts is lost with an agent that holds many keys, but for IdentitiesOnly."""
    door.hosts.add("one", "MaxAuthTries 2")
    env = {**os.environ, "SSH_AUTH_SOCK": agent}
    for number in range(4):
        path = door.hosts.folder / f"key{number}"
        sshd.keygen(path)
        subprocess.run(["ssh-add", "-q", path], env=env, check=True)
    door.env["SSH_AUTH_SOCK"] = agent
    assert door.knock("one") is None
    if door.transport == "openssh":
        return  # from 10.6 on, ssh offers the named key first, whatever else the agent holds
    door.config("Host *\n  IdentitiesOnly no\n")
    error = door.knock("one")
    assert error is not None
    assert "it does not let us in" in str(error)


# -- known_hosts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        "{name} {kind} {key}",
        "[127.0.*]:* {kind} {key}",
        "!other,{name} {kind} {key} a comment",
        "@cert-authority *.example.org {kind} {key}\n{name} {kind} {key}",
        "not a line\n{name} {kind} not-base64\n{name} {kind} {key}",
        "127.0.0.1 {kind} {key}",
    ],
    ids=["plain", "pattern", "list", "with an authority", "among rubbish", "without its port"],
)
def test_a_known_host(door: Door, form: str) -> None:
    door.hosts.add("one")
    door.rewrite_known_hosts(lambda name, kind, key: form.format(name=name, kind=kind, key=key))
    assert door.knock("one") is None


def test_a_hashed_name(door: Door) -> None:
    door.hosts.add("one")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", door.hosts.known_hosts], check=True, stdout=-3, stderr=-3)
    assert "127.0.0.1" not in door.hosts.known_hosts.read_text()
    assert door.knock("one") is None


def test_another_file_and_another_name(door: Door) -> None:
    door.hosts.add("one")
    door.rewrite_known_hosts(lambda _name, kind, key: f"the-one {kind} {key}")
    other = door.hosts.folder / "other hosts"
    door.hosts.known_hosts.rename(other)
    door.config(f'Host one\n  HostKeyAlias the-one\n  UserKnownHostsFile /dev/null "{other}"\n')
    assert door.knock("one") is None


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("!{name},!127.0.0.1,* {kind} {key}", "its host key is not known"),
        ("@revoked * {kind} {key}\n{name} {kind} {key}", "marked as revoked"),
        ("@revoked {name} {kind} {key}", "marked as revoked"),
        ("@cert-authority {name} {kind} {key}", "its host key is not known"),
    ],
)
def test_a_host_that_is_not_to_be_trusted(door: Door, form: str, message: str) -> None:
    door.hosts.add("one")
    door.rewrite_known_hosts(lambda name, kind, key: form.format(name=name, kind=kind, key=key))
    for policy in ("strict", *(["accept-new"] if "revoked" in message else [])):
        door.remote["host_keys"] = policy
        error = door.knock("one")
        assert error is not None
        assert error.lasting
        assert message in str(error)


@pytest.mark.parametrize("hashed", ["no", "yes"])
def test_a_new_host_is_written_down(door: Door, hashed: str) -> None:
    one = door.hosts.add("one", known=False)
    # ssh itself would put the new line behind this one, where there is no end.
    door.hosts.known_hosts.write_text("# mine" + ("\n" if door.transport == "openssh" else ""))
    door.config(f"Host *\n  HashKnownHosts {hashed}\n")
    door.remote["host_keys"] = "accept-new"
    assert door.knock("one") is None
    found = subprocess.run(
        ["ssh-keygen", "-F", f"[127.0.0.1]:{one.port}", "-f", door.hosts.known_hosts], capture_output=True, check=True
    )
    assert (one.folder / "host_key.pub").read_bytes().split()[1] in found.stdout
    assert (b"127.0.0.1" in door.hosts.known_hosts.read_bytes()) == (hashed == "no")
    sshd.keygen(one.folder / "host_key")
    one.stop()
    one.start()
    error = door.knock("one")
    assert error is not None
    assert f"remove the old key in {door.hosts.known_hosts}:" in str(error)


# -- links ----------------------------------------------------------------------------------------------------------


def test_nobody_there(door: Door) -> None:
    one = door.hosts.add("one")
    one.stop()
    error = door.knock("one")
    assert error is not None
    assert not error.lasting
    assert "Connection refused" in str(error)


def test_a_link_that_is_dead_is_noticed(door: Door) -> None:
    """Nobody answers any more, and no end of the connection comes."""
    one = door.hosts.add("one")
    process = subprocess.Popen(
        door.argv("one", "echo in; exec sleep 600"), stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"in\n"
    sessions = one.sessions()
    for pid in sessions:
        os.kill(pid, signal.SIGSTOP)
    try:
        assert process.wait(240) == 255
    finally:
        process.kill()
        process.communicate()
        kill_all(sessions)


def test_it_ends_with_whoever_started_it(door: Door) -> None:
    one = door.hosts.add("one")
    process = subprocess.Popen(door.argv("one", "echo in; exec cat"), stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"in\n"
    process.stdin.close()
    assert process.wait(240) == 0
    process.stdout.close()
    wait_until(lambda: not children_of(process.pid) and not one.sessions(), what="an end of all")


def test_what_fails_in_the_client_does_not_blame_the_host(door: Door, tmp_path: Path) -> None:
    if door.transport == "openssh":
        pytest.skip("about tea's own client")
    (tmp_path / "paramiko.py").write_text("raise OSError('half installed')\n")
    door.env["PYTHONPATH"] = str(tmp_path)
    door.hosts.add("one")
    assert str(door.knock("one")) == (
        "host one: cannot be reached (tea's own client failed: OSError: half installed)"
    )
