"""What is made on a host before its first job: several sessions may begin at once, in one work folder."""

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from executors.remote import bootstrap
from executors.remote.folder import Folder
from executors.remote.transit import Transit

AT_ONCE = 8


def together(work: Callable[[], object]) -> None:
    """Do the same in all sessions at one moment."""
    start = threading.Barrier(AT_ONCE)

    def one(_: int) -> None:
        start.wait()
        work()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, range(AT_ONCE)))


def test_sessions_that_begin_at_once_share_a_new_work_folder(tmp_path: Path) -> None:
    for turn in range(200):
        path = f"{tmp_path}/{turn}/jobs"
        together(partial(bootstrap.folder, path))


def test_sessions_that_begin_at_once_bring_the_same_program(tmp_path: Path) -> None:
    data = b"program" * 100_000
    sha256 = hashlib.sha256(data).hexdigest()
    program = tmp_path / "tea-0123456789abcdef.pyz"
    for _ in range(10):
        together(lambda: bootstrap.keep(f"{program}", sha256, data))
        assert [path.name for path in tmp_path.iterdir()] == [program.name]
        assert bootstrap.has(f"{program}", sha256)


def test_sessions_that_begin_at_once_leave_each_others_folders_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each removes what is abandoned; a folder that another one has not locked yet looks like that."""
    monkeypatch.chdir(tmp_path)
    made: list[Folder] = []
    for _ in range(40):
        together(lambda: made.append(Folder()))
    assert {Path(folder.files) for folder in made} == set(tmp_path.glob("fan-out-*/files"))


def test_sessions_that_enter_and_leave_the_folder_of_batches_at_once(tmp_path: Path) -> None:
    """Whoever has entered has a whole one, also when another session has just removed it as the last."""
    path = tmp_path / "tea-0123456789abcdef"

    def visit() -> None:
        for _ in range(40):
            transit = Transit(f"{path}", "one")
            assert {"lock", "python"} <= {one.name for one in path.iterdir()}
            transit.leave(0.0)

    together(visit)
    assert not path.exists()


def test_a_session_that_ends_late_leaves_the_door_of_the_one_after_it(tmp_path: Path) -> None:
    path = f"{tmp_path}/tea-0123456789abcdef"
    cut, next_one = Transit(path, "one"), Transit(path, "one")
    Path(next_one.door).touch()
    cut.leave(0.0)
    assert Path(next_one.door).exists()
