"""What the tests of faults share: a folder with a workflow in it, its runs as files, its processes, file systems.

Jobs write what they do into one append-only log, so that a test can count how often each was run.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support import cannot, children_of, clean_env, command_of, is_running, tea_argv, tea_cmd, wait_until

NOTE = """
import os
def note(what):
    fd = os.open(state["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, f"{what} {state.get('item', '-')} {os.getpid()}\\n".encode())
    os.close(fd)
"""
"""Python for the beginning of a node: `note("begin")` appends a line to the log."""

HELD = (
    NOTE
    + """
import time
note("begin")
end = time.monotonic() + 600
while os.path.exists(f"{state['log']}.hold") and time.monotonic() < end:
    time.sleep(0.005)
note("end")
return {"value": state["item"] * 2}
"""
)
"""A node that runs as long as the test wants: until `Place.let_go`."""

SUM = 'return {"total": sum(r.state["value"] for r in parallel_results if r.success), "log": None, "items": None}'


_BE_HOST = 'echo "$0" > /proc/sys/kernel/hostname && exec "$@"'


def need(program: str) -> str:
    """The path of a program, without which a test cannot be done."""
    found = shutil.which(program)
    if found is None:
        cannot(f"there is no {program}")
    return found


def as_root(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as root, also for somebody else who may without being asked; skip the test where that fails."""
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if sudo and shutil.which("sudo") is None:
        cannot(f"not root, and no sudo, for {' '.join(words)}")
    done = subprocess.run([*sudo, *words], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        cannot(f"{' '.join(words)}: {done.stderr.strip()}")
    return done


class Place:
    """A folder with a workflow, a spool and a log."""

    def __init__(self, folder: Path, spool: Path | None = None) -> None:
        self.folder, self.log = folder, folder / "log"
        self.spool = spool or folder / "spool"
        self.started: list[subprocess.Popen[str]] = []

    # -- the workflow --------------------------------------------------------------------------------------------

    def write(self, workflow: Mapping[str, Any]) -> None:
        (self.folder / "w.yaml").write_text(yaml.safe_dump(dict(workflow), sort_keys=False))

    def fan_out(
        self, body: str = HELD, last: str = SUM, *, spool: Mapping[str, Any] | None = None, **parallel: Any
    ) -> None:
        """The usual workflow: `work` runs `body` for each of `state.items` into `add`.

        The lease is so long that nobody can be given up for dead by it, but in tests that set another.
        """
        settings: dict[str, Any] = {"parallel": {"strategy": "process", "max_workers": 2, **parallel}}
        settings["spool"] = {"lease_duration": 3600, **(spool or {})}
        work = {"name": "work", "strategy": {"parallel_each": "{{ state['items'] }}"}, "fan_in": "add", "run": body}
        self.write({"name": "t", "settings": settings, "nodes": [work, {"name": "add", "fan_in": True, "run": last}]})

    # -- processes -----------------------------------------------------------------------------------------------

    def input(self, items: Any = 2, **more: Any) -> list[str]:
        listed = list(range(items)) if isinstance(items, int) else items
        return ["--input", json.dumps({"log": str(self.log), "items": listed, **more})]

    def start(self, *arguments: str, host: str | None = None, **options: Any) -> subprocess.Popen[str]:
        """Start `tea ARGUMENTS` here, or as if on a host of that name (as root only); the fixture ends it."""
        options["env"] = {**clean_env(options.get("env")), "TEA_SPOOL": str(self.spool)}
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        options.setdefault("cwd", self.folder)
        there = [] if host is None else ["unshare", "--uts", "sh", "-c", _BE_HOST, host]
        process = subprocess.Popen([*there, *tea_argv(*arguments)], text=True, **options)
        self.started.append(process)
        return process

    def run(self, items: Any = 2, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        """Start `tea run`."""
        return self.start("run", "w.yaml", *self.input(items, **more), *arguments)

    def tea(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run `tea ARGUMENTS` to its end."""
        env = {"TEA_SPOOL": str(self.spool), **options.pop("env", {})}
        return tea_cmd(*arguments, cwd=self.folder, env=env, **options)

    def resume(self, *arguments: str) -> dict[str, Any]:
        """`tea resume`, which must succeed; the final state."""
        done = self.tea("resume", *arguments)
        assert done.returncode == 0, done.stderr
        state: dict[str, Any] = json.loads(done.stdout)
        return state

    def end(self) -> None:
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait(240)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    def crash(self, process: subprocess.Popen[str]) -> None:
        """SIGKILL, and wait until all that ran jobs for it have ended, too."""
        process.kill()
        process.wait(240)
        wait_until(lambda: not any(is_running(pid) for _, _, pid in self.lines()), what="the end of its jobs")

    # -- the jobs' log -------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Jobs that run HELD wait."""
        Path(f"{self.log}.hold").touch()

    def let_go(self) -> None:
        Path(f"{self.log}.hold").unlink(missing_ok=True)

    def lines(self) -> list[tuple[str, str, int]]:
        """The log: what, which item, by which process."""
        try:
            words = [line.split() for line in self.log.read_text().split("\n")[:-1]]  # one may be half there
        except FileNotFoundError:
            return []
        return [(what, item, int(pid)) for what, item, pid in words]

    def noted(self, what: str) -> Counter[str]:
        """How often each item wrote this line."""
        return Counter(item for kind, item, _ in self.lines() if kind == what)

    def wait_for(self, what: str, count: int = 1, timeout: float = 240) -> list[int]:
        """Wait until so many lines of this kind are there; the processes that wrote them."""
        lines = lambda: [pid for kind, _, pid in self.lines() if kind == what]  # noqa: E731
        wait_until(lambda: len(lines()) >= count, timeout, f"{count} times '{what}' in the log")
        return lines()

    # -- the spool -----------------------------------------------------------------------------------------------

    def jobs(self) -> list[Path]:
        """The job directories, those inside others too."""
        return sorted(path.parent for path in self.spool.glob("runs/**/job.json"))

    def only_run(self) -> Path:
        [run] = self.spool.glob("runs/*")
        return run

    def results(self) -> list[dict[str, Any]]:
        """The accepted results, in order; a job without one fails the test."""
        return [json.loads((job / "result.json").read_bytes()) for job in self.jobs()]

    def todo(self) -> list[str]:
        return [path.name for path in self.spool.glob("runs/*/fanouts/*/todo/*")]


def ended(process: subprocess.Popen[str], code: int | None = 0, timeout: float = 240) -> tuple[str, str]:
    """Wait for the end of a process; what it printed."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"still running after {timeout:g} s; it printed {out!r} and {err!r}") from None
    assert code is None or process.returncode == code, f"exit code {process.returncode}: {err}"
    return out, err


def hang_up(worker: subprocess.Popen[str]) -> None:
    """Close the pipe to a worker's stdin, which ends it, and wait for that."""
    assert worker.stdin is not None
    worker.stdin.close()
    worker.stdin = None
    ended(worker)


def final(process: subprocess.Popen[str], timeout: float = 240) -> dict[str, Any]:
    """The final state of a run that must succeed."""
    state: dict[str, Any] = json.loads(ended(process, 0, timeout)[0])
    return state


def kill(process: subprocess.Popen[str] | int, number: int = signal.SIGKILL) -> None:
    """A signal to a process, which must be there."""
    os.kill(process if isinstance(process, int) else process.pid, number)


def family(process: subprocess.Popen[str]) -> set[int]:
    """The processes below this one, but for the helpers of multiprocessing."""
    return {pid for pid in children_of(process.pid) if command_of(pid)}


def debris(spool: Path) -> list[str]:
    """What must not be left in a spool: temporary files, reservations."""
    kinds = (".tmp-*", ".reserved-*")
    return sorted(str(path.relative_to(spool)) for kind in kinds for path in spool.rglob(kind))


@contextlib.contextmanager
def small_disk(path: Path, options: str) -> Iterator[Path]:
    """A tmpfs of this user at `path`."""
    path.mkdir(exist_ok=True)
    as_root(
        "mount", "-t", "tmpfs", "-o", f"mode=700,uid={os.geteuid()},gid={os.getegid()},{options}", "none", str(path)
    )
    try:
        yield path
    finally:
        as_root("umount", "-l", str(path))
