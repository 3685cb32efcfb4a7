"""The result of a job, as it travels from its host."""

from __future__ import annotations

from typing import Any

from executors.remote.frames import Frame
from spool import jsonio
from spool.claim import host_name
from spool.layout import JobFiles
from spool.publish import read_bytes

INNER = "parallel_results"
"""Where a fan-in finds the results of its branches."""


def reply(job: JobFiles, result: dict[str, Any], delivery: int) -> Frame:
    """The message with a job's result, and what it printed. Raises what `read_bytes` raises."""
    attempt = result["attempt"]
    parts = [jsonio.dumps(_as_json(result)), _log(job.stdout(attempt)), _log(job.stderr(attempt))]
    header = {"op": "result", "job": job.name, "delivery": delivery, "sizes": [len(part) for part in parts]}
    return Frame({**header, "host": host_name()}, b"".join(parts))


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
