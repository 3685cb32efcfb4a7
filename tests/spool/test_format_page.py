"""docs/spool-format.md says what the code does: names, members, defaults."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from spool import attempts
from spool.attempts import Outcome, Policy, Verdict
from spool.layout import FORMAT, NAME, TICKETS, FanOutFiles, JobFiles, RunFiles, SpoolFiles, WorkerFiles
from spool.worker import LEASE, Worker
from tests.spool.kit import Bench
from tests.support import ROOT

PAGE = (ROOT / "docs" / "spool-format.md").read_text()


def names(files: object) -> list[str]:
    """The names of the files in a folder of the spool."""
    values = [getattr(files, name) for name, value in vars(type(files)).items() if isinstance(value, property)]
    values += [method(1) for name in ("claim", "result", "result_pickle", "retry", "retired", "stdout", "stderr")
               if callable(method := getattr(files, name, None))]  # fmt: skip
    return [value.rpartition("/")[2] for value in values if value.startswith("/s/")]


@pytest.mark.parametrize(
    "files", [SpoolFiles("/s"), RunFiles("/s"), FanOutFiles("/s"), JobFiles("/s"), WorkerFiles("/s")]
)
def test_every_name_of_the_layout_is_in_the_tree(files: object) -> None:
    tree = PAGE.split("```")[1]
    assert names(files)
    for name in names(files):
        assert re.search(rf"(?<![\w.]){re.escape(name)}(?![\w])", tree), f"{name} is missing"


def test_every_member_of_a_policy_stands_there_with_its_default() -> None:
    rows = {}
    for line in PAGE.splitlines():
        if line.startswith("| `") and line.count("|") == 4:
            keys, values = line.split("|")[1:3]
            members = re.findall(r"`(\w+)`", keys)
            defaults = [value.strip() for value in values.split(",")]
            rows.update(zip(members, defaults * len(members) if len(defaults) == 1 else defaults, strict=False))
    for field in fields(Policy):
        assert field.name in rows, f"{field.name} is missing"
        assert json.loads(rows[field.name]) == field.default, field.name


def test_outcomes_tickets_and_numbers_are_right() -> None:
    assert all(f"`{outcome.value}`" in PAGE for outcome in Outcome)
    assert all(f"`{kind}/`" in PAGE for kind in TICKETS)
    assert f"format {FORMAT}" in PAGE.splitlines()[0]
    assert NAME.pattern in PAGE
    assert f"{LEASE:.0f} by default" in PAGE
    assert {verdict.value for verdict in Verdict} == {"free", "running", "waiting", "finished", "given up"}
    assert attempts.decide.__name__ in PAGE


def test_every_member_of_the_records_is_described(spool_dir: Path) -> None:
    bench = Bench(spool_dir)
    [job] = bench.jobs(1, Policy(max_retries=1), b'{"shared":"%s"}' % (b"x" * 2000))
    with Worker(bench.spool) as worker:
        for path in (bench.spool.spool, bench.run.run, job.job, worker.files.worker):
            for member in json.loads(Path(path).read_bytes()):
                assert f"`{member}`" in PAGE, f"{member} of {path}"
