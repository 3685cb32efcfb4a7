"""What a branch has around it: modules, folder, environment, context variables, config; and what it costs."""

from __future__ import annotations

import contextvars
import json
import os
from pathlib import Path

import pytest

from tests.contract.world import World
from tests.support import tea_cmd

TENANT: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")


@pytest.mark.parametrize("strategy", ["thread", "process", "workers"])
def test_a_users_own_tools_module_is_the_one_that_nodes_import(strategy: str, tmp_path: Path, start_tea) -> None:  # type: ignore[no-untyped-def]
    """`tea` has packages of the names `tools`, `spool` and `executors`; the module beside the workflow wins."""
    (tmp_path / "tools.py").write_text("WHOSE = 'mine'\n")
    workflow = {
        "name": "w",
        "settings": {"parallel": {"strategy": strategy}},
        "nodes": [
            {
                "name": "each",
                "strategy": {"parallel_each": [1, 2]},
                "run": "import tools\nreturn {'whose': tools.WHOSE}",
                "fan_in": "join",
            },
            {
                "name": "join",
                "fan_in": True,
                "run": "import tools\n"
                "return {'whose': [r.get('whose') or r.error for r in parallel_results] + [tools.WHOSE]}",
            },
        ],
    }
    path = tmp_path / "w.yaml"
    path.write_text(json.dumps(workflow))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    spool = tmp_path / "spool"
    if strategy == "workers":
        from spool.run import open_spool

        open_spool(str(spool))
        start_tea("worker", spool, "--follow", cwd=elsewhere)
    done = tea_cmd("run", path, "--spool", spool, cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["whose"] == ["mine"] * 3
    replay = next(iter(sorted(spool.glob("runs/*/fanouts/*/jobs/*"))))
    again = tea_cmd("run", replay / "workflow.yaml", "--input", replay / "input.json", "--no-spool", cwd=elsewhere)
    assert json.loads(again.stdout)["whose"] == "mine"


def test_context_variables_are_carried_into_threads(thread_world: World) -> None:
    code = (
        "from tests.contract.test_surroundings import TENANT\nbefore = TENANT.get()\nTENANT.set(state['me'])\n"
        "return {'tenant': before}"
    )
    graph = thread_world.edges({"a": code, "b": code}, {"max_workers": 1})
    token = TENANT.set("acme")
    try:
        ran = thread_world.run(graph, {"me": "other"})
        assert [result["tenant"] for result in ran.results] == ["acme", "acme"]
        assert TENANT.get() == "acme"
    finally:
        TENANT.reset(token)


def test_config_reaches_every_branch(world: World) -> None:
    graph = world.edges({"a": "return {'got': config['limit']}"})
    assert world.run(graph, limit=[1, 2]).results[0]["got"] == [1, 2]


def test_processes_have_the_folder_and_the_environment_of_their_coordinator(
    process_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTRACT_SAYS", "hello")
    monkeypatch.chdir(process_world.folder)
    code = "import os\nreturn {'cwd': os.getcwd(), 'says': os.environ['CONTRACT_SAYS'], 'pid': os.getpid()}"
    (result,) = process_world.run(process_world.edges({"a": code})).results
    assert (result["cwd"], result["says"]) == (os.getcwd(), "hello")
    assert result["pid"] != os.getpid()


def test_a_branch_that_moves_does_not_move_the_next_one(process_world: World) -> None:
    moves = "import os\nbefore = os.getcwd()\nos.chdir('/')\nreturn {'cwd': before}"
    ran = process_world.run(process_world.edges({"a": moves, "b": moves}, {"max_workers": 1}))
    assert [result["cwd"] for result in ran.results] == [os.getcwd()] * 2


def disk_use(folder: Path) -> int:
    """Bytes of all files below a folder, each inode once."""
    seen = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        if path.is_file() and not path.is_symlink():
            seen[status.st_ino] = status.st_size
    return sum(seen.values())


@pytest.mark.parametrize(("strategy", "few", "many"), [("thread", 500, 5000), ("process", 200, 2000)])
def test_disk_use_grows_with_the_branches_and_not_with_their_square(
    strategy: str, few: int, many: int, tmp_path: Path
) -> None:
    """The state holds the list that is fanned out, and every branch looks at it."""
    world = World(strategy, "yaml", tmp_path / "spool", tmp_path)
    spec = {
        "type": "dynamic_parallel",
        "items": "{{ state.numbers }}",
        "action": {"run": "return {'v': len(state['numbers'])}"},
    }
    used = {}
    for count in (few, many):
        ran = world.run(world.over(spec), {"numbers": list(range(count))})
        assert [result["v"] for result in ran.results] == [count] * count
        used[count] = disk_use(ran.fanout)
    assert used[many] < 12 * used[few]
    assert used[many] < 2000 * many
