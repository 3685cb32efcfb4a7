"""Hosts for the tests of the strategy `remote`: real sshd, real ssh."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests import sshd, support


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.ssh)


class Farm:
    """Hosts, a workflow that is spread over them, and its spool."""

    def __init__(self, hosts: sshd.Hosts, folder: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
        self.hosts, self.folder, self._start = hosts, folder, start
        self.env = {"TEA_SSH_CONFIG": str(hosts.config)}
        self.spool = folder / "spool"
        self.settings: dict[str, Any] = {}
        self.remote: dict[str, Any] = {}

    def host(self, alias: str, *lines: str, slots: int = 2, known: bool = True, **settings: Any) -> sshd.Host:
        """One more host, with lines of sshd_config and settings of its own."""
        host = self.hosts.add(alias, *lines, known=known)
        self.use(alias, slots=slots, workdir=str(host.workdir), **settings)
        return host

    def use(self, alias: str, **settings: Any) -> None:
        self.remote.setdefault("hosts", []).append({"host": alias, **settings})

    def workflow(self, code: str, items: Any = 6, **settings: Any) -> Path:
        """`each` runs the code for each of the items, `join` sums up."""
        wanted = list(range(items)) if isinstance(items, int) else items
        parallel = {"strategy": "remote", "grace_seconds": 0.5, **self.settings, **settings, "remote": self.remote}
        nodes = [
            {"name": "each", "type": "dynamic_parallel", "items": wanted, "fan_in": "join", "action": {"run": code}},
            {"name": "join", "fan_in": True, "run": JOIN},
        ]
        path = self.folder / "w.yaml"
        path.write_text(json.dumps({"name": "farm", "settings": {"parallel": parallel}, "nodes": nodes}))
        return path

    def without_ssh(self) -> None:
        """Whoever starts `ssh` is in for a surprise."""
        programs = self.folder.parent / "bin"
        programs.mkdir()
        (programs / "ssh").write_text("#!/bin/sh\necho this machine shall have no ssh >&2\nexit 99\n")
        (programs / "ssh").chmod(0o755)
        self.env["PATH"] = f"{programs}:{os.environ['PATH']}"
        self.remote["transport"] = "sftp"

    def begin(self, *args: str | Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        return self._start(*args, cwd=self.folder, env={**self.env, **(env or {})})

    def start(self, path: Path, *args: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        return self.begin("run", path, "--spool", self.spool, *args, env=env)

    def run(self, path: Path, *args: str, env: Mapping[str, str] | None = None) -> Ran:
        return self.finish(self.start(path, *args, env=env))

    def held_back(self, code: str) -> str:
        """The code, which notes that it has begun, and where, and waits for `let_go`."""
        go = str(self.folder / "go")
        return (
            "import os, time\n"
            "host = os.getcwd().rpartition('/work/')[0].rpartition('/')[2]\n"
            f"open({go!r} + f'.{{host}}.{{os.getpid()}}', 'w').close()\n"
            f"while not os.path.exists({go!r}):\n    time.sleep(0.02)\n{code}"
        )

    def begun(self) -> set[tuple[str, str]]:
        """Where `held_back` code has begun: host and process."""
        return {(host, pid) for _, host, pid in (path.name.split(".") for path in self.folder.glob("go.*"))}

    def held_elsewhere(self, code: str) -> str:
        """The code on host `one`; jobs on other hosts only wait for the file `go`."""
        go = str(self.folder / "go")
        return (
            "import os, time\n"
            "elsewhere = '/one/work/' not in os.getcwd() + '/'\n"
            f"while elsewhere and not os.path.exists({go!r}):\n    time.sleep(0.02)\n"
            f"if not elsewhere:\n    {code}\n"
            "return {'v': 1}"
        )

    def until_cut(self) -> str:
        """Code that waits for `cut`, but for one job on host `one`: until then the run is in its middle."""
        first, cut = str(self.folder / "first"), str(self.folder / "cut")
        return (
            "import os, time\n"
            f"waits = '/one/work/' not in os.getcwd() + '/'\n"
            "try:\n"
            f"    waits or os.close(os.open({first!r}, os.O_CREAT | os.O_EXCL))\n"
            "except FileExistsError:\n"
            "    waits = True\n"
            f"while waits and not os.path.exists({cut!r}):\n"
            "    time.sleep(0.02)\n"
            "return {'v': 1}"
        )

    def cut(self) -> None:
        """Let those jobs go, as soon as the host that is to be cut off is."""
        (self.folder / "cut").touch()

    def wait_for(self, hosts: int) -> None:
        """Until so many hosts are ready."""

        def ready() -> bool:
            return len({event["host"] for event in self.events("host") if event["state"] == "ready"}) == hosts

        support.wait_until(ready, what=f"{hosts} hosts")

    def let_go(self, hosts: int) -> None:
        """As soon as jobs have begun on so many hosts: the first one shall not do all the work."""
        support.wait_until(lambda: len({host for host, _ in self.begun()}) == hosts, what=f"jobs on {hosts} hosts")
        (self.folder / "go").touch()

    def let_go_when(self, host: str, *states: str) -> None:
        """As soon as a host has been in one of these states."""
        told = lambda: any(e["host"] == host and e["state"] in states for e in self.events("host"))  # noqa: E731
        support.wait_until(told, what=f"{host} to be {' or '.join(states)}")
        (self.folder / "go").touch()

    def finish(self, process: subprocess.Popen[str]) -> Ran:
        """Wait for the end of a run."""
        out, err = process.communicate(timeout=240)
        return Ran(process.returncode, out, err)

    def resume(self) -> Ran:
        done = support.tea_cmd("resume", "--spool", self.spool, cwd=self.folder, env=self.env)
        return Ran(done.returncode, done.stdout, done.stderr)

    def jobs(self) -> list[Path]:
        return sorted(self.spool.glob("runs/*/fanouts/*/jobs/*"))

    def results(self) -> list[dict[str, Any]]:
        return [
            json.loads((job / "result.json").read_text()) for job in self.jobs() if (job / "result.json").exists()
        ]

    def events(self, event: str) -> list[dict[str, Any]]:
        lines = [
            line for path in self.spool.glob("runs/*/events.jsonl") for line in path.read_text().split("\n")[:-1]
        ]
        return [found for line in lines if (found := json.loads(line))["event"] == event]


class Ran:
    """How a run ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def state(self) -> dict[str, Any]:
        assert self.code == 0, self.err
        state: dict[str, Any] = json.loads(self.out)
        return state


JOIN = """\
ok = [r for r in parallel_results if r.success]
return {
    "sum": sum(r.state.get("v", 0) for r in ok),
    "ok": len(ok),
    "outcomes": [r.outcome for r in parallel_results],
    "errors": [r.error for r in parallel_results],
    "hosts": sorted({r.host for r in parallel_results if r.host}),
    "retries": sum(r.retry_count for r in parallel_results),
}
"""


both_transports = pytest.mark.parametrize("transport", ["openssh", "sftp"])
"""For a test whose answer may depend on who holds the connection."""


@pytest.fixture
def transport() -> str:
    """What `both_transports` fills in."""
    return "openssh"


@pytest.fixture
def farm(
    tmp_path: Path, start_tea: Callable[..., subprocess.Popen[str]], no_leftovers: None, transport: str
) -> Iterator[Farm]:
    """No hosts yet."""
    if sshd.SSHD is None:
        support.cannot("no sshd here; scripts/setup-system.sh installs it")
    folder = tmp_path / "here"
    folder.mkdir(mode=0o700)
    with sshd.hosts(tmp_path) as hosts:
        farm = Farm(hosts, folder, start_tea)
        if transport == "sftp":
            farm.without_ssh()
        yield farm


@pytest.fixture
def two(farm: Farm) -> Farm:
    """Two good hosts, `one` and `two`."""
    farm.host("one")
    farm.host("two")
    return farm


def is_root() -> bool:
    return os.geteuid() == 0
