"""Fixtures for the tests of faults. What they do is in `kit.py`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.kit import Place


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a short name, as sockets need it."""
    with tempfile.TemporaryDirectory(prefix="f-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def place(tmp_path: Path, no_leftovers: None) -> Iterator[Place]:
    """A folder for a workflow and its spool. The test fails when a process outlives it."""
    made = Place(tmp_path)
    yield made
    made.end()
