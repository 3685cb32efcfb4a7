"""Checkpoints: where a walk was interrupted, kept in memory or in a file.

A checkpoint is a state, the node, and whether that node has been run. In a file it is JSON where JSON is faithful;
what it is not (sets, results of branches) lies pickled beside it, and is only loaded when it belongs to this user.
"""

from __future__ import annotations

import copy
import os
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from executors.travel import is_marked, pack, unpack_pickle
from spool import jsonio
from spool.errors import CorruptFileError
from spool.job import sha256
from spool.layout import RunFiles, safe_name
from spool.publish import publish, read_bytes, read_json, unique

_FORMAT = 1


@dataclass(slots=True)
class Checkpoint:
    """Where to go on: `node`, already run when `when` is "after"."""

    state: dict[str, Any]
    node: str
    config: dict[str, Any] = field(default_factory=dict)
    when: str = "before"
    timestamp: float = 0.0


class MemoryCheckpointer:
    """Keeps checkpoints in this process, by key; for tests and for interrupts within one program. Thread-safe."""

    def __init__(self) -> None:
        self._kept: dict[str, Checkpoint] = {}
        self._lock = threading.Lock()

    def save(
        self, key: str, state: dict[str, Any], node: str, config: dict[str, Any] | None = None, when: str = "before"
    ) -> str:
        """Keep a copy of a state under a key, and give the key back."""
        checkpoint = Checkpoint(copy.deepcopy(dict(state)), node, dict(config or {}), when, time.time())
        with self._lock:
            self._kept[key] = checkpoint
        return key

    def load(self, key: str) -> dict[str, Any]:
        """The checkpoint of a key, as a dict. Raises KeyError."""
        with self._lock:
            if key not in self._kept:
                raise KeyError(f"no checkpoint '{key}'; there are {sorted(self._kept) or 'none'}")
            found = self._kept[key]
        return {
            "state": copy.deepcopy(found.state),
            "node": found.node,
            "config": dict(found.config),
            "when": found.when,
            "timestamp": found.timestamp,
        }

    def exists(self, key: str) -> bool:
        with self._lock:
            return key in self._kept

    def list(self) -> list[str]:
        """The keys, oldest first."""
        with self._lock:
            return list(self._kept)

    def delete(self, key: str) -> bool:
        """Forget a checkpoint; False when there was none."""
        with self._lock:
            return self._kept.pop(key, None) is not None

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()


def new_key(node: str) -> str:
    """A key that sorts by time and names the node."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{safe_name(node)}-{unique()}"


def save(path: str, checkpoint: Checkpoint) -> str:
    """Write a checkpoint file; `path` must be free. Returns the path.

    Raises PickleValidationError when a value of the state can be kept neither as JSON nor as a pickle.
    """
    os.makedirs(os.path.dirname(path) or ".", 0o700, exist_ok=True)
    parcel = pack(checkpoint.state, branch=checkpoint.node)
    record = {
        "format": _FORMAT,
        "node": checkpoint.node,
        "when": checkpoint.when,
        "timestamp": checkpoint.timestamp or time.time(),
        "state": jsonio.loads(parcel.shown),
        "config": {key: value for key, value in checkpoint.config.items() if jsonio.is_json(value)},
    }
    if parcel.pickle is not None:
        publish(f"{path}.pickle", parcel.pickle)
        record["pickle_sha256"] = sha256(parcel.pickle)
    publish(path, jsonio.pretty(record))
    return path


FAN_OUTS = "fan_outs"
"""In the config of an interrupt that a run keeps: how many fan-outs the run had begun."""


def keep_interrupt(run: RunFiles, checkpoint: Checkpoint) -> None:
    """Write where a run was interrupted into its record. Raises like `save`."""
    number = 1
    while os.path.exists(run.interrupt(number)):
        number += 1
    save(run.interrupt(number), checkpoint)


def last_interrupt(run: RunFiles) -> Checkpoint | None:
    """Where a run was interrupted last; None when it never was. Raises SpoolError for a file that is spoiled."""
    number = 1
    while os.path.exists(run.interrupt(number)):
        number += 1
    return load(run.interrupt(number - 1)) if number > 1 else None


def load(path: str) -> Checkpoint:
    """Read a checkpoint file. Raises FileNotFoundError, or SpoolError for one that cannot be trusted."""
    record = read_json(path)
    if record.get("format") != _FORMAT or not isinstance(record.get("state"), dict):
        raise CorruptFileError(path, "not a checkpoint of this version")
    state = {key: value for key, value in record["state"].items() if not is_marked(value)}
    if digest := record.get("pickle_sha256"):
        data = read_bytes(f"{path}.pickle")
        if sha256(data) != digest:
            raise CorruptFileError(f"{path}.pickle", "it does not belong to its checkpoint (sha256 differs)")
        state.update(unpack_pickle(data))
    return Checkpoint(
        state, str(record["node"]), dict(record.get("config") or {}), str(record["when"]), float(record["timestamp"])
    )
