"""Chaos: workflows whose processes are killed and frozen at random moments, resumed until they end.

    python -m tests.faults.chaos --seeds 200 [--first 0] [--at-once 2]

A seed decides everything that can be decided: the kind of workflow, what is done to whom, and when. Afterwards:

- every job has one accepted result, that of its newest attempt, and the sum over them is right;
- no job was begun more often than it was made, failed, or lost its worker;
- no process is left, and no temporary file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.faults.kit import NOTE, SUM, Place, debris
from tests.support import command_of, is_running, kill_all, marked_with, wait_until

JOBS = 60
GROUPS = 6
LEASE = 1.0

BODY = (
    NOTE
    + """
import time
item = state["item"]
note("begin")
time.sleep(item % 5 * 0.01)
if item % 20 == 7:
    note("failed")
    raise ValueError("it always does")
if item % 10 == 3 and f"failed {item} " not in open(state["log"]).read():
    note("failed")
    raise RuntimeError("the first time")
note("end")
return {"value": item * item}
"""
)
BAD = {item for item in range(JOBS) if item % 20 == 7}
TOTAL = sum(item * item for item in range(JOBS) if item not in BAD)

KINDS = ("process", "workers", "nested", "edges", "thread", "hosts")
"""`hosts`: `workers` whose processes seem to be of other hosts; what they say of themselves is all that tells."""

HOSTS = ("north", "south", None) if os.geteuid() == 0 else (None,)
"""Where a process of the kind `hosts` may be; None is this host."""


def workflow(kind: str) -> dict[str, Any]:
    """The workflow of a kind; each begins `JOBS` jobs that run BODY, and adds up what they give."""
    settings = {
        "parallel": {
            "strategy": {"nested": "process", "edges": "process", "hosts": "workers"}.get(kind, kind),
            "max_workers": 2,
            "max_lost": 1000,
            "grace_seconds": 1,
            "retry": {"max_retries": 1, "base_delay": 0.02},
        },
        "spool": {"lease_duration": LEASE},
    }
    add = {"name": "add", "fan_in": True, "run": SUM}
    if kind == "nested":
        inner = {"name": "inner", "settings": settings, "nodes": [_each("inner", "sum"), {**add, "name": "sum"}]}
        groups = {
            "name": "groups",
            "strategy": {"parallel_each": "{{ range(state.groups) | list }}"},
            "fan_in": "add",
            "subgraph": inner,
            "input": {"log": "{{ state.log }}", "items": "{{ range(item * 10, item * 10 + 10) | list }}"},
        }
        last = {**add, "run": SUM.replace('"value"', '"total"')}
        return {"name": "nested", "settings": settings, "nodes": [groups, last]}
    if kind == "edges":
        return _edges(settings)
    return {"name": kind, "settings": settings, "nodes": [_each("work", "add"), add]}


def _each(name: str, fan_in: str) -> dict[str, Any]:
    return {"name": name, "strategy": {"parallel_each": "{{ state['items'] }}"}, "fan_in": fan_in, "run": BODY}


def _edges(settings: dict[str, Any]) -> dict[str, Any]:
    """Branches that are chains, each with a fan-out over data of its own; threads inside processes."""
    nodes: list[dict[str, Any]] = [{"name": "src"}]
    edges: list[dict[str, Any]] = [
        {"from": "src", "to": [f"b{i}" for i in range(GROUPS)], "parallel": True, "fan_in": "add"}
    ]
    for i in range(GROUPS):
        pick = f"return {{'items': list(range({i} * 10, {i} * 10 + 10))}}"
        each = {**_each(f"each{i}", f"sum{i}"), "parallel_strategy": "thread"}
        total = 'return {"value": sum(r.state["value"] for r in parallel_results if r.success)}'
        nodes += [{"name": f"b{i}", "run": pick}, each, {"name": f"sum{i}", "fan_in": True, "run": total}]
        edges += [{"from": f"b{i}", "to": f"each{i}"}, {"from": f"sum{i}", "to": "add"}]
    nodes.append({"name": "add", "fan_in": True, "run": SUM})
    edges += [{"from": "__start__", "to": "src"}, {"from": "add", "to": "__end__"}]
    return {"name": "edges", "settings": settings, "nodes": nodes, "edges": edges}


class Story:
    """What happens with one seed."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.random = random.Random(seed)
        self.kind = KINDS[seed % len(KINDS)]
        self.mark = f"chaos-{uuid.uuid4().hex}"
        self.place = Place(folder)
        self.place.write(workflow(self.kind))
        self.coordinator: subprocess.Popen[str] | None = None
        self.workers: list[subprocess.Popen[str]] = []
        self.frozen: list[tuple[float, int]] = []
        self.deaths = 0
        self.told: list[str] = []

    def play(self) -> None:
        """Let it happen, and check what came of it. Raises AssertionError."""
        try:
            self._drive()
            self._check()
        except BaseException:
            self.told.append("the end")
            raise
        finally:
            self._thaw(time.monotonic() + 1e9)
            kill_all(marked_with(self.mark))
            self.place.end()

    # -- what happens --------------------------------------------------------------------------------------------

    def _drive(self) -> None:
        for _ in range(self.random.randint(2, 7)):
            self._keep_going()
            self._wait_for_a_moment()
            self._do_something()
        self._thaw(time.monotonic() + 1e9)
        deadline = time.monotonic() + 240
        while not self._done():
            assert time.monotonic() < deadline, "the run does not end"
            self._keep_going()
            time.sleep(0.01)
        for worker in self.workers:
            assert worker.stdin is not None
            worker.stdin.close()
        for worker in self.workers:
            worker.wait(240)

    def _keep_going(self) -> None:
        """Whoever is missing is started again."""
        if self.coordinator is None or (self.coordinator.poll() is not None and not self._done()):
            self._begin()
        if self.kind in ("workers", "hosts") and (self.place.spool / "spool.json").exists():
            self.workers = [worker for worker in self.workers if worker.poll() is None]
            while len(self.workers) < 2:
                self.workers.append(self._tea("worker", "--follow", stdin=subprocess.PIPE))

    def _begin(self) -> None:
        if self.coordinator is not None and self.coordinator.returncode not in (-signal.SIGKILL,):
            raise AssertionError(f"ended with {self.coordinator.returncode}: {self._said()}")
        if self._run() is None:
            shutil.rmtree(self.place.spool / "runs", ignore_errors=True)
            given = {"groups": GROUPS} if self.kind == "nested" else {}
            self.coordinator = self._tea("run", "w.yaml", *self.place.input(JOBS, **given))
        else:
            self.coordinator = self._tea("resume")

    def _tea(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        self.told.append(" ".join(arguments[:1]))
        err = open(self.place.folder / "stderr", "a")  # noqa: SIM115
        try:
            host = self.random.choice(HOSTS) if self.kind == "hosts" else None
            return self.place.start(*arguments, host=host, env={"CHAOS": self.mark}, stderr=err, **options)
        finally:
            err.close()

    def _said(self) -> str:
        return (self.place.folder / "stderr").read_text()[-3000:]

    def _run(self) -> Path | None:
        runs = sorted(self.place.spool.glob("runs/*/run.json"))
        return runs[-1].parent if runs else None

    def _done(self) -> bool:
        return self.coordinator is not None and self.coordinator.poll() == 0

    def _wait_for_a_moment(self) -> None:
        """Some time, or until the jobs have got so far."""
        begun, patience = time.monotonic(), self.random.uniform(0.0, 1.0)
        lines = self.random.randrange(2 * JOBS + 20) if self.random.random() < 0.7 else None
        while not self._done():
            self._thaw(time.monotonic())
            waited = time.monotonic() - begun
            if lines is None and waited >= patience:
                return
            if lines is not None and (len(self.place.lines()) >= lines or waited > 10):
                return
            if self.coordinator is not None and self.coordinator.poll() is not None:
                return
            time.sleep(0.002)

    def _do_something(self) -> None:
        if self._done():
            return
        deeds: list[tuple[Callable[[], None], int]] = [
            (self._kill_coordinator, 8),
            (self._kill_slot, 7),
            (self._freeze_slot, 4),
            (self._freeze_coordinator, 1),
            (self._kill_server, 1),
            (self._kill_everything, 2),
        ]
        if self.workers:
            deeds.append((self._kill_worker, 5))
        [deed] = self.random.choices([deed for deed, _ in deeds], [weight for _, weight in deeds])
        self.told.append(deed.__name__.strip("_"))
        deed()

    def _slots(self) -> list[int]:
        """The processes that run jobs."""
        known = {process.pid for process in [*self.workers, self.coordinator] if process is not None}
        found = []
        for path in self.place.spool.glob("workers/*/worker.json"):
            try:
                pid = int(json.loads(path.read_bytes())["pid"])
            except (OSError, ValueError):
                continue
            if pid not in known and self._is_ours(pid):
                found.append(pid)
        return sorted(found)

    def _is_ours(self, pid: int) -> bool:
        try:
            return self.mark.encode() in Path(f"/proc/{pid}/environ").read_bytes() and is_running(pid)
        except OSError:
            return False

    def _kill_coordinator(self) -> None:
        assert self.coordinator is not None
        self.deaths += len(self._slots()) + (3 * GROUPS if self.kind in ("edges", "thread") else 3)
        self.coordinator.kill()
        self.coordinator.wait(240)

    def _kill_slot(self) -> None:
        if slots := self._slots():
            self.deaths += self._lost_with_a_slot()
            kill_all([self.random.choice(slots)])

    def _lost_with_a_slot(self) -> int:
        """How many jobs run below one slot: those of its own slots or threads when it fans out again."""
        return {"nested": 3, "edges": 3}.get(self.kind, 1)

    def _freeze_slot(self) -> None:
        if slots := self._slots():
            self.deaths += self._lost_with_a_slot()
            self._freeze(self.random.choice(slots))

    def _freeze_coordinator(self) -> None:
        assert self.coordinator is not None
        self._freeze(self.coordinator.pid)

    def _freeze(self, pid: int) -> None:
        try:
            os.kill(pid, signal.SIGSTOP)
        except ProcessLookupError:
            return
        self.frozen.append((time.monotonic() + self.random.uniform(0.05, 2.5 * LEASE), pid))

    def _thaw(self, now: float) -> None:
        for due, pid in self.frozen:
            if due <= now and self._is_ours(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        self.frozen = [(due, pid) for due, pid in self.frozen if due > now]

    def _kill_server(self) -> None:
        """The process that slots are forked from; they go with it."""
        servers = [pid for pid in marked_with(self.mark) if "forkserver" in command_of(pid)]
        slots = self._slots()
        if servers := [pid for pid in servers if pid not in slots]:
            self.deaths += len(slots) + 4
            kill_all([self.random.choice(servers)])

    def _kill_everything(self) -> None:
        assert self.coordinator is not None
        slots = self._slots()
        self.deaths += (len(slots) + 4) * self._lost_with_a_slot()
        kill_all([*slots, self.coordinator.pid])
        self.coordinator.wait(240)

    def _kill_worker(self) -> None:
        worker = self.random.choice(self.workers)
        self.deaths += 1
        worker.kill()
        worker.wait(240)

    # -- what came of it -----------------------------------------------------------------------------------------

    def _check(self) -> None:
        assert self.coordinator is not None
        assert self.coordinator.stdout is not None
        assert json.loads(self.coordinator.stdout.read())["total"] == TOTAL
        run = self._run()
        assert run is not None
        for path in sorted(run.rglob("job.json")):
            _check_job(path.parent)
        self._check_executions()
        wait_until(lambda: not marked_with(self.mark), what=f"the end of {self._left()}")
        left = debris(self.place.spool)
        assert left == [], f"left: {left}"
        assert sorted(self.place.spool.glob("runs/*/fanouts/*/todo/*")) == []

    def _left(self) -> list[str]:
        return [f"{pid} {command_of(pid)}" for pid in marked_with(self.mark)]

    def _check_executions(self) -> None:
        begun, failed = self.place.noted("begin"), self.place.noted("failed")
        assert set(begun) == {str(item) for item in range(JOBS)}
        most = JOBS + failed.total() + self.deaths
        assert begun.total() <= most, f"{begun.total()} executions, at most {most} were to be expected"


def _check_job(job: Path) -> None:
    """One accepted result, of the newest attempt; nothing was begun after it."""
    names = os.listdir(job)
    accepted = json.loads((job / "result.json").read_bytes())
    claims = sorted(int(name[6:]) for name in names if name.startswith("claim."))
    assert accepted["attempt"] == claims[-1], f"{job}: {accepted['attempt']} was accepted, {claims} were claimed"
    assert (job / f"result.{accepted['attempt']}.json").read_bytes() == (job / "result.json").read_bytes(), job
    fanout = job.parent.parent
    kinds = [kind for kind in ("todo", "done", "failed", "cancelled") if (fanout / kind / job.name).exists()]
    assert kinds == [{"succeeded": "done"}.get(accepted["outcome"], "failed")], f"{job}: {kinds}"
    assert accepted["outcome"] in ("succeeded", "failed"), f"{job}: {accepted}"


def play(seed: int, folder: Path) -> Story:
    """Play one seed in a folder."""
    story = Story(seed, folder)
    try:
        story.play()
    except BaseException as error:
        error.add_note(f"seed {seed} ({story.kind}): {', '.join(story.told)}\n{story._said()}")
        raise
    return story


def _one(seed: int, keep: Path | None) -> str | None:
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
    try:
        play(seed, folder)
    except BaseException as error:
        if keep is not None:
            shutil.copytree(folder, keep / str(seed), symlinks=True, dirs_exist_ok=True)
        return "".join(traceback.format_exception(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill and freeze workflows at random moments.")
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--at-once", type=int, default=2, help="how many at the same time")
    parser.add_argument("--keep", type=Path, help="a folder for the spools of seeds that failed")
    given = parser.parse_args()
    seeds = range(given.first, given.first + given.seeds)
    failed = 0
    with ThreadPoolExecutor(given.at_once) as pool:
        for seed, error in zip(seeds, pool.map(lambda seed: _one(seed, given.keep), seeds), strict=True):
            failed += error is not None
            print(f"seed {seed}: {error or 'ok'}", flush=True)
    print(f"{len(seeds)} seeds, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
