"""A job in a host's hands, and the check of what comes back."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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


class Answer(NamedTuple):
    """What a host has sent for a job. out, err: what it printed. nested: its own fan-outs, as `spool.nested` packs
    them; why_not: why that is missing.
    """

    result: dict[str, Any]
    out: bytes = b""
    err: bytes = b""
    nested: bytes = b""
    why_not: str = ""


def checked(held: Held, frame: Frame, host: str) -> Answer:
    """The answer of a host, its result made that of the attempt the job was claimed for.

    Raises CorruptFileError for one that is not an answer to this job and the input that it was sent with.
    """
    claim, (header, payload) = held.claim, frame
    where = f"{host}:{claim.job.name}"
    sizes = header.get("sizes")
    if not isinstance(sizes, list) or len(sizes) != 4 or not all(type(n) is int and n >= 0 for n in sizes):
        raise CorruptFileError(where, "a result without its sizes")
    if sum(sizes) != len(payload):
        raise CorruptFileError(where, "a result of another size than it says")
    ends = [0, *itertools.accumulate(sizes)]
    text, out, err, nested = (payload[start:end] for start, end in itertools.pairwise(ends))
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
    return Answer(result, out, err, nested, str(header.get("nested") or "")[:300])


def shown(hello: dict[str, Any]) -> dict[str, Any]:
    """What the journal keeps of what a host said of itself."""
    return {key: hello[key] for key in ("python", "workdir") if key in hello} | {"name": hello.get("host")}
