"""Launcher `parallel`: GNU Parallel brings batches to hosts; what holds without it holds with it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from executors.remote import RemoteConfig, RemoteHost, parallel
from executors.remote.batches import longest, share
from spool.attempts import Policy
from tests.faults.kit import need
from tests.remote.conftest import Farm, is_root
from tests.remote.test_remote import only_the_program_stays
from tests.sshd import keygen
from tests.support import children_of, command_of, kill_all, tea_cmd, wait_until

WAIT = "import os, time\nwhile not os.path.exists({stop!r}):\n    time.sleep(0.02)\nreturn {{'v': 1}}"


@pytest.fixture
def spread(two: Farm) -> Farm:
    """Two good hosts that GNU Parallel brings batches to."""
    need("parallel")
    need("rsync")
    two.remote["launcher"] = "parallel"
    return two


def log_of(farm: Farm) -> list[list[str]]:
    """The lines of GNU Parallel's log."""
    (path,) = farm.spool.glob("runs/*/fanouts/*/parallel.joblog")
    return [line.split("\t") for line in path.read_text().splitlines()]


def nothing_stays(farm: Farm) -> None:
    """Neither here nor on the hosts."""
    for host in farm.hosts.hosts:
        wait_until(lambda host=host: not host.sessions(), what=f"an end of what ran on {host.alias}")  # type: ignore[misc]
        only_the_program_stays(host)


def transit_of(farm: Farm) -> Path:
    """The folder that batches come in at on the hosts of this farm, when there are some."""

    def found() -> Path | None:
        notes = [note for host in farm.hosts.hosts for note in host.workdir.glob("fan-out-*/transit")]
        folders = [Path(note.read_text()) for note in notes]
        return next((folder for folder in folders if list(folder.glob("*.batch"))), None)

    folder = wait_until(found, what="batches there")
    assert folder is not None
    return folder


def test_batches_are_spread_and_the_record_is_as_ever(spread: Farm) -> None:
    (spread.folder / "lib.py").write_text("def triple(n):\n    return 3 * n\n")
    spread.remote["files"] = ["lib.py"]
    code = (
        "import time\nfrom lib import triple\nprint('out')\ntime.sleep(0.1)\n"
        "return {'v': triple(state['item']) + len(state['big'])}"
    )
    process = spread.start(spread.workflow(spread.held_back(code), 40), "--input", json.dumps({"big": "x" * 5000}))
    spread.let_go(2)
    ran = spread.finish(process)
    assert (ran.state["errors"], ran.state["hosts"]) == ([None] * 40, ["one", "two"])
    assert ran.state["sum"] == 3 * sum(range(40)) + 40 * 5000
    for job in spread.jobs():
        assert (job / "stdout.1.log").read_text() == "out\n"
        assert os.readlink(job / "claim.1")
        assert (job / "result.json").samefile(job / "result.1.json")
    log = log_of(spread)
    assert {line[1] for line in log} == {"one", "two"}
    assert len(log) < 30, "they came in batches"
    nothing_stays(spread)


@pytest.mark.slow
def test_the_census_is_the_same(spread: Farm, tmp_path: Path) -> None:
    """What threads find out, hosts find out; also the file that fails."""
    census = Path(__file__).parents[2] / "examples" / "stdlib_census"
    shutil.copytree(census, spread.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".tea"))
    text = (spread.folder / "census.yaml").read_text()
    spread.remote["files"] = ["measure.py"]
    settings = {"settings": {"parallel": {"strategy": "remote", "remote": spread.remote}}}
    path = spread.folder / "w.yaml"
    path.write_text(f"{text}\n{json.dumps(settings)[1:-1]}\n")
    here = tea_cmd("run", spread.folder / "census.yaml", "--no-spool", cwd=tmp_path)
    assert here.returncode == 0, here.stderr
    there = spread.run(path).state
    assert there["census"] == json.loads(here.stdout)["census"]
    assert sum(len(line) > 1 for line in log_of(spread)) < len(spread.jobs()) / 10


def test_policies_hold(spread: Farm) -> None:
    """Retries, timeouts and errors mean what they mean elsewhere, and no host is blamed."""
    code = (
        f"import os, subprocess\npath = {str(spread.folder)!r} + '/' + str(state['item'])\n"
        "n = len(open(path).read()) if os.path.exists(path) else 0\n"
        "open(path, 'a').write('x')\n"
        "if state['item'] == 0:\n    subprocess.run(['sleep', '3600'])\n"
        "if state['item'] == 1:\n    raise ValueError('bad data')\n"
        "if n < 1:\n    raise ConnectionError('not yet')\n"
        "return {'v': 1}"
    )
    retry = {"max_retries": 1, "base_delay": 0.05, "retry_on": ["ConnectionError"]}
    ran = spread.run(spread.workflow(code, 6, retry=retry, timeout_seconds=8))
    assert ran.state["outcomes"] == ["timed_out", "failed", *["succeeded"] * 4]
    assert ran.state["retries"] == 4
    assert not [event for event in spread.events("host") if event["state"] in ("lost", "out")]
    nothing_stays(spread)


def test_fail_fast_ends_what_runs_there(spread: Farm) -> None:
    code = "import time\nif state['item'] == 0:\n    raise ValueError('no')\ntime.sleep(3600)"
    ran = spread.run(spread.workflow(code, 4, fail_fast=True))
    assert ran.state["ok"] == 0
    assert sorted({result["outcome"] for result in spread.results()}) == ["cancelled", "failed"]
    nothing_stays(spread)


def test_a_host_cut_off_in_the_middle(spread: Farm) -> None:
    """Rows 25 and 26: all jobs are done, and each has one result."""
    one, stop, first = spread.hosts.hosts[0], spread.folder / "stop", spread.folder / "first"
    code = (  # the first job there ends, so that it has a result; all others last until the host is gone
        f"import os\nif os.getcwd().startswith({str(one.workdir)!r}):\n    try:\n"
        f"        open({str(first)!r}, 'x').close()\n        return {{'v': 1}}\n"
        "    except FileExistsError:\n        pass\n"
    )
    process = spread.start(spread.workflow(code + WAIT.format(stop=str(stop)), 40))
    wait_until(lambda: any(result["host"] == "one" for result in spread.results()), what="a result of one")
    one.stop()
    stop.touch()
    out, err = process.communicate(timeout=240)
    assert json.loads(out)["sum"] == 40, err
    assert "host one:" in err
    assert all(not (job / "claim.2").is_symlink() for job in spread.jobs()), "a lost host is no lost attempt"
    only_the_program_stays(spread.hosts.hosts[1])


def test_gnu_parallel_killed_in_the_middle(spread: Farm) -> None:
    """What was on the way comes over the sessions, the rest with another round; nothing runs twice."""
    stop, log = spread.folder / "stop", spread.folder / "log"
    code = f"open({str(log)!r}, 'a').write(f\"{{state['item']}}\\n\")\n" + WAIT.format(stop=str(stop))
    process = spread.start(spread.workflow(code, 12))
    wait_until(lambda: log.exists() and len(log.read_text().split()) >= 4, what="jobs that run")
    rounds = [pid for pid in children_of(process.pid) if "--basefile" in command_of(pid)]
    assert rounds
    kill_all(rounds)
    stop.touch()
    out, err = process.communicate(timeout=240)
    assert json.loads(out)["sum"] == 12, err
    assert sorted(map(int, log.read_text().split())) == list(range(12))
    nothing_stays(spread)


def test_a_killed_coordinator_leaves_nothing_anywhere(spread: Farm) -> None:
    """Row 34: no process on any host within ten seconds, and no file; and the run goes on."""
    stop = spread.folder / "stop"
    process = spread.start(spread.workflow(WAIT.format(stop=str(stop)), 8))
    transit = transit_of(spread)
    process.send_signal(signal.SIGKILL)
    process.wait(240)
    nothing_stays(spread)
    assert not transit.exists()
    stop.touch()
    assert spread.resume().state["sum"] == 8


def test_a_run_that_is_interrupted_leaves_nothing_anywhere(spread: Farm) -> None:
    process = spread.start(spread.workflow("import time; time.sleep(3600)", 8))
    transit = transit_of(spread)
    process.send_signal(signal.SIGINT)
    assert process.wait(240) == 130
    nothing_stays(spread)
    assert not transit.exists()


def test_a_secret_is_nowhere_to_be_seen(spread: Farm) -> None:
    """Row 33: neither on a command line, here or there, nor in what GNU Parallel carries."""
    canary = f"canary-{os.urandom(8).hex()}"
    spread.remote.update(env=["API_TOKEN"], cleanup=False)
    code = (
        "import glob, os\n"
        "token = os.environ['API_TOKEN'].encode()\n"
        "seen = []\n"
        "for path in [*glob.glob('/proc/[0-9]*/cmdline'), *glob.glob('/tmp/tea-*/*')]:\n"
        "    try:\n        text = open(path, 'rb').read()\n"
        "    except OSError:\n        continue\n"
        "    seen += [path] if token in text else []\n"
        "return {'v': len(token), 'seen': seen}"
    )
    ran = spread.run(spread.workflow(code, 4), env={"API_TOKEN": canary})
    assert ran.state["sum"] == 4 * len(canary)
    assert [result["state"]["seen"] for result in spread.results()] == [[]] * 4
    for host in spread.hosts.hosts:
        wait_until(lambda host=host: not host.sessions(), what=f"an end of what ran on {host.alias}")  # type: ignore[misc]
    for place in (spread.folder, *(host.folder for host in spread.hosts.hosts)):
        for path in (path for path in place.rglob("*") if path.is_file() and not path.is_symlink()):
            assert canary.encode() not in path.read_bytes(), path


def test_a_host_without_perl_and_rsync_is_left_out(spread: Farm) -> None:
    """Row 27: before anything is claimed for it; the others do the work."""
    spread.host("bare", "SetEnv PATH=/nowhere", python=sys.executable)
    process = spread.start(spread.workflow(spread.held_back("return {'v': 1}"), 8))
    spread.let_go_when("bare", "out")
    ran = spread.finish(process)
    assert (ran.state["sum"], "bare" in ran.state["hosts"]) == (8, False)
    assert "host bare: there is no perl; install it there; or use `launcher: ssh`" in ran.err


def test_a_host_that_lets_nobody_in_twice_is_left_out(farm: Farm) -> None:
    """tea's own session works, GNU Parallel's logins do not."""
    need("parallel")
    need("rsync")
    once = farm.folder.parent / "once"
    guard = (
        f'if mkdir {once} 2>/dev/null; then eval "$SSH_ORIGINAL_COMMAND"; else echo "one at a time" >&2; exit 1; fi'
    )
    farm.host("shy", f"ForceCommand {guard}")
    farm.remote["launcher"] = "parallel"
    ran = farm.run(farm.workflow("return {'v': 1}", 4))
    assert (ran.code, farm.results()) == (1, [])
    assert "host shy: GNU Parallel cannot bring anything there" in ran.err


def test_hosts_whose_keys_are_wrong_are_left_out(spread: Farm) -> None:
    """Row 28: at once, with what to do, and GNU Parallel never goes there; the others do the work."""
    spread.host("unknown", known=False)
    changed = spread.host("changed")
    changed.stop()
    keygen(changed.folder / "host_key")
    changed.start()
    process = spread.start(spread.workflow(spread.held_back("return {'v': 1}"), 8))
    out = lambda host: any(e["host"] == host and e["state"] == "out" for e in spread.events("host"))  # noqa: E731
    wait_until(lambda: out("unknown"), what="word of the unknown host")
    spread.let_go_when("changed", "out")
    ran = spread.finish(process)
    assert (ran.state["sum"], set(ran.state["hosts"]) <= {"one", "two"}) == (8, True)
    assert "host unknown: its host key is not known" in ran.err
    assert "host changed: its host key has changed" in ran.err
    assert {line[1] for line in log_of(spread)} <= {"one", "two"}
    assert not changed.workdir.exists()


@pytest.mark.root
@pytest.mark.skipif(not is_root(), reason="mounts a small file system")
def test_a_full_disk_on_one_host(spread: Farm) -> None:
    """Row 29: its jobs run elsewhere, and none of them fails."""
    small = spread.hosts.hosts[0].workdir
    small.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs", small], check=True)
    try:
        code = spread.held_elsewhere("open('filler', 'ab').write(b'x' * 4_000_000)")
        process = spread.start(spread.workflow(code, 20))
        spread.let_go_when("one", "lost", "out")
        out, err = process.communicate(timeout=240)
        assert [error for error in json.loads(out)["errors"] if error] == []
        assert json.loads(out)["sum"] == 20
        assert "disk is full" in err
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)


@pytest.mark.slow
def test_a_host_that_loses_everything(spread: Farm) -> None:
    """Row 30: the others do what it has lost, although each job may lose one host only."""
    broken = spread.folder.parent / "python3"
    python = shutil.which("python3")
    broken.write_text(f'#!/bin/sh\nexec {python} "$1" "$2" "import os, signal; signal.alarm(2); $3"\n')
    broken.chmod(0o755)
    spread.host("broken", python=str(broken))
    process = spread.start(spread.workflow(spread.held_back("return {'v': 1}"), 30, max_lost=1))
    spread.let_go_when("broken", "lost", "out")
    assert spread.finish(process).state["ok"] == 30
    for left in spread.hosts.hosts[2].workdir.glob("fan-out-*/transit"):  # by its last worker, which was killed, too
        shutil.rmtree(left.read_text(), ignore_errors=True)


# -- before anything starts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (None, "GNU Parallel is not installed here; install the package `parallel`"),
        ("#!/bin/sh\necho \"parallel: invalid option -- '-'\" >&2\nexit 1\n", "is not GNU Parallel"),
    ],
)
def test_without_gnu_parallel_nothing_starts(farm: Farm, program: str | None, message: str) -> None:
    programs = farm.folder.parent / "bin"
    programs.mkdir()
    for name in ("ssh", "rsync"):
        (programs / name).symlink_to(shutil.which(name) or "/bin/true")
    if program is not None:
        (programs / "parallel").write_text(program)
        (programs / "parallel").chmod(0o755)
    farm.use("one")
    farm.remote["launcher"] = "parallel"
    ran = farm.run(farm.workflow("return {}"), env={"PATH": str(programs)})
    assert (ran.code, farm.jobs()) == (2, [])
    assert message in ran.err
    assert "use launcher ssh" in ran.err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"transport": "sftp"}, "use transport openssh"),
        ({"hosts": ["user@[fe80::1]"]}, "give it a plain name in ~/.ssh/config"),
        ({"hosts": ["a,b"]}, "give it a plain name in ~/.ssh/config"),
        ({"hosts": ["$(touch x)@b"]}, "give a host name"),
    ],
)
def test_what_gnu_parallel_cannot_do_is_said(settings: dict[str, object], message: str) -> None:
    need("parallel")
    need("rsync")
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        RemoteConfig.usable({"hosts": ["one"], "launcher": "parallel", **settings})


def test_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEA_SSH_CONFIG", "/a b/config")
    monkeypatch.setenv("API_TOKEN", "hush")
    hosts = [RemoteHost("one", slots=4, env={"SECRET": "hush"}), RemoteHost("user@two:2222")]
    words = parallel.command(RemoteConfig(hosts, env=["API_TOKEN"], launcher="parallel"), timeout=90)
    text = shlex.join(words)
    assert "--sshlogin 4/one,user@two:2222" in text
    for option in ("--basefile", "--transferfile", "--return", "--cleanup", "--joblog", "--retries", "--timeout 90"):
        assert option in text
    assert "-F '/a b/config'" in words[words.index("--ssh") + 1]
    assert "BatchMode=yes" in text
    assert "hush" not in text


def test_a_command_line_that_gnu_parallel_takes(tmp_path: Path) -> None:
    """It says itself what it would do."""
    need("parallel")
    words = parallel.command(RemoteConfig(["one", "two"], launcher="parallel"))
    done = subprocess.run(
        [words[0], "--dry-run", *words[1:]],
        input="0001.batch\n",
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PARALLEL_HOME": str(tmp_path)},
    )
    assert "./python -I courier.py 0001.batch 0001.result" in done.stdout, done.stderr


def test_the_sizes_of_batches() -> None:
    assert share(1000, 4, 2, None) == 125
    assert share(500, 4, 2, 0.001) == 500, "what takes no longer than bringing it goes at once"
    assert [share(free, 4, 2, 60.0) for free in (1000, 100, 8, 1)] == [125, 13, 1, 1]


def test_the_longest_that_a_batch_may_take() -> None:
    assert longest([Policy(timeout_seconds=10, grace_seconds=5)], 8, 2) == 2 * 4 * 15 + 60
    assert (
        longest([Policy(timeout_total=10, grace_seconds=0), Policy(timeout_seconds=20, grace_seconds=0)], 1, 1) == 100
    )
    assert longest([Policy(timeout_seconds=10), Policy()], 8, 2) is None
