"""Hosts as the journal of a run tells of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spool import jsonio
from spool.hosts import hosts
from spool.inspect import look_at_run
from spool.journal import Journal
from spool.layout import RunFiles
from spool.publish import publish
from spool.run import create_fanout, create_run, open_spool


@pytest.fixture
def run(tmp_path: Path) -> RunFiles:
    """A run with a fan-out over hosts, which nobody drives."""
    made = create_run(open_spool(str(tmp_path / "spool")), "demo", {}, b"")
    fanout = create_fanout(made.fanouts, 1, "each")
    publish(fanout.fanout, jsonio.pretty({"strategy": "remote", "total": 1}))
    return made


def told(run: RunFiles, *events: dict[str, Any], alive: bool | None = True) -> dict[str, str]:
    journal = Journal(run)
    for event in events:
        journal.write(**{"event": "host", "fanout": "001-each", **event})
    journal.close()
    view = look_at_run(open_spool(run.path.rpartition("/runs/")[0]), run)
    view.alive = alive
    return {host.host: f"{host.state} {host.slots or '-'} {host.error}".strip() for host in hosts(view, [])}


def test_the_newest_event_of_each_host_counts_and_what_is_known_of_it_stays(run: RunFiles) -> None:
    events: list[dict[str, Any]] = [
        {"host": "a", "state": "connecting"},
        {"host": "b", "state": "connecting"},
        {"host": "a", "state": "ready", "slots": 4},
        {"host": "b", "state": "out", "error": "host b: no"},
        {"event": "failed", "host": "a"},
        {"host": "a", "state": "lost", "error": "host a: cut"},
    ]
    assert told(run, *events) == {"a": "lost 4 host a: cut", "b": "out - host b: no"}
    assert told(run, {"host": "a", "state": "half-open", "slots": 2}) == {"a": "half-open 2", "b": "out - host b: no"}


@pytest.mark.parametrize(("state", "after"), [("half-open", "stopped"), ("lost", "stopped"), ("ended", "ended")])
def test_what_a_killed_coordinator_left(run: RunFiles, state: str, after: str) -> None:
    assert told(run, {"host": "a", "state": state}, alive=None) == {"a": f"{state} -"}
    assert told(run, alive=False) == {"a": f"{after} -"}


def test_a_resumed_run_and_the_next_fan_out_begin_anew(run: RunFiles) -> None:
    told(run, {"host": "a", "state": "ready"}, {"host": "b", "state": "ready"})
    assert told(run, {"event": "resumed"}) == {"a": "ready -", "b": "ready -"}
    assert told(run, {"host": "b", "state": "connecting"}) == {"b": "connecting -"}
    assert told(run, {"host": "c", "state": "ready", "fanout": "002-next"}) == {"c": "ready -"}
