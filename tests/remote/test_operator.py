"""What a person who looks after runs over hosts sees and does: status, the copy on a host, other input."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.remote.conftest import Farm
from tests.support import tea_cmd, wait_until


def verb(farm: Farm, *args: str | Path) -> Any:
    """`tea spool ARGS --json`, on the farm's spool."""
    done = tea_cmd("spool", *args, "--spool", farm.spool, "--json", cwd=farm.folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_other_input_reaches_the_host(farm: Farm) -> None:
    """Beside a shared state in each input, and beside one that is linked."""
    farm.host("one")
    code = "if state['item'] == 1:\n    raise ValueError('no')\nreturn {'v': state['item'] + state['more']}"
    shared: list[dict[str, Any]] = [{"more": 1}, {"more": 1, "big": "x" * 5000}]
    for state in shared:
        ran = farm.run(farm.workflow(code, 3), "--input", json.dumps(state))
        assert ran.state["outcomes"] == ["succeeded", "failed", "succeeded"]
        verb(farm, "retry", "1", "--with-input", '{"item": 30, "more": 5}')
        assert farm.resume().state["sum"] == 1 + 35 + 3
        assert verb(farm, "replay", "1")["verdict"] == "same"
    for job in farm.jobs():
        record = json.loads((job / "job.json").read_text())
        assert json.loads((job / "result.json").read_text())["input_sha256"] == record["input_sha256"]


# -- hosts in the status --------------------------------------------------------------------------------------------


def until_told(farm: Farm) -> tuple[str, Path]:
    """Code that runs until a file is there."""
    go = farm.folder / "go"
    code = f"import os, time\nwhile not os.path.exists({str(go)!r}):\n    time.sleep(0.02)\nreturn {{'v': 1}}"
    return code, go


def states(farm: Farm) -> dict[str, str]:
    return {host["host"]: host["state"] for host in verb(farm, "status")["hosts"]}


@pytest.fixture
def working(two: Farm) -> tuple[subprocess.Popen[str], Path]:
    """Two hosts whose slots are all busy, and one that is refused."""
    two.host("bad", known=False)
    code, go = until_told(two)
    process = two.start(two.workflow(code, 6))

    wait_until(lambda: len(two.events("host")) >= 6, what="word of three hosts")
    wait_until(lambda: sum(len(host["running"]) for host in verb(two, "status")["hosts"]) == 4, what="four jobs")
    return process, go


def test_hosts_of_a_run_that_goes_on_and_of_one_that_has_ended(
    two: Farm, working: tuple[subprocess.Popen[str], Path]
) -> None:
    process, go = working
    told = verb(two, "status")
    assert states(two) == {"one": "ready", "two": "ready", "bad": "out"}
    one, other, bad = told["hosts"]
    assert (one["slots"], other["slots"], bad["slots"]) == (2, 2, None)
    assert one["workdir"] == str(two.hosts.hosts[0].workdir)
    assert (one["error"], bad["running"]) == (None, [])
    assert "its host key is not known; connect once with `ssh bad`" in bad["error"]
    assert {job["job"]: job["host"] for job in told["running"]} == {
        job: host["host"] for host in (one, other) for job in host["running"]
    }
    assert told["fanouts"][0]["running"] == 4
    job = told["running"][0]
    explained = " ".join(verb(two, "explain", job["job"])["sentences"])
    assert f"It runs: attempt 1, on host {job['host']}, where " in explained
    said = tea_cmd("spool", "logs", job["job"], "--spool", two.spool).stderr
    assert f"runs on host {job['host']}: what it prints is here when it has ended" in said
    others = {f"001-each/000{n}-each" for n in range(6)} - {one["job"] for one in told["running"]}
    assert "for a host, on which it has not begun" in verb(two, "explain", others.pop())["sentences"][0]
    text = tea_cmd("spool", "status", "--spool", two.spool).stdout
    assert "host  state  slots  running\none   ready      2        2\n" in text
    assert "bad   out        -        -  its host key is not known; connect once" in text
    assert " host one\n" in text
    go.touch()
    out, err = process.communicate(timeout=240)
    assert json.loads(out)["sum"] == 6, err
    assert states(two) == {"one": "ended", "two": "ended", "bad": "out"}
    assert [host["running"] for host in verb(two, "status")["hosts"]] == [[], [], []]


def test_hosts_of_a_run_that_was_killed_and_taken_up_again(
    two: Farm, working: tuple[subprocess.Popen[str], Path]
) -> None:
    process, go = working
    process.send_signal(signal.SIGKILL)
    process.wait(240)
    assert states(two) == {"one": "stopped", "two": "stopped", "bad": "out"}
    assert verb(two, "status")["running"] == []
    go.touch()
    two.hosts.know(two.hosts.hosts[2])
    assert two.resume().state["sum"] == 6
    assert set(states(two).values()) <= {"ended", "not used"}
    for host in two.hosts.hosts:
        wait_until(lambda host=host: not host.sessions(), what="an end of what ran there")  # type: ignore[misc]


def test_the_copy_on_a_host_is_a_spool_for_the_verbs_there(farm: Farm) -> None:
    """With the program that tea has copied there; while jobs run, and when the copy is kept."""
    one = farm.host("one")
    farm.remote["cleanup"] = False
    code, go = until_told(farm)
    process = farm.start(farm.workflow(f"print('hello', flush=True)\n{code}", 3))
    ticket = Path(
        wait_until(lambda: next(one.workdir.glob("fan-out-*/spool/runs/*/fanouts/*/todo/*"), ""), what="a job")
    )
    spool = ticket.parents[5]
    (program,) = one.workdir.glob("tea-*.pyz")

    def there(*args: str | Path) -> str:
        argv = [sys.executable, program, "spool", *args]
        done = subprocess.run(argv, cwd=one.folder, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    wait_until(lambda: len(json.loads(there("status", spool, "--json"))["running"]) == 2, what="two jobs there")
    told = there("status", spool)
    assert f":{farm.spool}/runs/" in next(line for line in told.splitlines() if line.startswith("copy of   "))
    assert "\nstate     running, started " in told
    wait_until(lambda: there("logs", "0", "--spool", spool) == "hello\n", what="what the job has printed")
    go.touch()
    out, err = process.communicate(timeout=240)
    assert json.loads(out)["sum"] == 3, err
    wait_until(lambda: not one.sessions(), what="an end of what ran there")
    told = json.loads(there("status", spool, "--json"))
    assert (told["state"], told["fanouts"][0]["done"]) == ("done", 3)
    assert "0002-each" in there("list", "--spool", spool)
