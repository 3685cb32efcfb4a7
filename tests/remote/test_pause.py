"""A run on hosts that is paused: what runs there ends, what has only been sent there comes back and waits."""

from __future__ import annotations

import json
from typing import Any

from tests.remote.conftest import Farm
from tests.support import tea_cmd, wait_until

ITEMS = 8


def spool(farm: Farm, verb: str) -> Any:
    done = tea_cmd("spool", verb, "--json", "--spool", farm.spool)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_hosts_begin_nothing_new(farm: Farm) -> None:
    host = farm.host("one", slots=2)
    process = farm.start(farm.workflow(farm.held_back("return {'v': state['item']}"), ITEMS))
    wait_until(lambda: farm.events("host") and len(spool(farm, "status")["running"]) == 2, what="two jobs to run")
    (done,) = spool(farm, "pause")
    assert (done["changed"], done["state"]) == (True, "running")
    there = lambda: list(host.workdir.glob("fan-out-*/spool/runs/*/fanouts/*/todo/*"))  # noqa: E731
    wait_until(lambda: len(there()) == 2, what="what has not begun to come back")
    farm.let_go(1)
    wait_until(lambda: len(farm.results()) == 2, what="what runs to end")
    wait_until(lambda: not spool(farm, "status")["running"], what="nothing to run")
    assert len(farm.results()) == 2
    spool(farm, "unpause")
    out, err = process.communicate(timeout=240)
    assert json.loads(out)["sum"] == sum(range(ITEMS)), err
