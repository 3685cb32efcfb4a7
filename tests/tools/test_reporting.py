"""What the report of a run is made of: figures, bounds, and text that cannot get out of where it belongs."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spool.layout import RunFiles
from tests.tools.test_report import Parsed
from tools.reporting import totals
from tools.reporting.data import Limits, columns, make
from tools.reporting.page import in_script, page
from tools.reporting.record import Attempt, FanOut, Job, Run
from tools.reporting.spans import span
from tools.reporting.text import head, visible

# -- text -------------------------------------------------------------------------------------------------------


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_in_a_script_element_stays_there(value: Any) -> None:
    text = in_script(json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace"))
    assert not set("<>&") & set(text)
    parsed = Parsed(f'<script type="application/json">{text}</script><p>after')
    assert parsed.words == ["after"]
    assert json.dumps(parsed.data, ensure_ascii=False).encode("utf-8", "backslashreplace") == json.dumps(
        value, ensure_ascii=False
    ).encode("utf-8", "backslashreplace")


@given(st.text())
def test_visible_text_has_nothing_unseen(text: str) -> None:
    shown = visible(text)
    assert all(letter.isprintable() or letter in "\n\t " or ord(letter) > 0x9F for letter in shown)
    assert not any(0x202A <= ord(letter) <= 0x202E or 0xD800 <= ord(letter) < 0xE000 for letter in shown)
    assert visible(shown) == shown


def test_a_text_that_is_cut_says_so() -> None:
    assert head("abcdef", 3) == "abc\n... 3 of 6 characters more"
    assert head("abc", 3) == "abc"


# -- bounds -----------------------------------------------------------------------------------------------------


def made_up(count: int, failed: tuple[int, ...] = (), tries: int = 1) -> Run:
    """A run that no disk holds: four workers, jobs of growing length."""
    jobs = []
    for place in range(count):
        state = "failed" if place in failed else "succeeded"
        attempts = tuple(
            Attempt(
                n, state if n == tries else "failed", 100.0 + place + n, 0.5 + place / count, f"node{place % 4}:7"
            )
            for n in range(1, tries + 1)
        )
        name = f"001-split/{place:05d}-split"
        error = ("ValueError", f"bad item {place}") if state == "failed" else ("", "")
        jobs.append(Job(0, name, f"/nowhere/{name}", state, attempts, attempts[-1], *error))
    record = {"started": 100.0, "finished": 200.0, "outcome": "done"}
    fanout = FanOut("001-split", {"source": "split", "branches": ["split"]}, 1)
    return Run(RunFiles("/nowhere/runs/made-up"), record, "done", False, "", 300.0, [fanout], jobs)


def test_what_failed_and_what_is_slow_comes_first() -> None:
    report = make(made_up(100, failed=(3, 50, 70)), Limits(jobs=8, details=5, slowest=2))
    assert [int(one.name[10:15]) for one in report.jobs] == [0, 1, 2, 3, 50, 70, 98, 99]
    assert sorted(int(name[10:15]) for name in report.details) == [3, 50, 70, 98, 99]
    assert report.counts["succeeded"] == 97
    assert "8 of 100 jobs are listed and drawn" in report.left_out[0]
    assert "Input, result and output are here for 5 of 8 jobs" in report.left_out[1]


def test_every_limit_is_told() -> None:
    run_ = made_up(40, failed=(1, 2), tries=3)
    run_.damaged = ["one", "two", "three"]
    limits = Limits(attempts=2, groups=0, workers=1, damaged=1, detail_bytes=0, errors=15, short=4, fanouts=0)
    report = make(run_, limits)
    told = "\n".join(report.left_out)
    for text in (
        "40 older attempts are not drawn",
        "1 rarer kinds",
        "3 of 4 workers",
        "2 more damaged files",
        "0 of 40",
        "cut after 4 characters",
        "1 of 1 fan-outs",
    ):
        assert text in told
    text = page(report).decode()
    assert all(line.split("`")[0] in text for line in report.left_out)


def test_all_attempts_together_are_bounded() -> None:
    report = make(made_up(50, tries=8), Limits(all_attempts=120))
    assert report.attempts == 2
    assert len(columns(report)["tries"]["start"]) == 100
    assert "300 older attempts are not drawn" in report.left_out[-1]


def test_the_page_of_many_jobs_is_small() -> None:
    assert len(page(make(made_up(20_000, failed=tuple(range(0, 20_000, 50))), Limits(details=0)))) < 2_000_000


# -- figures ----------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 10**13).map(lambda microseconds: microseconds / 1e6), max_size=60))
@example([0.0, 1e-6])
@example([5.3e-05, 0.00105])
@example([0.0, 5.2e-305])
def test_a_histogram_counts_each_once_where_it_belongs(values: list[float]) -> None:
    found = totals.histogram([(value, "succeeded") for value in values])
    assert sum(bucket.total for bucket in found.buckets) == len(values)
    assert len(found.buckets) <= 2 * totals.BUCKETS
    assert all(one.high == after.low for one, after in itertools.pairwise(found.buckets))
    for one in found.buckets:
        assert one.total == sum(1 for value in values if one.low - 1e-12 <= value < one.high - 1e-12)


def test_durations_are_nearest_ranks() -> None:
    found = totals.durations(float(n) for n in range(1, 101))
    assert found == totals.Durations(100, 50.0, 95.0, 100.0, 5050.0)
    assert totals.durations([]) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 ms"), (0.00005, "0.05 ms"), (0.23, "230 ms"), (0.9996, "1.00 s"), (3.21, "3.2 s"), (45, "45 s"),
     (59.8, "1:00 min"), (187, "3:07 min"), (7440, "2:04 h"), (273600, "3 d 4 h"), (None, "?")],
)  # fmt: skip
def test_spans(seconds: float | None, text: str) -> None:
    assert span(seconds) == text
