"""The morning after: 500 jobs with failures, retries, timeouts and a lost worker; their coordinator was killed.

Whoever comes then must find out what happened, with every verb, while the run lives and when it is dead; and the run
must be brought to its end so that the fan-in gets every result.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.faults.kit import NOTE, Place
from tests.support import wait_until

JOBS = 500
BAD, FLAKY, KILLER, SLOW, REPLAYED, LAST = range(10), range(10, 15), 15, range(16, 18), 20, JOBS - 1
LIMIT = 10
"""Seconds for an attempt."""

WORK = (
    NOTE
    + f"""
import signal, sys, time
item, log = state["item"], state["log"]
fixed = os.path.exists(f"{{log}}.fixed")
note("begin")
print("about to", item)
print("careful", file=sys.stderr)
first = not os.path.exists(f"{{log}}.{{item}}")
open(f"{{log}}.{{item}}", "w").close()
if item in {tuple(BAD)} and not fixed:
    raise ValueError(f"bad item {{item}}")
if item in {tuple(FLAKY)} and first:
    raise ConnectionError(f"no answer for {{item}}")
if item == {KILLER} and first:
    os.kill(os.getpid(), signal.SIGKILL)
if item in {tuple(SLOW)} and not fixed:
    time.sleep(600)
for _ in range(30):  # half a second each, as long as the test wants
    if os.path.exists(f"{{log}}.hold"):
        time.sleep(0.015)
note("end")
return {{"value": item * 2}}
"""
)
JOIN = """
return {
    "total": sum(r.state["value"] for r in parallel_results if r.success),
    "outcomes": {o: sum(r.outcome == o for r in parallel_results) for o in {r.outcome for r in parallel_results}},
    "in_order": [r.state["item"] for r in parallel_results] == list(range(len(parallel_results))),
    "log": None, "items": None,
}
"""


class Morning(Place):
    """The run, and the verbs over it."""

    def begin(self) -> subprocess.Popen[str]:
        """Start it, and wait until everything has gone wrong that shall."""
        retry = {"max_retries": 1, "base_delay": 0.02, "retry_on": ["ConnectionError"]}
        self.fan_out(WORK, JOIN, retry=retry, timeout_seconds=LIMIT, grace_seconds=0.2)
        self.hold()
        process = self.run(JOBS)
        wait_until(lambda: len(self.tickets("failed")) == len(BAD) + len(SLOW), what="the failures")
        settled = {f"{item:04d}-work" for item in (*FLAKY, KILLER, REPLAYED)}
        wait_until(lambda: settled <= set(self.tickets("done")), what="the second attempts")
        return process

    def fix(self) -> None:
        Path(f"{self.log}.fixed").touch()

    def tickets(self, kind: str) -> list[str]:
        return [path.name for path in self.spool.glob(f"runs/*/fanouts/001-work/{kind}/*")]


class Verbs:
    """Verbs that run beside each other; what they said is asked for later."""

    def __init__(self, place: Morning) -> None:
        self._place, self._pool = place, ThreadPoolExecutor(3)

    def __call__(self, *words: str, code: int = 0) -> Said:
        return Said(words, code, self._pool.submit(self._place.tea, "spool", *words))

    def close(self) -> None:
        self._pool.shutdown()


class Said:
    """What a verb said."""

    def __init__(self, words: tuple[str, ...], code: int, done: Future[subprocess.CompletedProcess[str]]) -> None:
        self._words, self._code, self._done = words, code, done

    @property
    def text(self) -> str:
        done = self._done.result(120)
        assert done.returncode == self._code, (self._words, done.stdout, done.stderr)
        return done.stdout if self._code < 2 else done.stderr

    @property
    def flat(self) -> str:
        """The text in one line: sentences are broken where the terminal ends."""
        return " ".join(self.text.split())

    @property
    def data(self) -> Any:
        return json.loads(self.text)


@pytest.fixture
def place(tmp_path: Path, no_leftovers: None) -> Iterator[Morning]:
    made = Morning(tmp_path)
    yield made
    made.end()


@pytest.fixture
def verb(place: Morning) -> Iterator[Verbs]:
    verbs = Verbs(place)
    yield verbs
    verbs.close()


def test_the_morning_after(place: Morning, verb: Verbs) -> None:
    process = place.begin()
    while_it_runs(place, verb)
    assert process.poll() is None
    place.crash(process)
    wait_until(lambda: verb("status", "--json").data["state"] == "stopped")
    when_it_is_dead(place, verb)
    finished = {str(int(name[:4])) for name in place.tickets("done")}
    finished -= {str(item) for item in (*FLAKY, KILLER, REPLAYED)}
    bring_it_to_its_end(place, verb)
    assert finished
    assert {place.noted("begin")[item] for item in finished} == {1}, "what had finished ran again"


def while_it_runs(place: Morning, verb: Verbs) -> None:
    status, told = verb("status", "--json"), verb("status")
    failed = verb("list", "--state", "failed", "--json")
    found, slow = verb("list", "--error", "BAD ITEM", "--quiet"), verb("list", "--slower-than", "2s", "--quiet")
    show, logs = verb("show", str(KILLER), "--json"), verb("logs", "3", "--stdout")
    bad, flaky, late, lost = (verb("explain", str(item)) for item in (0, FLAKY[0], SLOW[0], KILLER))
    replay, other = verb("replay", "3", code=1), verb("replay", str(REPLAYED), "--set", "item=1000", "--json")
    retry, pack = verb("retry", code=2), verb("pack", code=2)
    doctor, gc = verb("doctor", "--quick", "--json"), verb("gc", "--older-than", "0s", "--json")
    report, cancel = verb("report", "-o", str(place.folder / "live.html")), verb("cancel", str(LAST))

    (fan_out,) = status.data["fanouts"]
    assert (status.data["state"], fan_out["total"], fan_out["failed"]) == ("running", JOBS, 12)
    assert "driven by" in told.text
    assert "ValueError: bad item 0" in told.text
    outcomes = [one["outcome"] for one in failed.data]
    assert (outcomes.count("failed"), outcomes.count("timed_out")) == (len(BAD), len(SLOW))
    # Jobs end and begin while it lists them: for a moment there may be none, or more than there are workers.
    wait_until(lambda: 1 <= len(verb("list", "--state", "running", "--json").data) <= 2, what="what runs")
    assert len(found.text.split()) == len(BAD)
    assert {name.rpartition("/")[2] for name in slow.text.split()} >= {f"{item:04d}-work" for item in SLOW}
    assert [one["state"] for one in show.data["attempts"]] == ["lost", "succeeded"]
    assert logs.text == "about to 3\n"
    assert "ValueError: bad item 0" in bad.flat
    assert "ConnectionError" in flaky.flat
    assert f"timed out after {LIMIT}.0s" in late.flat
    assert "lost" in lost.flat
    assert "it still fails, as in the record" in replay.text
    assert (other.data["verdict"], other.data["result"]["state"]["value"]) == ("differs", 2000)
    assert "driven by" in retry.text
    assert pack.text
    assert [one for one in doctor.data["findings"] if one["severity"] == "error"] == []
    assert gc.data["runs"] == []
    assert report.text is not None
    assert place.only_run().name in (place.folder / "live.html").read_text()
    assert "1 job cancelled" in cancel.text


def when_it_is_dead(place: Morning, verb: Verbs) -> None:
    todo = sorted(place.tickets("todo"))
    status, told = verb("status", "--json"), verb("status")
    waiting, running = verb("list", "--state", "todo", "--json"), verb("list", "--state", "running", "--json")
    counts = verb("list", "--state", "failed", "--state", "cancelled", "--json")
    left, fresh = verb("explain", todo[0]), verb("explain", todo[-1])
    show, replay = verb("show", "0"), verb("replay", str(REPLAYED), "--json")
    doctor, gc, pack = verb("doctor", "--quick", "--json", code=1), verb("gc", "--json"), verb("pack", code=2)
    report = verb("report", "-o", str(place.folder / "dead.html"))

    (fan_out,) = status.data["fanouts"]
    assert (status.data["state"], fan_out["failed"], fan_out["cancelled"]) == ("stopped", 12, 1)
    assert f"tea resume {place.only_run().name}" in told.text
    assert (len(waiting.data), running.data) == (len(todo), [])
    assert len(counts.data) == 13
    assert "resume" in left.flat
    assert "resume" in fresh.flat
    assert "ValueError: bad item 0" in show.text
    assert replay.data["verdict"] == "same"
    assert "stopped-run" in {one["kind"] for one in doctor.data["findings"]}
    assert gc.data["runs"] == []
    assert pack.text
    assert report.text is not None
    assert "bad item 0" in (place.folder / "dead.html").read_text()


def bring_it_to_its_end(place: Morning, verb: Verbs) -> None:
    place.fix()
    place.let_go()
    assert "13 jobs sent back" in verb("retry").text
    assert place.resume() == {
        "total": sum(item * 2 for item in range(JOBS)),
        "outcomes": {"succeeded": JOBS},
        "in_order": True,
        "log": None,
        "items": None,
    }
    status, listed, doctor = verb("status", "--json"), verb("list", "--json"), verb("doctor", "--quick", "--json")
    sent_back, report = verb("show", "0", "--json"), verb("report", "-o", str(place.folder / "end.html"))
    assert status.data["state"] == "done"
    assert {one["state"] for one in listed.data} == {"done"}
    assert [one for one in doctor.data["findings"] if one["severity"] not in ("ok", "info")] == []
    assert [one["state"] for one in sent_back.data["attempts"]] == ["failed", "succeeded"]
    assert report.text is not None
    name = place.only_run().name
    assert verb("pack", "--json").data[0]["run"] == name
    packed = verb("list", "--branch", "work", "--quiet"), verb("show", "0"), verb("status")
    assert len(packed[0].text.split()) == JOBS
    assert "bad item 0" in packed[1].text
    assert "done" in packed[2].text
