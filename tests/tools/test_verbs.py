"""`tea spool status`, `list`, `show` and `tea graph`, on finished, live and crashed runs."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.support import tea_cmd, wait_until
from tests.tools.kit import NESTED, Start, read, run, start, text, write_workflow


@pytest.fixture
def here(tmp_path: Path) -> Path:
    write_workflow(tmp_path)
    return tmp_path


class TestStatus:
    def test_of_a_finished_run(self, ended: Path) -> None:
        status = read(ended, "status")
        (fanout,) = status["fanouts"]
        numbers = {key: fanout[key] for key in ("total", "done", "failed", "cancelled", "running", "todo")}
        assert numbers == {"total": 4, "done": 3, "failed": 1, "cancelled": 0, "running": 0, "todo": 0}
        assert (status["state"], status["coordinator_alive"]) == ("done", False)
        (failure,) = status["failures"]
        assert failure["job"] == "001-split/0001-split"
        assert failure["error"] == "bad item 1"
        shown = text(ended, "status")
        assert "001-split     3       1          -        -      -  of 4, process" in shown
        assert "001-split/0001-split  ValueError: bad item 1" in shown
        assert "tea spool show 001-split/0001-split\n" in shown
        assert f"tea resume {status['run']} --retry-failed\n" in shown

    @pytest.mark.parametrize("strategy", ["process", "thread"])
    def test_of_a_live_run(self, here: Path, start_tea: Start, strategy: str) -> None:
        begun = time.time()
        process = start(here, start_tea, strategy=strategy)
        status = read(here, "status")
        assert (status["state"], status["coordinator_alive"]) == ("running", True)
        (running,) = status["running"]
        assert running["job"] == "001-split/0002-split"
        assert begun <= running["started"] <= time.time()
        assert (status["fanouts"][0]["running"], status["fanouts"][0]["todo"]) == (1, 0)
        shown = text(here, "status")
        assert f"driven by {status['coordinator']}" in shown
        assert str(process.pid) in status["coordinator"]
        assert strategy == "process" or "idle" not in shown
        (here / "block").unlink()
        assert process.wait(240) == 0
        assert read(here, "status")["running"] == []

    def test_of_a_crashed_run(self, here: Path, start_tea: Start) -> None:
        process = start(here, start_tea)
        process.send_signal(signal.SIGKILL)
        process.wait(240)
        wait_until(lambda: not any(worker["alive"] for worker in read(here, "status")["workers"]))
        status = read(here, "status")
        assert (status["state"], status["coordinator_alive"], status["running"]) == ("stopped", False, [])
        shown = text(here, "status")
        assert "stopped" in shown
        assert "its coordinator is gone" in shown
        assert f"tea resume {status['run']}\n" in shown

    def test_looking_does_not_keep_a_run_from_being_resumed(self, here: Path, start_tea: Start) -> None:
        process = start(here, start_tea)
        process.send_signal(signal.SIGKILL)
        process.wait(240)
        (here / "block").unlink()
        watcher = start_tea("spool", "status", "--watch", "--json", cwd=here)
        for _ in range(3):
            assert tea_cmd("resume", cwd=here).returncode == 0
        watcher.wait(240)

    def test_inside_branches(self, here: Path) -> None:
        (here / "w.yaml").write_text(NESTED)
        assert tea_cmd("run", "w.yaml", cwd=here).returncode == 0
        groups = read(here, "status")["fanouts"]
        assert [(g["name"], g["fanouts"], g["done"]) for g in groups] == [
            ("001-start", 1, 2),
            ("001-start/*/001-right", 1, 3),
        ]

    def test_watch_tells_what_has_changed_and_ends_with_the_run(self, here: Path, start_tea: Start) -> None:
        process = start(here, start_tea)
        watcher = start_tea("spool", "status", "--watch", "--json", cwd=here)
        assert watcher.stdout
        first = json.loads(watcher.stdout.readline())
        assert first["state"] == "running"
        (here / "block").unlink()
        assert process.wait(240) == 0
        out, _ = watcher.communicate(timeout=240)
        assert json.loads(out.splitlines()[-1])["state"] == "done"
        assert watcher.returncode == 0

    def test_damaged_records_are_told_not_fatal(self, here: Path) -> None:
        run(here)
        (path,) = (here / ".tea" / "spool" / "runs").iterdir()
        (path / "run.json").write_text("{")
        (result,) = path.glob("fanouts/*/jobs/0001-*/result.json")
        result.write_text("")
        shown = text(here, "status")
        assert "not JSON" in shown
        assert "its result is empty" in shown

    def test_the_run_may_be_named_in_part_or_by_path(self, here: Path) -> None:
        run(here)
        run(here)
        older, newer = sorted((here / ".tea" / "spool" / "runs").iterdir(), key=lambda path: path.stat().st_ctime)
        assert read(here, "status", older.name[-4:])["run"] == older.name
        assert read(here, "status", str(newer))["run"] == newer.name
        done = tea_cmd("spool", "status", "demo", cwd=here)
        assert done.returncode == 2
        assert "2 runs match 'demo'" in done.stderr

    @pytest.mark.slow
    def test_a_hundred_thousand_jobs_are_counted_not_opened(self, tmp_path: Path) -> None:
        """Not timed: the reads are. What is timed is in benchmarks/."""
        from spool.run import create_fanout, create_run, open_spool

        spool = open_spool(str(tmp_path / "spool"))
        fanout = create_fanout(create_run(spool, "big", {}, b"").fanouts, 1, "s")
        for n in range(100_000):
            os.mknod(fanout.ticket("done", f"{n:05d}-s"))
        done = tea_cmd("spool", "status", "--spool", spool.path)
        assert "100,000" in done.stdout


class TestList:
    def test_by_state(self, ended: Path) -> None:
        assert [line["state"] for line in read(ended, "list")] == ["done", "failed", "done", "done"]
        (failed,) = read(ended, "list", "--state", "failed")
        assert (failed["job"], failed["attempt"], failed["outcome"]) == ("001-split/0001-split", 2, "failed")
        assert failed["error"] == "ValueError: bad item 1"
        assert read(ended, "list", "--state", "todo") == []
        assert text(ended, "list", "--state", "failed", "--quiet") == "001-split/0001-split\n"
        (line,) = text(ended, "list", "--state", "failed").splitlines()
        assert line.startswith("failed     001-split/0001-split ")
        assert line.endswith("attempt 2  ValueError: bad item 1")

    def test_while_it_runs(self, here: Path, start_tea: Start) -> None:
        start(here, start_tea)
        (running,) = read(here, "list", "--state", "running")
        assert (running["job"], running["attempt"]) == ("001-split/0002-split", 1)
        assert text(here, "list", "--state", "running", "-q") == "001-split/0002-split\n"

    def test_inside_branches(self, here: Path) -> None:
        (here / "w.yaml").write_text(NESTED)
        tea_cmd("run", "w.yaml", cwd=here)
        names = [line["job"] for line in read(here, "list")]
        assert names == [
            "001-start/0000-left",
            "001-start/0001-right",
            *(f"001-start/0001-right/001-right/000{n}-right" for n in range(3)),
        ]


class TestShow:
    def test_a_failed_job(self, ended: Path) -> None:
        shown = text(ended, "show", "1")
        assert "state     failed\n" in shown
        assert "\ninput\n  item   1\n  index  1\n  and, shared with its siblings: items, bad, block, fixed\n" in shown
        assert shown.count("ValueError: bad item 1 (node 'split')") == 2
        assert "stdout (11 B)\n  about to 1\n" in shown
        assert "stderr (8 B)\n  careful\n" in shown
        assert "attempt" in shown

    def test_a_job_that_succeeded(self, ended: Path) -> None:
        shown = text(ended, "show", "001-split/0003-split")
        assert "state     done\n" in shown
        assert "\nchanged\n  value  6\n" in shown
        assert "tea spool replay " in shown

    def test_the_command_that_runs_it_alone_works(self, ended: Path) -> None:
        command = text(ended, "show", "3").split("\nnext\n  tea ")[1].split("  ")[0].split()
        assert "with the same result as the record" in tea_cmd(*command, cwd=ended).stdout

    def test_json(self, ended: Path) -> None:
        job = read(ended, "show", "1")
        assert [attempt["state"] for attempt in job["attempts"]] == ["failed", "failed"]
        assert (job["state"], job["input"], job["shared"]) == (
            "failed",
            {"item": 1, "index": 1},
            ["bad", "block", "fixed", "items"],
        )
        assert job["result"]["error"] == "bad item 1"
        assert job["stdout"]["tail"] == ["about to 1"]

    def test_a_big_shared_state_is_folded(self, here: Path) -> None:
        run(here, items=500, bad=())
        shown = text(here, "show", "7")
        assert "shared with its siblings (base.json): items, bad, block, fixed\n" in shown
        assert "499" not in shown

    def test_who_sent_it_back(self, here: Path) -> None:
        run(here)
        tea_cmd("resume", "--retry-failed", cwd=here)
        assert "     sent back by " in text(here, "show", "1")

    def test_while_it_runs_and_when_its_worker_is_dead(self, here: Path, start_tea: Start) -> None:
        process = start(here, start_tea)
        assert "state     running (attempt 1)\n" in text(here, "show", "2")
        process.send_signal(signal.SIGKILL)
        process.wait(240)
        wait_until(lambda: "state     to do; attempt 1 lost\n" in text(here, "show", "2"))

    def test_output_cannot_move_the_cursor(self, here: Path) -> None:
        run(here)
        (log,) = here.glob(".tea/spool/runs/*/fanouts/*/jobs/0001-*/stdout.2.log")
        log.write_bytes(b"\x1b[2Jgone\n")
        assert "?[2Jgone" in text(here, "show", "1")

    def test_inside_branches(self, here: Path) -> None:
        (here / "w.yaml").write_text(NESTED)
        tea_cmd("run", "w.yaml", cwd=here)
        assert "\nfan-outs inside\n  001-start/0001-right/001-right: 3 done\n" in text(here, "show", "1-right")

    def test_nothing_is_written_by_looking(self, ended: Path) -> None:
        spool = ended / ".tea" / "spool"
        before = sorted((str(path), path.lstat().st_mtime_ns) for path in spool.rglob("*"))
        for arguments in (("status",), ("list",), ("show", "1")):
            text(ended, *arguments)
        assert sorted((str(path), path.lstat().st_mtime_ns) for path in spool.rglob("*")) == before


class TestGraph:
    @pytest.mark.parametrize(
        ("form", "head"), [("ascii", "╭"), ("mermaid", "flowchart"), ("dot", "digraph"), ("svg", "<svg")]
    )
    def test_formats(self, here: Path, form: str, head: str) -> None:
        done = tea_cmd("graph", "w.yaml", "--format", form, cwd=here, env={"PYTHONIOENCODING": "utf-8"})
        assert done.returncode == 0
        assert done.stdout.lstrip().startswith(head)
        tea_cmd("graph", "w.yaml", "--format", form, "-o", "out", cwd=here)
        assert (here / "out").read_text() == done.stdout

    def test_a_terminal_without_box_drawing(self, here: Path) -> None:
        done = tea_cmd("graph", "w.yaml", cwd=here, env={"PYTHONIOENCODING": "ascii"})
        assert done.stdout.isascii()
        assert "| start |" in done.stdout

    def test_a_workflow_with_mistakes(self, here: Path) -> None:
        (here / "w.yaml").write_text("nodes: 3\n")
        done = tea_cmd("graph", "w.yaml", cwd=here)
        assert done.returncode == 2
        assert "w.yaml:1:" in done.stderr
