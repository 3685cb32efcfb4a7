"""A spool from Python, over real runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tea
from spool.errors import SpoolError, UnknownNameError
from tests.tools.kit import Start, files_of, job, run, start, write_workflow


@pytest.fixture
def here(tmp_path: Path) -> Path:
    write_workflow(tmp_path)
    return tmp_path


def opened(here: Path) -> tea.Spool:
    return tea.open_spool(here / ".tea" / "spool")


def test_runs_and_jobs(here: Path) -> None:
    run(here)
    spool = opened(here)
    (only,) = spool.runs()
    assert spool.run().name == only.name == spool.run(only.name[-4:]).name
    assert (only.state, only.counts()) == ("done", {"todo": 0, "done": 3, "failed": 1, "cancelled": 0})
    assert [one.name for one in only.jobs(state="failed")] == ["001-split/0001-split"]
    assert [one.state for one in only.jobs()] == ["done", "failed", "done", "done"]
    assert len(only.jobs(state=("done", "failed"), branch="split")) == 4
    assert only.jobs(branch="other") == []
    with pytest.raises(ValueError, match="no state 'lost'; there are todo, running"):
        only.jobs(state="lost")


def test_a_job(here: Path) -> None:
    run(here)
    failed = opened(here).job("1")
    assert (failed.branch, failed.state, failed.error) == ("split", "failed", "ValueError: bad item 1")
    assert (failed.input["item"], failed.input["items"]) == (1, [0, 1, 2, 3])
    assert failed.result is not None
    assert failed.result["outcome"] == "failed"
    assert [(one.number, one.state) for one in failed.attempts] == [(1, "failed"), (2, "failed")]
    assert (failed.stdout(), failed.stderr(1)) == ("about to 1\n", "careful\n")
    assert "It failed for good with attempt 2" in failed.explain()
    with pytest.raises(UnknownNameError, match="no attempt 3"):
        failed.stdout(3)
    assert failed.run.name == opened(here).run().name


@pytest.mark.parametrize("big", [False, True])
def test_the_input_of_a_job_has_what_it_shares(here: Path, big: bool) -> None:
    run(here, items=600 if big else 4)
    assert (job(here, 3) / "base.json").exists() is big
    assert opened(here).job("3").input["items"][:4] == [0, 1, 2, 3]


def test_replay(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(here)
    failed = opened(here).job("1")
    before = [found for found in files_of(here) if "/replays" not in found[0]]
    assert failed.replay().compared.verdict == "still fails"
    again = failed.replay(set={"bad": []}, input={"item": 5, "bad": [5]}, folder=here / "out")
    assert (again.success, again.result["state"]) == (True, {"value": 10})
    assert json.loads((here / "out" / "replay.json").read_text())["changes"] == {"item": 5, "bad": []}
    assert [found for found in files_of(here) if "/replays" not in found[0]] == before
    assert "about to 5" in capfd.readouterr().out


def test_a_live_run(here: Path, start_tea: Start) -> None:
    start(here, start_tea)
    live = opened(here).run()
    assert live.state == "running"
    assert [one.name for one in live.jobs(state="running")] == ["001-split/0002-split"]
    assert live.jobs(state="running")[0].stdout() == "about to 2\n"
    assert live.jobs(state="running")[0].result is None


def test_tables_show_text_as_text(here: Path) -> None:
    run(here)
    path = job(here, 1) / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "error": "<script>alert(1)</script>"}))
    spool = opened(here)
    assert f"<td>{spool.run().name}</td><td>done</td><td>0</td><td>3</td>" in spool._repr_html_()
    shown = spool.run()._repr_html_()
    assert shown.count("<tr>") == 5
    assert "&lt;script&gt;" in shown
    assert "<script>" not in shown
    assert spool.job("1")._repr_html_().count("<table>") == 2


def test_tables_are_lists_and_do_not_grow_without_bound(here: Path) -> None:
    run(here, items=130)
    jobs = opened(here).run().jobs()
    assert (len(jobs), jobs[0].name, jobs[-1].name) == (130, "001-split/0000-split", "001-split/0129-split")
    assert [one.name for one in jobs[1:3]] == [one.name for one in jobs][1:3]
    shown = jobs._repr_html_()
    assert shown.count("<tr>") == 101
    assert "and 30 more" in shown
    assert jobs[:2]._repr_html_().count("<tr>") == 3
    path = job(here, 1) / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "error": "x" * 10_000}))
    assert "x" * 300 not in jobs[:2]._repr_html_()
    assert opened(here).run()._repr_html_().count("<tr>") == 101


def test_no_spool(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="no spool here"):
        tea.open_spool(tmp_path)
