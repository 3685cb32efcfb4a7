"""Logging in with keys: those of an agent, and those in files that no passphrase protects."""

from __future__ import annotations

import os
from collections.abc import Iterator

import paramiko

from executors.remote.client import Failed
from executors.remote.client.sshconfig import Target


def log_in(transport: paramiko.Transport, target: Target) -> None:
    """Log in as the target's user. Raises Failed, which says what was tried."""
    notes: list[str] = []
    methods = ["publickey"]
    try:
        transport.auth_none(target.user)
        return
    except paramiko.BadAuthenticationType as error:
        methods = error.allowed_types
    except (paramiko.SSHException, EOFError) as error:
        raise _denied(target, methods, [str(error)]) from None
    agent = _agent(target, notes)
    try:
        for name, key in _keys(agent, target, notes):
            if _accepted(transport, target, name, key, notes):
                return
    finally:
        if agent is not None:
            agent.close()
    raise _denied(target, methods, notes)


def _accepted(transport: paramiko.Transport, target: Target, name: str, key: paramiko.PKey, notes: list[str]) -> bool:
    """Whether the host lets us in by this key. Raises Failed when it hangs up."""
    try:
        transport.auth_publickey(target.user, key)
    except paramiko.AuthenticationException:
        notes.append(f"{name} is refused")
    except (paramiko.SSHException, EOFError, ValueError) as error:
        notes.append(f"{name}: {error}")
    if not transport.is_active():
        raise Failed(f"Too many authentication failures, or {target.host} has hung up ({'; '.join(notes)})")
    return transport.is_authenticated()


def _denied(target: Target, methods: list[str], notes: list[str]) -> Failed:
    tried = f": {'; '.join(notes)}" if notes else ""
    return Failed(f"{target.user}@{target.host}: Permission denied ({','.join(methods)}){tried}")


def _agent(target: Target, notes: list[str]) -> paramiko.Agent | None:
    """The agent; None where there is none."""
    if target.agent == "none":
        return None
    if target.agent is not None:
        os.environ["SSH_AUTH_SOCK"] = target.agent  # paramiko looks nowhere else
    try:
        return paramiko.Agent()
    except (paramiko.SSHException, OSError) as error:
        notes.append(f"the agent cannot be used ({error})")
        return None


def _keys(agent: paramiko.Agent | None, target: Target, notes: list[str]) -> Iterator[tuple[str, paramiko.PKey]]:
    """Keys to try, in ssh's order: the agent's that are named in ssh_config, its others, those in files."""
    held = list(agent.get_keys()) if agent is not None else []
    named = {blob for path in target.identities for blob in _public_halves(path)}
    tried = set()
    wanted = [key for key in held if key.asbytes() in named]
    if not target.identities_only:
        wanted += [key for key in held if key.asbytes() not in named]
    for key in wanted:
        tried.add(key.asbytes())
        yield f"the agent's key {key.comment or key.get_name()}", key
    for path in target.identities:
        found = _from_file(path, tried, notes)
        if found is not None:
            yield path, found


def _public_halves(path: str) -> Iterator[bytes]:
    """The public keys that a named file stands for; it may be a public key itself, whose other half an agent has."""
    for name in (path, f"{path}.pub", f"{path}-cert.pub"):
        try:
            yield paramiko.pkey.PublicBlob.from_file(name).key_blob
        except (OSError, ValueError, paramiko.SSHException):
            continue


def _from_file(path: str, tried: set[bytes], notes: list[str]) -> paramiko.PKey | None:
    """A key in a file; None for one that cannot be used, or was tried."""
    try:
        mode = os.stat(path).st_mode
        if mode & 0o077:
            notes.append(f"{path} is ignored, as others may read it (chmod 600)")
            return None
        key = paramiko.PKey.from_path(path)
    except FileNotFoundError:
        return None
    except (paramiko.PasswordRequiredException, TypeError):  # cryptography's word for a passphrase
        if not any(blob in tried for blob in _public_halves(path)):
            notes.append(f"{path} has a passphrase and is in no agent (ssh-add)")
        return None
    except (OSError, ValueError, paramiko.SSHException, paramiko.pkey.UnknownKeyType) as error:
        notes.append(f"{path}: {error}")
        return None
    return None if key.asbytes() in tried else key
