"""Conditions of edges, `goto` rules and loops, as functions of the state.

A condition is an expression in template syntax. Two short forms ask for a flag: `flag` and `!flag`, where a flag
that the state does not have counts as false.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tea import templates

Holds = Callable[[Mapping[str, Any], Mapping[str, Any]], bool]


def condition(text: str | bool) -> Holds:
    """The condition as a function of state and variables. Raises templates.TemplateSyntax."""
    if isinstance(text, bool):
        return lambda state, variables: text
    bare = text.strip()
    negated = bare.startswith("!")
    bare = bare.removeprefix("!").strip()
    if bare.isidentifier():
        bare += " | default(false)"
    compiled = templates.compile_expression(bare)
    return lambda state, variables: bool(compiled(state, variables)) is not negated
