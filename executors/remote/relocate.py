"""A subset of a workflow, on another machine: the workflow's folder is where its files were copied to."""

from __future__ import annotations

from typing import Any

import yaml


def relocated(text: bytes, there: str, here: str) -> bytes:
    """A subset whose files are here: paths inside the workflow's folder lead into the folder of the copied files."""
    data = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return yaml.dump(_moved(data, there, here), Dumper=yaml.SafeDumper, sort_keys=False, allow_unicode=True).encode()


def _moved(value: Any, there: str, here: str, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _moved(item, there, here, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [_moved(item, there, here, key) for item in value]
    if isinstance(value, str) and key in ("folder", "path", "subgraph"):
        if value == there:
            return here
        if value.startswith(f"{there}/"):
            return here + value[len(there) :]
    return value
