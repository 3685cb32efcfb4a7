"""tea as one file: a zip application that any CPython >= 3.11 runs without installing anything.

It is made from the running installation, without network: tea's own packages and the pure Python of what they need.
Compiled parts are left out, as everything has a fallback: the standard library's JSON instead of orjson, PyYAML
without libyaml, MarkupSafe without its speedups. Not in it: what `rich` needs to colour source code, and paramiko.

Beside the sources of what a worker imports lies what the Python that makes the bundle compiles them to: a worker of
the same Python starts in a third of the time, any other one takes the sources.

The same installation and Python always give the same bytes, so a bundle is known by its hash.
"""

from __future__ import annotations

import hashlib
import io
import marshal
import os
import sys
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from importlib.machinery import PathFinder, SourceFileLoader
from importlib.util import MAGIC_NUMBER, source_hash
from types import CodeType

PACKAGES = ("tea", "spool", "executors", "tools")
DEPENDENCIES = ("click", "cloudpickle", "filelock", "jinja2", "markupsafe", "rich", "watchdog", "yaml")
COMPILED = ("tea", "spool", "executors", "click", "cloudpickle", "filelock", "jinja2", "markupsafe", "yaml")
"""Packages whose modules are there compiled, too: what a worker on a host imports."""

DATA = (".html", ".css", ".js", ".sh", ".json")
"""Files beside Python's that tea's own packages read."""

SHEBANG = b"#!/usr/bin/env python3\n"

MAIN = b'''"""tea as a zip application."""

import sys

if sys.version_info < (3, 11):
    sys.exit("tea needs Python 3.11 or newer, and this is " + sys.version.split()[0] + " (" + sys.executable + ")")

if __name__ == "__main__":
    if sys.argv[1:3] == ["worker", "--fed"]:  # a coordinator's session on this host: nothing but what it needs
        from executors.remote.serve import main
        from tea.version import __version__

        sys.exit(main(__version__, *sys.argv[3:]))
    from tea.cli import main

    sys.exit(main())
'''

_EPOCH = (1980, 1, 1, 0, 0, 0)


class BundleError(Exception):
    """The running installation cannot be bundled."""


@lru_cache(maxsize=1)
def bundle() -> bytes:
    """The zip application of this installation. Raises BundleError when a package of it cannot be found."""
    own = running_bundle()
    if own is not None:
        with open(own, "rb") as file:
            return file.read()
    from executors import bundle_cache

    key = _key()
    data = bundle_cache.kept(key)
    if data is None:
        data = make()
        if _key() == key:
            bundle_cache.keep(key, data)
    return data


def _key() -> str:
    """What a bundle would be made from now, and by whom."""
    known = [sys.version, str(sys.flags.optimize)]
    for name, path in sorted(_files()):
        status = os.stat(path)
        known.append(f"{name} {path} {status.st_size} {status.st_mtime_ns} {status.st_ino}")
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:32]


def make() -> bytes:
    """Make the zip application anew. Raises as `bundle` does."""
    for letter in range(256):
        sys.intern(chr(letter))  # see `_marshalled`
    buffer = io.BytesIO()
    buffer.write(SHEBANG)
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, "__main__.py", MAIN)
        for name, path in sorted(_files()):
            with open(path, "rb") as file:
                data = file.read()
            _add(archive, name, data)
            if name.endswith(".py") and name.partition("/")[0] in COMPILED:
                _add(archive, f"{name}c", _compiled(name, path, data), level=1)
    return buffer.getvalue()


def digest(data: bytes) -> str:
    """What a bundle is known by: the SHA-256 of its bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def running_bundle() -> str | None:
    """The zip application that this process runs from; None when tea is installed."""
    path = __file__
    while (parent := os.path.dirname(path)) != path:
        path = parent
        if os.path.isfile(path):
            return path
    return None


def _compiled(name: str, path: str, source: bytes) -> bytes:
    """A module as a `.pyc` that is taken unchecked: the hash of the whole bundle has been. Python's own cache of
    compiled modules is used, and filled.
    """
    module = name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    code = SourceFileLoader(module, path).get_code(module)
    assert code is not None
    return MAGIC_NUMBER + (1).to_bytes(4, "little") + source_hash(source) + _marshalled(_named(code, name))


def _named(code: CodeType, name: str) -> CodeType:
    """With its name in the bundle in the place of its path on this machine."""
    inner = (_named(one, name) if isinstance(one, CodeType) else one for one in code.co_consts)
    return code.replace(co_filename=name, co_consts=tuple(inner))


def _marshalled(code: CodeType) -> bytes:
    """The same bytes in each process.

    In versions 3 and 4 of its format, marshal marks as shared what anybody else in the process refers to, too; in
    version 2 it marks nothing. In all of them it tells interned strings from others, and Python 3.11 has each
    one-letter string once, interned or not, as others have wanted it: `make` has all interned.
    """
    return marshal.dumps(code, 2 if marshal.version < 5 else marshal.version)


def _add(archive: zipfile.ZipFile, name: str, data: bytes, level: int = 6) -> None:
    """Without the times and owners of this machine's files, so that the bytes depend on the contents alone."""
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system = 3
    info.external_attr = 0o644 << 16
    archive.writestr(info, data, compresslevel=level)


def _files() -> Iterator[tuple[str, str]]:
    """Every file that belongs into the bundle: its name there, its path here."""
    for package in (*PACKAGES, *DEPENDENCIES):
        folder = _folder(package)
        for place, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if name != "__pycache__"]
            for name in names:
                if name.endswith(".py") or (package in PACKAGES and name.endswith(DATA)):
                    path = os.path.join(place, name)
                    yield f"{package}/{os.path.relpath(path, folder)}", path


def _folder(package: str) -> str:
    """Where a package is installed.

    Not what `sys.modules` says: a user's `tools.py` may stand there in the place of ours.
    """
    if package in PACKAGES:
        here = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), package)
        if os.path.isfile(os.path.join(here, "__init__.py")):
            return here
    spec = PathFinder.find_spec(package, sys.path)
    folder = next(iter(spec.submodule_search_locations or []), None) if spec is not None else None
    if folder is None:
        raise BundleError(f"cannot find the package '{package}' of this installation, so no bundle can be made")
    return folder
