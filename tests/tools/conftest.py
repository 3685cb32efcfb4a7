"""Runs that the tests of the verbs look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools.kit import run, write_workflow


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has ended, for all tests of a module; only to be read, and replayed."""
    folder = tmp_path_factory.mktemp("ended")
    write_workflow(folder)
    run(folder)
    return folder
