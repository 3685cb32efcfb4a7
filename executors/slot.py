"""A slot: one worker process that claims and runs jobs until it is told to stop.

    control pipe   its end means stop; a byte means "look again, there are new jobs"
    hints pipe     names of jobs whose attempt has ended, for the coordinator; lost ones cost nothing
    worker folder  lock, beat, what it runs now, and the scratch files that stdout and stderr go to

A slot leads a process group of its own, so that its supervisor can end it with everything that it started. When the
process that started it dies, it ends its group and itself at once: there are no orphans.

What runs the jobs is a *runner*, named `module:factory`: `factory(setup)` gives an object whose
`branch(job, record)` is the function that a state is passed to. So this module need not know what a workflow is.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import connection, parent_process
from typing import Any, Protocol

from executors import attempt as attempts
from executors.attempt import Branch
from executors.ending import MARK
from executors.state import BranchState
from executors.surroundings import Output, Surroundings, memory_limit
from executors.travel import is_marked, unpack_pickle
from executors.undertaker import SERVER
from spool import job as jobs
from spool import jsonio
from spool.errors import CorruptFileError, TooLargeError
from spool.job import JobRecord
from spool.layout import FanOutFiles, JobFiles, SpoolFiles
from spool.patience import PATIENCE, patiently
from spool.publish import read_bytes
from spool.queue import Claim, Queue
from spool.retry import given_input
from spool.worker import LEASE, Observer, Worker

_SHORTEST, _LONGEST = 0.002, 0.05
"""Seconds between looks at an empty queue, growing."""

_LISTEN = 0.02
"""Seconds between looks for news from the coordinator while there is work."""


@dataclass(slots=True)
class SlotSetup:
    """What a slot is told when it starts.

    options: JSON for the runner, from fanout.json. runtime: a pickle for the runner, of this user's coordinator.
    supervisor: the claimant text of the process that looks after the slot and publishes how it died.
    lock_fd: the worker's lock, filled in by the slot: children that inherit it keep the job from starting again.
    slot, slots, first: see `spool.queue.Queue`. path: first on `sys.path`.
    """

    spool: str
    fanout: str
    runner: str
    slot: int = 0
    slots: int = 1
    first: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    runtime: bytes | None = None
    sync: bool = False
    lease: float = LEASE
    version: str = ""
    path: tuple[str, ...] = ()
    cwd: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    supervisor: str = ""
    lock_fd: int | None = None
    announce: bool = False
    """Also hint when an attempt begins: somebody waits for it."""


class Runner(Protocol):
    """Runs jobs of one fan-out in a worker process."""

    def branch(self, job: JobFiles, record: JobRecord) -> Branch:
        """The function that runs this job's branch on a state. Raises SpoolError for a job it cannot run."""
        ...


def load_runner(reference: str, setup: SlotSetup) -> Runner:
    """Make the runner that `module:factory` names."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)(setup)  # type: ignore[no-any-return]


class FlowRunner:
    """Runs plain functions that were pickled: flows handed straight to an executor."""

    def __init__(self, setup: SlotSetup) -> None:
        self._flows: list[Any] = pickle.loads(setup.runtime) if setup.runtime else []

    def branch(self, job: JobFiles, record: JobRecord) -> Branch:
        return self._flows[int(record.data["index"])]  # type: ignore[no-any-return]


def slot_main(setup: SlotSetup, control: connection.Connection, hints: connection.Connection | None) -> None:
    """The life of a slot. Returns when it is told to stop."""
    _enter(setup)
    spool = SpoolFiles(setup.spool)
    with patiently(lambda: _registered(spool, setup), "cannot register", _tell(hints)) as worker:
        setup.lock_fd = worker.lock_fd
        os.environ[MARK] = worker.name
        output = Output(worker)
        runner = load_runner(setup.runner, setup)
        gc.freeze()  # what is imported by now stays; the collector need not look at it again and again
        SlotLoop(setup, worker, runner, output, control, hints).run()


def _registered(spool: SpoolFiles, setup: SlotSetup) -> Worker:
    return Worker(spool, lease=setup.lease, version=setup.version, supervisor=setup.supervisor)


def _tell(hints: connection.Connection | None) -> Callable[[str], None]:
    """Complain before there is a loop to do so."""

    def tell(text: str) -> None:
        if hints is not None:
            os.write(hints.fileno(), f"!{text}\n".encode())

    return tell


def _enter(setup: SlotSetup) -> None:
    """Make this process what the coordinator was when it asked for it: same folder, environment, import path."""
    with contextlib.suppress(PermissionError):  # already the leader of a session
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the coordinator decides what Ctrl-C means
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    server = os.environ.get(SERVER, "")
    if setup.environment:
        os.environ.clear()
        os.environ.update(setup.environment)
    os.environ[SERVER] = server
    if setup.cwd:
        os.chdir(setup.cwd)
    sys.path[:] = [*setup.path, *(entry for entry in sys.path if entry not in setup.path)]


def die_with_parent() -> None:
    """End this process group when the process that started it is gone, however it went."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os.killpg(os.getpgrp(), signal.SIGKILL) if os.getpgrp() == os.getpid() else os._exit(1)

    threading.Thread(target=watch, name="tea-parent", daemon=True).start()


class Inputs:
    """Reads the inputs of jobs; the state they share is parsed once."""

    def __init__(self) -> None:
        self._base: tuple[tuple[Any, Any], Mapping[str, Any]] = ((None, None), {})

    def state(self, job: JobFiles, record: JobRecord, attempt: int = 1) -> BranchState:
        """The state an attempt begins with. Raises CorruptFileError when a file is not what the coordinator wrote."""
        own, shared = jobs.read_input(job, record), self._shared(job, record)
        if record.data.get("base_pickle_sha256") is not None:  # a small base stands in the input too, with marks
            own = {key: value for key, value in own.items() if not (key in shared and is_marked(value))}
        digest = record.data.get("pickle_sha256")
        if digest is not None:
            own.update(unpack_pickle(_checked(job.pickle, digest)))
        if attempt > 1:
            own.update(given_input(job, attempt))
        return BranchState(shared, own)

    def _shared(self, job: JobFiles, record: JobRecord) -> Mapping[str, Any]:
        key = (record.data.get("base_sha256"), record.data.get("base_pickle_sha256"))
        if key == (None, None):
            return {}
        if self._base[0] != key:
            base = jsonio.loads(_checked(job.base, key[0])) if key[0] else {}
            if key[1]:
                base.update(unpack_pickle(_checked(job.base_pickle, key[1])))
            self._base = (key, base)
        return self._base[1]


def _checked(path: str, digest: str) -> bytes:
    data = read_bytes(path)
    if jobs.sha256(data) != digest:
        raise CorruptFileError(path, "it is not what the coordinator wrote (sha256 differs)")
    return data


class SlotLoop:
    """Take, run, finish, repeat."""

    def __init__(
        self,
        setup: SlotSetup,
        worker: Worker,
        runner: Runner,
        output: Output,
        control: connection.Connection,
        hints: connection.Connection | None,
    ) -> None:
        self.fanout = FanOutFiles(setup.fanout)
        self.worker, self.runner, self.output = worker, runner, output
        self.control, self.hints = control, hints
        self.sync, self.announce = setup.sync, setup.announce
        self.inputs = Inputs()
        self.queue = Queue(
            self.fanout,
            worker.text,
            Observer(SpoolFiles(setup.spool)),
            slot=setup.slot,
            slots=setup.slots,
            first=setup.first,
        )
        self.surroundings = Surroundings()
        self._stopped = self._busy = False
        self._next_look = 0.0
        self._news = select.poll()
        self._news.register(control.fileno(), select.POLLIN | select.POLLHUP)
        if hints is not None:
            self._hints_fd = hints.fileno()
            os.set_blocking(self._hints_fd, False)
            self._hint(f"={worker.name}\n")

    def run(self) -> None:
        idle = _SHORTEST
        while not self._stopped:
            claim = self._take()
            if claim is not None:
                self.work(claim)
                idle = _SHORTEST
                if time.monotonic() >= self._next_look:
                    self._listen(0.0)
            else:
                if self._busy:
                    self.worker.doing("")
                    self._busy = False
                self._listen(min(idle, self.queue.wait))
                idle = min(idle * 2, _LONGEST)

    def _take(self) -> Claim | None:
        try:
            return self.queue.take()
        except OSError as error:  # full, read-only, gone; jobs wait until the disk takes claims again
            self._complain(
                f"cannot claim jobs in {self.fanout.path}: {error.strerror}; waiting until it is possible again"
            )
            self._listen(PATIENCE)
            return None

    def _complain(self, text: str) -> None:
        """Tell the coordinator, who tells the user."""
        self._hint("!" + " ".join(text.split()) + "\n")

    def _listen(self, patience: float) -> None:
        """Take news from the coordinator, waiting for it at most `patience` seconds."""
        self._next_look = time.monotonic() + _LISTEN
        if self._news.poll(patience * 1000):
            self._stopped = not os.read(self.control.fileno(), 4096)

    def work(self, claim: Claim) -> None:
        """Run one attempt and publish what came of it."""
        job, attempt = claim.job, claim.attempt
        self._busy = True
        self.worker.doing(f"{self.fanout.path} {job.name} {attempt} {time.time():.3f} {claim.spent:.3f}")
        if self.announce:
            self._hint(f"+{job.name} {attempt}\n")
        ran = self._attempt(claim)
        self.surroundings.put_back()
        self._publish(claim, ran)
        if not ran.result["success"]:
            self.queue.failed(job.name)
        self._hint(f"-{job.name} {attempt}\n")

    def _publish(self, claim: Claim, ran: attempts.Ran) -> None:
        """Publish the result; on a disk that refuses, when it takes it again. Stopped meanwhile, the job is lost."""
        job, attempt = claim.job, claim.attempt
        while True:
            try:
                result = attempts.report(job, claim.record, attempt, claim.spent, ran, strict=True)
                self.output.collect(job, attempt)
                jobs.finish(self.fanout, job, claim.record, attempt, result, sync=self.sync)
                return
            except FileNotFoundError:  # the job was removed while it ran
                self._complain(f"{job.path} is gone; its result is dropped")
                return
            except TooLargeError as error:
                ran = attempts.run(raising(error), BranchState({}, {}))
            except OSError as error:
                why = f"cannot write results in {self.fanout.path}: {error.strerror}"
                self._complain(f"{why}; waiting until it is possible again")
                self._listen(PATIENCE)
                if self._stopped:
                    self.worker.doing("")  # its end is not what the job did
                    return

    def _attempt(self, claim: Claim) -> attempts.Ran:
        try:
            state = self.inputs.state(claim.job, claim.record, claim.attempt)
            branch = self.runner.branch(claim.job, claim.record)
            limit = claim.record.policy.max_memory
        except Exception as error:  # this job cannot be run (unpickling imports and calls user code); others can
            return attempts.run(raising(error), BranchState({}, {}))
        if limit is None:
            return attempts.run(branch, state)
        with memory_limit(limit):
            ran = attempts.run(branch, state)
        if ran.result.get("error_type") == "MemoryError":
            ran.result["error"] = f"the job needed more than max_memory, {limit} bytes"
        return ran

    def _hint(self, line: str) -> None:
        if self.hints is not None:
            try:
                os.write(self._hints_fd, line.encode())
            except OSError:  # the pipe is full, or nobody reads it: only a hint
                pass


def raising(error: BaseException) -> Callable[[Any], Any]:
    """A branch that raises."""

    def branch(_state: Any) -> Any:
        raise error

    return branch
