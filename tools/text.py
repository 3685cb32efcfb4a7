"""Text for terminals: columns, lengths, times. No verb; several use it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

from tools.reporting.text import visible


def columns(rows: Sequence[Sequence[str]], align: str) -> Iterator[str]:
    """Rows in columns as wide as their widest cell; an empty row is an empty line. align: `l` or `r` a column."""
    widths = [max((len(row[n]) for row in rows if n < len(row)), default=0) for n in range(len(align))]
    for row in rows:
        cells = [cell.rjust(widths[n]) if align[n] == "r" else cell.ljust(widths[n]) for n, cell in enumerate(row)]
        yield "  ".join(cells).rstrip()


def clip(text: str, width: int) -> str:
    """The text in one line, at most `width` characters, and nothing in it that would move the reader's cursor."""
    line = " ".join(text.split())
    if not line.isprintable():
        line = visible(line)
    return line if len(line) <= width else line[: width - 3] + "..."


def shown(value: Any, width: int = 200) -> str:
    """A value as short JSON."""
    return clip(json.dumps(value, ensure_ascii=False, default=repr), width)


def ago(at: float, now: float | None = None) -> str:
    """`just now`, `3 min ago`, `2 h ago`, or the local date and time when it was longer ago."""
    seconds = (time.time() if now is None else now) - at
    if -60 < seconds < 10:
        return "just now"
    if 0 <= seconds < 90:
        return f"{seconds:.0f} s ago"
    if 0 <= seconds < 5400:
        return f"{seconds / 60:.0f} min ago"
    if 0 <= seconds < 86400:
        return f"{seconds / 3600:.0f} h ago"
    return clock(at)


def clock(at: float) -> str:
    """Local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def size(number: int) -> str:
    """`812 B`, `3.4 kB`, `12 MB`."""
    value, unit = float(number), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
