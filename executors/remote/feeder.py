"""The coordinator's loop where workers are hosts: which job goes to which host, and what becomes of a lost one.

    claim a free job --> give it to the host that has most room --> it begins there --> its result is published here
      ^                        |  given back by a host that has too many, so that an idle one need not wait
      +------------------------+  lost with its host: the same attempt goes to another one

A claim is the coordinator's own, made on a host's behalf, and stays when a host is lost: the attempt is begun again
elsewhere, and does not count as lost. A session that has ended can bring no result, so one attempt has one result.
What is counted is how many hosts were lost while they ran a job: a job that takes its hosts down is given up.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections import deque
from collections.abc import Iterable, Iterator

from executors.base import WorkersFailedError
from executors.board import Board
from executors.breaker import CircuitState
from executors.execution import Execution
from executors.remote import parcel
from executors.remote.frames import Frame
from executors.remote.held import Answer, Held, checked, shown
from executors.remote.link import Link, News, Setup
from executors.remote.roster import Roster
from executors.remote.settings import RemoteConfig
from spool import job as jobs
from spool import nested
from spool.attempts import Outcome
from spool.claim import host_name, user_name
from spool.errors import SpoolError
from spool.publish import publish
from spool.queue import Queue
from spool.worker import Observer

AHEAD = 2
"""Jobs that a host is given for each of its slots: one runs, one waits beside it."""


class Feeder(Execution):
    """One call of `execute`, with hosts as workers.

    Args:
        folder: the workflow's folder, as it stands in the subsets. limit: jobs that hosts may have at once.
    """

    programs: tuple[str, ...] = ()
    """What must be installed on every host, besides Python."""

    late = 0.0
    """Seconds after the end in which logins that were cut may still bring something to a host."""

    transit: str | None = None
    """Under which name the folder of a host's session is found, for jobs that come in batches."""

    def __init__(
        self, board: Board, config: RemoteConfig, cargo: parcel.Cargo, folder: str, limit: int | None
    ) -> None:
        slots = sum(host.slots or 2 for host in config.hosts)
        super().__init__(board, min(slots, limit or slots), events=False)
        self.config, self._cargo, self._folder, self._limit = config, cargo, folder, limit
        self.held: dict[str, Held] = {}
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._waiting: deque[Held] = deque()
        self._queue = Queue(board.fanout, self.claimant, Observer(self.spool), held=self.held)
        self._deliveries = 0
        self._roster = Roster(board, self.spool)
        self._count: dict[str, int] = {}
        self._next_balance = 0.0
        self._closing = False
        setup = Setup(
            parcel.program(config, folder),
            board.context.version,
            board.context.runner,
            config.environment(),
            self._setup_frames,
            self.programs,
        )
        self.links = [Link(host, config, setup, self._news.put) for host in config.hosts]
        self._started = False

    # -- what every host is told first --------------------------------------------------------------------------

    def _setup_frames(self) -> Iterator[Frame]:
        """In the thread of a link. What is shared lies in the fan-out's folder since the board was prepared."""
        board, context = self.board, self.board.context
        of = f"{user_name()}@{host_name()}:{board.fanout.path}"
        yield Frame({"op": "run", "label": board.fanout.name.partition("-")[2], "of": of})
        yield from self._cargo.frames()
        for key, text in context.workflows.items():
            yield Frame({"op": "workflow", "key": key, "folder": self._folder}, text)
        yield from parcel.base(board.fanout)
        yield Frame(
            {
                "op": "fanout",
                "runner": context.runner,
                "options": context.options,
                "version": context.version,
                "cleanup": self.config.cleanup,
                "grace": board.grace,
                "transit": self.transit,
            }
        )

    # -- Execution ----------------------------------------------------------------------------------------------

    def news(self) -> list[str]:
        if not self._started:
            self._started = True
            for link in self.links:
                self._roster.tell(link.name, "connecting")
                link.start()
        lines: list[str] = []
        with contextlib.suppress(queue.Empty):
            while True:
                lines += self._take(self._news.get_nowait())
        if not self._closing and not self._gate.closed():
            self._feed()
        return lines

    def wait(self, seconds: float) -> None:
        with contextlib.suppress(queue.Empty):
            self._news.put(self._news.get(timeout=seconds))

    def tick(self) -> None:
        self.board.running = sum(held.began for held in self.held.values())
        self._roster.show(self.held)
        if not self._closing and time.monotonic() >= self._next_balance:
            self._balance()
            self._next_balance = time.monotonic() + 0.2
        if all(link.out for link in self.links):
            raise WorkersFailedError(
                "no host is left to run branches on; what has finished is kept, and the rest can go on when "
                "`tea hosts check` says that there are some again:\n"
                + "\n".join(f"  {link.error}" for link in self.links)
            )

    def stop_claiming(self) -> None:
        self._closing = True

    def end_job(self, job: str, reason: str) -> None:
        held = self.held.pop(job, None)
        if held is not None and held.link is not None:
            held.link.send(Frame({"op": "end", "job": job, "reason": reason}))

    def stop(self, *, failed: bool) -> None:
        self._closing = True
        for link in self.links:
            link.close(self.board.grace if not failed else 0.0, self.late)
        if self._started:
            for link in self.links:
                link.join()
        self._roster.close(link.name for link in self.links)
        self._cargo.close()

    # -- news from hosts ----------------------------------------------------------------------------------------

    def _take(self, news: News) -> Iterable[str]:
        """Act on what a host says; hints for the loop."""
        link = news.link
        match news.what:
            case "ready":
                self._ready(link, news)
            case "lost":
                self._lost(link, news)
            case "began":
                held = self._held(news)
                if held is not None:
                    held.since = time.time()
                    return [f"+{held.claim.job.name} {held.claim.attempt}"]
            case "given back":
                held = self._held(news)
                if held is not None:
                    held.release()
                    self._waiting.append(held)
            case "result":
                return self._result(news)
        return []

    def _held(self, news: News) -> Held | None:
        """The job that a host speaks of, if it has it, and by this delivery."""
        held = self.held.get(str(news.frame.header.get("job")))
        if held is None or held.link is not news.link or held.delivery != news.frame.header.get("delivery"):
            return None
        return held

    def _ready(self, link: Link, news: News) -> None:
        """A host can be given jobs."""
        link.ready = True
        self._roster.works(link.name, link.slots)
        state = "half-open" if link.breaker.state is CircuitState.HALF_OPEN else "ready"
        self._roster.tell(link.name, state, slots=link.slots, **shown(news.frame.header))

    def _lost(self, link: Link, news: News) -> None:
        """A host is gone: its jobs go to others, and those that ran may have been its end."""
        link.ready = False
        self._roster.gone(link.name)
        error = news.error
        self._roster.tell(link.name, "out" if link.out else "lost", error=str(error))
        if link.out or error is None or not error.lasting:
            more = "" if link.out else "; trying again"
            self.board.context.warn(f"{error}{more}")
        for held in [held for held in self.held.values() if held.link is link]:
            if held.began:
                held.lost_on.append(link.name)
            held.release()
            if self._hosts_lost(held) > held.claim.record.policy.max_lost:
                self._give_up(held)
            else:
                self._waiting.appendleft(held)

    def _hosts_lost(self, held: Held) -> int:
        """How often a job lost its host: each host once, as a bad one shall not use up what is allowed to a job;
        when no host is left that it has not lost, every time.
        """
        hosts = set(held.lost_on)
        usable = {link.name for link in self.links if not link.out}
        return len(held.lost_on) if usable <= hosts else len(hosts)

    def _give_up(self, held: Held) -> None:
        text = (
            f"its host was lost {len(held.lost_on)} times while it ran ({', '.join(held.lost_on)}; max_lost is "
            f"{held.claim.record.policy.max_lost}); the job may be taking its hosts down"
        )
        self._end(held, Outcome.LOST, "WorkerLost", text)

    def _end(self, held: Held, outcome: Outcome, kind: str, text: str) -> None:
        claim = held.claim
        result = jobs.verdict_result(claim.job, claim.record, claim.attempt, outcome, kind, text, claim.spent)
        self._finish(held, Answer(result))
        self.watcher.hint(claim.job.name)

    # -- results ------------------------------------------------------------------------------------------------

    def _result(self, news: News) -> Iterable[str]:
        held = self._held(news)
        if held is None:
            return []
        self._good(news.link)
        return self._accept(held, news.frame, news.link.name)

    def _good(self, link: Link) -> None:
        """A host has brought a result: what went wrong there before is over."""
        link.breaker.record_success()
        link.error = None
        self._roster.tell(link.name, "ready")

    def _accept(self, held: Held, frame: Frame, host: str) -> Iterable[str]:
        """Take a job's result when it is one."""
        name, attempt = held.claim.job.name, held.claim.attempt
        try:
            answer = checked(held, frame, host)
        except SpoolError as error:  # damaged, or not what was asked: like a host that is lost with its job
            self.board.note("corrupt", job=name, host=host, error=str(error))
            held.release()
            held.lost_on.append(host)
            if self._hosts_lost(held) > held.claim.record.policy.max_lost:
                self._give_up(held)
            else:
                self._waiting.append(held)
            return []
        self._take_nested(held, answer, host)
        self._finish(held, answer)
        return [f"-{name} {attempt}"]

    def _take_nested(self, held: Held, answer: Answer, host: str) -> None:
        """Keep the record of the job's own fan-outs. It is only a record: without it the result is the same."""
        job, why = held.claim.job, answer.why_not
        if answer.nested:
            try:
                nested.take(job, answer.nested, f"{host}:{job.name}")
            except (SpoolError, OSError) as error:
                why = str(error)
        if why:
            self.board.note("no record", job=job.name, host=host, error=why)
            self.board.context.warn(f"{job.name}: what its own fan-outs did on {host} is not recorded here: {why}")

    def _finish(self, held: Held, answer: Answer) -> None:
        """Publish a result as this coordinator's; on a disk that refuses, when it takes it again."""
        claim, result = held.claim, answer.result
        while True:
            try:
                for log, data in ((claim.job.stdout, answer.out), (claim.job.stderr, answer.err)):
                    if data:
                        with contextlib.suppress(FileExistsError):
                            publish(log(claim.attempt), data)
                jobs.finish(
                    self.board.fanout, claim.job, claim.record, claim.attempt, result, sync=self.board.context.sync
                )
                break
            except OSError as error:
                self._disk_refused(f"cannot write the result of {claim.job.path}: {error}", error)
        self.held.pop(claim.job.name, None)
        if not result["success"]:
            self._queue.failed(claim.job.name)

    # -- feeding ------------------------------------------------------------------------------------------------

    def _feed(self) -> None:
        """Keep every host full, but not more than needed."""
        while (link := self._roomiest()) is not None:
            held = self._next(link)
            if held is None:
                return
            self._deliver(held, link)

    def _roomiest(self) -> Link | None:
        """The host with most room for jobs, None when all have enough."""
        count = self._count = {link.name: 0 for link in self.links}
        alone = set()
        for held in self.held.values():
            if held.link is not None:
                count[held.link.name] += 1
                if held.suspect:
                    alone.add(held.link.name)
        if self._limit is not None and sum(count.values()) >= self._limit:
            return None
        ready = [link for link in self.links if link.ready and link.name not in alone]
        roomy = [link for link in ready if count[link.name] < self._room(link)]
        return max(roomy, key=lambda link: 1 - count[link.name] / self._room(link), default=None)

    def _room(self, link: Link) -> int:
        """How many jobs a host may have: one, until a host that was lost has shown that it works again."""
        return 1 if link.breaker.state is CircuitState.HALF_OPEN else AHEAD * link.slots

    def _next(self, link: Link) -> Held | None:
        """A job for a host: one that waits, rather one that was not lost there; else a free one."""
        held = self._waiting_for(link) or self._claimed()
        if held is None and self._waiting and not self._count[link.name]:
            held = next((one for one in self._waiting if one.suspect), None)
        if held is not None and held in self._waiting:
            self._waiting.remove(held)
        return held

    def _waiting_for(self, link: Link) -> Held | None:
        self._waiting = deque(held for held in self._waiting if held.claim.job.name in self.held)
        fit = [held for held in self._waiting if not held.suspect]
        others = any(other.ready and other is not link for other in self.links)
        fresh = (held for held in fit if link.name not in held.lost_on)
        return next(fresh, None if others or not fit else fit[0])

    def _claimed(self) -> Held | None:
        """A job that was free and is ours now."""
        try:
            claim = self._queue.take()
        except OSError as error:
            self._disk_refused(f"cannot claim in {self.board.fanout.path}: {error}", error)
            return None
        if claim is None:
            return None
        held = self.held[claim.job.name] = Held(claim)
        return held

    def _deliver(self, held: Held, link: Link) -> None:
        frame = self._packed(held)
        if frame is not None:
            held.link = link
            link.send(frame)

    def _packed(self, held: Held) -> Frame | None:
        """A job as it is sent, under a new delivery; None when its files cannot be read, and it has failed."""
        try:
            sent = parcel.packed(held.claim)
        except (SpoolError, OSError) as error:
            self._end(held, Outcome.FAILED, type(error).__name__, str(error))
            return None
        self._deliveries += 1
        held.release()
        held.delivery, held.input_sha256 = self._deliveries, sent.input_sha256
        return parcel.job(held.claim, sent, self._deliveries)

    def _balance(self) -> None:
        """Where a host has nothing to do and nothing is free, others give back what they have not begun; of a run
        that is paused, all do.
        """
        if self._waiting and not self.board.paused:
            return
        busy = {held.link.name for held in self.held.values() if held.link is not None}
        idle = [link for link in self.links if link.ready and link.name not in busy]
        wanted = sum(link.slots for link in idle)
        spare = [held for held in self.held.values() if held.link and not held.began and not held.asked_back]
        if self.board.paused:
            wanted = len(spare)
        for held in reversed(spare[-wanted:] if wanted else []):
            if held.link is not None:
                held.asked_back = True
                held.link.send(Frame({"op": "give back", "jobs": [held.claim.job.name]}))
