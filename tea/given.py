"""What a run is given and what it gives: the input of the command line, and states as JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from executors.result import ParallelFlowResult
from executors.travel import is_marked, mark, unpack_pickle
from spool import jsonio
from spool.job import sha256
from spool.layout import JobFiles
from spool.publish import read_bytes, read_json
from spool.retry import given_input
from tea.walk import RESULTS, State


class InputError(ValueError):
    """The input is wrong; nothing was started."""


def load_input(texts: Sequence[str]) -> State:
    """The state that `--input` options describe: JSON objects or files with one, later keys win.

    The `input.json` of a job directory brings the state that its job shares with others.
    Raises InputError.
    """
    state: State = {}
    for text in texts:
        state.update(_one_input(text))
    return state


def _one_input(text: str) -> State:
    if text.lstrip().startswith("{"):
        return _parsed(text.encode(), "--input")
    path = text.removeprefix("@")
    try:
        data = Path(path).read_bytes() if path != "-" else sys.stdin.buffer.read()
    except OSError as error:
        raise InputError(f"--input {text}: {error.strerror}; give a JSON object or the name of a file") from None
    own = _parsed(data, path if path != "-" else "--input -")
    job = JobFiles(os.path.dirname(os.path.abspath(path)))
    if os.path.abspath(path) == job.input and os.path.isfile(job.job):
        shared = _shared_input(job)
        own = {key: value for key, value in own.items() if not (key in shared and is_marked(value))}
        return {**shared, **own, **given_input(job, sys.maxsize)}
    return own


def _parsed(data: bytes, where: str) -> State:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise InputError(f"{where}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f'{where}: a JSON {type(value).__name__}, but a state is an object like {{"key": 1}}')
    return value


def _shared_input(job: JobFiles) -> State:
    """What a job's input.json leaves to the files beside it: the shared state, and what JSON could not carry."""
    record = read_json(job.job)
    state: State = read_json(job.base) if "base_sha256" in record else {}
    for path, digest in ((job.base_pickle, "base_pickle_sha256"), (job.pickle, "pickle_sha256")):
        if digest in record:
            data = read_bytes(path)
            if sha256(data) != record[digest]:
                raise InputError(f"{path}: it is not what the coordinator wrote (sha256 differs)")
            state.update(unpack_pickle(data))
    if "not_replayable" in record:
        raise InputError(f"{job.path}: the record alone can't run this job: {record['not_replayable']}")
    return state


def final_json(state: State) -> bytes:
    """A final state as JSON: without the results of branches, with marks for what JSON cannot hold."""
    return jsonio.pretty(shown({key: value for key, value in state.items() if key != RESULTS}))


def shown(value: Any) -> Any:
    """A value with marks for what JSON cannot hold."""
    if isinstance(value, ParallelFlowResult):
        return shown(value.to_dict())
    if jsonio.is_json(value):
        return value
    if isinstance(value, dict):
        return {key if isinstance(key, str) else repr(key): shown(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown(item) for item in value]
    return mark(value)
