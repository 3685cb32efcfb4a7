"""Looking at hosts before a run does, all at once: what the start of a session looks at, and tea is started there.

What it finds is what a run would find a moment later; nothing is promised beyond that.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from executors.remote.failures import HostError
from executors.remote.frames import Frame, FrameError
from executors.remote.link import ANSWER, NEED, NOISE, SILENCE
from executors.remote.parcel import Program
from executors.remote.session import Session
from executors.remote.settings import RemoteConfig, RemoteHost

AT_ONCE = 32
"""Hosts that are asked at the same time."""

CLOCK_OFF = 5.0
"""Seconds that a host's clock may be off before that is worth a warning; nothing of tea's compares clocks."""

LITTLE = 1024**3
"""Bytes in a host's workdir; with less of them free there is a warning."""

LOOK_FOR = ("rsync", "perl")
"""Programs that a host may have, for `launcher: parallel`."""

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Examined:
    """What a host is like. error, remedy: why no job could be sent there; empty when jobs can be.

    warnings: what is worth knowing, each with what to do. facts: what is known: `login_seconds`, `user`, `name`,
    `python`, `workdir`, `free` (bytes), `cpus`, `slots`, `clock_offset` (seconds, of the host before ours), `tea`
    (`there`, `copied`), `programs` (of those that were looked for, the ones that are there).
    """

    host: str
    error: str = ""
    remedy: str = ""
    warnings: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


def on_each(hosts: Sequence[RemoteHost], do: Callable[[RemoteHost], R]) -> list[R]:
    """Do something with every host, with many at once; in their order. Interrupted, it waits for none."""
    with ThreadPoolExecutor(min(AT_ONCE, len(hosts)), thread_name_prefix="tea-host") as pool:
        try:
            return list(pool.map(do, hosts))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for session in list(_sessions):
                session.kill()
            raise


_sessions: set[Session] = set()
"""Those that `in_session` holds."""


def examine(config: RemoteConfig, program: Program, version: str) -> list[Examined]:
    """Look at every host of a configuration that is usable here."""

    def one(host: RemoteHost) -> Examined:
        facts: dict[str, Any] = {}
        try:
            in_session(host, config, lambda session: _look(session, config, program, version, facts))
        except HostError as error:
            return Examined(host.host, error.text, error.remedy, facts=facts)
        return Examined(host.host, warnings=tuple(_warnings(facts)), facts=facts)

    return on_each(config.hosts, one)


def needed(config: RemoteConfig) -> tuple[str, ...]:
    """The programs that a configuration cannot do without on a host."""
    if config.launcher != "parallel":
        return ()
    from executors.remote.batches import Batches

    return Batches.programs


def in_session(host: RemoteHost, config: RemoteConfig, do: Callable[[Session], R]) -> R:
    """Log in, do something, log out. Raises HostError."""
    session = Session(host, config)
    _sessions.add(session)
    patience = 0.0
    try:
        result = do(session)
        patience = 5.0  # it ends by itself, and removes what is its own
        return result
    except TimeoutError as error:
        raise HostError(host.host, f"does not answer ({error})") from None
    except FrameError as error:
        raise HostError(host.host, f"speaks out of turn ({error})", NOISE, lasting=True) from None
    finally:
        session.end(patience)
        _sessions.discard(session)


def _look(session: Session, config: RemoteConfig, program: Program, version: str, facts: dict[str, Any]) -> None:
    """Fill in the facts. Raises HostError for what a run would stumble over."""
    host, mark = session.host, f"tea-{secrets.token_hex(8)} "
    asked = {
        "workdir": host.workdir or config.workdir,
        "program": program.name,
        "sha256": program.sha256,
        "need": NEED,
        "programs": needed(config),
        "look_for": LOOK_FOR,
    }
    before, began = time.time(), time.monotonic()
    hello = session.probe(mark, asked, config.connect_timeout + ANSWER)
    facts.update(login_seconds=round(time.monotonic() - began, 3), name=hello["host"])
    facts.update({key: hello[key] for key in ("user", "python", "workdir", "free", "cpus")})
    facts.update(slots=host.slots or int(hello["cpus"] or 1), programs=hello["found"])
    facts["clock_offset"] = round(_offset(hello["clock"], before, time.time()), 3)
    if not hello["have"]:
        session.send(Frame({"op": "program"}, program.data))
    argv = ["worker", "--fed", f"{version}:{mark.strip()}"]
    session.send(Frame({"op": "start", "argv": argv, "env": {**config.environment(), **host.env}}))
    session.send(Frame({"op": "hello"}))
    session.answer(mark, SILENCE)
    facts["tea"] = "there" if hello["have"] else "copied"


def _offset(clock: float, before: float, after: float) -> float:
    """How far a clock is ahead of ours that was read at some moment between two; 0 when it may be right."""
    return min(clock - before, 0.0) or max(clock - after, 0.0)


def _warnings(facts: dict[str, Any]) -> list[str]:
    found = []
    if abs(facts["clock_offset"]) > CLOCK_OFF:
        found.append(
            f"its clock is {facts['clock_offset']:+.0f} s off ours, and so are the times in the record of its jobs; "
            "turn on time synchronisation there (`timedatectl set-ntp true`)"
        )
    if facts["free"] < LITTLE:
        found.append(f"only {facts['free'] >> 20} MiB are free in {facts['workdir']}")
    return found
