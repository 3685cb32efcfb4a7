"""The fixtures that stamp a test over every executor and both kinds of graph."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spool.run import open_spool
from tests import sshd, support
from tests.contract.world import World
from tests.faults.kit import need

REMOTE = pytest.param("remote-yaml", marks=pytest.mark.ssh)
EVERY = ("thread-yaml", "process-yaml", "workers-yaml", REMOTE, "thread-python", "process-python")
YAML = ("thread-yaml", "process-yaml", "workers-yaml", REMOTE)
PYTHON = ("thread-python", "process-python")


@pytest.fixture(scope="session")
def _served_spool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A spool, and a real `tea worker` that serves it as long as the tests run."""
    folder = tmp_path_factory.mktemp("served")
    spool = folder / "spool"
    open_spool(str(spool))
    # Its stdin is a pipe of ours: the worker ends when this process does, however it does.
    worker = subprocess.Popen(
        support.tea_argv("worker", spool, "--slots", "3", "--follow"),
        cwd=folder,
        env=support.clean_env({"PYTHONPATH": str(support.ROOT)}),  # the classes of the tests travel by name
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield spool
    assert worker.poll() is None, "the worker ended before the tests"
    assert worker.stdin is not None
    worker.stdin.close()
    try:
        worker.wait(timeout=240)
    finally:
        worker.kill()
        worker.wait()


@pytest.fixture(scope="session")
def _reached_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Hosts]:
    """A host, `one`, that is reached by ssh as long as the tests run."""
    need("sshd")
    folder = tmp_path_factory.mktemp("hosts")
    folder.chmod(0o700)
    with sshd.hosts(folder) as hosts:
        hosts.add("one")
        yield hosts


def _remote(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The settings that lead to the host."""
    hosts = request.getfixturevalue("_reached_hosts")
    request.getfixturevalue("monkeypatch").setenv("TEA_SSH_CONFIG", str(hosts.config))
    host = {"host": "one", "slots": 4, "workdir": str(hosts.names["one"].workdir)}
    return {"hosts": [host]}


def _world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    strategy, _, kind = request.param.partition("-")
    remote: dict[str, Any] = {}
    if strategy == "workers":
        spool = request.getfixturevalue("_served_spool")
    else:
        if strategy == "remote":
            remote = _remote(request)  # first, as the host stays
        request.getfixturevalue("no_leftovers")
        spool = tmp_path / "spool"
        os.mkdir(spool, 0o700)
    return World(strategy, kind, spool, tmp_path, remote)


@pytest.fixture(params=EVERY)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    """Every strategy with every kind of graph that it can run."""
    return _world(request, tmp_path)


@pytest.fixture(params=YAML)
def yaml_world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    """Every strategy, with workflows."""
    return _world(request, tmp_path)


@pytest.fixture(params=PYTHON)
def python_world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    """The strategies that run graphs built in Python."""
    return _world(request, tmp_path)


@pytest.fixture(params=("thread-yaml", "thread-python"))
def thread_world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return _world(request, tmp_path)


@pytest.fixture(params=("process-yaml", "process-python"))
def process_world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return _world(request, tmp_path)
