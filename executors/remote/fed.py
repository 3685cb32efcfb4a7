"""The worker on a host: jobs come on its stdin, results go to its stdout, and it ends when its stdin does.

It has a spool of its own, made for this session and removed with it, in which slots run the jobs as they do under the
strategy `process`: a job that exceeds its time is ended with everything it started, a slot that dies is replaced.
What jobs print never meets the protocol: stdout is put aside before anything else happens.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import shutil
import threading
import time
from multiprocessing import connection
from typing import Any

from executors.remote.arrival import Arrival
from executors.remote.folder import Folder, Refused
from executors.remote.frames import Frame, FrameError, FrameReader, FrameWriter
from executors.remote.intake import Intake
from executors.remote.reply import reply
from executors.remote.transit import Transit
from executors.slot import SlotSetup
from executors.slots import Slots, SlotsFailedError
from spool import job as jobs
from spool import jsonio, tickets
from spool.claim import try_claim
from spool.errors import SpoolError
from spool.layout import FORMAT, FanOutFiles, JobFiles, is_name
from spool.publish import write_exclusive
from spool.run import CoordinatorLock, create_fanout, create_run, open_spool, update_run
from spool.watcher import Watcher
from spool.worker import this_worker

BEAT = 5.0
"""Seconds between two signs of life."""

TICK = 0.05
INBOX = 16
"""Messages that may wait here; more wait on the coordinator's side."""

LATE = 3.0
"""Seconds in which something may still come after a session that was cut."""

RESERVE = 1024 * 1024
"""Bytes that must stay free: with less, no job could even say how it ended."""


def main(session: str, version: str, environment: dict[str, str]) -> int:
    """Serve one session, named `VERSION:MARK` by the coordinator; the exit code. environment: for jobs."""
    wanted, _, mark = session.partition(":")
    source, sink = _take_stdio()
    reader, writer = FrameReader(source), FrameWriter(sink)
    try:
        if wanted != version:
            raise Refused("version", f"the program copied there is tea {version}, and this is tea {wanted}")
        folder = Folder()
    except Refused as refused:
        writer.raw(f"\n{mark} ".encode() + jsonio.dumps({"refused": refused.kind, "text": str(refused)}) + b"\n")
        return 1
    with folder:
        _Fed(folder, reader, writer, mark, environment).run()
    return 0


def _take_stdio() -> tuple[int, int]:
    """The protocol's two ends; jobs get an empty stdin, and a stdout that goes where stderr goes."""
    source, sink = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return source, sink


class _Fed:
    """One session."""

    def __init__(
        self, folder: Folder, reader: FrameReader, writer: FrameWriter, mark: str, environment: dict[str, str]
    ) -> None:
        self.folder, self._reader, self._writer, self._mark = folder, reader, writer, mark
        self._environment = environment
        self._inbox: queue.Queue[Frame | None] = queue.Queue(INBOX)
        self._woken, self._wake = os.pipe()
        self._over = threading.Event()
        self._arrival = Arrival(folder)
        self._deliveries: dict[str, int] = {}
        self._count = 1
        self._name = ""
        self._intake: Intake | None = None
        self._late = LATE
        self.fanout: FanOutFiles
        self.slots: Slots

    def run(self) -> None:
        threading.Thread(target=self._receive, name="tea-stdin", daemon=True).start()
        threading.Thread(target=self._beat, name="tea-beat", daemon=True).start()
        try:
            self._serve()
        except (Refused, SlotsFailedError, OSError) as error:
            self._say({"op": "refused", **self._reason(error)})
        finally:
            self._over.set()
            if self._intake is not None:
                self._intake.close(self._late)

    def _reason(self, error: Exception) -> dict[str, str]:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return {"kind": "disk", "text": f"its disk is full: {self.folder.workdir}"}
        return {"kind": error.kind if isinstance(error, Refused) else "worker", "text": str(error)}

    # -- the other threads --------------------------------------------------------------------------------------

    def _receive(self) -> None:
        with contextlib.suppress(FrameError, OSError):
            while (frame := self._reader.read(None)) is not None:
                self._inbox.put(frame)
                os.write(self._wake, b"!")
        self._inbox.put(None)
        os.write(self._wake, b"!")

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            self._say({"op": "beat"})

    def _say(self, header: dict[str, Any], payload: bytes = b"") -> None:
        with contextlib.suppress(OSError):  # nobody listens: stdin tells
            self._writer.write(header, payload)

    # -- setting up ---------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while (frame := self._inbox.get()) is not None and frame.op != "fanout":
            self._prepare(frame)
        if frame is None:
            return
        grace = self._begin(frame.header)
        watcher = Watcher(self.fanout)
        try:
            self._writer.raw(f"\n{self._mark} {{}}\n".encode())
            self._work(watcher, grace)
        except BaseException:
            self.slots.stop(0.0)
            raise
        finally:
            watcher.close()
        self.slots.stop(grace, patience=0.0 if self._deliveries else 1.0)  # idle slots end by themselves
        if self.folder.keep:
            update_run(self._run, outcome="done", finished=time.time())

    def _prepare(self, frame: Frame) -> None:
        header = frame.header
        match frame.op:
            case "hello":  # whoever asks only wants to see that tea works here
                self._writer.raw(f"\n{self._mark} {{}}\n".encode())
            case "slots":
                self._count, self._name = int(header["slots"]), str(header["host"])
                self._spool = open_spool(self.folder.spool)
            case "run":
                self._copy(str(header["label"]), str(header["of"]))
            case "files":
                self._arrival.files(frame)
            case "workflow":
                self._arrival.workflow(frame, self.fanout)
            case "base":
                self._arrival.base(frame, self.fanout)

    def _copy(self, label: str, of: str) -> None:
        """The copy of the fan-out: a spool like any other, which `tea spool` on this host can read."""
        self._run = create_run(self._spool, label, {"folder": self.folder.files, "copy_of": of}, b"")
        self._driving = CoordinatorLock(self._run)
        self.fanout = create_fanout(self._run.fanouts, 1, label)
        record = {"format": FORMAT, "source": label, "strategy": "process", "started": time.time()}
        write_exclusive(self.fanout.fanout, jsonio.pretty(record))

    def _begin(self, header: dict[str, Any]) -> float:
        """Start the slots; the seconds that jobs get to end."""
        self.folder.keep = not header["cleanup"]
        if self.folder.keep:
            write_exclusive(os.path.join(self.folder.path, "keep"), b"")
        if header["transit"] is not None:
            self.folder.uses(str(header["transit"]))
            self._intake = Intake(Transit(str(header["transit"]), self._name), self._say)
        self._claimant = this_worker(self._spool).text
        setup = SlotSetup(
            spool=self._spool.path,
            fanout=self.fanout.path,
            runner=str(header["runner"]),
            slots=self._count,
            options=header["options"],
            version=str(header["version"]),
            path=(self.folder.files,),
            cwd=self.folder.files,
            environment=self._environment,
            announce=True,
            supervisor=self._claimant,
        )
        self.slots = Slots(self._spool, setup, self._count, lambda *_a, **_k: None)
        self.slots.start()
        return float(header["grace"])

    # -- working ------------------------------------------------------------------------------------------------

    def _work(self, watcher: Watcher, grace: float) -> None:
        next_look = 0.0
        while True:
            if not self._take_orders(grace):
                return
            if self._intake is not None:
                self._take_batches(self._intake)
            lines = [*self.slots.hints(), *self.slots.replace_dead()]
            for line in lines:
                self._hint(line, watcher)
            for name in watcher.finished():
                self._report(name, watcher)
            now = time.monotonic()
            if now >= next_look:
                self.slots.end_late(self._limits, grace)
                self._check_disk()
                next_look = now + TICK
            if not lines:
                self._wait()

    def _wait(self) -> None:
        ends: list[Any] = [self._woken, *(self._intake.ends if self._intake is not None else ())]
        for slot in self.slots.slots:
            ends += [slot.hints, slot.process.sentinel]
        if self._woken in connection.wait(ends, TICK):
            os.read(self._woken, 65536)

    def _take_batches(self, intake: Intake) -> None:
        for name in intake.come():
            self._say({"op": "batch", "batch": name})
        intake.look()

    def _batch(self, intake: Intake, frame: Frame) -> None:
        name = str(frame.header["batch"])
        match frame.op:
            case "go":
                intake.open(name, set(jsonio.loads(frame.payload)), self._make)
            case "received":
                intake.received(name)
            case "resend":
                intake.resend(name)

    def _take_orders(self, grace: float) -> bool:
        """Do what the coordinator says; False when the session is over."""
        came = False
        while True:
            try:
                frame = self._inbox.get_nowait()
            except queue.Empty:
                break
            if frame is None:
                return False
            if frame.op == "stop":
                self._late = float(frame.header["late"])
                return False
            if frame.op == "job":
                self._make(frame)
                came = True
            elif frame.op == "end":
                self._end(str(frame.header["job"]), grace, str(frame.header["reason"]))
            elif "batch" in frame.header and self._intake is not None:
                self._batch(self._intake, frame)
                came = True
            elif frame.op == "give back":
                self._give_back(frame.header["jobs"])
        if came:
            self.slots.wake()
        return True

    def _make(self, frame: Frame) -> None:
        """Make a job's directory as the coordinator's looks, and its ticket.

        A slot may still have the name on its list from an earlier delivery: what it finds must be all or nothing.
        """
        header, size = frame.header, int(frame.header["record"])
        name = str(header["job"])
        if not is_name(name):
            raise Refused("worker", f"a job named {name!r} is refused")
        final = self.fanout.job(name)
        self._remove(final)
        job = JobFiles(self.folder.aside())
        os.mkdir(job.path, 0o700)
        write_exclusive(job.input, frame.payload[size:])
        self._arrival.link(header, job)
        write_exclusive(job.job, frame.payload[:size])
        os.rename(job.path, final.path)
        self._deliveries[name] = int(header["delivery"])
        write_exclusive(self.fanout.ticket("todo", name), b"")

    def _remove(self, job: JobFiles) -> None:
        for kind in ("todo", *tickets.FINISHED):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.fanout.ticket(kind, job.name))
        aside = self.folder.aside()
        with contextlib.suppress(FileNotFoundError):
            os.rename(job.path, aside)
            shutil.rmtree(aside, ignore_errors=True)

    def _give_back(self, names: list[str]) -> None:
        """Let go of jobs that no slot has begun: who claims first has them."""
        for name in names:
            job = self.fanout.job(name)
            if name in self._deliveries and try_claim(job, 1, self._claimant, anew=True):
                delivery = self._deliveries.pop(name)
                self._remove(job)
                self._say({"op": "given back", "job": name, "delivery": delivery})
                self._done_with(name)

    def _end(self, name: str, grace: float, reason: str) -> None:
        if self._deliveries.pop(name, None) is None:
            return
        self._done_with(name)
        job = self.fanout.job(name)
        if try_claim(job, 1, self._claimant, anew=True):
            self._remove(job)
        else:
            self.slots.end_job(name, grace, reason)

    def _done_with(self, name: str) -> None:
        if self._intake is not None:
            self._intake.drop(name)

    def _limits(self, name: str) -> tuple[float | None, float | None]:
        try:
            policy = jobs.read_job(self.fanout.job(name)).policy
        except (SpoolError, OSError):
            return None, None
        return policy.timeout_seconds, policy.timeout_total

    def _check_disk(self) -> None:
        status = os.statvfs(self.folder.path)
        if status.f_bavail * status.f_frsize < RESERVE or (status.f_files and not status.f_favail):
            raise Refused("disk", f"its disk is full: {self.folder.workdir}")

    # -- reporting ----------------------------------------------------------------------------------------------

    def _hint(self, line: str, watcher: Watcher) -> None:
        name = line[1:].partition(" ")[0]
        if line[0] == "-":
            watcher.hint(name)
        elif name in self._deliveries:
            self._say({"op": "began", "job": name, "delivery": self._deliveries[name]})

    def _report(self, name: str, watcher: Watcher) -> None:
        """Send the result of a job, with what it printed, and forget the job."""
        watcher.forget(name)  # it may come back, for another attempt
        delivery = self._deliveries.get(name)
        if delivery is None:
            return
        job = self.fanout.job(name)
        result = jobs.read_accepted(job, None)
        if result is None:
            return
        if not result["success"]:
            self._check_disk()  # what failed for want of room shall run elsewhere
        del self._deliveries[name]
        header, payload = reply(job, result, delivery, self._arrival.sent_back)
        if not (result["success"] and self._intake and self._intake.result(name, header, payload)):
            self._say(header, payload)
            self._done_with(name)
        if not self.folder.keep:
            self._remove(job)
