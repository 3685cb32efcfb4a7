"""tea as one file: the same bytes each time, and it runs where nothing is installed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from executors import bundle as bundles
from executors import bundle_cache
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
    return subprocess.run(argv, env={}, cwd=cwd, capture_output=True, text=True, timeout=240, check=False)


def test_it_knows_its_version(program: Path) -> None:
    done = run(program, "--version")
    assert (done.returncode, done.stdout) == (0, f"tea {__version__}\n"), done.stderr


def test_it_starts_by_its_own_name(program: Path) -> None:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=240, check=False)
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
    todo = ".tea/spool/runs/*/fanouts/*/todo/*"
    wait_until(lambda: len(list(tmp_path.glob(todo))) == 3, what="all jobs: the worker ends when it finds none")
    assert run(program, "worker", cwd=tmp_path).returncode == 0
    out, err = coordinator.communicate(timeout=240)
    assert json.loads(out) == {"sum": 12}, err


def test_it_is_the_same_bytes_each_time() -> None:
    assert bundles.make() == bundles.make()


def files_of(program: Path, code: str) -> list[str]:
    """Which file each module comes from that the program imports for a piece of code."""
    show = "print(*(f for m in sys.modules.values() if program in (f := getattr(m, '__file__', '') or '')))"
    code = f"import sys; program = {str(program)!r}; sys.path.insert(0, program); {code}; {show}"
    done = subprocess.run([*BARE, "-c", code], env={}, capture_output=True, text=True, timeout=240, check=True)
    return done.stdout.split()


def test_what_a_worker_imports_is_compiled(program: Path) -> None:
    """And for another Python, whose compiled modules look otherwise, the sources are there."""
    worker = "import tea.cli.worker, executors.remote.fed, executors.slots, tea.job, jinja2.sandbox"
    assert {path.rpartition(".")[2] for path in files_of(program, worker)} == {"pyc"}
    other = program.with_name("other")
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(other, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            new.writestr(info, b"\0\0\r\n" + data[4:] if info.filename.endswith(".pyc") else data)
    assert {path.rpartition(".")[2] for path in files_of(other, worker)} == {"py"}


def test_what_fails_there_is_shown_with_its_line(program: Path) -> None:
    code = "from executors.bundle import _folder; _folder('no_such_package')"
    done = subprocess.run(
        [*BARE, "-c", f"import sys; sys.path.insert(0, {str(program)!r}); {code}"],
        env={},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert 'File "executors/bundle.py", line ' in done.stderr
    assert "    raise BundleError(" in done.stderr


class TestCache:
    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        return tmp_path / "tea"

    def test_a_bundle_is_made_once(self, folder: Path) -> None:
        first = bundles.bundle.__wrapped__()
        (path,) = folder.iterdir()
        before = path.stat()
        assert (before.st_mode & 0o777, path.read_bytes()) == (0o600, first)
        assert bundles.bundle.__wrapped__() == first
        assert [(one.name, one.stat().st_ino) for one in folder.iterdir()] == [(path.name, before.st_ino)]

    def test_a_damaged_one_is_made_anew(self, folder: Path) -> None:
        first = bundles.bundle.__wrapped__()
        (path,) = folder.iterdir()
        path.write_bytes(first[:-1])
        assert bundles.bundle.__wrapped__() == first == path.read_bytes()

    def test_none_is_taken_where_others_may_write(self, folder: Path) -> None:
        bundle_cache.keep("0" * 32, b"theirs")
        assert bundle_cache.kept("0" * 32) == b"theirs"
        folder.chmod(0o777)
        assert bundle_cache.kept("0" * 32) is None
        bundle_cache.keep("1" * 32, b"ours")
        assert len(list(folder.iterdir())) == 1

    def test_only_the_newest_stay(self, folder: Path) -> None:
        for number in range(bundle_cache.KEPT + 2):
            bundle_cache.keep(f"{number}" * 32, b"one")
            os.utime(next(folder.glob(f"bundle-{number}*")), (number, number))
        assert sorted(path.name[7] for path in folder.iterdir()) == ["2", "3", "4", "5"]

    def test_it_is_only_a_help(self, folder: Path) -> None:
        folder.write_text("no folder")
        assert bundles.bundle.__wrapped__() == bundles.bundle()


def test_it_bundles_itself(program: Path, tmp_path: Path) -> None:
    done = run(program, "bundle", "-o", str(tmp_path / "again"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again").read_bytes() == program.read_bytes()


def test_it_holds_only_python_and_nothing_of_this_machine(program: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(program.read_bytes())) as archive:
        assert {info.filename.rpartition(".")[2] for info in archive.infolist()} <= {
            "py",
            "pyc",
            "html",
            "css",
            "js",
            "sh",
        }
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_users_tools_is_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text("raise SystemExit('not me')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from executors.bundle import make, digest; "
    done = subprocess.run(
        [sys.executable, "-c", code + "print(digest(make()))"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.stdout.strip() == bundles.digest(bundles.make()), done.stderr


def test_a_folder_in_its_place_is_an_error(tmp_path: Path) -> None:
    done = tea_cmd("bundle", "-o", tmp_path)
    assert done.returncode == 2
    assert "is a folder; name another file with --output" in done.stderr
    assert list(tmp_path.iterdir()) == []
