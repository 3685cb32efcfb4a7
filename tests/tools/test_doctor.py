"""`tea spool doctor`: exit codes, text, JSON. What it finds in a spool is tested in `tests/spool/test_doctor.py`."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spool.finding import Findings
from tests.support import clean_env, tea_argv, tea_cmd, wait_until
from tools.doctor import SHOWN, advice, lines

WORKFLOW = """\
name: demo
settings: {parallel: {max_workers: 2}}
nodes:
  - name: split
    type: dynamic_parallel
    items: [0, 1, 2, 3]
    fan_in: merge
    action:
      run: |
        import os, time
        if state["item"] == 2:
            open("reached", "w").close()
        while os.path.exists(state.get("block", "")) and state["item"] == 2:
            time.sleep(0.01)
        return {"value": state["item"]}
  - {name: merge, fan_in: true, run: 'return {"done": True}'}
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "w.yaml").write_text(WORKFLOW)
    return tmp_path


@pytest.fixture
def done(here: Path) -> Path:
    """Where a run has ended well."""
    return run_in(here)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, only to be looked at."""
    folder = tmp_path_factory.mktemp("untouched")
    (folder / "w.yaml").write_text(WORKFLOW)
    return run_in(folder)


def run_in(folder: Path) -> Path:
    ended = tea_cmd("run", "w.yaml", "--strategy", "process", cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return folder


def doctor(here: Path, *arguments: str, code: int = 0) -> str:
    ended = tea_cmd("spool", "doctor", *arguments, cwd=here)
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout


def read(here: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(doctor(here, "--json", *arguments, code=code))
    return value


def workers(here: Path) -> Any:
    """What `tea spool status` tells of the workers."""
    return json.loads(tea_cmd("spool", "status", "--json", cwd=here).stdout)["workers"]


def wrong(found: dict[str, Any]) -> set[str]:
    return {finding["kind"] for finding in found["findings"] if finding["severity"] in ("error", "warning")}


def misfile(here: Path) -> str:
    """Put the ticket of job 1 into the wrong folder; its name from the spool on."""
    spool = here / ".tea" / "spool"
    [ticket] = spool.glob("runs/*/fanouts/*/done/0001-*")
    moved = ticket.parent.parent / "failed" / ticket.name
    ticket.rename(moved)
    return str(moved.relative_to(spool))


def test_a_run_that_ended_well(untouched: Path) -> None:
    shown = doctor(untouched)
    assert "a spool with 1 run, 1 fan-out, 4 jobs\n" in shown
    assert shown.endswith("all is well\n")
    for kind in ("exclusive-symlink", "locks", "events", "clock"):
        assert f"\nok  {kind}" in shown


def test_a_finding_is_told_mended_and_gone(done: Path) -> None:
    place = misfile(done)
    shown = doctor(done, code=1)
    assert f"error    misfiled  {place}\n" in shown
    assert "-> --fix mends it" in shown
    assert shown.endswith("1 error; --fix mends 1\n")
    mended = doctor(done, "--fix")
    assert f"fixed    misfiled  {place}\n" in mended
    assert mended.endswith("1 mended\n")
    assert doctor(done).endswith("all is well\n")


def test_json(done: Path) -> None:
    place = misfile(done)
    found = read(done, code=1)
    assert (found["spool"], found["ok"]) == (True, False)
    assert found["looked_at"] == {"runs": 1, "fan-outs": 1, "jobs": 4}
    [finding] = [one for one in found["findings"] if one["severity"] == "error"]
    assert finding["path"] == str(done / ".tea" / "spool" / place)
    assert {key: finding[key] for key in ("kind", "fixable", "fixed", "needs_person")} == {
        "kind": "misfiled",
        "fixable": True,
        "fixed": False,
        "needs_person": True,
    }
    assert read(done, "--fix")["ok"] is True
    assert wrong(read(done)) == set()


def test_quick_does_not_look_at_the_file_system(done: Path) -> None:
    found = read(done, "--quick")
    assert {finding["kind"] for finding in found["findings"]} <= {"bytes", "inodes"}
    [ticket] = (done / ".tea" / "spool").glob("runs/*/fanouts/*/done/0001-*")
    ticket.unlink()
    assert wrong(read(done, "--quick", code=1)) == {"no-ticket"}
    assert wrong(read(done, "--quick", "--fix")) == {"no-ticket"}
    assert ticket.exists()


def test_warnings_alone_are_no_failure(done: Path) -> None:
    os.chmod(done / ".tea" / "spool", 0o755)
    shown = doctor(done)
    assert "warning  exposed  .\n" in shown
    assert shown.endswith("1 warning; --fix mends 1\n")
    doctor(done, "--fix")
    assert doctor(done).endswith("all is well\n")


@pytest.mark.parametrize("way", ["argument", "option", "environment"])
def test_the_folder_may_be_named_in_three_ways(untouched: Path, way: str) -> None:
    spool = str(untouched / ".tea" / "spool")
    arguments = {"argument": [spool], "option": ["--spool", spool], "environment": []}[way]
    env = {"TEA_SPOOL": spool} if way == "environment" else {}
    ended = tea_cmd("spool", "doctor", "--json", *arguments, cwd="/", env=env)
    assert json.loads(ended.stdout)["looked_at"]["jobs"] == 4


def test_a_folder_that_is_no_spool_yet(tmp_path: Path) -> None:
    shown = doctor(tmp_path, ".")
    assert f"{tmp_path}: a folder without a spool\n" in shown
    assert "ok  locks" in shown
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["none", "w.yaml"])
def test_wrong_input(here: Path, name: str) -> None:
    ended = tea_cmd("spool", "doctor", name, cwd=here)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert name in ended.stderr


def test_there_is_no_spool_here(tmp_path: Path) -> None:
    assert tea_cmd("spool", "doctor", cwd=tmp_path).returncode == 2


def test_on_a_terminal(done: Path) -> None:
    misfile(done)
    outer, inner = pty.openpty()
    env = clean_env({"TERM": "xterm", "COLUMNS": "100"})
    process = subprocess.Popen(tea_argv("spool", "doctor"), cwd=done, env=env, stdout=inner, stderr=inner)
    os.close(inner)
    shown = b""
    try:
        while data := os.read(outer, 65536):
            shown += data
    except OSError:  # the other end is closed
        pass
    os.close(outer)
    assert process.wait(240) == 1
    text = shown.decode()
    assert "\x1b[1;31merror" in text
    assert "misfiled" in text
    assert "--fix mends 1" in text


def test_rich_is_loaded_only_on_a_terminal(untouched: Path) -> None:
    code = "import sys; from tea.cli import main; main(['spool', 'doctor', '--quick']); print('rich' in sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=untouched, env=clean_env(), capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[-1] == "False"


def test_a_crashed_run_says_how_to_go_on_and_then_all_is_well(here: Path, start_tea: Start) -> None:
    (here / "block").touch()
    state = json.dumps({"block": str(here / "block")})
    process = start_tea(
        "run",
        "w.yaml",
        "--input",
        state,
        "--strategy",
        "process",
        "--progress",
        "none",
        "--max-workers",
        "2",
        cwd=here,
    )
    spool = here / ".tea" / "spool"
    wait_until(lambda: len([*spool.glob("runs/*/fanouts/*/done/*")]) == 3, what="three jobs to end")
    wait_until((here / "reached").exists, what="the fourth to begin")
    assert wrong(read(here, "--fix")) == set()  # a live run is in order
    process.send_signal(signal.SIGKILL)
    process.wait(240)
    wait_until(lambda: not any(one["alive"] for one in workers(here)), what="both workers to die with it")
    found = read(here, "--fix", code=1)
    assert wrong(found) == {"stopped-run", "dead-worker", "orphan"}
    [stopped] = [finding for finding in found["findings"] if finding["kind"] == "stopped-run"]
    assert os.listdir(spool / "workers") == []
    (here / "block").unlink()
    assert stopped["remedy"].startswith("tea resume ")
    assert tea_cmd(*stopped["remedy"].split()[1:], cwd=here).returncode == 0
    assert doctor(here).endswith("all is well\n")


# -- text -----------------------------------------------------------------------------------------------------------


def test_many_findings_of_a_kind_are_not_all_shown() -> None:
    findings = Findings()
    for number in range(SHOWN + 5):
        findings.warning("leftover", f"/x/{number:03d}", "old")
    findings.error("other", "/x/y", "bad", "do this")
    shown = "\n".join(lines("/x", findings))
    assert shown.count("leftover") == SHOWN
    assert shown.index("error    other  y") < shown.index("leftover")  # the worst first
    assert "5 more of the same kinds are not shown" in shown
    assert shown.endswith(f"1 error; {SHOWN + 5} warnings")


def test_advice() -> None:
    findings = Findings()
    findings.error("a", "/x", "bad", "do this")
    findings.error("b", "/x", "bad", "do this", lambda: True)
    findings.error("c", "/x", "bad", "", lambda: True)
    assert [advice(finding) for finding in findings] == ["do this", "--fix mends it; or: do this", "--fix mends it"]
    mended = Findings(fix=True)
    mended.error("b", "/x", "bad", "do this", lambda: True)
    assert [advice(finding) for finding in mended] == [""]
