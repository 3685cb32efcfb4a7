"""The table of faults in docs/reliability.md names tests that exist, and leaves no fault out."""

from __future__ import annotations

import re

import pytest

from tests.support import ROOT

TEXT = (ROOT / "docs" / "reliability.md").read_text()
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", TEXT)))
LOCAL = {*range(1, 25), 32, 35}


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_a_test_that_is_named_exists(file: str, test: str) -> None:
    path = ROOT / file if file.startswith("tests/") else ROOT / "tests" / "faults" / file
    assert re.search(rf"^def {test}\(", path.read_text(), re.MULTILINE)


def test_every_local_fault_has_its_tests() -> None:
    rows = {int(number): rest for number, rest in re.findall(r"^\| (\d+) \|(.*)$", TEXT, re.MULTILINE)}
    assert set(rows) == LOCAL
    assert all("::test_" in rest for rest in rows.values())
