"""Text of other people's making, fit to be looked at."""

from __future__ import annotations

import re

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
"""Control characters but tab and newline, what has no width or turns the direction of the text, half characters."""


def visible(text: str) -> str:
    r"""The text with everything in it to be seen: `\x1b` for an escape. Colours of terminals are dropped.

    >>> visible("\x1b[31mred\x1b[0m \u202egpj.exe\r\n")
    'red \\u202egpj.exe\n'
    """
    return _UNSEEN.sub(_escaped, _COLOURS.sub("", text).replace("\r\n", "\n"))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def head(text: str, limit: int) -> str:
    """At most `limit` characters from the beginning, and how many there are where it is not all."""
    return (
        text if len(text) <= limit else f"{text[:limit]}\n... {len(text) - limit:,} of {len(text):,} characters more"
    )
