"""tea as one file: the same bytes each time, and it runs where nothing is installed."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from executors import bundle as bundles
from tea.version import __version__
from tests.support import tea_cmd, wait_until

WORKFLOW = """\
name: demo
settings: {parallel: {max_workers: 2}}
nodes:
  - name: split
    type: dynamic_parallel
    items: [1, 2, 3]
    fan_in: merge
    action: {run: "return {'value': state['item'] * 2}"}
  - {name: merge, fan_in: true, run: "return {'sum': sum(r.state['value'] for r in parallel_results)}"}
"""

# The interpreter without an environment, without the packages that are installed for it and without the folder it is
# in: what a host has that never heard of tea.
BARE = (sys.executable, "-I", "-S")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "tea"
    done = tea_cmd("bundle", "-o", path)
    assert done.returncode == 0, done.stderr
    assert bundles.digest(path.read_bytes()) in done.stderr
    return path


def run(program: Path, *args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    argv = [*BARE, str(program), *args]
    return subprocess.run(argv, env={}, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def test_it_knows_its_version(program: Path) -> None:
    done = run(program, "--version")
    assert (done.returncode, done.stdout) == (0, f"tea {__version__}\n"), done.stderr


def test_it_starts_by_its_own_name(program: Path) -> None:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == f"tea {__version__}\n", done.stderr


@pytest.mark.parametrize("strategy", ["thread", "process"])
def test_it_runs_workflows(program: Path, tmp_path: Path, strategy: str) -> None:
    (tmp_path / "w.yaml").write_text(WORKFLOW)
    done = run(program, "run", "w.yaml", "--strategy", strategy, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"sum": 12}
    assert run(program, "spool", "status", cwd=tmp_path).stdout.startswith("run ")


def test_it_works_for_another_tea(program: Path, tmp_path: Path, start_tea: object) -> None:
    (tmp_path / "w.yaml").write_text(WORKFLOW)
    coordinator = start_tea("run", "w.yaml", "--strategy", "workers", cwd=tmp_path)  # type: ignore[operator]
    wait_until(lambda: list(tmp_path.glob(".tea/spool/runs/*/fanouts/*/todo/*")), what="jobs")
    assert run(program, "worker", cwd=tmp_path).returncode == 0
    out, err = coordinator.communicate(timeout=60)
    assert json.loads(out) == {"sum": 12}, err


def test_it_is_the_same_bytes_each_time() -> None:
    bundles.bundle.cache_clear()
    one = bundles.bundle()
    bundles.bundle.cache_clear()
    assert bundles.bundle() == one


def test_it_bundles_itself(program: Path, tmp_path: Path) -> None:
    done = run(program, "bundle", "-o", str(tmp_path / "again"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again").read_bytes() == program.read_bytes()


def test_it_holds_only_python_and_nothing_of_this_machine(program: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(program.read_bytes())) as archive:
        assert {info.filename.rpartition(".")[2] for info in archive.infolist()} <= {"py", "html", "css", "js", "sh"}
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_users_tools_is_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text("raise SystemExit('not me')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from executors.bundle import bundle, digest; "
    done = subprocess.run(
        [sys.executable, "-c", code + "print(digest(bundle()))"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    bundles.bundle.cache_clear()
    assert done.stdout.strip() == bundles.digest(bundles.bundle()), done.stderr


def test_a_folder_in_its_place_is_an_error(tmp_path: Path) -> None:
    done = tea_cmd("bundle", "-o", tmp_path)
    assert done.returncode == 2
    assert "is a folder; name another file with --output" in done.stderr
    assert list(tmp_path.iterdir()) == []
