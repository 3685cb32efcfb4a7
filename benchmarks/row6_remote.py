"""Row 6: jobs that do nothing on two hosts reached by ssh: two sshd on this machine.

The time is that from the first connection to the last result, with all that comes before a job can run on a host that
has never been used: the login, tea's own copy to it, the start of its worker. The peer is GNU Parallel without tea: a
login, a file there, a result back, and a clean-up, for each job. It gets few jobs, and rates are compared.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import yaml

sys.path.append(str(Path(__file__).resolve().parent.parent))
from tests import sshd

HOSTS = ("one", "two")
GOALS = {"ssh": 5.0, "GNU Parallel": 30.0}
TIMES = 100.0
BY_HAND = 12
"""Jobs that GNU Parallel gets by itself: it does about one a second."""


def main() -> None:
    args = harness.options(__doc__, jobs=1000, repeat=3)
    row = harness.row(6, "no-op jobs on two hosts reached by ssh, first connection to last result", args)
    if sshd.SSHD is None:
        row.note("there is no sshd here; no figures")
    else:
        with harness.places(args) as places:
            place, folder = next(iter(places.items()))
            with harness.scratch(folder) as home, sshd.hosts(home) as hosts:
                for name in HOSTS:
                    hosts.add(name)
                measure(row, args, place, hosts)
    row.finish()


def measure(row: harness.Row, args: Namespace, place: str, hosts: sshd.Hosts) -> None:
    launchers: dict[str, dict[str, str]] = {"ssh": {"launcher": "ssh"}}
    if importlib.util.find_spec("paramiko") is not None:
        launchers["sftp"] = {"launcher": "ssh", "transport": "sftp"}
    else:
        row.note("paramiko is not installed here; no figure for the transport sftp")
    peer = f"GNU Parallel, a login a job, {min(BY_HAND, args.jobs)} jobs"
    contenders: dict[str, Callable[[], float]] = {}
    if shutil.which("parallel") is not None and shutil.which("rsync") is not None:
        launchers["GNU Parallel"] = {"launcher": "parallel"}
        contenders[peer] = lambda: by_hand(hosts, min(BY_HAND, args.jobs))
    else:
        row.note("GNU Parallel or rsync is not installed here; no figures for it")
    for name, remote in launchers.items():
        contenders[name] = Tea(row, hosts, args.jobs, name, remote)
    medians = harness.interleaved(row, args.repeat, contenders)
    for name in launchers:
        add(row, args.jobs, place, name, medians, medians.get(peer))
    if peer in medians:
        row.add(peer, medians[peer], "s", place=place)


def add(row: harness.Row, jobs: int, place: str, name: str, medians: dict[str, float], a_job: float | None) -> None:
    """What a launcher took, and its rate beside that of GNU Parallel by itself."""
    seconds, title = medians[name], f"launcher {name}" if name != "sftp" else "launcher ssh, transport sftp"
    goal = GOALS.get(name)
    more: dict[str, Any] = {"goal": f"<= {goal:g} s", "ok": seconds <= goal} if goal is not None else {}
    row.add(f"{title}, {jobs:,} jobs", seconds, "s", place=place, **more)
    row.add(
        "  a new run on the same hosts", harness.statistics.median(row.samples[f"{name}, again"]), "s", place=place
    )
    if a_job is not None:
        ratio = jobs / seconds / (min(BY_HAND, jobs) / a_job)
        beside = {"peer": "a login a job", "ratio": ratio, "goal": f">= {TIMES:g} x", "ok": ratio >= TIMES}
        row.add("  jobs a second", jobs / seconds, "jobs/s", place=place, **beside)


class Tea:
    """`tea run` over the hosts: seconds by the run's own journal. What starting and ending it takes is noted, too."""

    def __init__(self, row: harness.Row, hosts: sshd.Hosts, jobs: int, name: str, remote: dict[str, str]) -> None:
        self.row, self.hosts, self.jobs, self.name, self.remote = row, hosts, jobs, name, remote

    def __call__(self) -> float:
        with harness.scratch(self.hosts.folder) as folder:
            first = self.run(folder, "first")
            self.row.samples.setdefault(f"{self.name}, again", []).append(self.run(folder, "again"))
        return first

    def run(self, folder: Path, spool: str) -> float:
        data = yaml.safe_load(Path(__file__).with_name("noop.yaml").read_text())
        hosts = [{"host": host, "slots": 1, "workdir": str(folder / host)} for host in HOSTS]
        data["settings"] = {"parallel": {"strategy": "remote", "remote": {"hosts": hosts, **self.remote}}}
        (folder / "remote.json").write_text(json.dumps(data))
        text = json.dumps({"jobs": self.jobs})
        environment = {"TEA_SSH_CONFIG": str(self.hosts.config)}
        done = harness.tea("run", "remote.json", "--input", text, "--spool", spool, cwd=folder, env=environment)
        state = json.loads(done.stdout)
        assert (state["right"], state["all"]) == (self.jobs, self.jobs), done.stderr
        return connected_to_last_result(folder / spool)


def connected_to_last_result(spool: Path) -> float:
    """Seconds from the journal's first word of a host until the last ticket moved."""
    (journal,) = spool.glob("runs/*/events.jsonl")
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    began: float = min(event["at"] for event in events if event["event"] == "host")
    (done,) = spool.glob("runs/*/fanouts/*/done")
    return done.stat().st_mtime - began


def by_hand(hosts: sshd.Hosts, jobs: int) -> float:
    """GNU Parallel without tea: every job brings a file and fetches one."""
    with harness.scratch(hosts.folder) as folder:
        for number in range(jobs):
            (folder / f"{number}.in").write_text(f"{number}\n")
        argv = ["parallel", "--will-cite", "-j1", "--ssh", f"ssh -F {hosts.config}", "--sshlogin", ",".join(HOSTS)]
        argv += [
            "--workdir",
            "...",
            "--transferfile",
            "{}",
            "--return",
            "{.}.out",
            "--cleanup",
            "cp {} {.}.out",
            ":::",
        ]
        argv += [f"{number}.in" for number in range(jobs)]
        taken = harness.seconds(lambda: subprocess.run(argv, cwd=folder, check=True, capture_output=True))
        assert [(folder / f"{number}.out").read_text() for number in range(jobs)] == [f"{n}\n" for n in range(jobs)]
    return taken


if __name__ == "__main__":
    main()
