"""Workers and coordinators that are killed: jobs run again at once, nothing finished does, and nobody is left."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from spool.claim import host_name
from tests.faults.kit import HELD, NOTE, SUM, Place, debris, ended, final, hang_up, kill, need
from tests.support import clean_env, is_running, kill_all, marked_with, tea_argv, wait_until

CHILD = """
import shlex, sys
code = '''
import os, sys, time
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
os.write(fd, ("begin - %d\\\\n" % os.getpid()).encode())
while os.path.exists(sys.argv[1] + ".hold"):
    time.sleep(0.005)
os.write(fd, ("end - %d\\\\n" % os.getpid()).encode())
'''
return {"program": shlex.join([sys.executable, "-c", code, state["log"]])}
"""
"""A node that gives the command of a program that does what HELD does."""


def worker_of(pid: int, place: Place) -> int:
    """The worker process above (or at) a process that a job has started."""
    pids = {int(json.loads(path.read_bytes())["pid"]) for path in place.spool.glob("workers/*/worker.json")}
    while pid not in pids:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pid


def command_workflow(place: Place, strategy: str = "process", **parallel: object) -> None:
    """One branch that is a program."""
    work = {
        "name": "work",
        "strategy": {"parallel_each": "{{ state['items'] }}"},
        "fan_in": "add",
        "steps": [{"run": CHILD}, {"command": "exec {{ state.program }}"}],
    }
    settings = {"parallel": {"strategy": strategy, "max_workers": 2, **parallel}}
    add = {"name": "add", "fan_in": True, "run": 'return {"ok": sum(r.success for r in parallel_results)}'}
    place.write({"name": "t", "settings": settings, "nodes": [work, add]})


# -- workers --------------------------------------------------------------------------------------------------------


def test_a_killed_workers_job_runs_again(place: Place) -> None:
    place.fan_out()
    place.hold()
    run = place.run(2)
    victim, *_ = place.wait_for("begin", 2)
    kill(victim)
    place.wait_for("begin", 3)  # while the other one still runs
    place.let_go()
    assert final(run)["total"] == 2
    assert place.noted("begin").total() == 3
    assert sorted(result["attempt"] for result in place.results()) == [1, 2]


def test_an_external_workers_job_runs_again_when_it_is_killed(place: Place) -> None:
    place.fan_out(strategy="workers")
    place.hold()
    run = place.run(1)
    wait_until(place.todo)
    first = place.start("worker")
    place.wait_for("begin")
    kill(first)
    first.wait(240)
    second = place.start("worker")
    place.wait_for("begin", 2)
    place.let_go()
    assert final(run)["total"] == 0
    ended(second)
    assert debris(place.spool) == []


def test_the_program_of_a_killed_worker_is_ended_before_its_job_runs_again(place: Place) -> None:
    command_workflow(place)
    place.hold()
    run = place.run(1)
    [program] = place.wait_for("begin")
    kill(worker_of(program, place))
    place.wait_for("begin", 2)
    assert not is_running(program)
    place.let_go()
    assert final(run)["ok"] == 1
    assert place.noted("end").total() == 1


@pytest.mark.parametrize("strategy", ["process", "thread"])
def test_no_program_runs_beside_its_second_start_when_all_are_killed(place: Place, strategy: str) -> None:
    command_workflow(place, strategy)
    place.hold()
    run = place.run(1)
    [program] = place.wait_for("begin")
    worker = worker_of(program, place)
    kill_all({worker, run.pid})  # the end of the one may be the end of the other
    run.wait(240)
    resumed = place.start("resume")
    place.wait_for("begin", 2)
    assert not is_running(program)
    place.let_go()
    assert final(resumed)["ok"] == 1


def test_a_job_that_kills_its_workers_is_given_up(place: Place) -> None:
    place.fan_out(NOTE + "note('begin')\nimport signal\nos.kill(os.getpid(), signal.SIGKILL)", max_lost=2)
    run = place.run(1)
    ended(run)
    assert place.noted("begin").total() == 3
    [result] = place.results()
    assert result["outcome"] == "lost"
    assert "died 3 times (max_lost is 2)" in result["error"]


def test_the_server_of_the_slots_may_be_killed(place: Place) -> None:
    place.fan_out()
    place.hold()
    run = place.run(2)
    slot, *_ = place.wait_for("begin", 2)
    server = int(Path(f"/proc/{slot}/stat").read_text().rpartition(")")[2].split()[1])
    assert server != run.pid
    kill(server)
    place.wait_for("begin", 4)
    place.let_go()
    assert final(run)["total"] == 2
    assert {result["attempt"] for result in place.results()} == {2}


# -- the coordinator ------------------------------------------------------------------------------------------------


def test_nothing_is_left_of_a_killed_coordinator(place: Place, short_folder: Path) -> None:
    """Its slots end, those that are stopped and what left their process group too; its temporary files go."""
    temporary = short_folder
    escape = """
        if state["item"] == 0:
            import subprocess
            subprocess.Popen(["setsid", "sleep", "300"], env={**os.environ, "ESCAPED": "yes"})
    """
    place.fan_out(NOTE + "\n".join(line[8:] for line in escape.splitlines()) + HELD)
    place.hold()
    run = place.start("run", "w.yaml", *place.input(2), env={"TMPDIR": str(temporary)})
    pids = place.wait_for("begin", 2)
    assert len(list(temporary.iterdir())) == 1  # the folder of a socket
    mark = f"NO_LEFTOVERS_MARK={os.environ['NO_LEFTOVERS_MARK']}"
    wait_until(lambda: marked_with("ESCAPED=yes"))
    os.kill(pids[0], signal.SIGSTOP)
    kill(run)
    wait_until(lambda: not marked_with(mark), what="the end of all processes")
    wait_until(lambda: not list(temporary.iterdir()), what="the end of all temporary files")


def test_a_long_tmpdir(place: Place, tmp_path: Path) -> None:
    """A socket's name has at most 107 bytes."""
    temporary = tmp_path / ("t" * 100)
    temporary.mkdir()
    place.fan_out()
    run = place.start("run", "w.yaml", *place.input(2), env={"TMPDIR": str(temporary)})
    assert final(run)["total"] == 2


def test_a_killed_coordinators_run_goes_on_where_it_was(place: Place) -> None:
    place.fan_out(HELD.replace("while os", "while state['item'] >= 3 and os"))
    place.hold()
    run = place.run(6)
    place.wait_for("begin", 5)
    wait_until(lambda: len(list(place.spool.glob("runs/*/fanouts/*/done/*"))) == 3)
    place.crash(run)
    place.let_go()
    assert place.resume()["total"] == 30
    counts = place.noted("begin")
    assert all(counts[str(item)] == 1 for item in (0, 1, 2, 5))
    assert all(counts[str(item)] == 2 for item in (3, 4))


def test_sixty_jobs_and_a_coordinator_that_is_killed_again_and_again(place: Place) -> None:
    """Whenever it is killed, in the beginning, in the middle, in the fan-in, no finished job runs again."""
    waits = "import os, time\nwhile os.path.exists(state['log'] + '.hold'):\n    time.sleep(0.01)\n" + SUM
    place.fan_out(NOTE + "note('begin')\nreturn {'value': 2}", waits)
    place.hold()
    chance = random.Random(7)
    coordinator = place.run(60)
    for lines in (0, 5, 30, 60):
        wait_until(lambda n=lines: place.noted("begin").total() >= n)
        time.sleep(chance.uniform(0, 0.05))  # anywhere
        kill(coordinator)
        coordinator.wait(240)
        made = list(place.spool.glob("runs/*/run.json"))
        coordinator = place.start("resume") if made else place.run(60)
    place.let_go()
    assert final(coordinator)["total"] == 120
    assert 60 <= place.noted("begin").total() <= 60 + 4 * 2
    assert debris(place.spool) == []


@pytest.mark.parametrize("calls", ["link,linkat", "mkdir,mkdirat"])
def test_killed_while_it_is_set_up(place: Place, calls: str) -> None:
    """A run that was not even made cannot be resumed, and the message says what to do; one that was, can."""
    strace = need("strace")
    place.fan_out(NOTE + "note('begin')\nreturn {'value': 1}", strategy="thread")
    seen = set()
    for count in (1, 3, 5, 9):
        words = [strace, "-qq", "-o", "/dev/null", "-e", f"inject={calls}:signal=KILL:when={count}"]
        environment = {**clean_env(), "TEA_SPOOL": str(place.spool / str(count))}
        traced = subprocess.Popen(
            [*words, *tea_argv("run", "w.yaml", *place.input(2))],
            cwd=place.folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if traced.wait(240) == 0:
            break  # it does not make so many calls
        done = place.tea("resume", env=environment)
        assert "Traceback" not in done.stderr
        seen.add(done.returncode)
        if done.returncode == 0:
            assert json.loads(done.stdout)["total"] == 2
        else:
            assert done.returncode == 2
            assert "tea run" in done.stderr
    assert seen == {0, 2}, "it was killed before the run was made, and after"


def test_two_coordinators(place: Place) -> None:
    place.fan_out()
    place.hold()
    run = place.run(1)
    place.wait_for("begin")
    second = place.tea("resume")
    assert second.returncode == 2
    assert f":{run.pid}" in second.stderr
    assert "is driven by" in second.stderr
    place.let_go()
    assert final(run)["total"] == 0
    assert place.noted("begin").total() == 1


# -- what a resumed run finds ---------------------------------------------------------------------------------------


def test_the_finished_jobs_of_a_fan_out_inside_a_branch_are_not_run_again(place: Place) -> None:
    inner = HELD.replace("while os", "while state['item'] == 2 and os")
    parallel = {"strategy": "process", "max_workers": 3}
    each = {"name": "each", "strategy": {"parallel_each": "{{ state['items'] }}"}, "fan_in": "sum", "run": inner}
    flow = {"settings": {"parallel": parallel}, "nodes": [each, {"name": "sum", "fan_in": True, "run": SUM}]}
    outer = {
        "name": "outer",
        "strategy": {"parallel_each": [0]},
        "fan_in": "add",
        "subgraph": flow,
        "input": {"log": "{{ state.log }}", "items": "{{ state['items'] }}"},
    }
    last = {"name": "add", "fan_in": True, "run": SUM.replace('"value"', '"total"')}
    place.write({"name": "t", "settings": {"parallel": parallel}, "nodes": [outer, last]})
    place.hold()
    run = place.run(3)
    place.wait_for("begin", 3)
    wait_until(lambda: len(list(place.spool.glob("runs/*/fanouts/*/jobs/*/fanouts/*/done/*"))) == 2)
    place.crash(run)
    place.let_go()
    assert place.resume()["total"] == 6
    assert place.noted("begin") == {"0": 1, "1": 1, "2": 2}


def test_workers_that_live_are_adopted(place: Place) -> None:
    """They go on with their job while there is no coordinator, and its result counts."""
    place.fan_out(strategy="workers")
    place.hold()
    run = place.run(2)
    wait_until(place.todo)
    worker = place.start("worker", "--slots", "2")
    place.wait_for("begin", 2)
    kill(run)
    run.wait(240)
    resumed = place.start("resume")
    wait_until(lambda: '"resumed"' in (place.only_run() / "events.jsonl").read_text())
    place.let_go()
    assert final(resumed)["total"] == 2
    ended(worker)
    assert place.noted("begin").total() == 2


def test_results_that_came_while_there_was_no_coordinator_count(place: Place) -> None:
    place.fan_out(strategy="workers")
    place.hold()
    run = place.run(2)
    wait_until(lambda: len(place.todo()) == 2)
    place.crash(run)
    place.let_go()
    ended(place.start("worker"))
    assert place.resume()["total"] == 2
    assert place.noted("begin").total() == 2


def test_an_open_circuit_stays_open(place: Place) -> None:
    place.fan_out(max_workers=1, circuit_breaker={"failure_threshold": 2, "reset_timeout": 3600})
    place.hold()
    run = place.run(5)
    place.wait_for("begin")
    place.crash(run)
    [fanout] = place.spool.glob("runs/*/fanouts/*")
    config = json.loads((fanout / "fanout.json").read_bytes())["config"]["circuit_breaker"]
    circuit = {"name": "work", "config": config, "state": "open", "failure_count": 2, "open_remaining": 3600}
    (fanout / "breaker.json").write_text(json.dumps({"circuits": [circuit]}))
    (fanout / "breaker.json").chmod(0o600)
    place.let_go()
    place.resume()
    begun, *others = place.results()
    assert begun["outcome"] == "succeeded", "it was let through before, and its worker was killed"
    assert {result["error_type"] for result in others} == {"CircuitOpenError"}
    assert set(place.noted("begin")) == {"0"}
    assert json.loads((fanout / "breaker.json").read_bytes())["circuits"][0]["state"] == "open"


def test_what_an_open_circuit_refuses_never_begins(place: Place) -> None:
    """Also not between the job's making and its end, while idle workers look for something to do."""
    place.fan_out(NOTE + "note('begin')\nraise OSError('no')", circuit_breaker={"failure_threshold": 1})
    run = place.run(300)
    ended(run)
    assert set(place.noted("begin")) <= {"0", "1"}
    assert len(place.results()) == 300


def test_timeout_total_counts_over_attempts_and_a_resume(place: Place) -> None:
    """What attempts before the kill took is not forgotten. The second attempt kills the coordinator."""
    body = (
        NOTE
        + """
import signal, time
note("begin")
if len(open(state["log"]).readlines()) == 2:
    os.kill(int(open(state["log"] + ".pid").read()), signal.SIGKILL)
    time.sleep(60)
time.sleep(1.2)
raise OSError("again")
"""
    )
    place.fan_out(body, timeout_total=4.5, retry={"max_retries": 50, "base_delay": 0.01, "backoff_multiplier": 1})
    run = place.run(1)
    Path(f"{place.log}.new").write_text(f"{run.pid}")
    Path(f"{place.log}.new").rename(f"{place.log}.pid")
    run.wait(240)
    assert place.noted("begin").total() == 2
    place.resume()
    [result] = place.results()
    assert result["outcome"] in ("timed_out", "failed")
    assert place.noted("begin").total() <= 5


# -- Ctrl-C and orphans ---------------------------------------------------------------------------------------------


def test_ctrl_c_ends_the_jobs_and_says_how_to_go_on(place: Place) -> None:
    place.fan_out(max_workers=2)
    place.hold()
    run = place.run(3)
    pids = place.wait_for("begin", 2)
    kill(run, signal.SIGINT)
    _, err = ended(run, 130)
    assert not any(map(is_running, pids))
    command = next(line for line in err.splitlines() if "To go on:" in line).split("tea resume ")[1].split()
    place.let_go()
    assert place.resume(command[0])["total"] == 6
    assert json.loads((place.only_run() / "run.json").read_bytes())["outcome"] == "done"


def test_a_second_ctrl_c_ends_it_at_once(place: Place) -> None:
    """Jobs that do not listen to TERM have a long grace; who presses again does not want to wait for it."""
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + HELD
    place.fan_out(deaf, grace_seconds=300)
    place.hold()
    run = place.run(1)
    [pid] = place.wait_for("begin")
    kill(run, signal.SIGINT)
    wait_until(
        lambda: '"stopping"' in (place.only_run() / "events.jsonl").read_text(), what="the first one to be heard"
    )
    assert is_running(pid)
    kill(run, signal.SIGINT)
    ended(run, 130)
    wait_until(lambda: not is_running(pid))
    place.let_go()
    assert place.resume()["total"] == 0


def test_a_worker_ends_with_its_parent(place: Place) -> None:
    """The end of its stdin is the end of its jobs; they run again elsewhere."""
    place.fan_out(strategy="workers", grace_seconds=0.5)
    place.hold()
    run = place.run(1)
    wait_until(place.todo)
    worker = place.start("worker", "--follow", stdin=subprocess.PIPE)
    [pid] = place.wait_for("begin")
    hang_up(worker)
    assert not is_running(pid)
    second = place.start("worker")
    place.wait_for("begin", 2)
    place.let_go()
    assert final(run)["total"] == 0
    ended(second)


def test_a_worker_that_was_killed_before_it_had_a_name_leaves_nothing(place: Place) -> None:
    """Between the making of its folder and its record, it has only a lock and a temporary file."""
    place.fan_out()
    final(place.run(1))
    gone = subprocess.Popen(["true"])
    gone.wait()
    folder = place.spool / "workers" / f"{host_name()}-{gone.pid}-0123456789ab"
    folder.mkdir(0o700)
    (folder / "lock").touch(0o600)
    (folder / f".tmp-{gone.pid}-01234567-0").touch(0o600)
    final(place.run(1))
    assert not folder.exists()


def test_servers_that_are_killed_while_slots_are_started(place: Place) -> None:
    """Whenever the server dies, in the middle of starting a slot too, another takes its place."""
    place.fan_out(HELD, max_lost=100)
    place.hold()
    run = place.run(2)
    slots = place.wait_for("begin", 2)
    for round in range(1, 5):
        kill(int(Path(f"/proc/{slots[-1]}/stat").read_text().rpartition(")")[2].split()[1]))
        slots = place.wait_for("begin", 2 * round + 2)
    place.let_go()
    assert final(run)["total"] == 2
    assert all(result["attempt"] > 1 for result in place.results())
