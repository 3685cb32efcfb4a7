"""What runs on a host before tea is there: several sessions may begin at once, in one work folder."""

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from executors.remote import bootstrap

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
