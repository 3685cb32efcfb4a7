"""Templates: `{{ expressions }}` in a workflow's values, evaluated over the state.

Jinja2 in its sandbox, with three differences that workflows need:

- a text that is one expression and nothing else keeps the type of its value;
- `state.items` is the key `items` when the state has one, and the method only otherwise (`tea.environment`);
- a name that does not exist is an error which names the expression and the nearest name that does.

Names: `state`, `variables`, `env`, and every key of the state by itself (`{{ item.x }}`). Jinja2 is imported
when the first template is met: a workflow without any does not pay for it.

Not promised: safety against a hostile workflow. The sandbox keeps templates from changing the state and from
reaching Python's insides by accident; a workflow's `run` blocks are Python anyway.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tea.graph import nearest

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment

State = Mapping[str, Any]
_RESERVED = ("state", "variables", "env")


class TemplateFailed(ValueError):
    """A template that can't be evaluated over this state; the message names the template."""


class TemplateSyntax(ValueError):
    """A template that is not valid Jinja2. `line` counts from 1 inside the template."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line

    def __reduce__(self) -> tuple[type[TemplateSyntax], tuple[str, int]]:
        return type(self), (str(self), self.line)


def is_template(value: object) -> bool:
    """Whether a value is a text with template syntax in it."""
    return isinstance(value, str) and ("{{" in value or "{%" in value)


def render(value: Any, state: State, variables: State | None = None) -> Any:
    """A value with all templates in it replaced; lists and mappings are copied, also without templates.

    Raises TemplateFailed when a name is missing or an expression fails, TemplateSyntax for bad syntax.
    """
    if isinstance(value, str):
        return compile_template(value)(state, variables or {}) if is_template(value) else value
    if isinstance(value, Mapping):
        return {key: render(one, state, variables) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [render(one, state, variables) for one in value]
    return value


def evaluate(expression: str, state: State, variables: State | None = None) -> Any:
    """The value of one expression, written with or without `{{ }}`. Raises like `render`."""
    return compile_expression(expression)(state, variables or {})


Compiled = Callable[[State, State], Any]


@functools.lru_cache(maxsize=2048)
def compile_template(text: str) -> Compiled:
    """A text with templates as a function of state and variables. Raises TemplateSyntax."""
    expression = _whole_expression(text)
    return _expression(expression, text) if expression is not None else _text(text)


@functools.lru_cache(maxsize=2048)
def compile_expression(text: str) -> Compiled:
    """An expression, with or without `{{ }}` around it, as a function of state and variables.

    Raises TemplateSyntax.
    """
    if not is_template(text):
        return _expression(text.strip(), text)
    expression = _whole_expression(text)
    if expression is None:  # it would render to text, and every text but the empty one is true
        raise TemplateSyntax("there is text around the expression; write the expression alone, without {{ }}", 1)
    return _expression(expression, text)


def names_in(text: str, expression: bool = False) -> Any:
    """The syntax tree of a template (or of a bare expression), for those who ask what it refers to."""
    return _parse("{{ (" + text + "\n) }}" if expression and not is_template(text) else text)


def _parse(text: str) -> Any:
    from jinja2 import TemplateSyntaxError

    try:
        return _environment().parse(text)
    except TemplateSyntaxError as error:
        raise _syntax(error, "not a template") from None


def _syntax(error: Any, otherwise: str) -> TemplateSyntax:
    """Jinja2's error as ours; one about a filter or test that does not exist names the nearest that does."""
    message = (error.message or otherwise).removesuffix(".")
    if match := _UNKNOWN.fullmatch(message):
        known = _environment().filters if match[1] == "filter" else _environment().tests
        message += nearest(match[2], list(known))
    return TemplateSyntax(message, error.lineno)


_UNKNOWN = re.compile(r"No (filter|test) named '(.+)'")


def _whole_expression(text: str) -> str | None:
    """The expression of a text that is `{{ expression }}` and nothing else; None for any other text."""
    bare = text.strip()
    tree = _parse(bare)
    if not (bare.startswith("{{") and bare.endswith("}}")) or len(tree.body) != 1:
        return None
    from jinja2 import nodes

    output = tree.body[0]
    if not isinstance(output, nodes.Output) or len(output.nodes) != 1:
        return None
    if isinstance(output.nodes[0], nodes.TemplateData):
        return None
    return bare[2:-2].strip().removeprefix("-").removesuffix("-").strip()


def _expression(expression: str, text: str) -> Compiled:
    from jinja2 import TemplateSyntaxError

    try:
        compiled = _environment().compile_expression(expression, undefined_to_none=False)
    except TemplateSyntaxError as error:
        raise _syntax(error, "not an expression") from None
    names = _loaded(_parse("{{ (" + expression + "\n) }}"))
    return _guarded(lambda context: compiled(**context), names, text)


def _text(text: str) -> Compiled:
    from jinja2 import TemplateSyntaxError

    try:
        template = _environment().from_string(text)
    except TemplateSyntaxError as error:
        raise _syntax(error, "not a template") from None
    return _guarded(lambda context: template.render(context), _loaded(_parse(text)), text)


def _loaded(tree: Any) -> frozenset[str]:
    """Every name a template reads. Also those that are Jinja's own: a key `max` of the state hides `max()`."""
    from jinja2 import nodes

    return frozenset(name.name for name in tree.find_all(nodes.Name) if name.ctx == "load")


def _guarded(compiled: Callable[[dict[str, Any]], Any], names: Iterable[str], text: str) -> Compiled:
    """Give a compiled template just the names it asks for: a big state is not touched for a small template."""
    from jinja2 import Undefined

    own = [name for name in names if name not in _RESERVED]
    wants_env = "env" in names

    def evaluate_over(state: State, variables: State) -> Any:
        context: dict[str, Any] = {name: state[name] for name in own if name in state}
        context["state"] = state
        context["variables"] = variables
        if wants_env:
            context["env"] = os.environ
        try:
            value = compiled(context)
            if isinstance(value, Undefined):
                value._fail_with_undefined_error()
            return value
        except RecursionError:
            raise
        except Exception as error:  # an expression runs any code of the values it touches
            raise TemplateFailed(f"cannot evaluate {_short(text)!r}: {_reason(error, state)}") from error

    return evaluate_over


def _reason(error: Exception, state: State) -> str:
    name = getattr(error, "tea_missing", None)
    if name is not None:
        return f"no '{name}' here{nearest(name, [*_RESERVED, *map(str, state)])}"
    known = type(error).__name__
    return str(error) if known == "UndefinedError" else f"{known}: {error}"


def _short(text: str) -> str:
    text = text.strip()
    return text if len(text) <= 200 else text[:197] + "..."


def _environment() -> SandboxedEnvironment:
    """The one Jinja2 environment. It is made, and Jinja2 imported, when the first template is met."""
    from tea.environment import environment

    return environment
