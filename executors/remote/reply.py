"""The result of a job, as it travels from its host, with the record of its own fan-outs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from executors.remote.frames import Frame
from spool import jsonio, nested
from spool.claim import host_name
from spool.errors import SpoolError
from spool.layout import JobFiles
from spool.publish import read_bytes

INNER = "parallel_results"
"""Where a fan-in finds the results of its branches."""


def reply(job: JobFiles, result: dict[str, Any], delivery: int, workflow: Callable[[bytes], bytes]) -> Frame:
    """The message with a job's result, what it printed, and its own fan-outs. Raises what `read_bytes` raises.

    workflow: makes of a subset on this machine one for the coordinator's.
    """
    attempt, why = result["attempt"], ""
    parts = [jsonio.dumps(_as_json(result)), _log(job.stdout(attempt)), _log(job.stderr(attempt))]
    try:
        parts.append(nested.packed(job, workflow))
    except (SpoolError, OSError, ValueError) as error:  # only its record: the result counts
        parts.append(b"")
        why = str(error)
    header = {"op": "result", "job": job.name, "delivery": delivery, "sizes": [len(part) for part in parts]}
    return Frame({**header, "host": host_name(), **({"nested": why} if why else {})}, b"".join(parts))


def _log(path: str) -> bytes:
    try:
        return read_bytes(path)
    except FileNotFoundError:
        return b""


def _as_json(result: dict[str, Any]) -> dict[str, Any]:
    """The result as it can travel: what only a pickle could carry fails the attempt, as pickles stay on a machine.

    What a fan-out inside the branch gave its fan-in has done its work there and is left out.
    """
    if result.pop("pickle_sha256", None) is None:
        return result
    state = result.get("state") or {}
    keys = sorted(key for key, value in state.items() if isinstance(value, dict) and "$not_json" in value)
    if keys == [INNER]:
        del state[INNER]
        return result
    result.update(
        outcome="failed",
        success=False,
        state={},
        error=f"JSON cannot hold what the branch left in {', '.join(keys) or 'its state'}, and nothing else travels "
        "from a host: make plain data of it",
        error_type="TypeError",
        error_types=["builtins.TypeError", "builtins.Exception", "builtins.BaseException"],
    )
    return result
