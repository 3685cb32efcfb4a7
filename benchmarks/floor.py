"""The floor: the fewest file operations that a durable job directory needs, with nothing around them.

    create     a folder, input, subset (a link), record, ticket (a link)
    run        claim (a symbolic link), read the input, write the result, give it its name, accept it (a link), move
               the ticket (a rename)
    collect    list the tickets, read each result

What tea does more than this is checks, crash safety and everything that makes a workflow of it.
"""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path

_BATCH = 1_000
"""Jobs that are made between two looks at what has finished."""

_INPUT = json.dumps({"item": 1, "index": 1}).encode()
_RECORD = json.dumps(
    {
        "id": "000001-work",
        "branch": "work",
        "index": 1,
        "entry": "work",
        "exit": "merge",
        "input_sha256": "0" * 64,
        "policy": {},
        "tea": "0.1.0",
        "format": 1,
    }
).encode()
_RESULT = json.dumps(
    {
        "job": "000001-work",
        "attempt": 1,
        "input_sha256": "0" * 64,
        "outcome": "succeeded",
        "success": True,
        "started": 1.5,
        "seconds": 0.5,
        "spent": 0.5,
        "host": "host",
        "pid": 1,
        "state": {"r": 1},
    }
).encode()


class Floor:
    """A spool of bare file operations in an empty folder."""

    def __init__(self, root: Path, jobs: int) -> None:
        self.root, self.names = str(root), [f"{i:06d}-work" for i in range(jobs)]
        for folder in ("jobs", "todo", "done", "shared"):
            os.mkdir(f"{root}/{folder}")
        self._sources = 0
        self._new_sources()

    def _new_sources(self) -> None:
        """The files that are linked into jobs; new ones when a file has all the links it may have."""
        self._sources += 1
        self._subset, self._blank = (f"{self.root}/shared/{name}.{self._sources}" for name in ("subset", "ticket"))
        _write(self._subset, b"nodes: []\n" * 20)
        _write(self._blank, b"")

    def run(self) -> float:
        """Seconds for all jobs, from making to collecting."""
        began = time.perf_counter()
        for name in self.names:
            self.create(name)
        for name in self.names:
            self.work(name)
        self.collect()
        return time.perf_counter() - began

    def create(self, name: str) -> None:
        job = f"{self.root}/jobs/{name}"
        os.mkdir(job)
        _write(f"{job}/input.json", _INPUT)
        try:
            os.link(self._subset, f"{job}/workflow.yaml")
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            self._new_sources()
            os.link(self._subset, f"{job}/workflow.yaml")
        _write(f"{job}/job.json", _RECORD)
        os.link(self._blank, f"{self.root}/todo/{name}")

    def work(self, name: str) -> None:
        job = f"{self.root}/jobs/{name}"
        os.symlink("user@host:1:0123456789ab", f"{job}/claim.1")
        with open(f"{job}/input.json", "rb") as file:
            json.loads(file.read())
        _write(f"{job}/.tmp", _RESULT)
        os.rename(f"{job}/.tmp", f"{job}/result.1.json")
        os.link(f"{job}/result.1.json", f"{job}/result.json")
        os.rename(f"{self.root}/todo/{name}", f"{self.root}/done/{name}")

    def collect(self) -> None:
        for name in os.listdir(f"{self.root}/done"):
            self._take(name)

    def _take(self, name: str) -> None:
        with open(f"{self.root}/jobs/{name}/result.json", "rb") as file:
            json.loads(file.read())

    def run_by_two(self) -> float:
        """Seconds for all jobs when two processes run them while this one makes and collects them."""
        began = time.perf_counter()
        workers = [self._fork(share) for share in range(2)]
        made, taken = 0, set[str]()
        while len(taken) < len(self.names):
            for name in self.names[made : made + _BATCH]:
                self.create(name)
            made += _BATCH
            for name in set(os.listdir(f"{self.root}/done")) - taken:
                self._take(name)
                taken.add(name)
        for worker in workers:
            os.waitpid(worker, 0)
        return time.perf_counter() - began

    def _fork(self, share: int) -> int:
        """A process that works on every other job until it has done all of its own."""
        pid = os.fork()
        if pid:
            return pid
        left = set(self.names[share::2])
        while left:
            for name in sorted(left.intersection(os.listdir(f"{self.root}/todo"))):
                self.work(name)
                left.remove(name)
        os._exit(0)


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(fd, data)
    os.close(fd)
