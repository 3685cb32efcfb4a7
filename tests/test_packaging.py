"""Everything that is in the rooms gets into the wheel."""

from __future__ import annotations

import fnmatch
import tomllib
from importlib import metadata
from pathlib import Path

from tests.support import ROOT

ROOMS = ("tea", "spool", "executors", "tools")
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_folder_with_code_is_a_package() -> None:
    """The wheel is built from folders that have an `__init__.py`; another one would just be missing."""
    folders = {path.parent for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def is_cache(path: Path) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(ROOT).parts)


def test_every_data_file_is_named_in_package_data() -> None:
    patterns = CONFIG["tool"]["setuptools"]["package-data"]["*"]
    left_out = [
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and not is_cache(path)
        if not any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns)
    ]
    assert left_out == []


def test_every_room_is_typed() -> None:
    assert all((ROOT / room / "py.typed").exists() for room in ROOMS)


def test_the_command_is_there() -> None:
    scripts = metadata.entry_points(group="console_scripts", name="tea")
    assert [script.value for script in scripts] == [CONFIG["project"]["scripts"]["tea"]]


def test_the_version_is_in_the_changelog() -> None:
    assert CONFIG["project"]["version"] in (ROOT / "CHANGELOG.md").read_text()
