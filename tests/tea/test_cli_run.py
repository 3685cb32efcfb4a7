"""`tea run`, `tea resume`, `tea worker`: what goes where, and with which exit code they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spool.claim import try_claim
from spool.job import finish, read_job
from spool.run import fanouts, open_spool
from spool.worker import Worker
from tests.support import tea_cmd, wait_until

WORKFLOW = """\
name: demo
settings: {parallel: {max_workers: 2}}
nodes:
  - name: load
    run: |
      print("loading")
      return {"items": list(range(state.get("n", 4)))}
  - name: scale
    type: dynamic_parallel
    items: "{{ state.items }}"
    fan_in: merge
    steps:
      - name: one
        run: |
          import os, time
          print("item", state["item"])
          if os.path.exists(state.get("block", "")) and state["item"] == 2:
              time.sleep(600)
          if state["item"] in state.get("bad", []):
              raise ValueError(f"bad item {state['item']}")
          return {"value": state["item"] * 2}
  - name: merge
    fan_in: true
    run: |
      return {"total": sum(r.state["value"] for r in parallel_results if r.success), "items": None}
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "w.yaml").write_text(WORKFLOW)
    return tmp_path


def run(here: Path, *arguments: str, state: Any = None, **options: Any) -> subprocess.CompletedProcess[str]:
    given = [] if state is None else ["--input", json.dumps(state)]
    return tea_cmd("run", "w.yaml", *given, *arguments, cwd=here, **options)


class TestOutput:
    def test_the_final_state_and_nothing_else_goes_to_stdout(self, here: Path) -> None:
        done = run(here)
        assert done.returncode == 0
        assert json.loads(done.stdout) == {"items": None, "total": 12}
        assert "loading\n" in done.stderr

    def test_output_file(self, here: Path) -> None:
        done = run(here, "--output", "final.json")
        assert done.stdout == ""
        assert json.loads((here / "final.json").read_text())["total"] == 12

    def test_an_output_that_cannot_be_written_is_known_before(self, here: Path) -> None:
        done = run(here, "--output", "no/such/final.json")
        assert done.returncode == 2
        assert "--output" in done.stderr
        assert "loading" not in done.stderr

    def test_inputs_are_merged_in_order(self, here: Path) -> None:
        (here / "a.json").write_text('{"n": 2, "k": 1}')
        done = run(here, "--input", "a.json", "--input", '{"n": 3}')
        assert json.loads(done.stdout) == {"n": 3, "k": 1, "items": None, "total": 6}

    @pytest.mark.parametrize(
        ("text", "said"), [("{", "not JSON"), ("gone.json", "No such file"), ('{"a": NaN,}', "not JSON")]
    )
    def test_wrong_input(self, here: Path, text: str, said: str) -> None:
        done = run(here, "--input", text)
        assert done.returncode == 2
        assert said in done.stderr
        assert "--input" in done.stderr
        assert not (here / ".tea").exists()

    def test_entry_and_exit(self, here: Path) -> None:
        done = run(here, "--entry-point", "load", "--exit-point", "scale")
        assert json.loads(done.stdout) == {"items": [0, 1, 2, 3]}
        done = run(here, "--entry-point", "lod")
        assert done.returncode == 2
        assert "did you mean 'load'?" in done.stderr


class TestFailures:
    def test_branches_that_failed_are_named_with_what_to_do(self, here: Path) -> None:
        done = run(here, state={"bad": [1, 3], "n": 5})
        assert done.returncode == 0
        assert "tea: 2 branches failed:\n" in done.stderr
        assert "001-scale/0001-scale  ValueError: bad item 1\n" in done.stderr
        shown = next(line for line in done.stderr.splitlines() if "tea spool show" in line)
        again = next(line for line in done.stderr.splitlines() if "--retry-failed" in line)
        job = shown.split()[-1]
        assert tea_cmd("spool", "show", job, cwd=here).returncode == 0
        assert tea_cmd("resume", *again.split("tea resume ")[1].split(), cwd=here).returncode == 0

    def test_they_can_fail_the_command(self, here: Path) -> None:
        done = run(here, "--fail-on-branch-errors", state={"bad": [0]})
        assert done.returncode == 3
        assert json.loads(done.stdout)["total"] == 12

    def test_many_are_only_counted(self, here: Path) -> None:
        done = run(here, state={"bad": list(range(30)), "n": 40})
        assert "tea: 30 branches failed:\n" in done.stderr
        assert "  and 25 more\n" in done.stderr

    def test_the_commands_name_a_spool_that_is_elsewhere(self, here: Path) -> None:
        done = run(here, "--spool", "else where", state={"bad": [0]})
        assert done.stderr.count("--spool '") == 2

    def test_a_workflow_that_fails(self, here: Path) -> None:
        (here / "w.yaml").write_text("nodes:\n  - {name: one, run: 'return 1 / 0'}\n")
        done = run(here)
        assert (done.returncode, done.stdout) == (1, "")
        assert "the workflow failed in node 'one': ZeroDivisionError" in done.stderr
        assert "Traceback" not in done.stderr
        assert "Traceback" in run(here, env={"TEA_DEBUG": "1"}).stderr

    def test_contradictions(self, here: Path) -> None:
        assert run(here, "--no-spool", "--spool", "x").returncode == 2
        assert run(here, "--no-spool", "--strategy", "process").returncode == 2
        assert run(here, "--resume", "x", "--input", "{}").returncode == 2


class TestSpool:
    def test_none_is_left_behind_where_none_is_wanted(self, here: Path) -> None:
        done = run(here, "--no-spool", state={"bad": [1]})
        assert done.returncode == 0
        assert "1 branch failed" in done.stderr
        assert "tea spool" not in done.stderr
        assert sorted(path.name for path in here.iterdir()) == ["w.yaml"]

    def test_environment(self, here: Path) -> None:
        run(here, env={"TEA_SPOOL": str(here / "there")})
        assert (here / "there" / "spool.json").exists()
        assert not (here / ".tea").exists()

    def test_a_dry_run_starts_nothing(self, here: Path) -> None:
        done = run(here, "--dry-run", "--strategy", "process", "--max-workers", "3")
        assert done.returncode == 0
        assert "scale: a branch for each item -> merge" in done.stdout
        assert "process, 3 workers" in done.stdout
        assert str(here / ".tea" / "spool") in done.stdout
        assert sorted(path.name for path in here.iterdir()) == ["w.yaml"]

    def test_a_dry_run_finds_mistakes(self, here: Path) -> None:
        assert run(here, "--dry-run", "--strategy", "proces", "--strict").returncode == 2
        done = run(here, "--dry-run", "--strategy", "proces")
        assert done.returncode == 0
        assert "warning" in done.stderr

    def test_an_unknown_strategy_is_a_warning_or_an_error(self, here: Path) -> None:
        done = run(here, "--strategy", "proces")
        assert done.returncode == 0
        assert "warning: no strategy 'proces'" in done.stderr
        assert run(here, "--strategy", "proces", "--strict").returncode == 2


class TestResume:
    def test_retry_failed(self, here: Path) -> None:
        run(here, state={"bad": [1]})
        job = next((here / ".tea" / "spool").glob("runs/*/fanouts/*/jobs/0001-*"))
        done = tea_cmd("resume", "--retry-failed", cwd=here)
        assert done.returncode == 0
        assert json.loads(done.stdout)["total"] == 10
        assert (job / "claim.2").is_symlink()

    def interrupted(self, here: Path, start_tea: Callable[..., subprocess.Popen[str]]) -> str:
        """A run that was stopped by Ctrl-C while job 2 ran and when the others were done."""
        block = here / "block"
        block.touch()
        state = json.dumps({"block": str(block)})
        process = start_tea("run", "w.yaml", "--input", state, "--strategy", "process", cwd=here)
        wait_until(lambda: len(list(here.glob(".tea/spool/runs/*/fanouts/*/done/*"))) == 3)
        wait_until(lambda: list(here.glob(".tea/spool/runs/*/fanouts/*/jobs/0002-*/claim.*")))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=240)
        assert (process.returncode, out) == (130, "")
        run_name = err.strip().split()[-1]
        assert f"tea resume {run_name}" in err
        block.unlink()
        return run_name

    def test_ctrl_c_says_how_to_go_on_and_that_works(
        self, here: Path, start_tea: Callable[..., subprocess.Popen[str]]
    ) -> None:
        done = tea_cmd("resume", self.interrupted(here, start_tea), cwd=here)
        assert done.returncode == 0
        assert json.loads(done.stdout)["total"] == 12

    @pytest.mark.parametrize("strategy", ["process", "thread"])
    def test_a_ticket_that_stayed_behind_is_put_right(
        self, here: Path, start_tea: Callable[..., subprocess.Popen[str]], strategy: str
    ) -> None:
        """A worker was killed when it had accepted its result and not yet moved the ticket."""
        run_name = self.interrupted(here, start_tea)
        (fanout,) = here.glob(".tea/spool/runs/*/fanouts/*")
        (fanout / "done" / "0000-scale").rename(fanout / "todo" / "0000-scale")
        done = tea_cmd("resume", run_name, "--strategy", strategy, cwd=here)
        assert json.loads(done.stdout)["total"] == 12
        assert os.listdir(fanout / "todo") == []
        assert len(os.listdir(fanout / "done")) == 4

    def test_threads_wait_for_a_job_that_another_process_is_at(
        self, here: Path, start_tea: Callable[..., subprocess.Popen[str]]
    ) -> None:
        run_name = self.interrupted(here, start_tea)
        spool = open_spool(str(here / ".tea" / "spool"))
        (fanout,) = fanouts(spool.run(run_name).fanouts)
        job = fanout.job("0002-scale")
        record = read_job(job)
        with Worker(spool) as worker:
            assert try_claim(job, 2, worker.text)
            process = start_tea("resume", run_name, "--strategy", "thread", cwd=here)
            wait_until(lambda: "resumed" in Path(spool.run(run_name).events).read_text())
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1)
            shape = {
                "job": job.name,
                "attempt": 2,
                "input_sha256": record.input_sha256,
                "success": True,
                "started": 1.0,
            }
            finish(fanout, job, record, 2, {**shape, "outcome": "succeeded", "spent": 0.0, "state": {"value": 40}})
            out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        assert json.loads(out)["total"] == 48

    def test_ctrl_c_before_the_first_fan_out(
        self, here: Path, start_tea: Callable[..., subprocess.Popen[str]]
    ) -> None:
        (here / "w.yaml").write_text("nodes:\n  - {name: one, run: 'import time; time.sleep(60)'}\n")
        process = start_tea("run", "w.yaml", cwd=here)
        wait_until(lambda: list(here.glob(".tea/spool/runs/*/input.json")))
        time.sleep(0.2)  # the node has begun, or is about to: both are fine
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=240)
        assert process.returncode == 130
        (run,) = here.glob(".tea/spool/runs/*")
        assert f"tea resume {run.name}\n" in err

    def test_run_with_resume(self, here: Path) -> None:
        run(here)
        (here / "w.yaml").write_text(WORKFLOW + "# changed\n")
        name = next((here / ".tea" / "spool" / "runs").iterdir()).name
        done = run(here, "--resume", name[-4:])
        assert done.returncode == 0
        assert "has changed" in done.stderr

    def test_unknown_run(self, here: Path) -> None:
        run(here)
        done = tea_cmd("resume", "nothing", cwd=here)
        assert done.returncode == 2
        assert "no run 'nothing'" in done.stderr

    def test_a_run_may_be_a_path(self, here: Path) -> None:
        run(here)
        path = next((here / ".tea" / "spool" / "runs").iterdir())
        assert tea_cmd("resume", path, cwd="/").returncode == 0


class TestTheUsersOwnModules:
    """`tools` is a name of ours that is a natural name for a user's module, too; the user's must win."""

    YAML = """\
nodes:
  - name: split
    type: dynamic_parallel
    items: [1, 2]
    fan_in: merge
    action:
      run: |
        import sys, tools
        return {"tools": tools.WHOSE, "file": sys.modules["tools"].__file__}
  - name: merge
    fan_in: true
    run: |
      import tools
      return {"all": [r.state["tools"] for r in parallel_results] + [tools.WHOSE]}
"""

    @pytest.fixture
    def flow(self, tmp_path: Path) -> Path:
        (tmp_path / "flow").mkdir()
        (tmp_path / "flow" / "w.yaml").write_text(self.YAML)
        (tmp_path / "flow" / "tools.py").write_text("WHOSE = 'the user'\n")
        return tmp_path

    @pytest.mark.parametrize("strategy", ["thread", "process"])
    @pytest.mark.parametrize("folder", ["flow", "."])
    def test_run_and_resume(self, flow: Path, strategy: str, folder: str) -> None:
        path = os.path.relpath(flow / "flow" / "w.yaml", flow / folder)
        done = tea_cmd("run", path, "--strategy", strategy, cwd=flow / folder)
        assert json.loads(done.stdout)["all"] == ["the user"] * 3, done.stderr
        done = tea_cmd("resume", cwd=flow / folder)
        assert json.loads(done.stdout)["all"] == ["the user"] * 3, done.stderr

    def test_worker(self, flow: Path, start_tea: Callable[..., subprocess.Popen[str]]) -> None:
        coordinator = start_tea("run", "flow/w.yaml", "--strategy", "workers", cwd=flow)
        wait_until(lambda: len(list(flow.glob(".tea/spool/runs/*/fanouts/*/todo/*"))) == 2)
        done = tea_cmd("worker", ".tea/spool", cwd=flow)
        assert done.stderr == "tea: ran 2 jobs\n"
        out, err = coordinator.communicate(timeout=240)
        assert json.loads(out)["all"] == ["the user"] * 3, err
