"""Time limits: for one attempt, for all of them; and what is left of a branch that exceeds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.contract.world import WAIT, World
from tests.support import is_running, wait_until


def test_a_branch_that_takes_too_long_times_out_alone(world: World) -> None:
    """The other has a limit, too, that it does not come near to however slow the machine is."""
    branches = {"slow": WAIT, "quick": "return {'x': 1}"}
    ran = world.run(world.edges(branches, {"timeout_seconds": 120}, own={"slow": {"timeout_seconds": 0.5}}))
    slow, quick = ran.results
    assert (slow.success, slow.outcome, slow.timeout, slow.error_type) == (False, "timed_out", True, "TimeoutError")
    assert str(slow.error).startswith("Flow timed out after 0.5s")
    assert slow.retry_count == 0
    assert (quick.success, quick.timeout) == (True, False)
    assert (Path(str(slow.job)) / "result.1.json").exists()
    assert [path.name for path in ran.fanout.glob("failed/*")] == ["0000-slow"]


def test_a_timeout_is_retried_like_an_error(world: World) -> None:
    """At least once; on a machine that stalls, the attempt that would end at once may be late, too."""
    flag = world.folder / "flag"
    code = f"""
import os
if not os.path.exists({str(flag)!r}):
    open({str(flag)!r}, 'x').close()
{_indented(WAIT)}
return {{'second': True}}
"""
    retry = {"max_retries": 30, "base_delay": 0.01, "backoff_multiplier": 1.0, "retry_on": ["Exception"]}
    ran = world.run(world.edges({"a": code}, {"timeout_seconds": 2, "retry": retry}))
    (result,) = ran.results
    assert (result.success, result.get("second")) == (True, True)
    assert result.retry_count >= 1
    assert {error["error_type"] for error in result.attempt_errors} == {"TimeoutError"}


def _indented(code: str) -> str:
    return "\n".join(f"    {line}" for line in code.strip().splitlines())


def test_a_timeout_is_not_retried_when_other_errors_are_asked_for(world: World) -> None:
    retry = {"max_retries": 3, "base_delay": 0.01, "retry_on": ["ValueError"]}
    (result,) = world.run(world.edges({"a": WAIT}, {"timeout_seconds": 0.2, "retry": retry})).results
    assert (result.outcome, result.retry_count) == ("timed_out", 0)


def test_timeout_total_ends_an_attempt_too(world: World) -> None:
    settings = {"timeout_seconds": 20, "timeout_total": 0.4}
    (result,) = world.run(world.edges({"a": WAIT}, settings)).results
    assert result.outcome == "timed_out"
    assert str(result.error).startswith("Flow timed out after 0.4s")


def test_edges_may_have_limits_of_their_own(yaml_world: World) -> None:
    nodes = [
        {"name": "src", "run": "return {}"},
        {"name": "a", "run": WAIT},
        {"name": "b", "run": "import time\ntime.sleep(0.6)"},
        {"name": "join", "fan_in": True, "run": "return {}"},
    ]
    edges = [
        {"from": "src", "to": "a", "parallel": True, "fan_in": "join", "parallel_config": {"timeout_seconds": 0.3}},
        {"from": "src", "to": "b", "parallel": True, "fan_in": "join"},
        *({"from": name, "to": "join"} for name in "ab"),
    ]
    assert yaml_world.run(yaml_world.yaml(nodes, edges)).column("outcome") == ["timed_out", "succeeded"]


def test_an_item_in_a_chunk_that_takes_too_long_ends_its_chunk(yaml_world: World) -> None:
    spec = {
        "type": "dynamic_parallel",
        "items": [0, 1, 2, 3],
        "chunk_size": 2,
        "parallel_config": {"timeout_seconds": yaml_world.limit(6)},
        "action": {"run": "if state['item'] != 3:\n    return {'v': 1}\n" + WAIT},
    }
    ran = yaml_world.run(yaml_world.over(spec))
    assert ran.column("outcome") == ["succeeded", "succeeded", "timed_out", "timed_out"]
    assert [result.get("item") for result in ran.results[:2]] == [0, 1]


def test_a_thread_is_told_and_its_slot_is_free_again(thread_world: World) -> None:
    told = thread_world.folder / "told"
    slow = f"""
import time
end = time.monotonic() + 300
while time.monotonic() < end:
    if cancel_token.is_cancelled():
        open({str(told)!r}, 'x').close()
        return {{}}
    time.sleep(0.005)
"""
    branches = {"slow": slow, "next": "return {'x': 1}"}
    graph = thread_world.edges(branches, {"max_workers": 1}, own={"slow": {"timeout_seconds": 0.5}})
    ran = thread_world.run(graph)
    assert ran.column("outcome") == ["timed_out", "succeeded"]
    assert "may still run" in str(ran.results[0].error)
    wait_until(told.exists)


def test_what_an_abandoned_thread_brings_later_is_dropped(thread_world: World) -> None:
    late = thread_world.folder / "late"
    slow = f"cancel_token.wait(240)\nopen({str(late)!r}, 'x').close()\nreturn {{'late': True}}"
    ran = thread_world.run(thread_world.edges({"slow": slow}, {"timeout_seconds": 0.1}))
    wait_until(late.exists)
    assert ran.results[0].outcome == "timed_out"
    assert ran.results[0].get("late") is None
    assert [path.name for path in Path(str(ran.results[0].job)).glob("result*")] != []


def test_a_process_is_killed_with_its_children_and_its_output_is_kept(process_world: World) -> None:
    """Even when they ignore the polite signal."""
    pids = process_world.folder / "pids"  # once it is there, its writer waits for its end: the next attempt is over
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    code = f"""
import os, subprocess, sys
if os.path.exists({str(pids)!r}):
    return
child = subprocess.Popen([sys.executable, "-c", {stubborn!r}])
print("working on it", flush=True)
print("and complaining", file=sys.stderr, flush=True)
open("{pids}.new", "w").write(f"{{os.getpid()}} {{child.pid}}")
os.rename("{pids}.new", {str(pids)!r})
child.wait()
"""
    retry = {"max_retries": 30, "base_delay": 0.01, "backoff_multiplier": 1.0}
    graph = process_world.edges({"slow": code, "b": ""}, {"retry": retry}, own={"slow": {"timeout_seconds": 2}})
    ran = process_world.run(graph)
    assert ran.column("outcome") == ["succeeded", "succeeded"]
    slow = ran.results[0]
    started = [int(pid) for pid in pids.read_text().split()]
    assert len(started) == 2
    wait_until(lambda: not any(map(is_running, started)), what="both to be gone: what is killed may take its time")
    assert {error["error_type"] for error in slow.attempt_errors} == {"TimeoutError"}
    assert newest_log(slow, "stdout") == "working on it\n"
    assert newest_log(slow, "stderr") == "and complaining\n"


def newest_log(result: Any, stream: str) -> str:
    """What the last attempt printed that printed anything."""
    logs = Path(str(result.job)).glob(f"{stream}.*.log")
    return max(logs, key=lambda path: int(path.name.split(".")[1])).read_text()
