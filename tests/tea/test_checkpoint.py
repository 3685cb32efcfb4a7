"""Checkpoints, in memory and in files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from executors.travel import PickleValidationError
from spool.errors import CorruptFileError, SpoolError
from tea import MemoryCheckpointer
from tea.checkpoint import Checkpoint, load, new_key, save

STATE = {"n": 1, "odd": {1, 2}, "pair": (1, [2]), "text": "ü"}


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    path = str(tmp_path / "deep" / "c.json")
    save(path, Checkpoint(STATE, "b", {"k": 1, "odd": {1}}, "after"))
    found = load(path)
    assert (found.state, found.node, found.when, found.config) == (STATE, "b", "after", {"k": 1})
    assert found.timestamp > 0


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    path = str(tmp_path / "c.json")
    save(path, Checkpoint({}, "a"))
    with pytest.raises(FileExistsError):
        save(path, Checkpoint({}, "b"))
    assert load(path).node == "a"


def test_what_cannot_be_kept_is_named(tmp_path: Path) -> None:
    with pytest.raises(PickleValidationError, match="'gen'"):
        save(str(tmp_path / "c.json"), Checkpoint({"gen": (n for n in ())}, "a"))


@pytest.mark.parametrize("damage", ["pickle", "json", "format"])
def test_files_that_cannot_be_trusted_are_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "c.json"
    save(str(path), Checkpoint(STATE, "a"))
    if damage == "pickle":
        (tmp_path / "c.json.pickle").write_bytes(b"cposix\nsystem\n.")
    elif damage == "json":
        path.write_text("{")
    else:
        path.write_text('{"format": 99}')
    with pytest.raises(CorruptFileError):
        load(str(path))


def test_a_link_is_no_checkpoint(tmp_path: Path) -> None:
    save(str(tmp_path / "c.json"), Checkpoint({}, "a"))
    os.symlink(tmp_path / "c.json", tmp_path / "link.json")
    with pytest.raises(SpoolError):
        load(str(tmp_path / "link.json"))


def test_memory() -> None:
    keeper = MemoryCheckpointer()
    state = {"list": [1]}
    assert keeper.save("k", state, "a", {"c": 1}) == "k"
    state["list"].append(2)
    found = keeper.load("k")
    assert (found["state"], found["node"], found["config"], found["when"]) == ({"list": [1]}, "a", {"c": 1}, "before")
    found["state"]["list"].append(3)
    assert keeper.load("k")["state"] == {"list": [1]}
    assert (keeper.exists("k"), keeper.list(), keeper.delete("k"), keeper.delete("k")) == (True, ["k"], True, False)
    with pytest.raises(KeyError, match="no checkpoint 'k'"):
        keeper.load("k")
    keeper.save("k", {}, "a")
    keeper.clear()
    assert keeper.list() == []


def test_keys_name_the_node_and_differ() -> None:
    assert "-a_node-" in new_key("a_node")
    assert new_key("a") != new_key("a")
    assert "/" not in new_key("../x")
