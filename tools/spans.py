"""Spans of time as people write them: `90s`, `15m`, `12h`, `7d`, `2w`. No verb; several use it."""

from __future__ import annotations

import re

import click

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def seconds(_context: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    """A span in seconds, for `callback=` of an option. Raises click.BadParameter."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhdw]?)", text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is no span of time; give for instance 90s, 15m, 12h, 7d or 2w")
    return float(match[1]) * _UNITS[match[2] or "s"]
