"""Fail-fast and cancellation: the rest ends with its reason, and the fan-in still runs."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from tea import CancellationToken
from tests.contract.world import WAIT, World
from tests.support import wait_until


def failing_once_others_run(folder: Path, others: int) -> str:
    """Fails as soon as so many others have left a mark."""
    return f"""
import os, time
end = time.monotonic() + 300
while len([n for n in os.listdir({str(folder)!r}) if n.startswith('running')]) < {others}:
    assert time.monotonic() < end, 'the others never came'
    time.sleep(0.005)
raise OSError('enough')
"""


def marking(folder: Path, name: str) -> str:
    return f"open({str(folder / ('running-' + name))!r}, 'x').close()\n" + WAIT


def test_fail_fast_cancels_those_that_run_and_those_that_wait(world: World) -> None:
    folder = world.folder
    branches = {"bad": failing_once_others_run(folder, 2), "r1": marking(folder, "r1"), "r2": marking(folder, "r2")}
    branches |= {f"w{i}": WAIT for i in range(5)} if world.strategy != "workers" else {}
    settings = {"fail_fast": True, "max_workers": 3}
    ran = world.run(world.edges(branches, settings, last="return {'n': len(parallel_results), 'in': True}"))
    assert (ran.state["n"], ran.state["in"]) == (len(branches), True)
    assert ran.column("outcome") == ["failed", *["cancelled"] * (len(branches) - 1)]
    for result in ran.results[1:]:
        assert (result.success, result.error_type) == (False, "CancelledError")
        assert "fail_fast, and branch 'bad' failed" in str(result.error)
    assert len(list(ran.fanout.glob("cancelled/*"))) == len(branches) - 1
    record = json.loads((Path(str(ran.results[1].job)) / "result.json").read_bytes())
    assert record["outcome"] == "cancelled"


def test_collect_all_lets_the_others_finish(world: World) -> None:
    ran = world.run(world.edges({"bad": "raise OSError", "a": "return {'x': 1}", "b": "return {'x': 2}"}))
    assert ran.column("outcome") == ["failed", "succeeded", "succeeded"]


def test_fail_fast_waits_for_retries(world: World) -> None:
    """A branch has failed when its last attempt has."""
    flag = world.folder / "flag"
    code = (
        f"import os\nif not os.path.exists({str(flag)!r}):\n    open({str(flag)!r}, 'x').close()\n    raise OSError"
    )
    settings = {"fail_fast": True, "retry": {"max_retries": 1, "base_delay": 0.01}}
    ran = world.run(world.edges({"flaky": code, "b": ""}, settings))
    assert ran.column("outcome") == ["succeeded", "succeeded"]


def test_a_token_cancelled_from_another_thread(world: World) -> None:
    token, folder = CancellationToken(), world.folder

    def cancel() -> None:
        wait_until(lambda: (folder / "running-a").exists())
        token.cancel()

    helper = threading.Thread(target=cancel)
    helper.start()
    branches = {"a": marking(folder, "a"), "b": marking(folder, "b")}
    ran = world.run(world.edges(branches), cancel_token=token)
    helper.join()
    assert ran.column("outcome") == ["cancelled", "cancelled"]
    assert all(str(result.error).startswith("cancelled") for result in ran.results)
    assert ran.state["n"] == 2


def test_a_token_that_is_cancelled_already(world: World) -> None:
    token = CancellationToken()
    token.cancel()
    mark = world.folder / "mark"
    ran = world.run(world.edges({"a": f"open({str(mark)!r}, 'x')", "b": ""}), cancel_token=token)
    assert ran.column("outcome") == ["cancelled", "cancelled"]
    assert not mark.exists()


def test_a_listener_that_goes_away_takes_the_branches_along(world: World) -> None:
    """Closing the generator of `stream` cancels what runs."""
    if world.strategy == "workers":
        pytest.skip("the worker is not ours to end")
    events = world.edges({"a": WAIT, "b": "return {}"}).stream({}, {"spool": str(world.spool)})
    seen = [next(events)]
    while seen[-1]["type"] != "parallel_state":
        seen.append(next(events))
    events.close()
    wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name == "tea-fan-out"])
