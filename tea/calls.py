"""Calls of functions as jobs: what travels for a call, how it is made in another process, what comes back.

    function, arguments --packed--> input.json (+ input.pickle) --call--> {"result": ...} or the exception

A function that can be imported travels by its name, any other as a pickle (cloudpickle) beside the input; so do
arguments and results that JSON cannot hold. Each job has a workflow of one node that makes the call, so that it can
be replayed, or run by `tea worker`, like any other job.
"""

from __future__ import annotations

import functools
import os
import pickle
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from executors.attempt import Branch
from executors.slot import SlotSetup
from executors.travel import Parcel, pack
from spool.job import JobRecord
from spool.layout import JobFiles
from tea.dialect.dump import dump

ENTRY = "call"
RESULT, EXCEPTION = "result", "exception"
_MAIN = ("__main__", "__mp_main__")


def program_folder() -> str:
    """Where this program has its own modules: the folder of its script, else the current one."""
    return os.path.abspath(sys.path[0]) if sys.path and os.path.isdir(sys.path[0]) else os.getcwd()


def program() -> str:
    """What is run, for the record: the script, where there is one."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    return os.path.abspath(script) if script else "a Python program"


def workflow(folder: str) -> bytes:
    """The workflow that makes one call; modules are looked for in `folder`."""
    body = "from tea.calls import call\nreturn call(state)\n"
    mapping = {"name": "calls", "settings": {"folder": folder}, "nodes": [{"name": ENTRY, "run": body}]}
    return dump(mapping).encode()


def reference(function: Callable[..., Any]) -> str | None:
    """`module:name` of a function that another process can import; None for any other."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module in _MAIN or "<" in name:
        return None
    try:
        start: Any = sys.modules[module]
        found = functools.reduce(getattr, name.split("."), start)
    except (KeyError, AttributeError):
        return None
    return f"{module}:{name}" if found is function else None


def name_of(function: Callable[..., Any]) -> str:
    """What the branch of a call is called: the function's name."""
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", None) or type(function).__name__)


def state_of(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], chunk: bool
) -> dict[str, Any]:
    """The state that a call begins with."""
    state: dict[str, Any] = {"function": reference(function) or function}
    if chunk:
        state["calls"] = [list(each) for each in args]
        return state
    if args:
        state["args"] = list(args)
    if kwargs:
        state["kwargs"] = dict(kwargs)
    return state


def packed(state: Mapping[str, Any], name: str, index: int, *, carry: bool) -> Parcel:
    """A call ready to travel. Raises PickleValidationError for what cannot."""
    return pack(state, branch=name, index=index, carry=carry)


def call(state: dict[str, Any]) -> dict[str, Any]:
    """Make the call that a state describes; `{"result": ...}`. What it raises is also left in the state."""
    given: Any = dict.get  # past a state that copies what is looked at: arguments are the function's own to change
    try:
        function = given(state, "function")
        if isinstance(function, str):
            function = _imported(function)
        if "calls" in state:
            return {RESULT: [function(*args) for args in given(state, "calls")]}
        return {RESULT: function(*given(state, "args", ()), **given(state, "kwargs", {}))}
    except BaseException as error:
        state[EXCEPTION] = error
        raise


@functools.lru_cache(maxsize=256)
def _imported(name: str) -> Callable[..., Any]:
    module, _, path = name.partition(":")
    found: Any = import_module(module)
    return functools.reduce(getattr, path.split("."), found)  # type: ignore[no-any-return]


class CallRunner:
    """Makes calls in a worker process. An initializer is called before the first."""

    def __init__(self, setup: SlotSetup) -> None:
        if setup.runtime:
            initializer, args = pickle.loads(setup.runtime)
            initializer(*args)

    def branch(self, job: JobFiles, record: JobRecord) -> Branch:
        """The function that makes the call of a job."""
        return _branch


def _branch(state: Any) -> Any:
    state.update(call(state))
    return state
