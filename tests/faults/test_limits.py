"""Limits: of the machine (inotify), of memory (large states, endless output), of trust (YAML, clocks, boots)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.kit import NOTE, Place, ended, final, need
from tests.support import cannot, clean_env, wait_until

MIB = 1 << 20


# -- inotify --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "value"), [("max_inotify_watches", 0), ("max_inotify_instances", 0)])
def test_results_arrive_where_there_are_no_file_events(place: Place, limit: str, value: int) -> None:
    """Polling is the truth. In a namespace whose user has no inotify watches, or no instances."""
    unshare = need("unshare")
    if subprocess.run([unshare, "-Ur", "true"], capture_output=True, check=False).returncode:
        cannot("this system makes no user namespaces")
    place.fan_out(NOTE + "note('begin')\nreturn {'value': 1}", strategy="workers")
    setting = f"echo {value} > /proc/sys/user/{limit}"
    script = f"""
        {setting} || exit 77
        {sys.executable} -m tea run w.yaml "$@" > out 2> err &
        run=$!
        until ls spool/runs/*/fanouts/*/todo/* > ls.log 2>&1; do sleep 0.02; done
        {sys.executable} -m tea worker > worker.log 2>&1 < /dev/null
        wait $run
    """
    done = subprocess.run(
        [unshare, "-Ur", "sh", "-c", script, "sh", *place.input(30)],
        cwd=place.folder,
        env={**clean_env(), "TEA_SPOOL": str(place.spool)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    if done.returncode == 77:
        cannot(f"{limit} cannot be set here: {done.stderr}")
    said = (place.folder / "err").read_text()
    assert done.returncode == 0, said
    assert json.loads((place.folder / "out").read_text())["total"] == 30
    assert "no file events" in said


# -- memory ---------------------------------------------------------------------------------------------------------


def measured(place: Place, *arguments: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """Run `tea` to its end; its peak memory, and that of its largest descendant, in MiB."""
    code = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run([sys.executable, '-m', 'tea', *sys.argv[1:]])\n"
        "print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024, file=sys.stderr)\n"
        "sys.exit(done.returncode)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=place.folder,
        env={**clean_env(), "TEA_SPOOL": str(place.spool)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return done, float(done.stderr.split("peak ")[-1])


def test_a_large_state_is_shared_and_warned_about(place: Place) -> None:
    """200 MB that eight branches share are written once, and no process needs more than a few copies."""
    load = {"name": "load", "run": "return {'big': 'x' * 200_000_000}"}
    work = {
        "name": "work",
        "strategy": {"parallel_each": "{{ range(8) | list }}"},
        "fan_in": "add",
        "run": "import resource\nreturn {'value': len(state['big']), "
        "'peak': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}",
    }
    last = (
        "return {'total': sum(r.get('value') for r in parallel_results), 'big': None, "
        "'peak': max(r.get('peak') for r in parallel_results)}"
    )
    settings = {"parallel": {"strategy": "process", "max_workers": 1}}
    place.write(
        {"name": "t", "settings": settings, "nodes": [load, work, {"name": "add", "fan_in": True, "run": last}]}
    )
    done, peak = measured(place, "run", "w.yaml")
    assert done.returncode == 0, done.stderr
    state = json.loads(done.stdout)
    assert state["total"] == 8 * 200_000_000
    assert "the state that its branches share is 190 MiB" in done.stderr
    assert peak < 1000, "more than a few copies in the coordinator"
    assert state["peak"] < 1000, "more than a few copies in a worker"
    assert sum(path.stat().st_blocks * 512 for path in distinct(place.spool)) < 220_000_000


@pytest.mark.parametrize("strategy", ["process", "thread"])
def test_a_result_that_is_larger_than_what_is_read(place: Place, strategy: str) -> None:
    """It is not written to be found too large later; that job fails with the reason. Threads only keep no record."""
    body = "return {'big': 'x' * (270_000_000 if state['item'] == 0 else 1), 'value': 1}"
    last = "return {'ok': [r.success for r in parallel_results], 'error': parallel_results[0].error}"
    place.fan_out(body, last, strategy=strategy, max_workers=1)
    done, _ = measured(place, "run", "w.yaml", *place.input(2))
    state = json.loads(done.stdout)
    assert state["ok"] == [strategy == "thread", True]
    assert "write large results to files" in (done.stderr if strategy == "thread" else state["error"])
    assert len(place.results()) == 2


def distinct(folder: Path) -> list[Path]:
    """The files below a folder, each inode once."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return list({path.stat().st_ino: path for path in files}.values())


@pytest.mark.parametrize("how", ["print", "program"])
def test_endless_output_is_cut(place: Place, how: str) -> None:
    """Only the end of what a job prints is kept; no process holds all of it."""
    body = {
        "print": "line = 'y' * 999_999\nfor _ in range(300):\n    print(line)\nprint('the end')\nreturn {'value': 1}",
        "program": "import os\nos.system('head -c 300000000 /dev/zero | tr \"\\\\0\" y; echo; echo the end')\n"
        "return {'value': 1}",
    }[how]
    place.fan_out(body)
    done, peak = measured(place, "run", "w.yaml", *place.input(1))
    assert done.returncode == 0, done.stderr
    [job] = place.jobs()
    log = job / "stdout.1.log"
    assert log.stat().st_size < 65 * MIB
    with log.open("rb") as file:
        assert file.readline().startswith(b"[tea: the first ")
        file.seek(-8, os.SEEK_END)
        assert file.read() == b"the end\n"
    assert peak < 400


def test_endless_output_of_a_command_is_cut(place: Place) -> None:
    work = {
        "name": "work",
        "strategy": {"parallel_each": [0]},
        "fan_in": "add",
        "command": "head -c 300000000 /dev/zero | tr '\\0' y",
    }
    add = {"name": "add", "fan_in": True, "run": "return {'ok': [r.success for r in parallel_results]}"}
    place.write({"name": "t", "settings": {"parallel": {"strategy": "process"}}, "nodes": [work, add]})
    done, peak = measured(place, "run", "w.yaml")
    assert json.loads(done.stdout)["ok"] == [True], done.stderr
    [job] = place.jobs()
    assert (job / "stdout.1.log").stat().st_size < 66 * MIB
    assert peak < 500


def test_threads_that_print_without_end(place: Place) -> None:
    place.fan_out("for _ in range(100):\n    print('y' * 999_999)\nreturn {'value': 1}", strategy="thread")
    done, peak = measured(place, "run", "w.yaml", *place.input(2))
    assert done.returncode == 0, done.stderr
    assert all((job / "stdout.1.log").stat().st_size < 9 * MIB for job in place.jobs())
    assert "dropped" in (place.jobs()[0] / "stdout.1.log").read_text()[-200:]
    assert peak < 400


# -- what is not trusted --------------------------------------------------------------------------------------------

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "a tag that makes a Python object": "name: !!python/object/apply:os.system ['touch hacked']\nnodes: []\n",
    "a tag of somebody's own": "nodes: !secret\n  - {name: a}\n",
    "an alias bomb": BOMB,
    "an alias of itself": "nodes: &n\n  - *n\n",
    "deep brackets": "nodes: " + "[" * 20_000,
    "a key twice": "name: a\nname: b\nnodes:\n  - {name: x}\n",
    "not YAML": "nodes: [}\n",
    "not UTF-8": "nodes: \udcff\n",
    "nothing": "",
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("command", ["run", "validate"])
def test_hostile_yaml_is_refused_before_anything_starts(place: Place, command: str, what: str) -> None:
    (place.folder / "w.yaml").write_bytes(HOSTILE[what].encode("utf-8", "surrogateescape"))
    done, peak = measured(place, command, "w.yaml")
    assert done.returncode == 2, done.stderr
    assert "w.yaml" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert not (place.folder / "hacked").exists()
    assert not place.spool.exists()
    assert peak < 200


def test_a_claim_from_before_a_reboot_is_nobodys(place: Place) -> None:
    """The pid is used again, by a process that even holds the lock; the boot id tells."""
    place.fan_out(strategy="workers")
    place.hold()
    run = place.run(1)
    wait_until(place.todo)
    worker = place.start("worker")
    [pid] = place.wait_for("begin")
    for path in place.spool.glob("workers/*/worker.json"):
        record: dict[str, Any] = json.loads(path.read_bytes())
        if record["pid"] == pid:
            path.write_text(json.dumps({**record, "boot_id": "00000000-0000-0000-0000-000000000000"}))
    second = place.start("worker")
    place.wait_for("begin", 2)
    place.let_go()
    assert final(run)["total"] == 0
    for one in (worker, second):
        ended(one)
    [result] = place.results()
    assert result["attempt"] == 2
