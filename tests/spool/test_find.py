"""From what a person types to a job, and back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spool import find
from spool.errors import UnknownNameError
from spool.layout import FanOutFiles, JobFiles, RunFiles, SpoolFiles
from spool.run import create_fanout, create_run, open_spool


def job(fanout: FanOutFiles, name: str) -> JobFiles:
    made = fanout.job(name)
    os.mkdir(made.path)
    Path(made.job).write_text("{}")
    return made


@pytest.fixture
def spool(tmp_path: Path) -> SpoolFiles:
    return open_spool(str(tmp_path / "spool"))


@pytest.fixture
def run(spool: SpoolFiles) -> RunFiles:
    """Two fan-outs: 0000-a, 0007-scale and 0017-scale with a fan-out inside; 0000-b."""
    made = create_run(spool, "demo", {}, b"")
    split = create_fanout(made.fanouts, 1, "split")
    for name in ("0000-a", "0007-scale", "0017-scale"):
        job(split, name)
    job(create_fanout(split.job("0017-scale").fanouts, 1, "inner"), "0003-deep")
    job(create_fanout(made.fanouts, 2, "again"), "0000-b")
    return made


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0007-scale", "001-split/0007-scale"),
        ("001-split/0007-scale", "001-split/0007-scale"),
        ("split/7", "001-split/0007-scale"),
        ("7", "001-split/0007-scale"),
        ("0007", "001-split/0007-scale"),
        ("1/7", "001-split/0007-scale"),
        ("fanouts/001-split/jobs/0007-scale/", "001-split/0007-scale"),
        ("a", "001-split/0000-a"),
        ("2/0", "002-again/0000-b"),
        ("deep", "001-split/0017-scale/001-inner/0003-deep"),
        ("0017-scale/001-inner/0003-deep", "001-split/0017-scale/001-inner/0003-deep"),
        ("17/inner/3", "001-split/0017-scale/001-inner/0003-deep"),
    ],
)
def test_tails(spool: SpoolFiles, run: RunFiles, text: str, found: str) -> None:
    assert find.in_run(find.find_job(spool, text).path) == found
    assert find.in_run(find.find_job(spool, f"{run.name}/{found}").path) == found


def test_a_path_needs_no_spool(run: RunFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{run.path}/fanouts/001-split/jobs/0000-a"
    assert find.find_job(None, path + "/").path == path
    monkeypatch.chdir(path)
    assert find.find_job(None, ".").path == path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0", "001-split/0000-a, 002-again/0000-b; say which"),
        ("scale", "say which"),
        ("nothing", "no job 'nothing'"),
        ("split/99", "no job"),
        ("/", "names no job"),
        ("../../etc", "no job"),
    ],
)
def test_what_names_none_or_several(spool: SpoolFiles, run: RunFiles, text: str, said: str) -> None:
    with pytest.raises(UnknownNameError, match=said):
        find.find_job(spool, text)


def test_the_newest_run_that_has_it(spool: SpoolFiles, run: RunFiles) -> None:
    newer = create_run(spool, "zz", {}, b"")
    job(create_fanout(newer.fanouts, 1, "split"), "0007-scale")
    assert find.run_of(find.find_job(spool, "7").path).name == max(run.name, newer.name)
    assert find.run_of(find.find_job(spool, "17").path) == run


def test_there_and_back(spool: SpoolFiles, run: RunFiles) -> None:
    path = f"{run.path}/fanouts/001-split/jobs/0017-scale/fanouts/001-inner/jobs/0003-deep"
    assert find.short_path(path) == f"{run.name}/001-split/0017-scale/001-inner/0003-deep"
    assert find.short_path(run.path) == run.name
    assert find.spool_of(path) == spool
    assert find.run_of(path) == run
    assert find.fanout_of(JobFiles(path)).name == "001-inner"
    with pytest.raises(UnknownNameError, match="not inside a run"):
        find.short_path("/etc/passwd")


def test_runs_by_path(spool: SpoolFiles, run: RunFiles) -> None:
    assert find.run_at("elsewhere", run.path) == (spool.path, run.name)
    assert find.run_at("elsewhere", "demo") == ("elsewhere", "demo")
    assert find.run_at("elsewhere", None) == ("elsewhere", None)
