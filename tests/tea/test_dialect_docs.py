"""The reference describes every key there is, and none that there is not."""

from __future__ import annotations

import re

import pytest

from tea.dialect import load_text
from tea.dialect.schema import STRATEGIES, TABLES
from tests.support import ROOT

PAGE = (ROOT / "docs" / "YAML_REFERENCE.md").read_text()
BLOCKS = re.findall(r"(<!-- not-a-workflow.*?-->\n)?```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_key_is_described(table: object) -> None:
    missing = [key for key in table.keys if f"`{key}`" not in PAGE and f"settings.{key}" not in PAGE]  # type: ignore[attr-defined]
    assert missing == []


def test_every_key_is_shown_in_a_table_or_example() -> None:
    rows = re.findall(r"^\| (`[^|]*`) \|", PAGE, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    known = {key for table in TABLES.values() for key in table.keys}
    names_of_values = {"state", "variables", "env", *STRATEGIES}
    assert named - known - names_of_values == set()


def test_every_strategy_is_in_the_table_of_strategies() -> None:
    section = PAGE.partition("## Parallel Execution Strategies")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [
        "thread",
        "process",
        "workers",
        "remote",
        "slurm",
        "dask",
    ]
    assert set(STRATEGIES) == {"thread", "process", "workers", "remote", "slurm", "dask"}


@pytest.mark.parametrize(("free", "text"), BLOCKS)
def test_every_block_is_a_valid_workflow(free: str, text: str) -> None:
    assert load_text(text, "YAML_REFERENCE.md").problems == []
