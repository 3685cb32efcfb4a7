"""`tea spool report`: what is in the page and in its JSON, for whatever run, and what it leaves out."""

from __future__ import annotations

import json
import os
import signal
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.support import tea_cmd
from tests.tools import kit
from tests.tools.kit import NESTED, files_of, job, read, run, start, verb, write_workflow


class Parsed(HTMLParser):
    """A page as a parser reads it: its elements, its text, the data of its script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.data: Any = None
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self._inside = [tag, json.dumps(dict(attributes))] if tag in ("script", "style") else []

    def handle_endtag(self, tag: str) -> None:
        self._inside = []

    def handle_data(self, data: str) -> None:
        if self._inside and "application/json" in self._inside[1]:
            self.data = json.loads(data)
        elif not self._inside:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def count(self, tag: str) -> int:
        return sum(1 for name, _ in self.elements if name == tag)


def made(here: Path, *arguments: str) -> Parsed:
    verb(here, "report", *arguments)
    return Parsed((here / "report.html").read_text())


@pytest.fixture
def here(tmp_path: Path) -> Path:
    write_workflow(tmp_path, retries=1)
    return tmp_path


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 6 jobs that has ended; 2 of them failed, after a retry each. Only to be read."""
    folder = tmp_path_factory.mktemp("ended")
    write_workflow(folder, retries=1)
    run(folder, items=6, bad=(1, 3))
    return folder


# -- a run that has ended ---------------------------------------------------------------------------------------


def test_one_page_that_asks_for_nothing(ended: Path) -> None:
    before = files_of(ended)
    done = verb(ended, "report", "-o", "one.html")
    assert "one.html: 6 jobs of run" in done.stderr
    assert done.stdout == ""
    text = (ended / "one.html").read_text()
    assert "default-src 'none'" in text
    parsed = Parsed(text)
    assert [name for _, told in parsed.elements for name in ("src", "srcset", "action") if name in told] == []
    links = [told["href"] or "" for _, told in parsed.elements if told.get("href")]
    assert [link for link in links if not link.startswith(("#", "data:"))] == []
    assert files_of(ended) == before


def test_what_the_page_tells(ended: Path) -> None:
    (folder,) = (ended / ".tea" / "spool" / "runs").iterdir()
    name = folder.name
    parsed = made(ended)
    assert name in parsed.text
    assert "4 succeeded" in parsed.text
    assert "2 failed" in parsed.text
    assert "ValueError 2 001-split/0001-split bad item 1 after 2 attempts" in parsed.text
    assert "4 of 6 succeeded, 2 failed" in parsed.text  # on the arrow of the picture
    assert "What this page leaves out" not in parsed.text
    details = parsed.data["details"]["001-split/0001-split"]
    assert '"item": 1' in details["input"]
    assert details["attempts"][1]["error"] == "bad item 1"
    assert "raise ValueError" in details["attempts"][1]["traceback"]
    assert (details["stdout"], details["stderr"]) == ("about to 1", "careful")
    assert '"value": 8' in parsed.data["details"]["001-split/0004-split"]["result"]


def test_json_tells_the_same_as_list(ended: Path) -> None:
    pages = sorted(ended.glob("*.html"))
    found = read(ended, "report")
    listed = read(ended, "list")
    assert sorted(ended.glob("*.html")) == pages
    assert [one["job"] for one in found["jobs"]] == [line["job"] for line in listed]
    assert [one["seconds"] for one in found["jobs"]] == [line["seconds"] for line in listed]
    assert found["counts"] | {"succeeded": 4, "failed": 2, "lost": 0} == found["counts"]
    assert [(group["error_type"], group["jobs"]) for group in found["failures"]] == [
        ("ValueError", ["001-split/0001-split", "001-split/0003-split"])
    ]
    assert [one["outcome"] for one in found["jobs"][1]["attempts"]] == ["failed", "failed"]
    assert [one["outcome"] for one in found["jobs"][2]["attempts"]] == ["succeeded"]
    assert found["fanouts"][0]["seconds"]["count"] == 6
    assert sum(one["attempts"] for one in found["workers"]) == 8
    assert found["damaged"] == found["left_out"] == []


def test_without_details(ended: Path) -> None:
    text = verb(ended, "report", "--details", "0", "-o", "-").stdout
    parsed = Parsed(text)
    assert parsed.data["details"] == {}
    assert "Input, result and output are here for 0 of 6 jobs" in parsed.text
    for kept_back in ("about to", "--input", "careful"):
        assert kept_back not in text
    assert "argv" not in read(ended, "report", "--details", "0")["record"]


# -- where it goes ----------------------------------------------------------------------------------------------


def test_it_replaces_only_what_it_has_written(ended: Path, tmp_path: Path) -> None:
    target, mine = tmp_path / "page.html", tmp_path / "mine.html"
    for details in ("0", "6"):
        verb(ended, "report", "--details", details, "-o", str(target))
        assert len(Parsed(target.read_text()).data["details"]) == int(details)
    mine.write_text("<!doctype html>\n<p>mine")
    refused = verb(ended, "report", "-o", str(mine), code=2)
    assert "mine.html: is there, and no page of tea" in refused.stderr
    assert mine.read_text().endswith("mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.html", "page.html"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["-o", "no/such/page.html"], "no such folder"),
        (["-o", "."], "is a folder"),
        (["--json", "-o", "page.html"], "--json prints to stdout"),
        (["--details", "-1"], "--details"),
        (["nothing"], "no run 'nothing'"),
    ],
)
def test_wrong_calls(ended: Path, arguments: list[str], why: str) -> None:
    assert why in verb(ended, "report", *arguments, code=2).stderr


def test_to_stdout_and_by_the_path_of_a_run(ended: Path, tmp_path: Path) -> None:
    (path,) = (ended / ".tea" / "spool" / "runs").iterdir()
    done = verb(tmp_path, "report", str(path), "-o", "-")
    assert done.stdout.startswith("<!doctype html>")
    assert done.stdout.endswith("</html>\n")
    assert path.name in done.stdout


def test_from_the_bundle(ended: Path, tmp_path: Path) -> None:
    """The zip application carries the style and the scripts of the page."""
    bundled = str(tmp_path / "bundled")
    assert tea_cmd("bundle", "-o", bundled).returncode == 0
    environment = {**os.environ, "PYTHONPATH": ""}
    done = kit.subprocess.run(
        [sys.executable, "-I", bundled, "spool", "report", "-o", "-"],
        cwd=ended, env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert Parsed(done.stdout).data["jobs"]["name"] == [f"{n:04d}-split" for n in range(6)]


# -- other runs -------------------------------------------------------------------------------------------------


def test_a_run_that_is_going_on(here: Path, start_tea: kit.Start) -> None:
    process = start(here, start_tea, items=4, bad=(1,))
    found = read(here, "report")
    parsed = made(here)
    (here / "block").unlink()
    process.wait(timeout=240)
    assert found["state"] == "running"
    assert [one["state"] for one in found["jobs"]] == ["succeeded", "failed", "running", "succeeded"]
    assert found["jobs"][2]["seconds"] > 0
    assert "The run was going on when this was made" in parsed.text
    assert "1 running" in parsed.text


def test_a_run_that_was_killed(here: Path, start_tea: kit.Start) -> None:
    process = start(here, start_tea, items=4, bad=())
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=240)
    kit.wait_until(lambda: read(here, "report")["counts"]["running"] == 0, what="its workers to end, too")
    found = read(here, "report")
    assert found["state"] == "stopped"
    assert (found["counts"]["succeeded"], found["counts"]["waiting"]) == (3, 1)
    (last,) = found["jobs"][2]["attempts"]
    assert (last["outcome"], last["seconds"]) == ("lost", None)
    assert "Its coordinator is gone" in made(here).text


def test_who_was_followed_is_lost_even_if_its_host_seems_to_live(here: Path) -> None:
    """Of another host only silence tells, and who has just begun to listen has heard none yet."""
    run(here, items=2, bad=())
    path = job(here, 0)
    os.rename(path / "claim.1", path / "claim.2")
    result = {**json.loads((path / "result.json").read_text()), "attempt": 2}
    for name in ("result.1.json", "result.json"):
        (path / name).unlink()
    write_private(path / "result.2.json", json.dumps(result))
    os.link(path / "result.2.json", path / "result.json")
    os.symlink("me@elsewhere:7:abcdef012345", path / "claim.1")
    worker = here / ".tea" / "spool" / "workers" / "elsewhere-7-abcdef012345"
    worker.mkdir(mode=0o700, parents=True)
    write_private(worker / "worker.json", '{"host": "elsewhere", "pid": 7, "boot_id": "b", "lease": 30}')
    (one, other) = read(here, "report")["jobs"][0]["attempts"]
    assert (one["outcome"], one["worker"]) == ("lost", "elsewhere:7")
    fanout = path.parent.parent
    write_private(worker / "now", f"{fanout} {path.name} 1 1.0 0.0")
    assert read(here, "status")["running"] == []
    assert (other["outcome"], other["number"]) == ("succeeded", 2)


def write_private(path: Path, text: str) -> None:
    """As tea writes it; what others may write to, as where the umask is 002, is not trusted."""
    path.write_text(text)
    path.chmod(0o600)


AGAIN = """\
  - name: again
    type: dynamic_parallel
    items: [1, 2]
    fan_in: final
    action: {run: 'return {}'}
  - {name: final, fan_in: true, run: 'return {}'}
edges:
  - {from: merge, to: again}
"""


def test_fan_outs_inside_branches_and_after_each_other(tmp_path: Path) -> None:
    workflow = NESTED.replace("action: {run: '", 'action: {run: \'assert state["item"] != 2; ')
    (tmp_path / "w.yaml").write_text(workflow.replace("edges:\n", AGAIN))
    assert tea_cmd("run", "w.yaml", cwd=tmp_path).returncode == 0
    found = read(tmp_path, "report")
    assert [(one["name"], sum(one["counts"].values())) for one in found["fanouts"]] == [
        ("001-start", 2),
        ("002-again", 2),
        ("001-start/*/001-right", 3),
    ]
    assert found["counts"]["failed"] == 1
    parsed = made(tmp_path)
    assert "2 of 3 succeeded, 1 failed" in parsed.text
    assert parsed.data["fanouts"]["names"] == [one["name"] for one in found["fanouts"]]


def test_no_fan_out_at_all(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text("nodes: [{name: only, run: 'return {}'}]\n")
    assert tea_cmd("run", "w.yaml", cwd=tmp_path).returncode == 0
    parsed = made(tmp_path)
    assert "The run has no fan-outs, so it has no jobs" in parsed.text
    assert "only" in parsed.text  # in the picture
    assert read(tmp_path, "report")["jobs"] == []


def test_a_workflow_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text("nodes: [{name: only, run: 'raise OSError(\"no <tape>\")'}]\n")
    assert tea_cmd("run", "w.yaml", cwd=tmp_path).returncode == 1
    assert "The run failed in node only: OSError: no <tape>" in made(tmp_path).text


def test_a_graph_built_in_python(tmp_path: Path) -> None:
    (tmp_path / "build.py").write_text(
        "import tea\n"
        "g = tea.StateGraph({})\n"
        "g.add_node('a', run=lambda state: {})\n"
        "g.add_node('b', run=lambda state: {'x': 1})\n"
        "g.add_node('c', run=lambda state: {'x': 2})\n"
        "g.add_fanin_node('m', run=lambda state, parallel_results: {})\n"
        "g.set_entry_point('a')\n"
        "for n in 'bc': g.add_parallel_edge('a', n, 'm')\n"
        "for n in 'bc': g.add_edge(n, 'm')\n"
        "g.set_finish_point('m')\n"
        "list(g.compile().invoke({}))\n"
    )
    done = kit.subprocess.run([sys.executable, "build.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = read(tmp_path, "report")
    assert found["counts"]["succeeded"] == 2
    assert "There is no picture" in made(tmp_path).text


# -- damage -----------------------------------------------------------------------------------------------------


def test_damaged_files_are_told_and_end_nothing(here: Path) -> None:
    run(here, items=8, bad=(1,))
    (folder,) = (here / ".tea" / "spool" / "runs").iterdir()
    (job(here, 0) / "result.json").write_text("{")
    (job(here, 2) / "result.json").write_text('{"job": "another"}')
    (job(here, 3) / "job.json").write_bytes(b"\xff\xfe")
    (job(here, 4) / "input.json").unlink()
    (job(here, 5) / "stdout.1.log").unlink()
    os.mkfifo(job(here, 5) / "stdout.1.log")
    (job(here, 6) / "result.1.json.corrupt").write_text("?")
    os.rename(job(here, 7), folder / "elsewhere")
    (folder / "run.json").write_text("[1]")
    (folder / "fanouts" / "001-split" / "fanout.json").write_text("nonsense")
    (folder / "workflow.yaml").write_text("nodes: 7")
    found = read(here, "report")
    told = "\n".join(found["damaged"])
    for name in ("run.json: a JSON list", "001-split/fanout.json: not JSON", "0000-split/result.json: not JSON",
                 "0002-split/result.json: it speaks of job 'another'",
                 "0006-split/result.1.json.corrupt: was put aside", "0007-split: No such file"):  # fmt: skip
        assert name in told
    assert [one["state"] for one in found["jobs"]].count("succeeded") == 7
    parsed = made(here)
    assert f"{len(found['damaged'])} damaged or missing files" in parsed.text
    assert "There is no picture" in parsed.text
    assert "not JSON" in parsed.data["details"]["001-split/0003-split"]["job_json"]


# -- hostile data -----------------------------------------------------------------------------------------------

EVIL = [
    "</script><script>document.title='owned'</script>",
    "<!--<script>",
    "<img src=x onerror=alert(1)>",
    "\x1b[2J\x1b[31mred\x1b[0m\x00\x07",
    "\u202egpj.exe\u2028\ufeff",
    "{{ 7 * 7 }} ${7*7} %s",
    "'\"`&amp;<b>bold</b>",
    "𝕬\U0001f4a5 ünïcödé",
]

HOSTILE = """\
name: "</title><script>document.title='owned'</script>"
nodes:
  - {name: split, run: 'return {}'}
  - name: "<img src=x onerror=alert(1)>"
    run: 'return {}'
  - name: each
    type: dynamic_parallel
    items: "{{ state.evil }}"
    fan_in: inner
    action:
      run: |
        print(state["item"])
        kind = type(state["item"], (ValueError,), {})
        raise kind(state["item"])
  - {name: inner, fan_in: true, run: 'return {}'}
  - {name: merge, fan_in: true, run: 'return {}'}
edges:
  - {from: __start__, to: split}
  - {from: split, to: ["<img src=x onerror=alert(1)>", each], parallel: true, fan_in: merge}
  - {from: "<img src=x onerror=alert(1)>", to: merge}
  - {from: inner, to: merge}
"""


def hostile_run(folder: Path) -> None:
    """A run with names, inputs, errors and output that try to get out of where they belong."""
    (folder / "w.yaml").write_text(HOSTILE)
    evil = [text for text in EVIL if "\0" not in text] + ["nul"]
    done = tea_cmd("run", "w.yaml", "--input", json.dumps({"evil": evil, EVIL[2]: EVIL[0]}), cwd=folder)
    assert done.returncode == 0, done.stderr


def test_nothing_gets_out_of_where_it_belongs(tmp_path: Path) -> None:
    hostile_run(tmp_path)
    parsed = made(tmp_path)
    assert (parsed.count("script"), parsed.count("img"), parsed.count("iframe")) == (2, 0, 0)
    assert not any(name.startswith("on") for _, told in parsed.elements for name in told)
    errors = parsed.data["words"]["error"]
    assert EVIL[0] in errors
    assert EVIL[2] in errors
    assert "\\u202egpj.exe\\u2028\\ufeff" in errors
    assert EVIL[7] in errors
    assert "<!--<script>" in parsed.text


# -- bounds -----------------------------------------------------------------------------------------------------


def test_long_texts_are_cut_and_the_page_says_so(here: Path) -> None:
    write_workflow(here, retries=0)
    text = (here / "w.yaml").read_text().replace('print("about to", state["item"])', 'print("x" * 9000)')
    (here / "w.yaml").write_text(text)
    run(here, items=1, bad=())
    parsed = made(here)
    output = parsed.data["details"]["001-split/0000-split"]["stdout"]
    assert output.startswith("... the last 3.0 kB of 9.0 kB\nxxx")
    assert "1 long text is cut" in parsed.text
