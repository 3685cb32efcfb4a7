"""`tea spool retry`: jobs go back, nothing runs, and `tea resume` goes on through the fan-in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import tea_cmd
from tests.tools.kit import Start, job, read, run, start, text, verb, write_workflow


@pytest.fixture
def here(tmp_path: Path) -> Path:
    write_workflow(tmp_path)
    return tmp_path


def states(here: Path) -> list[str]:
    return [line["state"] for line in read(here, "list")]


def resume(here: Path, *arguments: str) -> list[object]:
    done = tea_cmd("resume", *arguments, cwd=here)
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)["values"]
    assert isinstance(values, list)
    return values


@pytest.mark.parametrize("strategy", ["process", "thread"])
def test_what_failed_runs_again_and_the_fan_in_sees_it(here: Path, strategy: str) -> None:
    out = json.loads(run(here, strategy=strategy, bad=(1, 3)))
    assert out["values"] == [0, "failed", 4, "failed"]
    told = text(here, "retry")
    assert "2 jobs sent back\n  001-split/0001-split\n  001-split/0003-split\n" in told
    assert told.rstrip().splitlines()[-1].startswith("to run them:  tea resume ")
    assert states(here) == ["done", "todo", "done", "todo"]
    assert read(here, "status")["state"] == "interrupted"
    (here / "fixed").touch()
    assert resume(here) == [0, 2, 4, 6]
    assert len([*job(here, 0).glob("claim.*")]) == 1
    assert read(here, "status")["state"] == "done"


def test_one_job(here: Path) -> None:
    run(here, bad=(1, 3))
    (sent,) = read(here, "retry", "3")
    assert (sent["jobs"], sent["refused"]) == (["001-split/0003-split"], [])
    (here / "fixed").touch()
    assert resume(here) == [0, "failed", 4, 6]


def test_by_outcome(here: Path) -> None:
    run(here, bad=(1, 3))
    path = job(here, 3) / "result.json"
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({**raw, "outcome": "timed_out"}))
    assert read(here, "retry", "--state", "lost") == [
        {"run": read(here, "status")["run"], "jobs": [], "around": [], "refused": []}
    ]
    (sent,) = read(here, "retry", "--state", "timed_out")
    assert sent["jobs"] == ["001-split/0003-split"]


def test_what_cannot_be_sent_back_is_said(here: Path) -> None:
    run(here)
    done = verb(here, "retry", "0", "1", code=1)
    assert "001-split/0000-split stays as it is: it succeeded" in done.stderr
    assert "1 job sent back\n  001-split/0001-split\n" in done.stdout
    assert "it has not ended; `tea resume` goes on with it" in verb(here, "retry", "1", code=1).stderr


def test_twice_is_once(here: Path) -> None:
    run(here)
    run_name = read(here, "status")["run"]
    assert read(here, "retry", run_name)[0]["jobs"] == ["001-split/0001-split"]
    assert "nothing was sent back" in text(here, "retry", run_name[-4:])
    (here / "fixed").touch()
    assert resume(here) == [0, 2, 4, 6]


def test_a_run_that_is_driven_is_refused(here: Path, start_tea: Start) -> None:
    start(here, start_tea)
    done = verb(here, "retry", code=2)
    assert "is driven by " in done.stderr
    assert states(here) == ["done", "failed", "running", "done"]


def test_a_name_that_fits_nothing(here: Path) -> None:
    run(here)
    assert "'nothing' is no job of any run, and as a run:" in verb(here, "retry", "nothing", code=2).stderr
    assert "no job '99'" in verb(here, "retry", "99", code=2).stderr
    assert "may be any of" in verb(here, "retry", "split", code=2).stderr


class TestInsideBranches:
    @pytest.fixture
    def nested(self, here: Path) -> Path:
        (here / "w.yaml").write_text(NESTED)
        return here

    def go(self, here: Path, hard: bool) -> None:
        given = json.dumps({"hard": hard, "fixed": str(here / "fixed")})
        assert tea_cmd("run", "w.yaml", "--input", given, cwd=here).returncode == 0

    def test_what_failed_inside_goes_back_with_its_branch(self, nested: Path) -> None:
        self.go(nested, hard=True)
        assert read(nested, "retry")[0]["jobs"] == ["001-start/0001-right"]
        inside = {line["job"]: line["state"] for line in read(nested, "list") if line["job"].count("/") == 3}
        assert list(inside.values()) == ["done", "todo", "done"]
        (nested / "fixed").touch()
        done = tea_cmd("resume", cwd=nested)
        assert json.loads(done.stdout)["sum"] == 6, done.stderr

    def test_also_with_resume(self, nested: Path) -> None:
        self.go(nested, hard=True)
        (nested / "fixed").touch()
        done = tea_cmd("resume", "--retry-failed", cwd=nested)
        assert json.loads(done.stdout)["sum"] == 6, done.stderr

    def test_one_of_them_takes_a_branch_along_that_succeeded(self, nested: Path) -> None:
        self.go(nested, hard=False)
        (sent,) = read(nested, "retry", "0001-right/001-right/0001-right")
        assert sent["around"] == ["001-start/0001-right"]
        (nested / "fixed").touch()
        done = tea_cmd("resume", cwd=nested)
        assert json.loads(done.stdout)["sum"] == 6, done.stderr


class TestWithInput:
    @pytest.mark.parametrize("strategy", ["process", "thread"])
    def test_other_values(self, here: Path, strategy: str) -> None:
        run(here, strategy=strategy, bad=(1, 3))
        (here / "in.json").write_text('{"item": 20}')
        (sent,) = read(here, "retry", "3", "--with-input", "in.json", "--with-input", '{"bad": []}')
        assert sent["jobs"] == ["001-split/0003-split"]
        assert resume(here) == [0, "failed", 4, 40]
        assert json.loads((job(here, 3) / "input.json").read_text())["item"] == 3
        assert ", with another item, bad" in text(here, "show", "3")
        assert ", with another item, bad" in " ".join(text(here, "explain", "3").split())
        assert read(here, "replay", "3")["verdict"] == "same"
        assert resume(here, "--retry-failed") == [0, "failed", 4, 40]

    def test_the_fan_in_sees_them(self, here: Path) -> None:
        workflow = (here / "w.yaml").read_text()
        (here / "w.yaml").write_text(workflow.replace('.get("value") if', '.get("item") if'))
        run(here)
        read(here, "retry", "1", "--with-input", '{"item": 20}')
        assert resume(here) == [0, 20, 2, 3]

    def test_wrong_input_sends_nothing_back(self, here: Path) -> None:
        run(here)
        assert "not JSON" in verb(here, "retry", "1", "--with-input", "{", code=2).stderr
        assert states(here)[1] == "failed"


NESTED = """\
nodes:
  - {name: start, run: 'return {}'}
  - {name: left, run: 'return {}'}
  - name: right
    type: dynamic_parallel
    items: [1, 2, 3]
    fan_in: inner
    action:
      run: |
        import os
        if state["item"] == 2 and not os.path.exists(state["fixed"]):
            raise ValueError("not yet")
        return {"value": state["item"]}
  - name: inner
    fan_in: true
    run: |
      failed = [r for r in parallel_results if not r.success]
      if failed and state["hard"]:
          raise RuntimeError("inside")
      return {"sum": sum(r.state["value"] for r in parallel_results if r.success)}
  - name: merge
    fan_in: true
    run: |
      return {"sum": parallel_results[1].state["sum"] if parallel_results[1].success else None}
edges:
  - {from: __start__, to: start}
  - {from: start, to: [left, right], parallel: true, fan_in: merge}
  - {from: left, to: merge}
  - {from: inner, to: merge}
"""
