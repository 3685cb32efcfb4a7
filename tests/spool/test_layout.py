"""Names: always valid, readable, different for different texts, whatever people put into them."""

from __future__ import annotations

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spool.layout import (
    FanOutFiles,
    JobFiles,
    RunFiles,
    SpoolFiles,
    WorkerFiles,
    fanout_name,
    is_name,
    job_name,
    safe_name,
)

HOSTILE = [
    "",
    ".",
    "..",
    "../../etc/passwd",
    "/",
    "a/b",
    "-rf",
    "a\nb",
    "\0",
    " ",
    "é",
    "日本語",
    "\udcff",
    "a.",
    ".hidden",
]
HOSTILE += ["x" * 255, "é" * 255, "-" * 300, "CON", "a b"]


def hostile(test):  # type: ignore[no-untyped-def]
    for text in HOSTILE:
        test = example(text)(test)
    return test


@hostile
@given(st.text(st.characters()))
def test_every_text_becomes_a_name(text: str) -> None:
    name = safe_name(text)
    assert is_name(name)
    assert len(os.fsencode(name)) <= 67


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("index", [0, 99_999])
def test_names_of_jobs_and_fanouts_leave_room_for_what_is_added_to_them(text: str, index: int) -> None:
    for name in (job_name(index, 10**6, text), fanout_name(index, text)):
        assert is_name(name)
        assert len(f".reserved-{name}.corrupt.123") < 255


@given(st.text(st.characters()), st.text(st.characters()))
def test_different_texts_have_different_names(a: str, b: str) -> None:
    if a != b:
        assert safe_name(a) != safe_name(b)


@pytest.mark.parametrize("text", ["a", "branch_c", "A.b-c_d", "0", "x" * 60])
def test_a_safe_text_is_its_own_name(text: str) -> None:
    assert safe_name(text) == text


def test_texts_that_look_alike_when_cleaned_stay_apart() -> None:
    texts = ["a b", "a_b", "a/b", "a\nb", "a  b", "_a_b", "a_b_", "x" * 61, "x" * 62, "x" * 60]
    assert len({safe_name(text) for text in texts}) == len(texts)


def test_names_are_stable() -> None:
    """They are on disk: another version must not name them otherwise."""
    assert safe_name("../étc") == "tc-00c223"
    assert job_name(2, 10, "branch_c") == "0002-branch_c"
    assert job_name(2, 100_001, "b") == "000002-b"
    assert fanout_name(1, "split") == "001-split"


@given(st.integers(1, 300_000), st.data())
def test_jobs_sort_like_their_indexes(total: int, data: st.DataObject) -> None:
    i = data.draw(st.integers(0, total - 1))
    j = data.draw(st.integers(0, total - 1))
    assert (job_name(i, total, "b") < job_name(j, total, "b")) == (i < j)


@pytest.mark.parametrize("text", ["", ".", "..", "-a", "_a", ".a", "a/b", "a\n", "a b", "é", "a" * 101, "a\0"])
def test_what_is_no_name(text: str) -> None:
    assert not is_name(text)


@pytest.mark.parametrize(
    "files", [SpoolFiles("/s"), RunFiles("/s"), FanOutFiles("/s"), JobFiles("/s"), WorkerFiles("/s")]
)
def test_every_file_lies_in_its_folder_and_no_two_share_a_path(files: object) -> None:
    paths = []
    for name in dir(type(files)):
        value = getattr(files, name, None)
        if isinstance(value, str) and name not in ("path", "name") and not name.startswith("_"):
            paths.append(value)
    assert paths
    assert all(path.startswith("/s/") and ".." not in path for path in paths)
    assert len(set(paths)) == len(paths)
