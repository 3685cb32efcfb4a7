"""Jobs go to hosts in batches that GNU Parallel distributes, and their results come back with it.

    claim free jobs --> 0007.batch --> GNU Parallel --> some host: "I have batch 7" --> "go, without jobs 31 and 40"
                                                        |
        results <-- 0007.result <-- GNU Parallel <------+   (over the session, when nobody fetches the file)

Everything else is as without it, by the same means: each host has a session with a worker, which is looked at before
any job is claimed, has its secrets from there, says which job begins, ends jobs when told to, gives back what an idle
host could do, and ends with its jobs when this process ends. So GNU Parallel may lose a batch, bring it twice, or be
killed: the worker asks before it begins, and a result counts once, whichever way it comes.

Batches get smaller towards the end, so that all hosts end together: guided self-scheduling (Polychronopoulos and
Kuck, 1987), but none so small that bringing it takes longer than its jobs.
"""

from __future__ import annotations

import math
import os
import secrets
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from executors.board import Board
from executors.remote import parallel, parcel
from executors.remote.failures import HostError
from executors.remote.feeder import Feeder
from executors.remote.frames import Frame, FrameError, FrameReader, encode
from executors.remote.held import Answer, Held
from executors.remote.link import Link, News
from executors.remote.parallel import AHEAD, Desk, JobLog, Round
from executors.remote.settings import RemoteConfig
from spool import jsonio
from spool.attempts import Policy

CARRY = 2.0
"""Seconds that it takes to bring a batch and fetch its results, until that is known from batches that have come."""

MAX_BYTES = 64 * 1024 * 1024
"""Bytes of a batch after which no job is added."""

PATIENCE = 5.0
"""Seconds in which a batch should be on a host, or its results here, when nothing is wrong."""

TROUBLE = 4
"""How many times the batches that are under way may come through elsewhere before a host without any is left out."""


@dataclass(slots=True, eq=False)
class Batch:
    """Jobs that travel together. jobs: each with its delivery. link: the host that has taken it.

    complete: all results are in the file that comes back. changed: when it was last heard of, on the monotonic clock.
    """

    name: str
    round: Round
    jobs: dict[str, int] = field(default_factory=dict)
    link: Link | None = None
    complete: bool = False
    changed: float = field(default_factory=time.monotonic)


class Batches(Feeder):
    """One call of `execute`, with hosts that GNU Parallel brings batches to."""

    programs = ("perl", "rsync")

    def __init__(
        self, board: Board, config: RemoteConfig, cargo: parcel.Cargo, folder: str, limit: int | None
    ) -> None:
        super().__init__(board, config, cargo, folder, limit)
        self.transit = f"/tmp/tea-{secrets.token_hex(8)}"
        self._log = JobLog(board.fanout.joblog)
        self._batches: dict[str, Batch] = {}
        self._rounds: list[Round] = []
        self._one_by_one = False
        self._serial = 0
        self._seconds: float | None = None
        self._carry = CARRY
        self._begun: Counter[str] = Counter()
        self._first_ready = 0.0
        self._largest = max(1, math.ceil(board.total / (AHEAD * len(config.hosts))))
        slots = min(host.slots or 1 for host in config.hosts)
        self._timeout = longest((board.policy(i) for i in range(board.total)), self._largest, slots)
        self._desk = Desk()

    # -- Execution ----------------------------------------------------------------------------------------------

    def news(self) -> list[str]:
        return [*super().news(), *self._come_back()]

    def stop(self, *, failed: bool) -> None:
        self._closing = True
        for one in self._rounds:
            one.close()
        for one in self._rounds:
            if not failed and not self._batches:
                one.wait(10.0)  # it writes its log, and removes from the hosts what it has brought there
            self.late = max(self.late, 0.0 if one.over else 2.0)
            one.end()
        super().stop(failed=failed)
        self._desk.close()

    # -- news from hosts ----------------------------------------------------------------------------------------

    def _take(self, news: News) -> Iterable[str]:
        name = str(news.frame.header.get("batch"))
        match news.what:
            case "batch":
                self._arrived(news.link, name)
            case "complete":
                batch = self._batches.get(name)
                if batch is not None and batch.link is news.link:
                    batch.complete, batch.changed = True, time.monotonic()
            case _:
                return super()._take(news)
        return []

    def _ready(self, link: Link, news: News) -> None:
        super()._ready(link, news)
        self._begun.clear()  # nobody is compared with what others did before
        self._first_ready = self._first_ready or time.monotonic()

    def _arrived(self, link: Link, name: str) -> None:
        """A host has a batch: it is told which of its jobs are still to be done, and by nobody else."""
        batch = self._batches.get(name)
        mine = [held for held in self._jobs(batch) if held.link is None] if batch is not None else []
        for held in mine:
            held.link = link
        if batch is not None:
            batch.link, batch.complete, batch.round.brought = link, False, True
            now = time.monotonic()
            self._carry = 0.5 * self._carry + 0.5 * 2 * (now - batch.changed)  # back takes as long
            batch.changed = now
            self._begun[link.name] += 1
        link.send(Frame({"op": "go", "batch": name}, jsonio.dumps([held.claim.job.name for held in mine])))

    def _lost(self, link: Link, news: News) -> None:
        """Batches that may be on the way to the lost host do not wait for GNU Parallel to see that it is lost."""
        super()._lost(link, news)
        for batch in self._batches.values():
            if batch.link is None and link.name in batch.round.hosts:
                for held in self._jobs(batch):
                    held.release()
                    self._waiting.appendleft(held)
        for one in self._rounds:
            if not any(other.ready and other.name in one.hosts for other in self.links):
                one.end()

    def _jobs(self, batch: Batch) -> list[Held]:
        """The jobs of a batch that still are its: no result, and not on the way to somewhere else."""
        found = ((self.held.get(name), delivery) for name, delivery in batch.jobs.items())
        return [held for held, delivery in found if held is not None and held.delivery == delivery]

    # -- what comes back ----------------------------------------------------------------------------------------

    def _come_back(self) -> list[str]:
        """Take the results that GNU Parallel has brought, and take up again what it could not do."""
        lines: list[str] = []
        given_up = dict(self._log.news())
        for batch in list(self._batches.values()):
            over = batch.name in given_up or batch.round.over
            if not over and not batch.complete:
                continue
            finished = self._read(batch, lines)
            if finished or over:
                self._retire(batch, finished, given_up.get(batch.name))
        for name in given_up:
            self._desk.clear(name)
        for one in [one for one in self._rounds if one.over]:
            self._round_over(one)
        return lines

    def _read(self, batch: Batch, lines: list[str]) -> bool:
        """Take the results in a batch's file, which may end anywhere; whether they are complete."""
        try:
            fd = os.open(self._desk.file(f"{batch.name}.result"), os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        host = batch.link.name if batch.link is not None else ""
        try:
            reader = FrameReader(fd)
            while (frame := reader.read(None)) is not None:
                if frame.op == "finish":
                    return True
                lines += self._came(batch, frame, host)
        except FrameError as error:
            self.board.note("corrupt", host=host, error=f"the results of batch {batch.name}: {error}")
        finally:
            os.close(fd)
        return False

    def _came(self, batch: Batch, frame: Frame, host: str) -> Iterable[str]:
        name = str(frame.header.get("job"))
        held = self.held.get(name)
        if held is None or held.delivery != batch.jobs.get(name) or held.delivery != frame.header.get("delivery"):
            return []
        link = held.link
        if link is not None and link.ready:
            self._good(link)
        return self._accept(held, frame, host)

    def _finish(self, held: Held, answer: Answer) -> None:
        super()._finish(held, answer)
        seconds = float(answer.result.get("seconds") or 0.0)
        self._seconds = seconds if self._seconds is None else 0.9 * self._seconds + 0.1 * seconds

    def _retire(self, batch: Batch, finished: bool, host: str | None) -> None:
        """A batch is done with. Jobs that no host has taken go into another one; results that have not come back are
        sent over the session.
        """
        del self._batches[batch.name]
        if batch.link is not None:
            batch.link.send(Frame({"op": "received" if finished else "resend", "batch": batch.name}))
        missing = [held for held in self._jobs(batch) if held.link is None]
        for held in missing:
            held.release()
            self._waiting.append(held)
        if not finished:
            where = host or "no host"
            self.board.note("batch", batch=batch.name, host=where, missing=len(missing), said=batch.round.said())

    # -- rounds of GNU Parallel ---------------------------------------------------------------------------------

    def _round_over(self, one: Round) -> None:
        """It has ended, perhaps without any success: GNU Parallel gives up when it cannot copy its `--basefile` to a
        host. Then each host gets a round of its own, so that it is seen which one it is.
        """
        self._rounds.remove(one)
        reached = [link for link in self.links if link.ready and link.name in one.hosts]
        if reached and not one.brought:
            self._one_by_one = True
            if len(one.hosts) == 1:
                self._leave_out(reached[0], one.said())
        one.end()

    def _leave_out(self, link: Link, said: str) -> None:
        error = HostError(
            link.name,
            f"GNU Parallel cannot bring anything there ({said or 'it does not say why'})",
            "rsync and ssh must work more than once at a time; or use `launcher: ssh`",
            lasting=True,
        )
        link.close(0.0)
        link.error = error
        self._lost(link, News(link, link.session, "lost", error=error))

    def _leave_out_unreached(self) -> None:
        """GNU Parallel tries a batch elsewhere without a word about the host that it could not reach."""
        ready, total = [link for link in self.links if link.ready], sum(self._begun.values())
        if total < TROUBLE * AHEAD * len(ready):
            return
        for link in ready:
            if not self._begun[link.name] and not any(held.link is link for held in self.held.values()):
                self._leave_out(link, self._rounds[-1].said() if self._rounds else "")

    def _round(self, hosts: list[Link]) -> Round:
        """The round that brings batches to these hosts."""
        if self._one_by_one:
            loads = Counter(name for batch in self._batches.values() for name in batch.round.hosts)
            hosts = [min(hosts, key=lambda link: loads[link.name])]
        names = {link.name for link in hosts}
        for one in self._rounds:
            if one.open and not one.over and one.hosts == names:
                return one
            if not self._one_by_one:
                one.close()
        argv = parallel.command(
            self.config,
            hosts=[link.host for link in hosts],
            workdir=str(self.transit),
            joblog=self._log.path,
            timeout=self._timeout,
            control=self._desk.control,
            courier=self._desk.courier(),
        )
        self._rounds.append(Round(argv, self._desk, names))
        return self._rounds[-1]

    # -- feeding ------------------------------------------------------------------------------------------------

    def _feed(self) -> None:
        """Keep batches on the way to every host; when there are none to send, GNU Parallel need not wait for one."""
        self._leave_out_unreached()
        ready = [link for link in self.links if link.ready]
        if not ready or not self._all_asked():
            return
        while self._under_way() < AHEAD * len(ready) and self._send(ready):
            pass
        self._close_rounds()

    def _close_rounds(self) -> None:
        """No round may wait for a next batch while it should look after one that has failed."""
        late = time.monotonic() - PATIENCE
        for one in self._rounds:
            batches = [batch for batch in self._batches.values() if batch.round is one]
            stuck = any((batch.link is None or batch.complete) and batch.changed < late for batch in batches)
            if stuck or len(batches) < AHEAD * len(one.hosts):
                one.close()

    def _all_asked(self) -> bool:
        """Whether each host has said if it can be used; one that takes long is not waited for."""
        asked = all(link.ready or link.error is not None for link in self.links)
        return asked or time.monotonic() - self._first_ready > CARRY

    def _under_way(self) -> int:
        return sum(bool(self._jobs(batch)) for batch in self._batches.values())

    def _send(self, ready: list[Link]) -> bool:
        """Make a batch and hand it to GNU Parallel; False when there is nothing to send."""
        jobs = self._gather(self._size(ready))
        if not jobs:
            return False
        lost_on = {name for held in jobs for name in held.lost_on}
        hosts = [link for link in ready if link.name not in lost_on] or ready
        self._serial += 1
        name, sent, size = f"{self._serial:04d}", {}, 0
        with open(self._desk.file(f"{name}.batch"), "wb") as file:
            for held in jobs:
                if size > MAX_BYTES:
                    self._waiting.append(held)
                elif (frame := self._packed(held)) is not None:
                    sent[held.claim.job.name] = held.delivery
                    size += file.write(encode(*frame)) + file.write(frame.payload)
        if not sent:
            return False
        batch = Batch(name, self._round(hosts), sent)
        self._batches[name] = batch
        batch.round.feed(f"{name}.batch")
        return True

    def _size(self, ready: list[Link]) -> int:
        """How many jobs the next batch gets."""
        board = self.board
        free = board.total - sum(board.counts.values()) - len(self.held) + len(self._waiting)
        places, slots = AHEAD * len(ready), sum(link.slots for link in ready) / len(ready)
        size = min(share(free, places, slots, self._seconds, self._carry), self._largest)
        if self._limit is not None:
            size = min(size, self._limit - len(self.held) + len(self._waiting))
        return size

    def _gather(self, size: int) -> list[Held]:
        """Jobs for a batch: those that a host has lost, by themselves; else free ones. One that may be what takes
        hosts down comes last, and alone.
        """
        self._waiting = deque(held for held in self._waiting if held.claim.job.name in self.held)
        again = [held for held in self._waiting if not held.suspect]
        jobs = [held for held in again if set(held.lost_on) == set(again[0].lost_on)][: max(size, 0)]
        while not again and len(jobs) < size and (held := self._claimed()) is not None:
            jobs.append(held)
        if not jobs and size > 0 and not self._under_way():
            jobs = list(self._waiting)[:1]
        for held in jobs:
            if held in self._waiting:
                self._waiting.remove(held)
        return jobs

    def _balance(self) -> None:
        """As under launcher `ssh`, when nothing is on the way to an idle host and what others have is worth it."""
        on_the_way = any(batch.link is None and self._jobs(batch) for batch in self._batches.values())
        spare = sum(held.link is not None and not held.began for held in self.held.values())
        slots = sum(link.slots for link in self.links if link.ready) or 1
        if self.board.paused or (not on_the_way and spare * (self._seconds or CARRY) / slots > self._carry):
            super()._balance()


def share(free: int, places: int, slots: float, seconds: float | None, carry: float = CARRY) -> int:
    """How many of the free jobs the next batch gets.

    Args:
        places: batches that may be under way. slots: of a host. seconds: that a job takes, None when nobody knows.
        carry: seconds that it takes to bring a batch and fetch its results.
    """
    worth_it = slots if not seconds else slots * carry / seconds
    return max(1, math.ceil(max(free / (2 * places), min(worth_it, free))))


def longest(policies: Iterable[Policy], jobs: int, slots: int) -> float | None:
    """The seconds that a batch may take at most, beyond which its login hangs; None when a job may take any time.

    Its host may have another batch before it. Jobs that take too long are ended on the host, long before this.
    """
    most = 0.0
    for policy in policies:
        limits = [limit for limit in (policy.timeout_seconds, policy.timeout_total) if limit is not None]
        if not limits:
            return None
        most = max(most, min(limits) + policy.grace_seconds)
    return AHEAD * math.ceil(jobs / slots) * most + 60.0
