"""What runs have left on hosts, and its removal: `sweep` on each, all at once."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from executors.remote.examine import in_session, on_each
from executors.remote.failures import HostError
from executors.remote.link import ANSWER, SILENCE
from executors.remote.parcel import Program
from executors.remote.session import Session
from executors.remote.settings import RemoteConfig, RemoteHost

KINDS = {
    "left": "what a killed worker has left",
    "kept": "a copy that was kept (cleanup: false)",
    "old": "a program of another version of tea",
    "unfinished": "a copy that was never finished",
    "batches": "batches that GNU Parallel brought and nobody takes",
}


@dataclass(frozen=True, slots=True)
class Left:
    """Something on a host that nobody uses. kind: of `KINDS`. files, bytes: with all that is in it, on the
    disk. at: when it last changed, by the host's clock. error: why it could not be removed.
    """

    kind: str
    path: str
    files: int
    bytes: int
    at: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class Swept:
    """A host. found: what was removed, or would be. live: folders of workers that live, which stay. error, remedy:
    why it could not be looked at.
    """

    host: str
    workdir: str = ""
    found: tuple[Left, ...] = ()
    live: tuple[str, ...] = ()
    error: str = ""
    remedy: str = ""


def clean(config: RemoteConfig, program: Program, *, older_than: float = 0.0, remove: bool = False) -> list[Swept]:
    """What is left on the hosts of a configuration, and has not changed for `older_than` seconds; removed on demand.

    The program that the next run would use stays.
    """
    asked = {"keep": program.name, "older_than": older_than, "remove": remove}

    def one(host: RemoteHost) -> Swept:
        try:
            answer = in_session(host, config, lambda session: _sweep(session, config, asked))
        except HostError as error:
            return Swept(host.host, error=error.text, remedy=error.remedy)
        found = tuple(Left(**left) for left in answer["found"])
        return Swept(host.host, str(answer["workdir"]), found, tuple(answer["live"]))

    return on_each(config.hosts, one)


def _sweep(session: Session, config: RemoteConfig, asked: dict[str, Any]) -> dict[str, Any]:
    mark, workdir = f"tea-{secrets.token_hex(8)} ", session.host.workdir or config.workdir
    patience = config.connect_timeout + ANSWER + SILENCE
    answer: dict[str, Any] = session.run("sweep.py", mark, {**asked, "workdir": workdir}, patience)
    return answer
