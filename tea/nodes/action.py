"""`uses`: a registered action, or a Python function named `module:function`, called with `with`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from tea import templates
from tea.call import wanted
from tea.graph import nearest
from tea.nodes.context import Context, Step, Updates
from tea.nodes.functions import import_function

OFFERED = ("state", "config", "node", "graph", "parallel_results", "cancel_token")


class UnknownAction(ValueError):
    """`uses` names neither a registered action nor `module:function`."""


def action_step(uses: str, parameters: Mapping[str, Any], output: str | None, name: str, context: Context) -> Step:
    """The step that calls an action. Raises UnknownAction.

    A function of a module is imported at the first call: a machine that builds a graph for others need not have it.
    """
    function = context.actions.get(uses)
    if function is None and ":" not in uses:
        hint = (
            nearest(uses, list(context.actions)) or ": write module:function, or import the module that registers it"
        )
        raise UnknownAction(f"there is no action '{uses}'{hint}")
    found: list[Callable[..., Any]] = [] if function is None else [function]

    def step(offered: Mapping[str, Any]) -> Updates:
        if not found:
            found.append(import_function(uses))
        given = templates.render(parameters, offered["state"], context.variables)
        return _updates(_call(found[0], given, offered), output, name, uses)

    return step


def _call(function: Callable[..., Any], given: dict[str, Any], offered: Mapping[str, Any]) -> Any:
    names = wanted(function)
    extra = {key: offered[key] for key in OFFERED if key in names and key in offered and key not in given}
    return function(**extra, **given)


def _updates(result: Any, output: str | None, name: str, uses: str) -> Updates:
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError(f"node '{name}': '{uses}' is an async function; wrap it in one that is not")
    if output is not None:
        return {output: result}
    if result is None:
        return {}
    if isinstance(result, dict):
        return result
    raise TypeError(
        f"node '{name}': '{uses}' returned {type(result).__name__}, not a dict; add 'output: name' to keep it"
    )
