"""`tea spool replay`: the same job again, with other input, another workflow, under the debugger."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import time
from pathlib import Path

import pytest

from tests.support import clean_env, tea_argv, tea_cmd
from tests.tools.kit import NESTED, WORKFLOW, files_of, job, read, run, text, verb, write_workflow


@pytest.fixture
def here(tmp_path: Path) -> Path:
    write_workflow(tmp_path)
    return tmp_path


def record_of(here: Path) -> list[tuple[str, int]]:
    """Every file of the spool that is no replay."""
    return [found for found in files_of(here) if "/replays" not in found[0]]


class TestVerdicts:
    @pytest.mark.parametrize("strategy", ["process", "thread"])
    def test_the_same_result(self, here: Path, strategy: str) -> None:
        run(here, strategy=strategy)
        found = read(here, "replay", "3")
        assert (found["verdict"], found["changed"], found["added"], found["missing"]) == ("same", {}, [], [])
        assert found["result"]["state"] == {"value": 6}

    def test_the_same_error(self, ended: Path) -> None:
        told = text(ended, "replay", "1", code=1)
        assert told.startswith("001-split/0001-split: it still fails, as in the record\n")
        assert "  now       failed in node 'split': ValueError: bad item 1\n" in told

    def test_fixed_by_another_input(self, ended: Path) -> None:
        found = read(ended, "replay", "1", "--set", "bad=[]", "--set", "note=it's text")
        assert (found["verdict"], found["added"]) == ("fixed", ["value"])
        assert found["recorded"]["error"] == "bad item 1"

    def test_another_result(self, ended: Path) -> None:
        told = text(ended, "replay", "3", "--set", "item=5")
        assert "it succeeded, with another result than the record\n  value: 6 -> 10\n" in told

    def test_fails_now_and_fails_otherwise(self, ended: Path) -> None:
        assert read(ended, "replay", "3", "--set", "bad=[3]", code=1)["verdict"] == "fails now"
        assert read(ended, "replay", "1", "--set", "item=zwei", "--set", 'bad=["zwei"]', code=1)["verdict"] == (
            "fails otherwise"
        )

    def test_no_recorded_result(self, here: Path) -> None:
        run(here)
        for path in job(here, 3).glob("result*"):
            path.unlink()
        assert "the record has no result to compare with\n  now       succeeded" in text(here, "replay", "3")


class TestChanges:
    def test_input_from_a_file(self, ended: Path) -> None:
        (ended / "in.json").write_text('{"item": 7, "bad": []}')
        found = read(ended, "replay", "1", "--input", "in.json", "--set", "item=8")
        assert found["result"]["state"] == {"value": 16}
        lineage = json.loads((Path(found["folder"]) / "replay.json").read_text())
        assert lineage["changes"] == {"item": 8, "bad": []}
        assert lineage["changes_from"] == str(ended / "in.json")

    def test_a_whole_workflow_after_a_change(self, ended: Path) -> None:
        (ended / "fixed.yaml").write_text(WORKFLOW_FIXED)
        found = read(ended, "replay", "1", "--workflow", "fixed.yaml")
        assert (found["verdict"], found["result"]["state"]) == ("fixed", {"value": 2})

    def test_a_changed_copy_of_the_jobs_own(self, ended: Path) -> None:
        own = (job(ended, 1) / "workflow.yaml").read_text()
        (ended / "own.yaml").write_text(own.replace("raise ValueError", "print"))
        assert read(ended, "replay", "1", "--workflow", "own.yaml")["verdict"] == "fixed"

    def test_a_branch_of_edges_with_a_whole_workflow(self, here: Path) -> None:
        (here / "w.yaml").write_text(EDGES)
        assert tea_cmd("run", "w.yaml", cwd=here).returncode == 0
        (here / "fixed.yaml").write_text(EDGES.replace("1 / 0", "4"))
        assert read(here, "replay", "left", code=1)["verdict"] == "still fails"
        assert read(here, "replay", "left", "--workflow", "fixed.yaml")["result"]["state"] == {"a": 4}

    @pytest.mark.parametrize(
        ("arguments", "why"),
        [
            (["--set", "item"], "give KEY=VALUE"),
            (["--input", "nowhere.json"], "nowhere.json: No such file"),
            (["--workflow", "nowhere.yaml"], "nowhere.yaml"),
            (["-o", "full"], "not empty"),
        ],
    )
    def test_wrong_input(self, ended: Path, arguments: list[str], why: str) -> None:
        (ended / "full").mkdir(exist_ok=True)
        (ended / "full" / "file").touch()
        before = files_of(ended)
        assert why in verb(ended, "replay", "1", *arguments, code=2).stderr
        assert files_of(ended) == before

    def test_what_is_in_no_file_cannot_be_replayed(self, here: Path) -> None:
        run(here)
        path = job(here, 1) / "job.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "not_replayable": "its function was an object"}))
        assert "its function was an object" in verb(here, "replay", "1", code=2).stderr

    def test_an_input_that_is_not_the_coordinators(self, here: Path) -> None:
        run(here)
        (job(here, 1) / "input.json").write_text("{}")
        assert "it is not what the coordinator wrote" in verb(here, "replay", "1", code=2).stderr


class TestRecord:
    def test_it_is_never_changed_and_the_lineage_is_kept(self, ended: Path) -> None:
        before = record_of(ended)
        found = read(ended, "replay", "1", "--set", "bad=[]")
        assert record_of(ended) == before
        folder = Path(found["folder"])
        lineage = json.loads((folder / "replay.json").read_text())
        assert (lineage["job"], lineage["attempt"], lineage["path"]) == (
            "001-split/0001-split",
            2,
            str(job(ended, 1)),
        )
        assert (lineage["outcome"], lineage["recorded_outcome"]) == ("succeeded", "failed")
        assert time.time() - 300 < lineage["at"] <= time.time()
        assert lineage["by"]["pid"]
        again = tea_cmd("run", folder / "workflow.yaml", "--input", folder / "input.json", "--no-spool", cwd=ended)
        assert json.loads(again.stdout)["value"] == 2

    def test_folders(self, here: Path) -> None:
        run(here)
        first, second = (Path(read(here, "replay", "3")["folder"]) for _ in range(2))
        assert (first.name, second.name) == ("001-split_0003-split-1", "001-split_0003-split-2")
        assert read(here, "replay", "3", "-o", "out")["folder"] == str(here / "out")
        assert (here / "out" / "result.json").exists()

    def test_the_doctor_has_no_objection(self, here: Path) -> None:
        run(here)
        verb(here, "replay", "1", code=1)
        verb(here, "doctor", "--quick")
        kinds = {f["kind"] for f in read(here, "doctor")["findings"] if f["severity"] == "error"}
        assert not kinds

    def test_nobody_else_may_write_to_any_folder(self, here: Path) -> None:
        (here / "w.yaml").write_text(NESTED)
        before = os.umask(0)
        try:
            assert tea_cmd("run", "w.yaml", cwd=here).returncode == 0
            assert read(here, "replay", "0001-right")["folder"]
        finally:
            os.umask(before)
        folders = [path for path in here.glob(".tea/spool/**/") if path.stat().st_mode & 0o077]
        assert not folders

    def test_fan_outs_inside_are_recorded_in_the_replay(self, here: Path) -> None:
        (here / "w.yaml").write_text(NESTED)
        assert tea_cmd("run", "w.yaml", cwd=here).returncode == 0
        before = record_of(here)
        folder = Path(read(here, "replay", "0001-right")["folder"])
        assert record_of(here) == before
        assert len([*folder.glob("spool/runs/*/fanouts/001-right/jobs/*/result.json")]) == 3


class TestEnvironment:
    def test_it_runs_where_its_run_was_started_and_its_own_modules_win(self, here: Path) -> None:
        (here / "tools.py").write_text("def double(n): return open('factor').read() * n\n")
        (here / "factor").write_text("x")
        (here / "w.yaml").write_text(OWN_TOOLS)
        assert tea_cmd("run", "w.yaml", cwd=here).returncode == 0
        path = job(here, 0)
        done = tea_cmd("spool", "replay", path, "--json", cwd="/")
        assert json.loads(done.stdout)["verdict"] == "same", done.stderr

    def test_what_nodes_print_goes_to_stderr(self, ended: Path) -> None:
        done = verb(ended, "replay", "3")
        assert "about to 3" in done.stderr
        assert "about to" not in done.stdout


class TestStrategies:
    def test_in_a_worker_process(self, ended: Path) -> None:
        before = record_of(ended)
        done = verb(ended, "replay", "3", "--strategy", "process", "--set", "item=5", "--json")
        found = json.loads(done.stdout)
        assert (found["verdict"], found["result"]["state"]) == ("differs", {"value": 10})
        assert "about to 5\ncareful\n" in done.stderr
        assert record_of(ended) == before
        lineage = json.loads((Path(found["folder"]) / "replay.json").read_text())
        assert (lineage["strategy"], lineage["changes"]) == ("process", {"item": 5})
        assert len([*Path(found["folder"]).glob("spool/runs/*/fanouts/001-split/jobs/0000-split/result.json")]) == 1

    def test_in_a_thread_and_what_it_fails_with(self, ended: Path) -> None:
        told = text(ended, "replay", "1", "--strategy", "thread", code=1)
        assert "it still fails, as in the record" in told
        assert "now       failed in node 'split': ValueError: bad item 1\n" in told

    def test_limits_hold_there(self, here: Path) -> None:
        run(here)  # without them: a machine that stalls would make it time out, too
        fanout = job(here, 2).parent.parent / "fanout.json"
        record = json.loads(fanout.read_text())
        record["config"] |= {"timeout_seconds": 0.5, "grace_seconds": 0.1}
        fanout.write_text(json.dumps(record))
        (here / "block").touch()
        told = text(here, "replay", "2", "--strategy", "process", code=1)
        assert "it fails now, and succeeded in the record" in told
        assert "timed out: TimeoutError: Flow timed out after 0.5s" in told

    @pytest.mark.parametrize(
        ("arguments", "why"),
        [
            (["--strategy", "magic"], "no strategy 'magic' for a replay; there are process, remote, thread"),
            (["--strategy", "workers"], "no strategy 'workers' for a replay"),
            (["--strategy", "remote"], "takes its hosts from settings.parallel.remote of the workflow: none there"),
            (["--strategy", "process", "--pdb"], "--pdb looks at a failure in this process"),
        ],
    )
    def test_what_cannot_be(self, ended: Path, arguments: list[str], why: str) -> None:
        before = files_of(ended)
        assert why in verb(ended, "replay", "1", *arguments, code=2).stderr
        assert files_of(ended) == before


class TestDebugger:
    def test_looks_at_the_place_of_the_failure(self, ended: Path) -> None:
        seen, code = in_terminal(["spool", "replay", "1", "--pdb"], ["p 'item is', state['item']", "q"], ended)
        assert "ValueError: bad item 1" in seen
        assert "('item is', 1)" in seen
        assert "it still fails" in seen
        assert code == 1

    def test_is_not_asked_for_when_nothing_fails(self, ended: Path) -> None:
        seen, code = in_terminal(["spool", "replay", "3", "--pdb"], [], ended)
        assert "(Pdb)" not in seen
        assert code == 0


def in_terminal(arguments: list[str], answers: list[str], here: Path) -> tuple[str, int]:
    """Run `tea` in a pseudo terminal, answering each prompt of the debugger; what it showed, and its exit code."""
    master, slave = pty.openpty()
    env = clean_env({"TERM": "dumb", "COLUMNS": "200"})
    process = subprocess.Popen(tea_argv(*arguments), cwd=here, env=env, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    seen, pending, deadline = "", list(answers), time.monotonic() + 240
    prompts = 0
    try:
        while time.monotonic() < deadline:
            if select.select([master], [], [], 0.1)[0]:
                try:
                    data = os.read(master, 65536)
                except OSError:  # the other side is closed
                    break
                seen += data.decode(errors="replace")
            if seen.count("(Pdb) ") > prompts and pending:
                prompts += 1
                os.write(master, f"{pending.pop(0)}\n".encode())
        return seen, process.wait(240)
    finally:
        process.kill()
        process.wait()
        os.close(master)


WORKFLOW_FIXED = (
    WORKFLOW.replace("RETRIES", "1")
    .replace("DELAY", "0.01")
    .replace("PARALLEL", "")
    .replace("raise ValueError", "print")
)

EDGES = """\
nodes:
  - {name: start, run: 'return {}'}
  - {name: left, run: 'return {"a": 1 / 0}'}
  - {name: right, run: 'return {"b": 1}'}
  - {name: merge, fan_in: true, run: 'return {}'}
edges:
  - {from: __start__, to: start}
  - {from: start, to: [left, right], parallel: true, fan_in: merge}
  - {from: left, to: merge}
  - {from: right, to: merge}
"""

OWN_TOOLS = """\
nodes:
  - name: split
    type: dynamic_parallel
    items: [3]
    fan_in: merge
    action:
      run: |
        import tools
        return {"value": tools.double(state["item"])}
  - {name: merge, fan_in: true, run: 'return {}'}
"""
