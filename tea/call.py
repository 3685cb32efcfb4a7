"""Calling a function with what it asks for by name.

A node function names the things it wants: `def node(state, config)`. What a function wants is looked up once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

_wanted: WeakKeyDictionary[Callable[..., Any], tuple[str, ...]] = WeakKeyDictionary()
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def wanted(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a function's parameters, those with defaults included; `*args` and `**kwargs` are left out.

    Empty for a function whose signature Python can't tell.
    """
    try:
        return _wanted[function]
    except KeyError:
        names = _wanted[function] = _parameters(function)
        return names
    except TypeError:  # neither hashable nor weakly referable: some built-ins and callable objects
        return _parameters(function)


def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ()
    return tuple(name for name, one in signature.parameters.items() if one.kind in _NAMED)


def call(function: Callable[..., Any], offered: Mapping[str, Any]) -> Any:
    """Call a function with those of the offered values that it names.

    Raises TypeError, like any call, when it needs something that is not offered.
    """
    return function(**{name: offered[name] for name in wanted(function) if name in offered})
