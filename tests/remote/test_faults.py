"""What happens to hosts and links: cut, killed, full, wrong, hostile. The run ends well, or says what to do."""

from __future__ import annotations

import glob
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from executors.bundle import bundle
from tests import support
from tests.remote.conftest import Farm, both_transports, is_root
from tests.sshd import Link, keygen
from tests.support import ROOT, wait_until

SLOW = "import time; time.sleep(0.2); return {'v': 1}"
QUICK = "return {'v': 1}"


@both_transports
def test_a_session_killed_in_the_middle(two: Farm) -> None:
    """Row 26: its jobs run elsewhere or again, each has one result, and what ran there has ended."""
    process = two.start(two.workflow(two.until_cut(), 40))
    one = two.hosts.hosts[0]
    wait_until(lambda: any(result["host"] == "one" for result in two.results()), what="a result of one")
    one.cut()
    two.cut()
    out, err = process.communicate(timeout=240)
    assert json.loads(out)["sum"] == 40, err
    assert "host one: the connection was lost" in err
    assert all(not (job / "claim.2").is_symlink() for job in two.jobs()), "a lost host is no lost attempt"
    wait_until(lambda: not one.sessions(), what="an end of what ran there")


@both_transports
def test_a_host_that_goes_away_for_good(two: Farm) -> None:
    process = two.start(two.workflow(two.until_cut(), 30))
    wait_until(lambda: any(result["host"] == "one" for result in two.results()), what="a result of one")
    two.hosts.hosts[0].stop()
    two.cut()
    out, err = process.communicate(timeout=240)
    assert json.loads(out)["sum"] == 30, err


def test_the_only_host_comes_back(farm: Farm) -> None:
    one = farm.host("one")
    process = farm.start(farm.workflow(farm.until_cut(), 20))
    wait_until(farm.results, what="a result")
    one.cut()
    farm.cut()
    out, err = process.communicate(timeout=240)
    assert json.loads(out)["sum"] == 20, err


@both_transports
def test_when_every_host_is_out_the_run_says_so_and_can_go_on(two: Farm) -> None:
    process = two.start(two.workflow(two.until_cut(), 40))
    wait_until(two.results, what="a result")
    for host in two.hosts.hosts:
        host.stop()
    two.cut()
    _out, err = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "no host is left to run branches on" in err
    assert "host one: cannot be reached" in err
    assert "tea resume" in err
    for host in two.hosts.hosts:
        host.start()
    assert two.resume().state["sum"] == 40


@both_transports
def test_a_flood_of_logins(farm: Farm) -> None:
    """Row 26: an sshd that drops most logins is asked again, a little later."""
    host = farm.host("one", "MaxStartups 1:60:3")
    for number in range(2, 7):
        farm.hosts.alias(f"one{number}", host)
        farm.use(f"one{number}", slots=1, workdir=f"{host.workdir}{number}")
    assert farm.run(farm.workflow(SLOW, 30)).state["sum"] == 30


# -- hosts that will not do -----------------------------------------------------------------------------------------


def refused(farm: Farm, *messages: str) -> None:
    """The run is refused before anything is claimed, with these words."""
    ran = farm.run(farm.workflow(QUICK))
    assert ran.code == 1
    for message in messages:
        assert message in ran.err
    assert not [job for job in farm.jobs() if (job / "claim.1").is_symlink()]


@both_transports
def test_no_python(farm: Farm) -> None:
    """Row 27."""
    farm.host("one", python="/no/such/python3")
    refused(farm, "host one: there is no /no/such/python3", "install Python 3.11 or newer there")


def test_an_old_python(farm: Farm, tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text(f'#!/bin/sh\nshift 2\nexec {sys.executable} -I -c "import sys; sys.version_info = (3, 9); $1"\n')
    old.chmod(0o755)
    farm.host("one", python=str(old))
    refused(farm, "tea needs Python 3.11 or newer there")


@both_transports
def test_a_login_that_runs_something_else(farm: Farm) -> None:
    farm.host("one", "ForceCommand echo hello")
    refused(farm, "host one: the login ended before tea was started")


@both_transports
def test_a_noisy_login_does_no_harm(farm: Farm) -> None:
    """Row 27: what a .bashrc prints comes before tea does."""
    farm.host("one", 'ForceCommand echo "Welcome {"; echo careful >&2; eval "$SSH_ORIGINAL_COMMAND"')
    assert farm.run(farm.workflow(QUICK)).state["sum"] == 6


def test_another_version_of_tea(farm: Farm) -> None:
    """Row 27."""
    source = zipfile.ZipFile(io.BytesIO(bundle()))
    with zipfile.ZipFile(farm.folder / "old-tea", "w") as target:
        for name in (name for name in source.namelist() if not name.endswith(".pyc")):
            data = source.read(name)
            target.writestr(name, data.replace(b"0.1.0", b"0.0.9") if name == "tea/version.py" else data)
    farm.host("one")
    farm.remote["basefile"] = "old-tea"
    refused(farm, "the program copied there is tea 0.0.9, and this is tea 0.1.0", "tea bundle")


@both_transports
def test_an_unknown_host_key(farm: Farm) -> None:
    """Row 28."""
    farm.host("one", known=False)
    refused(farm, "host one: its host key is not known", "host_keys: accept-new")
    farm.remote["host_keys"] = "accept-new"
    assert farm.run(farm.workflow(QUICK)).state["sum"] == 6
    farm.remote["host_keys"] = "strict"
    assert farm.run(farm.workflow(QUICK)).state["sum"] == 6, "its key is known now"


@both_transports
@pytest.mark.parametrize("policy", ["strict", "accept-new"])
def test_a_changed_host_key(farm: Farm, policy: str) -> None:
    """Row 28: never taken, whatever is asked for."""
    one = farm.host("one")
    one.stop()
    keygen(one.folder / "host_key")
    one.start()
    farm.remote["host_keys"] = policy
    refused(farm, "host one: its host key has changed", "ssh-keygen -R")


@both_transports
def test_a_key_that_the_host_does_not_take(farm: Farm) -> None:
    """Row 28."""
    one = farm.host("one")
    (one.folder / "authorized_keys").write_text("")
    refused(farm, "host one: it does not let us in", "ssh-copy-id")


@both_transports
def test_one_wrong_host_does_not_stop_the_others(two: Farm) -> None:
    two.host("bad", known=False)
    process = two.start(two.workflow(two.held_back(QUICK), 12))
    two.let_go_when("bad", "out")
    ran = two.finish(process)
    assert (ran.state["sum"], "bad" in ran.state["hosts"]) == (12, False)
    assert "host bad: its host key is not known" in ran.err


def test_a_workdir_of_somebody_elses(farm: Farm) -> None:
    one = farm.host("one")
    one.workdir.mkdir()
    one.workdir.chmod(0o777)
    refused(farm, "others may write to its workdir", "choose another one with `workdir:`")


@both_transports
@pytest.mark.root
@pytest.mark.skipif(not is_root(), reason="mounts a small file system")
def test_a_full_disk_on_one_host(two: Farm) -> None:
    """Row 29: its jobs run elsewhere."""
    small = two.hosts.hosts[0].workdir
    small.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs", small], check=True)
    try:
        code = two.held_elsewhere("open('filler', 'ab').write(b'x' * 4_000_000)")
        process = two.start(two.workflow(code, 30))
        two.let_go_when("one", "lost", "out")
        out, err = process.communicate(timeout=240)
        assert [error for error in json.loads(out)["errors"] if error] == []
        assert json.loads(out)["sum"] == 30
        assert "disk is full" in err
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)  # what ends there may hold it a moment longer


@both_transports
def test_a_host_that_loses_everything(two: Farm, tmp_path: Path) -> None:
    """Row 30: it is out after some failures, and the others finish the work."""
    broken = tmp_path / "python3"
    broken.write_text(f'#!/bin/sh\nexec {sys.executable} "$1" "$2" "import os, signal; signal.alarm(1); $3"\n')
    broken.chmod(0o755)
    two.host("broken", python=str(broken))
    process = two.start(two.workflow(two.held_back(QUICK), 40, max_lost=1))
    two.let_go_when("broken", "out")
    ran = two.finish(process)
    assert (ran.state["ok"], "broken" in ran.state["hosts"]) == (40, False)


def test_a_host_that_was_out_is_on_trial_until_it_has_brought_a_result(two: Farm) -> None:
    """One job at a time, then as many as it has room for. Its circuit opens sooner here than for users."""
    impatient = (
        "import sys; from executors.policy import CircuitBreakerConfig; from executors.remote import link; "
        "link.BREAKER = CircuitBreakerConfig(failure_threshold=2, reset_timeout=0.5); "
        "from tea.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    workflow = two.workflow(two.held_back(QUICK), 12)
    argv = [sys.executable, "-c", impatient, "run", str(workflow), "--spool", str(two.spool)]
    env = support.clean_env(two.env)
    with subprocess.Popen(argv, cwd=two.folder, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            two.wait_for(2)
            one = two.hosts.hosts[0]
            wait_until(lambda: [host for host, _ in two.begun()].count("one") == 2, what="jobs in both slots of one")
            before, begun = sessions(one.workdir), two.begun()
            one.stop()
            wait_until(lambda: states(two, "one")[-1] == "out", what="the circuit to open")
            one.start()
            wait_until(lambda: states(two, "one")[-1] == "half-open", what="the trial")
            wait_until(lambda: jobs_in(sessions(one.workdir) - before), what="a job on trial")
            wait_until(lambda: any(host == "one" for host, _ in two.begun() - begun), what="the job to begin")
            assert len(jobs_in(sessions(one.workdir) - before)) == 1
            (two.folder / "go").touch()
            out, _ = process.communicate(timeout=240)
        finally:
            process.kill()
    assert json.loads(out)["sum"] == 12
    assert states(two, "one")[-3:] == ["half-open", "ready", "ended"]


def sessions(workdir: Path) -> set[str]:
    """The folders of a host's sessions, also of one whose worker is still cleaning up."""
    return set(glob.glob(f"{workdir}/fan-out-*"))


def jobs_in(folders: Iterable[str]) -> list[str]:
    return [job for folder in folders for job in glob.glob(f"{folder}/spool/runs/*/fanouts/*/jobs/*")]


def states(farm: Farm, host: str) -> list[str]:
    """What a host has been, one after the other."""
    return [event["state"] for event in farm.events("host") if event["host"] == host]


def test_a_job_that_takes_its_hosts_down_is_given_up(two: Farm) -> None:
    """It kills the worker that its process descends from, wherever it runs; the others are done all the same."""
    code = (
        "import os, signal, time\n"
        "pid = os.getpid() if state['item'] == 0 else 0\n"
        "while pid:\n"
        "    command = open(f'/proc/{pid}/cmdline', 'rb').read()\n"
        "    if b'--fed' in command.split(b'\\0') and b'multiprocessing' not in command:\n"
        "        os.kill(pid, signal.SIGKILL)\n"
        "        time.sleep(60)\n"
        "    pid = int(open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()[1])\n"
        "time.sleep(0.5)\n"
        "return {'v': 1}"
    )
    ran = two.run(two.workflow(code, 8, max_lost=2))
    assert ran.state["outcomes"][0] == "lost"
    assert ran.state["ok"] == 7
    assert "the job may be taking its hosts down" in ran.state["errors"][0]


@both_transports
def test_a_secret_is_handed_over_and_nowhere_to_be_seen(farm: Farm) -> None:
    """Row 33."""
    canary = f"canary-{os.urandom(8).hex()}"
    one = farm.host("one")
    farm.remote.update(env=["API_TOKEN"], cleanup=False)
    code = (
        "import glob, os\n"
        "token = os.environ['API_TOKEN'].encode()\n"
        "seen = []\n"
        "for path in glob.glob('/proc/[0-9]*/cmdline'):\n"
        "    try:\n        text = open(path, 'rb').read()\n"
        "    except OSError:\n        continue\n"
        "    seen += [path] if token in text else []\n"
        "return {'v': len(token), 'seen': seen}"
    )
    ran = farm.run(farm.workflow(code, 2), env={"API_TOKEN": canary})
    assert ran.state["sum"] == 2 * len(canary)
    assert [result["state"]["seen"] for result in farm.results()] == [[], []]
    wait_until(lambda: not one.sessions(), what="an end of what ran there")
    assert list(one.workdir.glob("fan-out-*/spool/runs/*")), "nothing was kept, so nothing was searched"
    for place in (farm.folder, one.folder):
        for path in (path for path in place.rglob("*") if path.is_file() and not path.is_symlink()):
            assert canary.encode() not in path.read_bytes(), path


def test_what_a_killed_worker_left_there_is_removed_by_the_next(farm: Farm) -> None:
    one = farm.host("one")
    old = one.workdir / "fan-out-dead"
    (old / "spool").mkdir(parents=True)
    one.workdir.chmod(0o700)
    (old / "lock").touch()
    assert farm.run(farm.workflow(QUICK)).state["sum"] == 6
    assert not old.exists()


@pytest.mark.root
@pytest.mark.skipif(not is_root() or shutil.which("ip") is None, reason="makes a network namespace")
def test_a_link_that_a_killed_run_left_is_removed_by_the_next() -> None:
    code = "import os, tests.sshd; link = tests.sshd.Link(); link.make(); print(link.name, flush=True); os.abort()"
    left = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    ).stdout
    link = Link()
    try:
        link.make()
        link.make()  # what bears our name has been left by a process that had our pid
        names = subprocess.run(["ip", "netns", "list"], stdout=subprocess.PIPE, text=True, check=True).stdout
        assert left.strip()
        assert left.strip() not in names
        assert link.name in names
    finally:
        link.remove()


@both_transports
@pytest.mark.root
@pytest.mark.slow
@pytest.mark.skipif(not is_root() or shutil.which("ip") is None, reason="makes a network namespace")
def test_a_link_that_is_cut(farm: Farm) -> None:
    """Row 25: noticed in 30 s, and the jobs run on the other host."""
    farm.host("two")
    with farm.hosts.behind_a_link("one") as link:
        farm.use("one", slots=2, workdir=str(link.host.workdir))
        stop = farm.folder / "stop"
        code = (
            "import os, time\n"
            f"end = time.monotonic() + 60\nwhile not os.path.exists({str(stop)!r}) and time.monotonic() < end:\n"
            "    time.sleep(0.02)\nreturn {'v': 1}"
        )
        process = farm.start(farm.workflow(code, 8))
        farm.wait_for(2)
        link.cut()
        wait_until(
            lambda: any(e["host"] == "one" and e["state"] == "lost" for e in farm.events("host")),
            timeout=30,
            what="the cut to be noticed",
        )
        stop.touch()
        out, err = process.communicate(timeout=240)
        state = json.loads(out)
        assert (state["sum"], state["hosts"]) == (8, ["two"]), err
