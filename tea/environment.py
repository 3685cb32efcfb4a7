"""The Jinja2 environment of templates: keys before methods, missing names that say which would have been right.

Imported when the first template is met, for Jinja2 is not cheap to import.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from jinja2 import StrictUndefined, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing

from tea.graph import nearest


class _Missing(StrictUndefined):
    """Undefined, and able to say which names would have been right."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        name, holder = self._undefined_name, self._undefined_obj
        if isinstance(holder, Mapping):
            return f"no key '{name}' here{nearest(str(name), [str(key) for key in holder])}"
        return str(super()._undefined_message)

    def _fail_with_undefined_error(self, *args: Any, **kwargs: Any) -> Any:
        error = UndefinedError(self._undefined_message)
        if self._undefined_hint is None and self._undefined_obj is missing:
            error.tea_missing = self._undefined_name  # type: ignore[attr-defined]
        raise error

    __str__ = __iter__ = __len__ = __bool__ = _fail_with_undefined_error
    __eq__ = __ne__ = __hash__ = __contains__ = _fail_with_undefined_error
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _fail_with_undefined_error
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = _fail_with_undefined_error
    __mod__ = __rmod__ = __pos__ = __neg__ = __call__ = __getitem__ = _fail_with_undefined_error
    __lt__ = __le__ = __gt__ = __ge__ = __int__ = __float__ = _fail_with_undefined_error
    __complex__ = __pow__ = __rpow__ = _fail_with_undefined_error


class _Environment(ImmutableSandboxedEnvironment):
    def getattr(self, obj: Any, attribute: str) -> Any:
        """The item comes first: a key called `items` or `values` is not hidden by the method."""
        if isinstance(obj, Mapping):
            try:
                return obj[attribute]
            except LookupError:
                pass
        return super().getattr(obj, attribute)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False)


def _sha256(value: Any) -> str:
    data = value if isinstance(value, bytes) else str(value).encode()
    return hashlib.sha256(data).hexdigest()


_FUNCTIONS = (len, any, all, min, max, sum, sorted, abs, round, int, float, str, bool, list, set, zip, enumerate)

environment = _Environment(undefined=_Missing, keep_trailing_newline=True, autoescape=False)
environment.filters.update(tojson=_to_json, json=_to_json, fromjson=json.loads, sha256=_sha256)
environment.tests["None"] = environment.tests["none"]
environment.tests["True"] = environment.tests["true"]
environment.tests["False"] = environment.tests["false"]
environment.globals.update((function.__name__, function) for function in _FUNCTIONS)
