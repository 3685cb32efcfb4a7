"""Functions that `uses` names as `module:function`: imported when they are called, and looked for before a run.

Looking takes the source of the module and imports nothing, unless the source does not show the function: then the
import decides, for a module may make names in ways that can't be read.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from typing import Any

from tea.graph import nearest


class UnknownFunction(ImportError):
    """`uses` names a module or a function that is not there; `name` is that of a module that is missing."""


def import_function(uses: str) -> Callable[..., Any]:
    """The function named `module:function`. Raises UnknownFunction or TypeError, or what the module raises."""
    module_name, _, path = uses.partition(":")
    if not path or not module_name.strip(".") or module_name.startswith("."):
        raise UnknownFunction(f"uses '{uses}': write module:function")
    try:
        value: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there; something that it imports is not
        hint = nearest(error.name, _modules_near(error.name))
        text = f"uses '{uses}': there is no module '{error.name}' here{hint}"
        raise UnknownFunction(text, name=error.name) from error
    for part in path.split("."):
        if not hasattr(value, part):
            raise UnknownFunction(f"uses '{uses}': '{module_name}' has no '{path}'{nearest(part, dir(value))}")
        value = getattr(value, part)
    if not callable(value):
        raise TypeError(f"uses '{uses}': that is a {type(value).__name__}, not a function")
    function: Callable[..., Any] = value
    return function


def absent(uses: str, elsewhere: bool = False) -> str | None:
    """Why the function named `module:function` can't be called, None when it can as far as that is known.

    elsewhere: whether another machine may be the one to call it: its modules need not be here.
    """
    module_name, _, path = uses.partition(":")
    name, spec = path.partition(".")[0], _spec(module_name)
    if name and spec is not None and (_is_written(spec, name) or _is_hidden(spec)):
        return None
    try:
        import_function(uses)
    except UnknownFunction as error:
        return None if elsewhere and error.name is not None else str(error)
    except TypeError as error:
        return None if elsewhere else str(error)
    except (Exception, SystemExit) as error:  # a module runs any code when it is imported
        return None if elsewhere else f"uses '{uses}': can't import '{module_name}': {type(error).__name__}: {error}"
    return None


def _spec(module_name: str) -> ModuleSpec | None:
    """Where a module is found now; neither it nor the packages that it is in are imported."""
    package, _, _ = module_name.rpartition(".")
    above = _spec(package) if package else None
    if package and (above is None or above.submodule_search_locations is None):
        return None
    path = above.submodule_search_locations if above is not None else None
    return next((spec for finder in sys.meta_path if (spec := finder.find_spec(module_name, path))), None)


def _is_written(spec: ModuleSpec, name: str) -> bool:
    """Whether the source of a module gives a value to a name, at its top level."""
    get_source = getattr(spec.loader, "get_source", None)
    try:
        source = get_source(spec.name) if get_source is not None else None
        if source is None or re.search(rf"^(async )?(def|class) {re.escape(name)}\b", source, re.MULTILINE):
            return source is not None  # most are written so, and parsing takes a hundred times as long
        return name in _names(ast.parse(source))
    except (ImportError, SyntaxError, ValueError, OSError, RecursionError):
        return False  # importing it says what is wrong


def _is_hidden(spec: ModuleSpec) -> bool:
    """Whether a module of the same name but from elsewhere, such as another workflow's, is imported already."""
    loaded = getattr(sys.modules.get(spec.name), "__spec__", None)
    return loaded is not None and loaded.origin != spec.origin


def _names(tree: ast.AST) -> Iterator[str]:
    """What gets a value at the top level of a module, under conditions too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.alias):
            yield node.asname or node.name.partition(".")[0]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif not isinstance(node, ast.Lambda):
            yield from _names(node)


def _modules_near(module_name: str) -> list[str]:
    """The modules that can be imported where a missing one would have to be."""
    import pkgutil  # only mistakes need it

    package, _, _ = module_name.rpartition(".")
    above = sys.modules.get(package)
    if package and above is not None and hasattr(above, "__path__"):
        return [found.name for found in pkgutil.iter_modules(above.__path__, f"{package}.")]
    return [*sys.builtin_module_names, *(found.name for found in pkgutil.iter_modules())]
