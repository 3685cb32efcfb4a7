"""Times and spans of time as the page shows them."""

from __future__ import annotations

import time


def span(seconds: float | None) -> str:
    """`0.05 ms`, `230 ms`, `3.2 s`, `3:07 min`, `2:04 h`, `3 d 4 h`; the script of the page tells the same."""
    if seconds is None:
        return "?"
    for factor, unit in ((1e3, "ms"), (1.0, "s")):
        value = seconds * factor
        limit = 1000 if unit == "ms" else 60
        if value < limit - 0.5:
            return f"{value:.{0 if value >= 10 else 1 if value >= 1 or not value else 2}f} {unit}"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    if whole < 48 * 3600:
        return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def clock(at: float) -> str:
    """Local date and time; a time that no calendar has as the number it is."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    except (OverflowError, ValueError, OSError):
        return f"{at:g}"


def iso(at: float) -> str:
    """The time for `<time datetime=...>`."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
    except (OverflowError, ValueError, OSError):
        return ""
