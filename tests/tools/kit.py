"""Real runs for the tests of the verbs: a workflow whose branches print, fail, wait and retry as they are told."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support import tea_cmd, wait_until

WORKFLOW = """\
name: demo
settings:
  parallel: {PARALLEL max_workers: 2, retry: {max_retries: RETRIES, base_delay: DELAY, max_delay: DELAY}}
nodes:
  - name: split
    type: dynamic_parallel
    items: "{{ state.items }}"
    fan_in: merge
    action:
      run: |
        import os, sys, time
        print("about to", state["item"])
        print("careful", file=sys.stderr)
        if os.path.exists(state.get("block", "")) and state["item"] == 2:
            open(state["block"] + ".reached", "w").close()
        while os.path.exists(state.get("block", "")) and state["item"] == 2:
            time.sleep(0.01)
        if state["item"] in state["bad"] and not os.path.exists(state.get("fixed", "")):
            raise ValueError(f"bad item {state['item']}")
        return {"value": state["item"] * 2}
  - {name: merge, fan_in: true, run: 'return {"values": [(r.state or {}).get("value") if r.success else r.outcome
        for r in parallel_results]}'}
"""

NESTED = """\
nodes:
  - {name: start, run: 'return {}'}
  - {name: left, run: 'return {}'}
  - name: right
    type: dynamic_parallel
    items: [1, 2, 3]
    fan_in: inner
    action: {run: 'return {}'}
  - {name: inner, fan_in: true, run: 'return {}'}
  - {name: merge, fan_in: true, run: 'return {}'}
edges:
  - {from: __start__, to: start}
  - {from: start, to: [left, right], parallel: true, fan_in: merge}
  - {from: left, to: merge}
  - {from: inner, to: merge}
"""
"""A fan-out whose branch `right` fans out again."""

Start = Callable[..., "subprocess.Popen[str]"]


def write_workflow(here: Path, retries: int = 1, delay: float = 0.01, parallel: str = "") -> None:
    text = WORKFLOW.replace("RETRIES", str(retries)).replace("DELAY", str(delay)).replace("PARALLEL", parallel)
    (here / "w.yaml").write_text(text)


def state(here: Path, items: int = 4, bad: tuple[int, ...] = (1,)) -> str:
    given = {"items": list(range(items)), "bad": bad, "block": str(here / "block"), "fixed": str(here / "fixed")}
    return json.dumps(given)


def run(here: Path, *arguments: str, strategy: str = "process", code: int = 0, **given: Any) -> str:
    """Run the workflow to its end; what came out."""
    done = tea_cmd("run", "w.yaml", "--input", state(here, **given), "--strategy", strategy, *arguments, cwd=here)
    assert done.returncode == code, done.stderr
    return done.stdout


def start(
    here: Path, start_tea: Start, *arguments: str, strategy: str = "process", ended: int = 3, **given: Any
) -> Any:
    """A run in which everything has ended but item 2."""
    (here / "block").touch()
    arguments = ("--input", state(here, **given), "--strategy", strategy, "--progress", "none", *arguments)
    process = start_tea("run", "w.yaml", *arguments, cwd=here)
    fanouts = ".tea/spool/runs/*/fanouts/*"
    wait_until(
        lambda: len([*here.glob(f"{fanouts}/done/*"), *here.glob(f"{fanouts}/failed/*")]) == ended,
        what=f"{ended} jobs to end",
    )
    others = given.get("items", 4) - ended
    wait_until(lambda: len([*here.glob(f"{fanouts}/todo/*")]) == others, what=f"the other {others} jobs to be made")
    wait_until((here / "block.reached").exists, what="item 2 to have printed")
    return process


def verb(here: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """`tea spool ARGS`, whose exit code is known."""
    done = tea_cmd("spool", *arguments, cwd=here)
    assert done.returncode == code, (done.stdout, done.stderr)
    return done


def text(here: Path, *arguments: str, code: int = 0) -> str:
    return verb(here, *arguments, code=code).stdout


def read(here: Path, *arguments: str, code: int = 0) -> Any:
    return json.loads(verb(here, *arguments, "--json", code=code).stdout)


def job(here: Path, item: int) -> Path:
    """The directory of a job of the newest run."""
    newest = sorted((here / ".tea" / "spool" / "runs").iterdir())[-1]
    (path,) = newest.glob(f"fanouts/001-split/jobs/{item:04d}-split")
    return path


def files_of(here: Path) -> list[tuple[str, int]]:
    """Every file of the spool and when it was changed."""
    return sorted((str(path), path.lstat().st_mtime_ns) for path in (here / ".tea" / "spool").rglob("*"))
