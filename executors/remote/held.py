"""A job in a host's hands, and the check of what comes back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from executors.remote.frames import Frame
from executors.remote.link import Link
from spool import job as jobs
from spool.errors import CorruptFileError
from spool.queue import Claim


@dataclass(slots=True, eq=False)
class Held:
    """A claimed job. link: the host that has it, None while none has. lost_on: hosts lost while they ran it.
    input_sha256: of the input that it was last sent with. since: when it began there, seconds since the epoch; 0 when
    it has not.
    """

    claim: Claim
    link: Link | None = None
    delivery: int = 0
    input_sha256: str = ""
    since: float = 0.0
    asked_back: bool = False
    lost_on: list[str] = field(default_factory=list)

    def release(self) -> None:
        """No host has it any more; what is still said of the old delivery does not count."""
        self.link, self.delivery, self.since, self.asked_back = None, 0, 0.0, False

    @property
    def began(self) -> bool:
        """Whether it runs."""
        return self.since > 0

    @property
    def suspect(self) -> bool:
        """Whether it may be what takes hosts down: such a job runs last, and alone, so that it takes no others along
        and an innocent one is known by coming through.
        """
        return len(self.lost_on) > 1


def checked(held: Held, frame: Frame, host: str) -> tuple[dict[str, Any], bytes, bytes]:
    """The result of a job as its host sent it, made that of the attempt it was claimed for.

    Raises CorruptFileError for one that is not an answer to this job and the input that it was sent with.
    """
    claim, (header, payload) = held.claim, frame
    where = f"{host}:{claim.job.name}"
    sizes = header.get("sizes")
    if not isinstance(sizes, list) or len(sizes) != 3 or not all(type(n) is int and n >= 0 for n in sizes):
        raise CorruptFileError(where, "a result without its sizes")
    if sum(sizes) != len(payload):
        raise CorruptFileError(where, "a result of another size than it says")
    text, out, err = payload[: sizes[0]], payload[sizes[0] : sizes[0] + sizes[1]], payload[sizes[0] + sizes[1] :]
    try:
        result = json.loads(text)
    except ValueError as error:
        raise CorruptFileError(where, f"not JSON ({error})") from None
    if not isinstance(result, dict):
        raise CorruptFileError(where, "not a JSON object")
    jobs.check_result(where, result, claim.job.name, None, held.input_sha256)
    if "pickle_sha256" in result:
        raise CorruptFileError(where, "a pickle from a host is refused")
    spent = claim.spent + float(result.get("spent") or 0.0)
    result.update(attempt=claim.attempt, spent=spent, host=host, input_sha256=claim.record.input_sha256)
    return result, out, err


def shown(hello: dict[str, Any]) -> dict[str, Any]:
    """What the journal keeps of what a host said of itself."""
    return {key: hello[key] for key in ("python", "workdir") if key in hello} | {"name": hello.get("host")}
