"""A dozen seeds of `chaos`; `make chaos SEEDS=200` plays as many as you like."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import chaos


@pytest.mark.parametrize("seed", range(12))
def test_seed(seed: int, tmp_path: Path) -> None:
    chaos.play(seed, tmp_path)


def test_a_workflow_of_each_kind_is_played() -> None:
    assert {chaos.KINDS[seed % len(chaos.KINDS)] for seed in range(12)} == set(chaos.KINDS)
