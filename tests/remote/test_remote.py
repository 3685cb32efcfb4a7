"""The strategy `remote` does what the others do, on other hosts."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.remote.conftest import Farm, both_transports
from tests.sshd import Host
from tests.support import tea_cmd, wait_until

VALUE = "return {'v': state['item']}"


@both_transports
def test_both_hosts_work_and_say_who_they_are(two: Farm) -> None:
    process = two.start(two.workflow(two.held_back(VALUE), 24))
    two.let_go(2)
    out, err = process.communicate(timeout=240)
    state = json.loads(out)
    assert (state["sum"], state["ok"], state["hosts"]) == (276, 24, ["one", "two"]), err
    assert not {event["state"] for event in two.events("host")} & {"lost", "out"}


@both_transports
def test_the_record_is_here_and_nothing_but_the_program_stays_there(two: Farm) -> None:
    two.run(two.workflow("import sys; print('out'); print('err', file=sys.stderr); return {}", 3))
    for job in two.jobs():
        assert (job / "stdout.1.log").read_text() == "out\n"
        assert (job / "stderr.1.log").read_text() == "err\n"
        assert os.readlink(job / "claim.1")
        assert (job / "result.json").samefile(job / "result.1.json")
    for host in two.hosts.hosts:
        only_the_program_stays(host)


def only_the_program_stays(host: Host) -> None:
    """Also where tea was just being started when it was not needed any more: it ends by itself."""
    wait_until(
        lambda: not host.workdir.exists() or [path.suffix for path in host.workdir.iterdir()] in ([".pyz"], []),
        what=f"nothing but the program in {host.workdir}",
    )


def test_the_program_is_copied_once(farm: Farm) -> None:
    host = farm.host("one")
    farm.run(farm.workflow(VALUE))
    only_the_program_stays(host)
    (program,) = host.workdir.iterdir()
    before = program.stat()
    assert farm.run(farm.workflow(VALUE)).state["sum"] == 15
    only_the_program_stays(host)
    (again,) = host.workdir.iterdir()
    assert (again.name, again.stat().st_ino) == (program.name, before.st_ino)


def test_a_damaged_program_is_replaced(farm: Farm) -> None:
    host = farm.host("one")
    farm.run(farm.workflow(VALUE))
    only_the_program_stays(host)
    (program,) = host.workdir.iterdir()
    program.write_bytes(b"rubbish")
    assert farm.run(farm.workflow(VALUE)).state["sum"] == 15


@both_transports
def test_files_and_shared_state_come_along(farm: Farm) -> None:
    farm.host("one")
    (farm.folder / "lib").mkdir()
    (farm.folder / "lib" / "triple.py").write_text("def triple(n):\n    return 3 * n\n")
    (farm.folder / "data.csv").write_text("7")
    farm.remote["files"] = ["lib/", "data.csv"]
    code = (
        "from lib.triple import triple\n"
        "return {'v': triple(state['item']) + int(open('data.csv').read()) + len(state['big'])}"
    )
    ran = farm.run(farm.workflow(code, 3), "--input", json.dumps({"big": "x" * 5000}))
    assert ran.state["errors"] == [None] * 3
    assert ran.state["sum"] == 3 * 3 + 3 * 7 + 3 * 5000


@both_transports
def test_the_results_are_those_of_threads(two: Farm) -> None:
    code = (
        "if state['item'] == 3:\n    raise ValueError('three')\n"
        "state['seen'].append(state['item'])\n"
        "return {'v': state['item'] ** 2, 'text': 'grüße\\n' * state['item'], 'empty': [{}, None, 1.5]}"
    )
    path = two.workflow(code, 6)
    given = json.dumps({"seen": ["before"]})
    there, here = two.run(path, "--input", given), two.run(path, "--input", given, "--strategy", "thread")
    assert there.state["ok"] == 5
    assert {**there.state, "hosts": None} == {**here.state, "hosts": None}
    runs = [sorted(run.glob("fanouts/*/jobs/*")) for run in sorted(two.spool.glob("runs/*"))]
    for far, near in zip(*runs, strict=True):
        results = [json.loads((job / "result.json").read_text()) for job in (far, near)]
        for key in ("state", "outcome", "error", "error_type", "input_sha256"):
            assert results[0].get(key) == results[1].get(key), key


@both_transports
def test_a_large_state_and_much_output(farm: Farm) -> None:
    farm.host("one")
    given = farm.folder / "given.json"
    given.write_text(json.dumps({"big": "0123456789" * 2_000_000}))
    code = "print('x' * 3_000_000)\nreturn {'v': len(state['big']), 'copy': state['big'][:5_000_000]}"
    ran = farm.run(farm.workflow(code, 3), "--input", str(given))
    assert ran.state["sum"] == 3 * 20_000_000, ran.state["errors"]
    for job in farm.jobs():
        assert len(json.loads((job / "result.json").read_text())["state"]["copy"]) == 5_000_000
        assert (job / "stdout.1.log").stat().st_size == 3_000_001


def test_large_files_take_little_memory(farm: Farm) -> None:
    """Neither here nor there: they go from disk to disk."""
    farm.host("one")
    with open(farm.folder / "blob", "wb") as file:
        for _ in range(96):
            file.write(os.urandom(1 << 20))
    farm.remote["files"] = ["blob"]
    code = (
        "pid = os.getpid()\n"
        "command = lambda: open(f'/proc/{pid}/cmdline', 'rb').read()\n"
        "while b'--fed' not in command() or b'multiprocessing' in command():\n"
        "    pid = int(open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()[1])\n"
        "return {'v': os.path.getsize('blob'), 'pid': pid, 'status': open(f'/proc/{pid}/status').read()}"
    )
    process = farm.start(farm.workflow(farm.held_back(code), 1))
    wait_until(farm.begun, what="the job to begin")
    here = peak(Path(f"/proc/{process.pid}/status").read_text())
    farm.let_go(1)
    out, err = process.communicate(timeout=240)
    assert json.loads(out)["sum"] == 96 << 20, err
    there = peak(farm.results()[0]["state"]["status"])
    assert max(here, there) < 90, "MiB"


def peak(status: str) -> int:
    """The most memory that a process had, in MiB."""
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) >> 10


@both_transports
def test_a_timeout_is_kept_on_the_host(farm: Farm) -> None:
    host = farm.host("one")
    code = "import subprocess; subprocess.run(['sleep', '3600']); return {}"
    ran = farm.run(farm.workflow(code, 1, timeout_seconds=0.5))
    assert ran.state["outcomes"] == ["timed_out"]
    wait_until(lambda: not host.sessions(), what="an end of what ran there")


def test_retries_are_counted_across_hosts(two: Farm) -> None:
    code = (
        f"import os\npath = {str(two.folder)!r} + '/' + str(state['item'])\n"
        "n = len(open(path).read()) if os.path.exists(path) else 0\n"
        "open(path, 'a').write('x')\n"
        "if n < 2:\n    raise ValueError('not yet')\n"
        "return {'v': 1}"
    )
    ran = two.run(two.workflow(code, 3, retry={"max_retries": 2, "base_delay": 0.05}))
    assert (ran.state["sum"], ran.state["retries"]) == (3, 6)
    for job in two.jobs():
        assert [json.loads((job / f"result.{n}.json").read_text())["attempt"] for n in (1, 2, 3)] == [1, 2, 3]


@both_transports
def test_errors_of_jobs_do_not_blame_hosts(two: Farm) -> None:
    ran = two.run(two.workflow("raise ValueError('bad data')", 20))
    assert ran.state["outcomes"] == ["failed"] * 20
    assert not {event["state"] for event in two.events("host")} & {"lost", "out"}


def test_a_job_that_kills_its_process_fails_and_the_others_go_on(farm: Farm) -> None:
    farm.host("one")
    code = "import os\nif state['item'] == 1:\n    os._exit(3)\nreturn {'v': 1}"
    ran = farm.run(farm.workflow(code, 4))
    assert (ran.state["sum"], ran.state["outcomes"][1]) == (3, "failed")


@both_transports
def test_fail_fast_ends_what_runs_there(two: Farm) -> None:
    code = "import time\nif state['item'] == 0:\n    raise ValueError('no')\ntime.sleep(3600)"
    ran = two.run(two.workflow(code, 6, fail_fast=True))
    assert ran.state["ok"] == 0
    assert sorted({result["outcome"] for result in two.results()}) == ["cancelled", "failed"]


def test_branches_over_edges_and_nested_fan_outs(farm: Farm) -> None:
    farm.host("one")
    parallel = {"strategy": "remote", "remote": farm.remote}
    inner = {"name": "inner", "type": "dynamic_parallel", "items": [1, 2, 3], "fan_in": "sum"}
    work = {"run": "print('here'); return {'w': state['item']}"}
    nodes = [
        {"name": "src", "run": "return {}"},
        {"name": "left", "run": "return {'v': 1}"},
        {**inner, "action": work},
        {"name": "sum", "fan_in": True, "run": "return {'v': sum(r.state['w'] for r in parallel_results)}"},
        {"name": "join", "fan_in": True, "run": "return {'all': [r.state['v'] for r in parallel_results]}"},
    ]
    edges = [
        {"from": "__start__", "to": "src"},
        {"from": "src", "to": ["left", "inner"], "parallel": True, "fan_in": "join"},
        {"from": "left", "to": "join"},
        {"from": "sum", "to": "join"},
    ]
    path = farm.folder / "w.yaml"
    path.write_text(json.dumps({"settings": {"parallel": parallel}, "nodes": nodes, "edges": edges}))
    assert farm.run(path).state["all"] == [1, 6]
    spool = ("--spool", farm.spool)
    listed = json.loads(tea_cmd("spool", "list", "--json", *spool, cwd=farm.folder).stdout)
    states = {job["job"].partition("/0001-inner/")[2]: job["state"] for job in listed}
    assert states == {"": "done", **{f"001-inner/{number:04d}-inner": "done" for number in range(3)}}
    (inner,) = farm.spool.glob("runs/*/fanouts/*/jobs/*/fanouts/*/jobs/0002-inner")
    assert (inner / "stdout.1.log").read_text() == "here\n"
    assert f"folder: {farm.folder}\n" in (inner / "workflow.yaml").read_text()
    replayed = tea_cmd("spool", "replay", inner, *spool, cwd=farm.folder)
    assert "with the same result as the record" in replayed.stdout, replayed.stderr
    assert tea_cmd("spool", "doctor", farm.spool, cwd=farm.folder).returncode == 0


def test_a_record_that_cannot_come_along_is_missed_aloud(farm: Farm) -> None:
    """The branch has done its work all the same."""
    farm.host("one")
    odd = "import glob, os; os.mkfifo(glob.glob('../spool/runs/*/fanouts/*/jobs/*/fanouts/*')[0] + '/odd')"
    inner = {"name": "inner", "type": "dynamic_parallel", "items": [1], "fan_in": "end", "action": {"run": odd}}
    (farm.folder / "inner.yaml").write_text(
        json.dumps({"nodes": [inner, {"name": "end", "fan_in": True, "run": "return {'v': 7}"}]})
    )
    farm.remote["files"] = ["inner.yaml"]
    each = {"name": "each", "type": "dynamic_parallel", "items": [1], "fan_in": "join"}
    nodes = [
        {**each, "action": {"subgraph": "inner.yaml"}},
        {"name": "join", "fan_in": True, "run": "return {'errors': [r.error for r in parallel_results]}"},
    ]
    path = farm.folder / "w.yaml"
    settings = {"parallel": {"strategy": "remote", "remote": farm.remote}}
    path.write_text(json.dumps({"settings": settings, "nodes": nodes}))
    ran = farm.run(path)
    assert ran.state["errors"] == [None]
    assert "what its own fan-outs did on one is not recorded here: " in ran.err


def test_what_json_cannot_hold_fails_the_branch_that_left_it(farm: Farm) -> None:
    farm.host("one")
    ran = farm.run(farm.workflow("return {'odd': {1, 2}} if state['item'] else {'v': 1}", 2))
    assert ran.state["outcomes"] == ["succeeded", "failed"]
    assert "JSON cannot hold what the branch left in odd" in ran.state["errors"][1]


@both_transports
def test_a_killed_coordinator_leaves_nothing_there_and_resumes(two: Farm) -> None:
    """Row 34."""
    code = "import time; time.sleep(3600 if state['item'] == 5 and not state.get('quick') else 0.01); return {'v': 1}"
    process = two.start(two.workflow(code, 6))
    wait_until(lambda: len(two.results()) == 5, what="five results")
    process.send_signal(signal.SIGKILL)
    process.wait(240)
    for host in two.hosts.hosts:
        wait_until(lambda host=host: not host.sessions(), what=f"an end of what ran on {host.alias}")  # type: ignore[misc]
        only_the_program_stays(host)
    (late,) = [job for job in two.jobs() if not (job / "result.json").exists()]
    assert late.name == "0005-each"


def test_a_stopped_run_goes_on(farm: Farm) -> None:
    farm.host("one")
    go = farm.folder / "go"
    code = f"import os, time\nwhile state['item'] > 2 and not os.path.exists({str(go)!r}):\n    time.sleep(0.02)\n"
    process = farm.start(farm.workflow(code + "return {'v': state['item']}", 6))
    wait_until(lambda: len(farm.results()) == 3, what="three results")
    before = {job.name: (job / "result.json").stat().st_ino for job in farm.jobs() if (job / "result.json").exists()}
    process.kill()
    process.wait(240)
    go.touch()
    assert farm.resume().state["sum"] == 15
    for job in farm.jobs():
        assert before.get(job.name) in (None, (job / "result.json").stat().st_ino)


@pytest.mark.parametrize(
    ("remote", "message"),
    [
        ({}, "hosts"),
        ({"hosts": ["-oProxyCommand=x"]}, "is refused"),
        ({"hosts": ["one"], "transport": "rsh"}, "must be 'auto' or 'openssh' or 'sftp'"),
        ({"hosts": ["one"], "env": ["TEA_NOT_SET"]}, "TEA_NOT_SET"),
        ({"hosts": ["one"], "files": ["nothing-here"]}, "nothing-here does not exist"),
        ({"hosts": ["one"], "files": ["../secret"]}, "is not inside the workflow's folder"),
        ({"hosts": ["one"], "basefile": "no-tea"}, "make it with `tea bundle"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_starts(
    farm: Farm, remote: dict[str, object], message: str
) -> None:
    farm.remote.update(remote)
    ran = farm.run(farm.workflow(VALUE))
    assert (ran.code, farm.jobs()) == (2, [])
    assert message in ran.err
