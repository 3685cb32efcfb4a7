"""Tickets: an index that says at any time, and after any mending, where a job is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spool import tickets
from spool.publish import write_exclusive
from tests.spool.kit import Bench


@pytest.fixture
def bench(spool_dir: Path) -> Bench:
    return Bench(spool_dir)


def put(bench: Bench, kind: str, name: str = "0000-b") -> str:
    path = bench.fanout.ticket(kind, name)
    write_exclusive(path, b"")
    return path


def test_a_ticket_moves(bench: Bench) -> None:
    put(bench, "todo")
    tickets.move(bench.fanout, "0000-b", "done")
    assert bench.tickets() == {"done": ["0000-b"]}


def test_moving_a_ticket_that_is_gone_settles_it(bench: Bench) -> None:
    tickets.move(bench.fanout, "0000-b", "failed")
    assert bench.tickets() == {"failed": ["0000-b"]}
    tickets.move(bench.fanout, "0000-b", "failed")
    assert bench.tickets() == {"failed": ["0000-b"]}


@pytest.mark.parametrize("there", [(), ("todo",), ("done",), ("todo", "done"), ("todo", "failed"), tickets.TICKETS])
@pytest.mark.parametrize("kind", tickets.TICKETS)
def test_settling_leaves_one_ticket_and_says_whether_it_mended(
    bench: Bench, there: tuple[str, ...], kind: str
) -> None:
    for one in there:
        put(bench, one)
    assert tickets.settle(bench.fanout, "0000-b", kind) is (there != (kind,))
    assert bench.tickets() == {kind: ["0000-b"]}
    assert tickets.settle(bench.fanout, "0000-b", kind) is False


def test_two_links_of_one_file_are_settled_too(bench: Bench) -> None:
    """A rename between two links of one file does nothing and says that it did."""
    os.link(put(bench, "todo"), bench.fanout.ticket("done", "0000-b"))
    os.rename(bench.fanout.ticket("todo", "0000-b"), bench.fanout.ticket("done", "0000-b"))
    assert bench.tickets() == {"todo": ["0000-b"], "done": ["0000-b"]}
    assert tickets.settle(bench.fanout, "0000-b", "done")
    assert bench.tickets() == {"done": ["0000-b"]}


def test_all_tickets_of_a_fanout_may_be_links_of_one_file(bench: Bench) -> None:
    names = [job.name for job in bench.jobs(3)]
    tickets.move(bench.fanout, names[0], "done")
    tickets.move(bench.fanout, names[1], "done")
    assert bench.tickets() == {"todo": names[2:], "done": names[:2]}


def test_counting_and_naming_pass_over_what_is_none_of_ours(bench: Bench) -> None:
    put(bench, "todo", "0000-b")
    put(bench, "todo", ".tmp-1")
    put(bench, "todo", "-rf")
    put(bench, "failed", "0001-b")
    assert tickets.names(bench.fanout, "todo") == ["0000-b"]
    assert tickets.counts(bench.fanout) == {"todo": 1, "done": 0, "failed": 1, "cancelled": 0}
    os.rmdir(bench.fanout.tickets("cancelled"))
    assert tickets.counts(bench.fanout)["cancelled"] == 0


def test_where_a_ticket_lies(bench: Bench) -> None:
    assert tickets.kind_of(bench.fanout, "0000-b") is None
    put(bench, "cancelled")
    assert tickets.kind_of(bench.fanout, "0000-b") == "cancelled"


def test_only_the_ticket_of_a_job_that_is_gone_is_dropped(bench: Bench) -> None:
    [job] = bench.jobs()
    tickets.drop_stray(bench.fanout, job)
    assert bench.tickets() == {"todo": [job.name]}
    put(bench, "todo", "0009-gone")
    for _ in range(2):
        tickets.drop_stray(bench.fanout, bench.fanout.job("0009-gone"))
    assert bench.tickets() == {"todo": [job.name]}
