"""`tea hosts check` and `tea hosts clean`, on real hosts."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from executors.bundle import bundle, digest
from tests.remote.conftest import Farm
from tests.remote.test_operator import until_told
from tests.remote.test_remote import only_the_program_stays
from tests.support import tea_cmd, wait_until

HOUR = 3600.0


def hosts(farm: Farm, *args: str | Path, code: int = 0) -> str:
    """`tea hosts ARGS`: what it prints, stderr after stdout."""
    done = tea_cmd("hosts", *args, cwd=farm.folder, env=farm.env)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def read(farm: Farm, *args: str | Path, code: int = 0) -> Any:
    return json.loads(hosts(farm, *args, "--json", code=code))


class TestCheck:
    def test_hosts_that_will_do_and_hosts_that_will_not(self, two: Farm) -> None:
        two.host("unknown", known=False)
        two.host("snake", python="/no/such/python3")
        workflow = two.workflow("return {}")
        told = read(two, "check", workflow, code=1)
        one, other, unknown, snake = told["hosts"]
        assert (told["ok"], one["ok"], other["ok"], unknown["ok"], snake["ok"]) == (False, True, True, False, False)
        assert (one["slots"], one["tea"], one["workdir"]) == (2, "copied", str(two.hosts.hosts[0].workdir))
        assert one["python"] == sys.version.split()[0]
        assert abs(one["clock_offset"]) < 60
        assert unknown["error"].startswith("its host key is not known")
        assert "connect once with `ssh unknown`" in unknown["remedy"]
        assert "install Python 3.11" in snake["remedy"]
        only_the_program_stays(two.hosts.hosts[0])
        text = hosts(two, "check", workflow, code=1)
        assert "2 of 4 hosts can be used, with 4 slots; 2 cannot" in text
        assert "\n    -> install Python 3.11 or newer there" in text
        assert [host.get("tea") for host in read(two, "check", workflow, code=1)["hosts"]][:2] == ["there", "there"]

    def test_hosts_that_no_workflow_names(self, two: Farm) -> None:
        folder = two.hosts.folder / "other"
        told = read(two, "check", "one", "two", "--workdir", folder)
        assert [(host["host"], host["workdir"]) for host in told["hosts"]] == [
            ("one", f"{folder}"),
            ("two", f"{folder}"),
        ]

    def test_a_clock_that_is_wrong_is_a_warning(self, farm: Farm, tmp_path: Path) -> None:
        late = tmp_path / "python3"
        shift = "import time; real = time.time; time.time = lambda: real() - 100"
        late.write_text(f'#!/bin/sh\nexec {sys.executable} "$1" "$2" "{shift}; $3"\n')
        late.chmod(0o755)
        farm.host("one", python=str(late))
        (one,) = read(farm, "check", farm.workflow("return {}"))["hosts"]
        assert -150 < one["clock_offset"] < -50  # the login may take its time
        assert "its clock is -" in one["warnings"][0]
        assert "set-ntp" in one["warnings"][0]

    @pytest.mark.parametrize(
        ("argument", "message"),
        [
            ("nothing.yaml", "nothing.yaml: No such file"),
            ("plain.yaml", "plain.yaml: it names no hosts"),
            ("a b", "RemoteConfig.hosts is 'a b'"),
        ],
    )
    def test_what_is_wrong_with_the_command_line(self, tmp_path: Path, argument: str, message: str) -> None:
        (tmp_path / "plain.yaml").write_text("nodes:\n  - {name: a, run: 'return {}'}\n")
        for verb in ("check", "clean"):
            done = tea_cmd("hosts", verb, argument, cwd=tmp_path)
            assert done.returncode == 2
            assert message in done.stderr

    def test_interrupted_it_waits_for_no_host(self, farm: Farm) -> None:
        host = farm.host("one", "ForceCommand exec sleep 600")
        process = farm.begin("hosts", "check", farm.workflow("return {}"))
        wait_until(host.sessions, what="a login")
        process.send_signal(signal.SIGINT)
        _out, err = process.communicate(timeout=240)
        assert process.returncode == 130, err

    def test_completion_offers_what_ssh_knows(self, farm: Farm) -> None:
        farm.host("one")
        done = subprocess.run(
            [sys.executable, "-m", "tea"],
            env={
                **os.environ,
                **farm.env,
                "_TEA_COMPLETE": "bash_complete",
                "COMP_WORDS": "tea hosts check o",
                "COMP_CWORD": "3",
            },
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.stdout.splitlines() == ["plain,one", "file,o"]


class Leftovers:
    """What runs may leave in a host's work folder, an hour ago."""

    def __init__(self, workdir: Path) -> None:
        self.workdir = workdir
        workdir.mkdir(mode=0o700, exist_ok=True)
        self.dead, self.kept = self.folder("0" * 12), self.folder("1" * 12)
        (self.kept / "keep").touch()
        self.old = self.file(f"tea-{'0' * 16}.pyz")
        self.unfinished = self.file(f"tea-{'1' * 16}.pyz.0a47110b")
        self.current = self.file(f"tea-{digest(bundle())[:16]}.pyz")
        self.alien = self.file("notes.txt")
        self.batches = Path("/tmp") / f"tea-{secrets.token_hex(8)}"
        self.batches.mkdir(mode=0o700)
        (self.batches / "lock").touch()
        for path in (*workdir.iterdir(), self.batches):
            self.age(path)
        self.young = self.folder("2" * 12)
        self.age(self.young, -HOUR / 2)  # it stays young, however long the test takes

    def folder(self, token: str) -> Path:
        path = self.workdir / f"fan-out-{token}"
        (path / "spool").mkdir(parents=True)
        (path / "lock").touch()
        (path / "spool" / "result.json").write_text("x" * 5000)
        return path

    def file(self, name: str) -> Path:
        (self.workdir / name).write_text(name)
        return self.workdir / name

    @staticmethod
    def age(path: Path, by: float = HOUR) -> None:
        at = os.lstat(path).st_mtime - by
        os.utime(path, (at, at), follow_symlinks=False)

    @property
    def unused(self) -> set[Path]:
        return {self.dead, self.kept, self.old, self.unfinished, self.batches}

    def owns(self, path: Path) -> bool:
        """Whether it is of this test, and not from one that runs beside it."""
        return path == self.batches or self.workdir in path.parents

    def there(self) -> set[Path]:
        return {path for path in (*self.workdir.iterdir(), self.batches) if path.exists()}


@pytest.fixture
def left(farm: Farm) -> Iterator[Leftovers]:
    (farm.folder / "tea").write_bytes(bundle())
    farm.remote["basefile"] = "tea"
    # Folders of batches are all in /tmp: two of these tests at once would remove each other's.
    with open(f"/tmp/tea-tests-of-clean-{os.getuid()}", "a") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        made = Leftovers(farm.host("one").workdir)
        yield made
        shutil.rmtree(made.batches, ignore_errors=True)


class TestClean:
    def test_it_says_first_what_it_would_remove(self, farm: Farm, left: Leftovers) -> None:
        before = left.there()
        workflow = farm.workflow("return {}")
        (told,) = read(farm, "clean", workflow)["hosts"]
        kinds = {Path(one["path"]): one["kind"] for one in told["found"]}
        assert {path for path in kinds if left.owns(path)} == left.unused
        assert (kinds[left.dead], kinds[left.kept], kinds[left.old]) == ("left", "kept", "old")
        assert next(one["bytes"] for one in told["found"] if one["path"] == str(left.dead)) > 5000
        assert "; --yes does it\n" in hosts(farm, "clean", workflow)
        assert left.there() == before
        (told,) = read(farm, "clean", workflow, "--yes")["hosts"]
        assert left.there() == before - left.unused
        (told,) = read(farm, "clean", workflow)["hosts"]
        assert not [one for one in told["found"] if left.owns(Path(one["path"]))]

    def test_only_what_is_old_enough(self, farm: Farm, left: Leftovers) -> None:
        before = left.there()
        read(farm, "clean", "one", "--workdir", left.workdir, "--older-than", "2h", "--yes")
        assert left.there() == before

    def test_a_run_that_goes_on_is_not_disturbed(self, farm: Farm, left: Leftovers) -> None:
        code, go = until_told(farm)
        workflow = farm.workflow(f"import base64, uuid\n{code}", 3)
        process = farm.start(workflow)
        farm.wait_for(1)
        for path in left.workdir.iterdir():
            left.age(path)
        (told,) = read(farm, "clean", workflow, "--yes")["hosts"]
        (live,) = map(Path, told["live"])
        assert (live / "spool" / "spool.json").exists()
        assert left.current.exists()
        go.touch()
        out, err = process.communicate(timeout=240)
        assert json.loads(out)["sum"] == 3, err

    @pytest.mark.parametrize("says", [True, False])
    def test_the_program_that_somebody_elses_worker_runs_from_stays(
        self, farm: Farm, left: Leftovers, says: bool
    ) -> None:
        """A worker that does not say which one it runs from, as those of older versions, keeps all."""
        other = left.file(f"tea-{'3' * 16}.pyz")
        left.age(other)
        with open(left.kept / "lock", "w") as lock, open(left.batches / "lock") as shared:
            fcntl.flock(shared, fcntl.LOCK_SH)
            lock.write(f"{other.name}\n" if says else "")
            lock.flush()
            fcntl.flock(lock, fcntl.LOCK_EX)
            (told,) = read(farm, "clean", farm.workflow("return {}"), "--yes")["hosts"]
        assert told["live"] == [str(left.kept)]
        assert (left.kept.exists(), other.exists(), left.old.exists()) == (True, True, not says)
        assert (left.dead.exists(), left.batches.exists()) == (False, True)

    def test_a_host_that_cannot_be_reached(self, farm: Farm, left: Leftovers) -> None:
        farm.use("gone.invalid")
        text = hosts(farm, "clean", farm.workflow("return {}"), "--yes", code=1)
        assert "host gone.invalid: cannot be reached" in text
        assert "removed " in text
        assert not left.dead.exists()
