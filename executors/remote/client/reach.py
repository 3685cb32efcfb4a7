"""A connection that is safe: through proxies to a host that has shown the key it is known by, and let us in."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import paramiko

from executors.remote.client import Failed
from executors.remote.client.known_hosts import Verdict, fingerprint, look, remember
from executors.remote.client.login import log_in
from executors.remote.client.sshconfig import Config, Place, Target

PATIENCE = 20.0
"""Seconds that a host may take for each step of a login, beyond the time to connect."""

HOPS = 8
"""Hosts on the way, at most: ProxyJump may go in circles."""


class Line:
    """A socket that knows when something last came, on the monotonic clock."""

    def __init__(self, sock: Any) -> None:
        self._sock, self.heard = sock, time.monotonic()

    def recv(self, size: int) -> bytes:
        data: bytes = self._sock.recv(size)
        self.heard = time.monotonic()
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


@dataclass(frozen=True)
class Wishes:
    """What holds for every host on the way. connect_timeout: seconds."""

    config: Config
    connect_timeout: float
    accept_new: bool
    compress: bool


class Way(NamedTuple):
    """A connection that can be used, and the one that it goes through."""

    transport: paramiko.Transport
    line: Line
    through: Way | None


def reach(place: Place, wishes: Wishes, jumps: tuple[Place, ...] | None = None, hops: int = 0) -> Way:
    """Connect and log in. Raises Failed.

    jumps: the way there, instead of what ssh_config says.
    """
    if hops > HOPS:
        raise Failed(f"Bad configuration option: more than {HOPS} hosts on the way to {place.name}")
    target = wishes.config.target(place)
    through = None
    jumps = target.proxy_jump if jumps is None else jumps
    patience = wishes.connect_timeout if not hops else target.connect_timeout or wishes.connect_timeout
    if jumps:
        through = reach(jumps[-1], wishes, jumps[:-1] or None, hops + 1)
        sock: Any = _through(through.transport, target)
    elif target.proxy_command:
        sock = _command(target.proxy_command)
    else:
        sock = _direct(target, patience)
    line = Line(sock)
    transport = _secure(line, target, wishes, patience)
    log_in(transport, target)
    return Way(transport, line, through)


# -- the way there ------------------------------------------------------------------------------------------------


def _direct(target: Target, patience: float) -> socket.socket:
    """Try each address of a host. Raises Failed with what the last one said."""
    try:
        found = socket.getaddrinfo(target.host, target.port, target.family, socket.SOCK_STREAM)
    except OSError as error:
        raise Failed(f"ssh: Could not resolve hostname {target.host}: {error.strerror or error}") from None
    reason = "no address"
    for family, _kind, _proto, _name, address in found:
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.settimeout(patience)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if target.bind_address:
                made.bind((target.bind_address, 0))
            made.connect(address)
        except OSError as error:
            made.close()
            reason = "Connection timed out" if isinstance(error, TimeoutError) else error.strerror or str(error)
        else:
            return made
    raise Failed(f"ssh: connect to host {target.host} port {target.port}: {reason}")


def _command(command: str) -> socket.socket:
    """A ProxyCommand, which ends with us: it gets an end of a pair of sockets as its stdin and stdout."""
    ours, theirs = socket.socketpair()
    with theirs:
        subprocess.Popen(["/bin/sh", "-c", f"exec {command}"], stdin=theirs.fileno(), stdout=theirs.fileno())
    return ours


def _through(jump: paramiko.Transport, target: Target) -> paramiko.Channel:
    try:
        return jump.open_channel(
            "direct-tcpip", (target.host, target.port), ("127.0.0.1", 0), timeout=PATIENCE, window_size=1 << 22
        )
    except (paramiko.SSHException, EOFError) as error:
        raise Failed(
            f"ssh: connect to host {target.host} port {target.port} from the host before it: {error}"
        ) from None


# -- who is there -------------------------------------------------------------------------------------------------


def _secure(line: Line, target: Target, wishes: Wishes, patience: float) -> paramiko.Transport:
    """Agree on keys with a host that is who it says. Raises Failed.

    paramiko takes whatever receives and sends like a socket.
    """
    known = look((*target.user_known_hosts, *target.global_known_hosts), target.key_name)
    try:
        transport = paramiko.Transport(line)  # type: ignore[arg-type]
        transport.daemon = True
        transport.banner_timeout = transport.handshake_timeout = patience
        transport.auth_timeout = transport.channel_timeout = PATIENCE
        transport.use_compression(wishes.compress)
        _prefer(transport, known.kinds)
        transport.start_client(timeout=patience + PATIENCE)
        key = transport.get_remote_server_key()
    except (paramiko.SSHException, OSError, EOFError) as error:
        text = str(error) or "Connection closed"
        raise Failed(f"ssh: connect to host {target.host} port {target.port}: {text}") from None
    try:
        _check(known.verdict(key.asbytes()), key, target, wishes, known.authority)
    except Failed:
        transport.close()
        raise
    return transport


def _prefer(transport: paramiko.Transport, kinds: list[str]) -> None:
    """Ask for the kinds of keys that the host is known by, as ssh does: else a new kind could not be checked."""
    options = transport.get_security_options()
    wanted = [name for kind in kinds for name in (("rsa-sha2-512", "rsa-sha2-256") if kind == "ssh-rsa" else (kind,))]
    both = [name for name in dict.fromkeys([*wanted, *options.key_types]) if name in options.key_types]
    options.key_types = tuple(both)


def _check(found: Any, key: paramiko.PKey, target: Target, wishes: Wishes, authority: Any) -> None:
    """Raises Failed for a key that is not to be trusted."""
    verdict, entry = found
    kind = key.get_name().removeprefix("ssh-").partition("-")[0].upper()
    shown = f"{kind} key {fingerprint(key.asbytes())}"
    match verdict:
        case Verdict.KNOWN:
            return
        case Verdict.REVOKED:
            text = f"@ WARNING: REVOKED HOST KEY DETECTED! @\nRevoked {kind} key in {entry.where}"
        case Verdict.CHANGED:
            text = f"@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nOffending {kind} key in {entry.where}"
        case _ if wishes.accept_new:
            _remember(key, target)
            return
        case _:
            text = f"No {kind} host key is known for {target.key_name} and you have requested strict checking."
            if authority is not None:
                text += f"\n{authority.where} names who may vouch for it, which only transport openssh can check."
    raise Failed(f"{text}\nThe host showed the {shown}\nHost key verification failed.")


def _remember(key: paramiko.PKey, target: Target) -> None:
    """Write down a new host. Where that is refused, it is taken as new the next time, too."""
    if target.user_known_hosts:
        with contextlib.suppress(OSError):
            path = target.user_known_hosts[0]
            remember(path, target.key_name, key.get_name(), key.asbytes(), hashed=target.hash_known_hosts)
