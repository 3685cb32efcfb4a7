"""`settings` and `parallel_config` as the objects the executors want.

The mappings are valid already (`validate`); what can still be wrong is a name in `retry_on`, which is an import.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from executors.policy import CircuitBreakerConfig, ParallelConfig, RetryPolicy, exception_class
from tea.dialect.kinds import SIZE_TEXT

_PLAIN = (
    "timeout_seconds",
    "timeout_total",
    "fail_fast",
    "max_workers",
    "include_traceback",
    "max_lost",
    "grace_seconds",
)


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """`settings.spool` as it is written; None where it says nothing. `dir` is not resolved."""

    dir: str | None = None
    durability: str | None = None
    lease_duration: float | None = None


def spool_settings(raw: Mapping[str, Any]) -> SpoolSettings:
    """The settings of the spool."""
    return SpoolSettings(**_section(raw, "settings", "spool"))


def parallel_settings(raw: Mapping[str, Any]) -> dict[str, Any]:
    """`settings.parallel`, with `config.max_workers` where it names no number of its own."""
    settings = dict(_section(raw, "settings", "parallel"))
    workers = _section(raw, "config").get("max_workers")
    if workers is not None:
        settings.setdefault("max_workers", workers)
    return settings


def _section(raw: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    here: Any = raw
    for name in names:
        here = here.get(name) or {}
    section: Mapping[str, Any] = here
    return section


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with others laid over them, key by key; an empty `retry` or `circuit_breaker` turns it off."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def parallel_config(settings: Mapping[str, Any]) -> ParallelConfig:
    """The executors' configuration. Raises ValueError when `retry_on` names no exception class."""
    values = {key: settings[key] for key in _PLAIN if key in settings}
    if (retry := settings.get("retry")) is not None:
        values["retry_policy"] = _retry(retry)
    if (breaker := settings.get("circuit_breaker")) is not None:
        values["circuit_breaker"] = CircuitBreakerConfig(**breaker)
    if settings.get("strategy"):
        values["strategy"] = settings["strategy"]
    if (memory := settings.get("max_memory")) is not None:
        values["max_memory"] = size_of(memory)
    if (remote := settings.get("remote")) is not None:
        values["remote_config"] = _remote(remote)
    return ParallelConfig(**values)


def size_of(value: int | str) -> int:
    """A size in bytes: a number, or text like `512M` (powers of 1024). Raises ValueError for other text."""
    if isinstance(value, int):
        return value
    match = SIZE_TEXT.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"{value!r} is no size; write a number of bytes, or 512M, 2G")
    return int(match[1]) * int(1024 ** " KMGT".index(match[2].upper() or " "))


def _retry(raw: Mapping[str, Any]) -> RetryPolicy:
    values = dict(raw)
    if "retry_on" in values:
        values["retry_on"] = {exception_class(name) for name in values["retry_on"]}
    return RetryPolicy(**values)


def _remote(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping with every host in its long form."""
    hosts = [{"host": host} if isinstance(host, str) else dict(host) for host in raw.get("hosts", [])]
    return {**raw, "hosts": hosts}
