"""The doctor and packed runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spool import doctor
from spool.finding import Findings
from spool.packing import pack_run
from tests.spool.test_doctor import Ward, age


@pytest.fixture
def ward(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Ward:
    def nothing(_path: str, _findings: Findings) -> None:
        """Whether the folder is fit for a spool is not asked here."""

    monkeypatch.setattr(doctor, "examine_folder", nothing)
    monkeypatch.setattr(doctor, "room", nothing)
    return Ward(spool_dir)


def test_a_pack_in_order_has_no_findings(ward: Ward) -> None:
    pack_run(ward.spool, ward.run, keep=True)
    assert ward.found() == {}
    pack_run(ward.spool, ward.run)
    assert ward.found() == ward.found(quick=True) == {}
    assert doctor.examine(ward.spool.path).counts["packs"] == 1


@pytest.mark.parametrize("how", ["spoiled", "cut short"])
def test_one_that_is_damaged(ward: Ward, how: str) -> None:
    path = pack_run(ward.spool, ward.run, keep=True).path
    data = bytearray(Path(path).read_bytes())
    if how == "spoiled":
        data[data.rindex(b"\xfd7zXZ") + 50] ^= 0xFF  # in what is compressed
    else:
        del data[-10:]
    Path(path).write_bytes(data)
    assert "tea spool pack" in ward.told("pack", path).remedy


def test_one_that_was_renamed(ward: Ward) -> None:
    path = pack_run(ward.spool, ward.run).path
    other = f"{ward.spool.packed}/20260101-000000-other-0000.zip"
    os.rename(path, other)
    assert ward.told("pack", other).remedy == f"mv {other} {path}"


def test_another_name(ward: Ward) -> None:
    pack_run(ward.spool, ward.run)
    Path(f"{ward.spool.packed}/notes").touch(0o600)
    ward.told("name", f"{ward.spool.packed}/notes")


@pytest.mark.parametrize("name", [".removed-x", ".unpacking-x"])
def test_what_a_killed_process_left(ward: Ward, name: str) -> None:
    pack_run(ward.spool, ward.run, keep=True)
    path = f"{ward.spool.runs}/{name}"
    os.mkdir(path, 0o700)
    assert ward.found() == {}, "somebody may be at it"
    age(path)
    ward.cured("leftover", path)
