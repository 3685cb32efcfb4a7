"""What the tests of the spool share: a fan-out with jobs in it, results, claimants, processes that do things."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from spool import job as jobs
from spool import jsonio
from spool.attempts import Outcome, Policy
from spool.job import JobRecord
from spool.layout import FORMAT, FanOutFiles, JobFiles, SpoolFiles, job_name
from spool.making import JobSpec, JobWriter
from spool.run import create_fanout, create_run, open_spool
from tests.support import ROOT, clean_env

ALICE = "alice@here:11:aaaaaaaa"
BOB = "bob@there:22:bbbbbbbb"


class Bench:
    """A spool with one run and one fan-out in it."""

    def __init__(self, path: Path | str) -> None:
        self.spool: SpoolFiles = open_spool(str(path))
        self.run = create_run(self.spool, "test", {}, b"name: test\n")
        self.fanout: FanOutFiles = create_fanout(self.run.fanouts, 1, "split")

    def writer(self, policy: Policy | None = None, base: bytes = b"{}", total: int = 1) -> JobWriter:
        common = {"exit": "join", "policy": (policy or Policy()).to_json(), "format": FORMAT}
        return JobWriter(self.fanout, base, {"branch": b"name: branch\n"}, common)

    def jobs(self, count: int = 1, policy: Policy | None = None, base: bytes = b"{}") -> list[JobFiles]:
        """Make this many jobs."""
        writer = self.writer(policy, base)
        made = [spec(i, count) for i in range(count)]
        for one in made:
            writer.create(one)
        return [self.fanout.job(one.name) for one in made]

    def job(self, policy: Policy | None = None) -> tuple[JobFiles, JobRecord]:
        """Make one job."""
        [job] = self.jobs(1, policy)
        return job, jobs.read_job(job)

    def tickets(self) -> dict[str, list[str]]:
        """Which tickets lie where."""
        kinds = ("todo", "done", "failed", "cancelled")
        return {kind: names for kind in kinds if (names := sorted(os.listdir(self.fanout.tickets(kind))))}


def spec(index: int, total: int = 1, **more: Any) -> JobSpec:
    name = job_name(index, total, "branch")
    own = jsonio.dumps({"item": index})
    return JobSpec(name, index, "branch", "first", own, **{"workflow": "branch", **more})


def result(
    job: JobFiles, record: JobRecord, attempt: int, outcome: Outcome = Outcome.SUCCEEDED, **more: Any
) -> dict[str, Any]:
    """The result of an attempt, as a worker writes it."""
    plain = {
        "job": job.name,
        "attempt": attempt,
        "input_sha256": record.input_sha256,
        "outcome": outcome.value,
        "success": outcome is Outcome.SUCCEEDED,
        "spent": 0.0,
    }
    return {**plain, **more}


def nobody(_claimant: str) -> bool:
    """All claimants are dead."""
    return False


def everybody(_claimant: str) -> bool:
    """All claimants live."""
    return True


def leftovers(folder: str | Path) -> list[str]:
    """Temporary files in a folder and below."""
    return sorted(
        f"{where}/{name}" for where, _, names in os.walk(folder) for name in names if name.startswith(".tmp-")
    )


def python(code: str, *args: str, **options: Any) -> subprocess.Popen[str]:
    """Start a Python process on some code; `sys.argv[1:]` are the arguments."""
    for stream in ("stdin", "stdout"):
        options.setdefault(stream, subprocess.PIPE)
    argv = [*options.pop("before", ()), sys.executable, "-c", code, *args]
    return subprocess.Popen(argv, text=True, cwd=ROOT, env=clean_env(), **options)


def line(process: subprocess.Popen[str]) -> str:
    """The next line that a process prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def in_fork(action: Callable[[], Any]) -> str:
    """Run an action in a forked child and return the repr of what it returned or raised."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            try:
                text = repr(action())
            except BaseException as error:
                text = f"{type(error).__name__}: {error}"
            os.write(write, text.encode()[:60000])
        finally:
            os._exit(0)
    os.close(write)
    with open(read, encoding="utf-8") as file:
        text = file.read()
    os.waitpid(pid, 0)
    return text


def as_user(uid: int, action: Callable[[], Any]) -> str:
    """Run an action as another user (we must be root), see `in_fork`."""

    def switched() -> Any:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        return action()

    return in_fork(switched)


def raises_errno(number: int, times: int | None = None) -> Callable[..., None]:
    """A system call that fails with this number."""

    def call(*args: Any, **_: Any) -> None:
        raise OSError(number, os.strerror(number), args[0] if args else None)

    return call


def together(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Wait for all to say that they are ready, then let all go at once."""
    for process in processes:
        assert line(process) == "ready"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
