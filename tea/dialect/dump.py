"""A workflow as YAML text that a person can read: code in blocks, keys in their order, no anchors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _ReadableDumper(_Dumper):  # type: ignore[misc]
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: Any, value: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if _blocky(value) else None)


def _blocky(value: str) -> bool:
    """Whether a text can stand in a block exactly as it is."""
    lines = value.split("\n")
    return (
        len(lines) > 1
        and bool(lines[0])
        and not lines[0][0].isspace()
        and all(line == line.rstrip() and (line.isprintable() or not line) for line in lines)
    )


_ReadableDumper.add_representer(str, _text)


def dump(mapping: Mapping[str, Any]) -> str:
    """The YAML text of plain data; equal data give equal text when their keys are in the same order."""
    text: str = yaml.dump(
        dict(mapping),
        Dumper=_ReadableDumper,
        sort_keys=False,
        allow_unicode=True,
        width=1_000_000,
        default_flow_style=False,
    )
    return text
