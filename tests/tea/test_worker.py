"""`tea worker`: real processes that serve a spool."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from spool.errors import SpoolError
from spool.run import open_spool
from tea import YAMLEngine
from tea.worker import work
from tests.support import children_of, is_running, tea_cmd, wait_until

pytestmark = pytest.mark.usefixtures("no_leftovers")


def graph(strategy: str, code: str, items: list[Any], **settings: Any) -> Any:
    nodes = [
        {"name": "each", "strategy": {"parallel_each": items}, "run": code, "fan_in": "join"},
        {"name": "join", "fan_in": True, "run": "return {'got': [r.get('v') for r in parallel_results]}"},
    ]
    parallel = {"strategy": strategy, "grace_seconds": 0.2, **settings}
    return YAMLEngine().load_from_dict({"name": "w", "settings": {"parallel": parallel}, "nodes": nodes})


class Coordinator(threading.Thread):
    """A run that waits for workers."""

    def __init__(self, made: Any, spool: Path) -> None:
        super().__init__(daemon=True)
        self.made, self.spool, self.last = made, spool, {}

    def run(self) -> None:
        *_, self.last = self.made.invoke({}, {"spool": str(self.spool)})

    def wait_for_jobs(self, count: int) -> None:
        wait_until(lambda: len(list(self.spool.glob("runs/*/fanouts/*/todo/*"))) == count)

    @property
    def got(self) -> Any:
        self.join(240)
        assert self.last["type"] == "final", self.last
        return self.last["state"]["got"]


def test_a_spool_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="no spool here"):
        work(str(tmp_path))
    done = tea_cmd("worker", tmp_path / "nothing")
    assert done.returncode != 0
    assert "no spool here" in done.stderr


def test_an_empty_spool_is_done_at_once(spool_dir: Path) -> None:
    open_spool(str(spool_dir))
    done = tea_cmd("worker", spool_dir)
    assert (done.returncode, done.stderr.strip().splitlines()[-1]) == (0, "tea: ran 0 jobs")


@pytest.mark.parametrize("slots", [1, 3])
def test_it_runs_what_is_there_and_ends(spool_dir: Path, slots: int) -> None:
    run = Coordinator(graph("workers", "return {'v': state['item'] * 2}", list(range(10))), spool_dir)
    run.start()
    run.wait_for_jobs(10)
    done = tea_cmd("worker", spool_dir, "--slots", str(slots))
    assert done.returncode == 0, done.stderr
    assert "ran 10 jobs" in done.stderr
    assert run.got == [i * 2 for i in range(10)]


@pytest.mark.parametrize("name", ["fanout.json", "run.json"])
def test_jobs_whose_files_cannot_be_trusted_are_told(spool_dir: Path, name: str) -> None:
    run = Coordinator(graph("workers", "return {'v': 1}", [1]), spool_dir)
    run.start()
    run.wait_for_jobs(1)
    (path,) = (path for path in spool_dir.rglob(name) if "workers" not in path.parts)
    whole = path.read_text()
    path.write_text("{")
    done = tea_cmd("worker", spool_dir)
    assert done.returncode == 0
    assert done.stderr.count(f"warning: {path}: unreadable, not JSON") == 1
    assert "its jobs are passed over" in done.stderr
    path.write_text(whole)
    assert tea_cmd("worker", spool_dir).returncode == 0
    assert run.got == [1]


def test_jobs_of_a_coordinators_threads_are_left_alone(spool_dir: Path, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    code = f"import os, time\nwhile not os.path.exists({str(flag)!r}):\n    time.sleep(0.01)\nreturn {{'v': 1}}"
    run = Coordinator(graph("thread", code, [1]), spool_dir)
    run.start()
    run.wait_for_jobs(1)
    done = tea_cmd("worker", spool_dir)
    assert "ran 0 jobs" in done.stderr
    flag.touch()
    assert run.got == [1]


def test_it_follows(spool_dir: Path, start_tea: Any) -> None:
    open_spool(str(spool_dir))
    worker = start_tea("worker", spool_dir, "--follow")
    for number in (1, 2):
        run = Coordinator(graph("workers", "return {'v': state['item']}", [number]), spool_dir)
        run.start()
        assert run.got == [number]
    assert worker.poll() is None


def test_it_ends_with_its_parent_and_takes_its_jobs_along(spool_dir: Path, tmp_path: Path, start_tea: Any) -> None:
    """Its stdin is a pipe whose other end closes."""
    pids = tmp_path / "pid"
    code = (
        f"import os, time\nopen({str(pids)!r}, 'a').write(f'{{os.getpid()}} ')\n"
        f"if len(open({str(pids)!r}).read().split()) == 1:\n    time.sleep(600)\nreturn {{'v': 1}}"
    )
    run = Coordinator(graph("workers", code, [1]), spool_dir)
    run.start()
    run.wait_for_jobs(1)
    worker = start_tea("worker", spool_dir, "--follow")
    slot = int(wait_until(lambda: pids.exists() and pids.read_text().split())[0])
    worker.stdin.close()
    worker.wait(240)
    wait_until(lambda: not is_running(slot))
    tea_cmd("worker", spool_dir)  # the job runs again, elsewhere
    assert run.got == [1], run.last["state"]["parallel_results"]


def test_a_worker_that_is_killed_loses_nothing(spool_dir: Path, tmp_path: Path, start_tea: Any) -> None:
    pids = tmp_path / "pid"
    code = (
        f"import os, time\nopen({str(pids)!r}, 'a').write(f'{{os.getpid()}} ')\n"
        f"if len(open({str(pids)!r}).read().split()) == 1:\n    time.sleep(600)\nreturn {{'v': state['item']}}"
    )
    run = Coordinator(graph("workers", code, [1, 2, 3]), spool_dir)
    run.start()
    run.wait_for_jobs(3)
    worker = start_tea("worker", spool_dir)
    wait_until(lambda: pids.exists() and pids.read_text())
    family = children_of(worker.pid)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait(240)
    wait_until(lambda: not any(map(is_running, family)))
    tea_cmd("worker", spool_dir)
    assert run.got == [1, 2, 3]


def claimed_elsewhere(spool: Path, lease: float) -> Path:
    """The only job is in the hands of a worker of another host that does not beat; the worker's folder."""
    folder = spool / "workers" / "elsewhere-7-00aa00aa00aa"
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    record = {"host": "elsewhere", "machine": "m", "boot_id": "b", "pid": 7, "user": "u", "lease": lease}
    (folder / "worker.json").write_text(json.dumps(record))
    (folder / "beat").write_text("1\n")
    (job,) = spool.glob("runs/*/fanouts/*/jobs/*")
    (job / "claim.1").symlink_to("u@elsewhere:7:00aa00aa00aa")
    return folder


def test_a_worker_without_other_work_outstays_the_lease_of_a_dead_one(spool_dir: Path) -> None:
    run = Coordinator(graph("workers", "return {'v': 1}", [1]), spool_dir)
    run.start()
    run.wait_for_jobs(1)
    claimed_elsewhere(spool_dir, lease=4)
    assert tea_cmd("worker", spool_dir).returncode == 0
    assert run.got == [1]
    assert len(list(spool_dir.glob("runs/*/fanouts/*/jobs/*/claim.*"))) == 2


def test_a_worker_without_other_work_outstays_a_back_off(spool_dir: Path, tmp_path: Path) -> None:
    code = (
        f"import os\ntried = {str(tmp_path / 'tried')!r}\n"
        "if not os.path.exists(tried):\n    os.mkdir(tried)\n    raise OSError('once')\nreturn {'v': 1}"
    )
    run = Coordinator(graph("workers", code, [1], retry={"max_retries": 1, "base_delay": 4}), spool_dir)
    run.start()
    run.wait_for_jobs(1)
    assert tea_cmd("worker", spool_dir).returncode == 0
    assert run.got == [1]


def test_an_older_fan_out_in_the_hands_of_others_keeps_nobody_from_the_next(spool_dir: Path, start_tea: Any) -> None:
    old = Coordinator(graph("workers", "return {'v': 1}", [1]), spool_dir)
    old.start()
    old.wait_for_jobs(1)
    elsewhere = claimed_elsewhere(spool_dir, lease=600)
    worker = start_tea("worker", spool_dir, "--follow")
    wait_until(lambda: len(list(spool_dir.glob("workers/*/now"))) > 1)  # its slot stays with the older one
    begun = int(time.time())
    wait_until(lambda: int(time.time()) > begun)  # runs are named after the second in which they begin
    new = Coordinator(graph("workers", "return {'v': 2}", [1]), spool_dir)
    new.start()
    assert new.got == [2]
    shutil.rmtree(elsewhere)  # who has no folder has ended
    assert old.got == [1]
    worker.stdin.close()
    worker.wait(240)


def test_deadlines_are_kept_by_the_worker(spool_dir: Path) -> None:
    run = Coordinator(graph("workers", "import time\ntime.sleep(600)", [1], timeout_seconds=0.3), spool_dir)
    run.start()
    run.wait_for_jobs(1)
    tea_cmd("worker", spool_dir)
    assert run.got == [None]
    (result,) = run.last["state"]["parallel_results"]
    assert (result.outcome, result.error) == ("timed_out", "Flow timed out after 0.3s")
    record = json.loads((Path(result.job) / "result.json").read_bytes())
    assert record["outcome"] == "timed_out"


def test_a_job_that_was_cancelled_meanwhile_is_ended(spool_dir: Path, tmp_path: Path, start_tea: Any) -> None:
    """By its coordinator, whose fail-fast found a failure: the slot is free for others again."""
    pids = tmp_path / "pid"
    code = (
        f"import os, time\nif state['item']:\n    open({str(pids)!r}, 'w').write(str(os.getpid()))\n"
        f"    time.sleep(600)\nwhile not (os.path.exists({str(pids)!r}) and os.path.getsize({str(pids)!r})):\n"
        "    time.sleep(0.01)\nraise OSError"
    )
    open_spool(str(spool_dir))
    start_tea("worker", spool_dir, "--follow", "--slots", "2")
    run = Coordinator(graph("workers", code, [0, 1], fail_fast=True), spool_dir)
    run.start()
    assert run.got == [None, None]
    assert [result.outcome for result in run.last["state"]["parallel_results"]] == ["failed", "cancelled"]
    slot = int(pids.read_text())
    wait_until(lambda: not is_running(slot))


def test_the_coordinator_says_when_nobody_works(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from executors import workers as module

    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    made = graph("workers", "return {'v': 1}", [1, 2])
    said: list[str] = []
    monkeypatch.setattr(made.logger, "warning", lambda text, *_: said.append(str(text)))
    run = Coordinator(made, spool_dir)
    run.start()
    wait_until(lambda: said)
    assert f"nobody works on {spool_dir}: 2 jobs wait" in said[0]
    assert f"tea worker {spool_dir}" in said[0]
    tea_cmd("worker", spool_dir)
    assert run.got == [1, 1]
