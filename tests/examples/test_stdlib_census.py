"""The census: the same ranking under every strategy, one slot for each file, one of them failed."""

from __future__ import annotations

import ast
import doctest
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests import sshd, support
from tests.support import ROOT, cannot, clean_env

CENSUS = ROOT / "examples" / "stdlib_census"
BROKEN = "stdlib_census/broken/python2_print.py"
VARIANTS = {
    "thread": ("census.yaml",),
    "process": ("census.yaml", "--strategy", "process"),
    "chunks": ("census_chunked.yaml",),
    "chunks, thread": ("census_chunked.yaml", "--strategy", "thread"),
}

pytestmark = pytest.mark.usefixtures("no_leftovers")


@pytest.fixture(scope="module")
def measure() -> ModuleType:
    """`measure.py` of the example, imported without leaving it on `sys.path`."""
    spec = util.spec_from_file_location("census_measure", CENSUS / "measure.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def censuses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The final state of each variant."""
    folder = tmp_path_factory.mktemp("census")
    found = {}
    for name, (workflow, *options) in VARIANTS.items():
        done = support.tea_cmd("run", CENSUS / workflow, "--spool", folder / "spool", *options, cwd=folder)
        assert done.returncode == 0, done.stderr
        found[name] = json.loads(done.stdout)
    return found


@pytest.mark.slow
class TestCensus:
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_every_variant_gives_the_same(self, censuses: dict[str, Any], variant: str) -> None:
        assert censuses[variant] == censuses["thread"]

    def test_one_slot_for_each_file(self, censuses: dict[str, Any], measure: ModuleType) -> None:
        state = censuses["process"]
        assert state["sources"] == measure.sources()
        assert state["census"]["files"] == len(state["sources"]) > 200

    def test_the_broken_file_is_the_only_failure(self, censuses: dict[str, Any]) -> None:
        (failure,) = censuses["process"]["census"]["failed"]
        assert failure["file"] == BROKEN
        assert failure["error_type"] == "SyntaxError"

    def test_slots_are_aligned_with_files(self, censuses: dict[str, Any], measure: ModuleType) -> None:
        """What the ranking says of a file is what measuring that file gives."""
        census = censuses["process"]["census"]
        for function in census["most_complex"]:
            assert measure.measure(measure.STDLIB / function["file"])["most_complex"] == {
                key: function[key] for key in ("name", "line", "lines", "complexity")
            }

    def test_ranked(self, censuses: dict[str, Any]) -> None:
        census = censuses["process"]["census"]
        for kind, by in (("most_complex", "complexity"), ("longest", "lines")):
            values = [function[by] for function in census[kind]]
            assert values == sorted(values, reverse=True)
            assert len(values) == 10


@pytest.mark.slow
@pytest.mark.ssh
def test_on_hosts(censuses: dict[str, Any], tmp_path: Path) -> None:
    """As its head says, on two hosts of the names that stand in it, with a work folder of the test's."""
    if sshd.SSHD is None:
        cannot("there is no sshd; scripts/setup-system.sh installs it")
    shutil.copytree(CENSUS, tmp_path / CENSUS.name, ignore=shutil.ignore_patterns(".tea"))
    text = (CENSUS.parent / "remote_census.yaml").read_text()
    with sshd.hosts(tmp_path) as hosts:
        for name in ("server1", "server2"):
            hosts.add(name)
        workflow = tmp_path / "remote_census.yaml"
        workflow.write_text(text.replace("    remote:\n", f"    remote:\n      workdir: {tmp_path / 'work'}\n"))
        env = {"TEA_SSH_CONFIG": str(hosts.config)}
        for words in (("hosts", "check", workflow), ("run", workflow, "--dry-run"), ("run", workflow)):
            done = support.tea_cmd(*words, cwd=tmp_path, env=env)
            assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["census"] == censuses["thread"]["census"]
        told = json.loads(support.tea_cmd("spool", "status", "--json", cwd=tmp_path).stdout)
        assert [host["host"] for host in told["hosts"]] == ["server1", "server2"]


@pytest.mark.slow
def test_demo_runs_twice_from_anywhere(tmp_path: Path) -> None:
    for _ in range(2):
        out = demo(tmp_path)
        assert f"{BROKEN}: SyntaxError" in out
        assert out.count("\n$ ") == 6
        assert "result.1.json" in out
    assert len(list(tmp_path.glob("demo-spool/runs/*"))) == 1


def demo(folder: Path) -> str:
    """Run demo.sh with the command `tea` of the tests' interpreter; what it printed."""
    shims = folder / "bin"
    shims.mkdir(exist_ok=True)
    for name, module in (("tea", "-m tea "), ("python", "")):
        (shims / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {module}"$@"\n')
        (shims / name).chmod(0o755)
    env = clean_env({"PATH": f"{shims}{os.pathsep}{os.environ['PATH']}", "DEMO_DIR": str(folder)})
    done = subprocess.run(
        ["sh", CENSUS / "demo.sh"], cwd="/", env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestMeasure:
    def test_doctests(self, measure: ModuleType) -> None:
        assert doctest.testmod(measure).failed == 0

    def test_a_file(self, measure: ModuleType, tmp_path: Path) -> None:
        path = measure.HERE / "broken" / "python2_print.py"
        with pytest.raises(SyntaxError):
            measure.measure(str(path))

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            ("pass", 1),
            ("if a: pass", 2),
            ("if a: pass\nelif b: pass\nelse: pass", 3),
            ("return 1 if a else 2", 2),
            ("return a and b and c or d", 4),
            ("for x in a: pass\nelse: pass", 2),
            ("while a and b: pass", 3),
            ("try: pass\nexcept OSError: pass\nexcept ValueError: pass\nfinally: pass", 3),
            ("return [x for x in a if x if not x for y in x]", 5),
            ("match a:\n    case 1: pass\n    case 2: pass\n    case _: pass", 3),
            ("match a:\n    case [x]: pass\n    case y if y > 1: pass\n    case y: pass", 3),
            ("with a: assert a", 1),
            ("return lambda x: x or a", 2),
            ("def inner():\n    if a: pass\nreturn inner", 1),
            ("class Inner:\n    def method(self):\n        if a: pass", 1),
        ],
    )
    def test_complexity(self, measure: ModuleType, body: str, expected: int) -> None:
        tree = ast.parse("def f():\n" + textwrap.indent(body, "    "))
        assert measure.complexity(tree.body[0]) == expected

    def test_functions_have_qualified_names(self, measure: ModuleType) -> None:
        text = "class A:\n    def m(self):\n        def n(): pass\nif True:\n    async def f(): pass\n"
        assert [name for name, _ in functions(measure, text)] == ["A.m", "A.m.n", "f"]


def functions(measure: ModuleType, text: str) -> Iterator[Any]:
    found: Iterator[Any] = measure._functions(ast.parse(text))
    return found
