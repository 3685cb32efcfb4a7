"""What user code may do to a worker: each is one failed job with its reason, and the others go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.faults.kit import Place, ended, final
from tests.support import wait_until

NORMAL = "return {'value': 1}"

DEADLY = {
    "segfault": ("import ctypes\nprint('before', flush=True)\nctypes.string_at(0)", "SIGSEGV"),
    "os_exit": ("import os\nprint('before', flush=True)\nos._exit(7)", "exit code 7"),
    "os_exit_0": ("import os\nos._exit(0)", "exit code 0"),
    "abort": ("import os\nos.abort()", "SIGABRT"),
}
"""What ends the process, and how that is called."""

RUDE = {
    "sys_exit": ("import sys\nsys.exit('enough')", "sys.exit('enough')"),
    "sys_exit_0": ("import sys\nsys.exit(0)", "sys.exit(0)"),
    "interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "recursion": ("def f():\n    return f()\nf()", "maximum recursion depth"),
    "bad_str": (
        "class Bad(Exception):\n    def __str__(self):\n        raise RuntimeError('no text')\n"
        "    __repr__ = __str__\nraise Bad()",
        "Bad",
    ),
    "surrogate": ("raise ValueError('\\udcff')", "?"),
    "huge_error": ("raise ValueError('x' * 1000000)", "xxx"),
    "list": ("return [1, 2]", "not"),
    "number": ("return 42", "not"),
    "generator": ("yield 1", "generator"),
    "unpicklable": ("import threading\nreturn {'lock': threading.Lock()}", "lock"),
    "generator_exit": ("raise GeneratorExit", "GeneratorExit"),
    "deep": (
        "deep = []\nfor _ in range(100000):\n    deep = [deep]\nreturn {'deep': deep}",
        "deep",
    ),
}
"""What raises or returns what it must not, and what its error says."""

STRANGE = {
    "closes_output": "import os\nos.close(1)\nos.close(2)\nreturn {'value': 1}",
    "closes_sys": "import sys\nsys.stdout.close()\nsys.stderr.close()\nreturn {'value': 1}",
    "replaces_stdout": "import io, sys\nsys.stdout = io.StringIO()\nprint('lost')\nreturn {'value': 1}",
    "no_stdout": "import sys\nsys.stdout = None\nreturn {'value': 1}",
    "moves": "import os\nos.chdir('/')\nreturn {'value': 1}",
    "moves_away": "import os\nos.mkdir('gone')\nos.chdir('gone')\nos.rmdir('../gone')\nreturn {'value': 1}",
    "forks": "import os\nif os.fork() == 0:\n    os._exit(0)\nos.wait()\nreturn {'value': 1}",
    "clears_environment": "import os\nos.environ.clear()\nreturn {'value': 1}",
    "signals": "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nreturn {'value': 1}",
    "umask": "import os\nos.umask(0)\nreturn {'value': 1}",
    "unimports": "import sys\nsys.modules.pop('json', None)\nsys.path.clear()\nreturn {'value': 1}",
    "prints": "print('to stdout')\nimport sys\nprint('to stderr', file=sys.stderr)\nreturn {'value': 1}",
}
"""What is allowed, and must not be felt by the next job."""


def branches(place: Place, code: dict[str, str], strategy: str, after: str = NORMAL, **parallel: Any) -> None:
    """A workflow with one branch for each piece of code, and a normal one after each."""
    nodes: list[dict[str, Any]] = [{"name": "src"}]
    names = []
    for name, body in code.items():
        nodes += [{"name": name, "run": body}, {"name": f"after_{name}", "run": after}]
        names += [name, f"after_{name}"]
    last = "return {'ok': [r.branch for r in parallel_results if r.success], 'log': None, 'items': None}"
    nodes.append({"name": "add", "fan_in": True, "run": last})
    edges = [
        {"from": "__start__", "to": "src"},
        {"from": "src", "to": names, "parallel": True, "fan_in": "add"},
        {"from": "add", "to": "__end__"},
    ]
    settings = {"parallel": {"strategy": strategy, "max_workers": 2, "include_traceback": True, **parallel}}
    place.write({"name": "t", "settings": settings, "nodes": nodes, "edges": edges})


def outcome(place: Place, name: str) -> tuple[Path, dict[str, Any]]:
    """The job of a branch, and its accepted result."""
    [job] = [job for job in place.jobs() if job.name.partition("-")[2] == name]
    return job, json.loads((job / "result.json").read_bytes())


def check(place: Place, failing: dict[str, str], state: dict[str, Any], code: dict[str, str]) -> None:
    """Each of `failing` failed with its reason, and nobody else did."""
    everybody = {name for branch in code for name in (branch, f"after_{branch}")}
    assert set(state["ok"]) == everybody - set(failing)
    for name, reason in failing.items():
        _, result = outcome(place, name)
        assert result["outcome"] == "failed", name
        assert reason in result["error"], f"{name}: {result['error'][:300]}"


@pytest.mark.parametrize("strategy", ["process", "thread"])
def test_code_that_raises_or_returns_what_it_must_not(place: Place, strategy: str) -> None:
    rude = dict(RUDE)
    if strategy == "thread":  # the object itself is handed over, so that everything can be
        del rude["unpicklable"], rude["deep"]
    code = {name: body for name, (body, _) in rude.items()}
    branches(place, code, strategy)
    state = final(place.run())
    check(place, {name: reason for name, (_, reason) in rude.items()}, state, code)


def test_code_that_ends_its_process(place: Place) -> None:
    """The worker is replaced; the job failed, and is not taken for lost, as it would kill the next one, too."""
    code = {name: body for name, (body, _) in DEADLY.items()}
    branches(place, code, "process")
    state = final(place.run())
    check(place, {name: reason for name, (_, reason) in DEADLY.items()}, state, code)
    job, result = outcome(place, "os_exit")
    assert (result["error_type"], result["attempt"], result["exit_code"]) == ("WorkerDied", 1, 7)
    assert (job / "stdout.1.log").read_text() == "before\n"
    assert (outcome(place, "segfault")[0] / "stdout.1.log").read_text() == "before\n"


def test_code_that_ends_its_process_under_an_external_worker(place: Place) -> None:
    code = {name: DEADLY[name][0] for name in ("segfault", "os_exit")}
    branches(place, code, "workers")
    run = place.run()
    wait_until(lambda: len(place.todo()) == 4)
    ended(place.start("worker"))
    check(place, {name: DEADLY[name][1] for name in code}, final(run), code)


@pytest.mark.parametrize("strategy", ["process", "thread"])
def test_code_that_changes_its_surroundings(place: Place, strategy: str) -> None:
    """In a worker process, the next job finds everything as it was. Threads share their surroundings."""
    strange = dict(STRANGE)
    if strategy == "thread":
        strange = {name: STRANGE[name] for name in ("forks", "prints")}
    probe = """
        import os, sys, json, signal
        print("out")
        print("err", file=sys.stderr)
        os.system("echo from a program")
        return {"cwd": os.getcwd(), "path": bool(os.environ.get("PATH")), "mask": os.umask(0o077)}
    """
    code = dict(strange)
    branches(place, code, strategy, "\n".join(line[8:] for line in probe.splitlines()))
    state = final(place.run())
    check(place, {}, state, code)
    assert (outcome(place, "prints")[0] / "stdout.1.log").read_text() == "to stdout\n"
    assert (outcome(place, "prints")[0] / "stderr.1.log").read_text() == "to stderr\n"
    for job in place.jobs():
        if "-after_" in job.name:
            result = json.loads((job / "result.json").read_bytes())
            assert result["state"]["cwd"] == str(place.folder), job
            out = (job / "stdout.1.log").read_text()
            assert "out\n" in out, job
            assert "err\n" in (job / "stderr.1.log").read_text(), job
            if strategy == "process":
                assert "from a program\n" in out, job


def test_code_that_removes_the_folder_that_jobs_work_in(place: Place) -> None:
    """The next job goes on in what is left of it; a folder that is there again is everybody's."""
    work = place.folder / "work"
    code = {
        "removes": "import os, shutil\nshutil.rmtree(os.getcwd())\nreturn {}",
        "renews": f"import os\nos.mkdir({str(work)!r})\nreturn {{}}",
    }
    branches(place, code, "process", "open('mine', 'w').close()", max_workers=1)
    work.mkdir()
    state = final(place.start("run", str(place.folder / "w.yaml"), cwd=work))
    check(place, {"after_removes": "No such file"}, state, code)
    assert (work / "mine").exists()


def test_a_job_that_wants_more_memory_than_it_may(place: Place) -> None:
    hungry = {"hungry": "x = []\nwhile True:\n    x.append(bytearray(1 << 24))"}
    branches(place, hungry, "process", max_memory="400M")
    state = final(place.run())
    check(place, {"hungry": "max_memory"}, state, hungry)


def test_a_program_that_wants_more_memory_than_it_may(place: Place) -> None:
    settings = {"parallel": {"strategy": "process", "max_memory": "400M"}}
    work = {
        "name": "work",
        "strategy": {"parallel_each": [0]},
        "fan_in": "add",
        "command": ["python3", "-c", "x = bytearray(1 << 30)"],
    }
    add = {"name": "add", "fan_in": True, "run": "return {'error': parallel_results[0].error}"}
    place.write({"name": "t", "settings": settings, "nodes": [work, add]})
    assert "MemoryError" in final(place.run())["error"]


def test_a_fork_that_goes_on_is_no_second_worker(place: Place) -> None:
    """A child that returns from user code would run on as a worker: it must not publish, nor claim."""
    code = {"forks": "import os\nos.fork()\nreturn {'value': os.getpid()}"}
    branches(place, code, "process")
    state = final(place.run())
    check(place, {}, state, code)
    job, result = outcome(place, "forks")
    assert result["state"]["value"] == result["pid"]
    assert sorted(path.name for path in job.glob("claim.*")) == ["claim.1"]
