"""The rooms and their arrows: tools -> tea -> executors -> spool, and never back.

import-linter checks the packages as a whole, also for imports inside functions. What it can't see is what a
process has really loaded: the process that runs a user's nodes must not hold our `tools`, or the user's own
`tools.py` would never be found.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, clean_env

ROOMS = ["spool", "executors", "tea", "tools"]  # from the ground up: each may import those before it


def imported_rooms(path: Path) -> set[str]:
    """The rooms that a file imports, wherever in the file; relative imports stay in their own."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found & set(ROOMS)


def test_import_linter_is_content() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [lint, "--no-cache"], cwd=ROOT, env=clean_env(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("room", ROOMS)
def test_no_file_imports_upwards(room: str) -> None:
    above = set(ROOMS[ROOMS.index(room) + 1 :])
    wrong = {
        str(path.relative_to(ROOT)): sorted(up)
        for path in (ROOT / room).rglob("*.py")
        if (up := imported_rooms(path) & above)
    }
    assert not wrong


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_can_be_imported_alone(room: str) -> None:
    """In an interpreter of its own, and without pulling in a floor above it."""
    above = ROOMS[ROOMS.index(room) + 1 :]
    program = f"import sys, {room}; print([name for name in {above!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=clean_env(), capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


@pytest.mark.parametrize("room", ROOMS)
def test_every_module_can_be_imported(room: str) -> None:
    """So that a module that nobody imports yet can't be broken without anybody noticing."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted((ROOT / room).rglob("*.py"))
        if path.name not in ("__init__.py", "__main__.py")
    ]
    program = f"import importlib; [importlib.import_module(name) for name in {modules!r}]"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=clean_env(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_check_itself_sees_an_arrow_that_runs_upwards(tmp_path: Path) -> None:
    module = tmp_path / "m.py"
    module.write_text("def f():\n    from tea.graph import Graph\n    import tools.status, json\n")
    assert imported_rooms(module) == {"tea", "tools"}
