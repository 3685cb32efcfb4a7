"""How far the fan-outs of a run are, live: a bar on a terminal, plain lines elsewhere.

    board --(progress, thousands of times a second)--> Progress --(ten times a second at most)--> a display

The first thing that a call does is to look at the clock, so that it costs nothing next to a job. Everything goes to
stderr. A display only shows; nothing here changes a run.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Protocol

from spool.attempts import Outcome

if TYPE_CHECKING:
    from executors.board import Board

BAR_INTERVAL = 0.1
LINE_INTERVAL = 5.0
"""Seconds between two looks at the counts: of the bar, and of plain lines."""

LIVE_LINES = 5
"""Fan-outs that the bar shows at once; more are counted together."""


@dataclass(frozen=True, slots=True)
class Counts:
    """A fan-out at one moment. rate: branches a second. left: seconds, None when that can't be told."""

    name: str
    total: int
    done: int
    failed: int
    cancelled: int
    retries: int
    running: int
    seconds: float
    rate: float
    nested: bool = False
    paused: bool = False

    @property
    def finished(self) -> int:
        return self.done + self.failed + self.cancelled

    @property
    def todo(self) -> int:
        return max(0, self.total - self.finished - self.running)

    @property
    def left(self) -> float | None:
        return (self.total - self.finished) / self.rate if self.rate > 0 else None

    def text(self) -> str:
        """`618/1000 done, 3 failed, 2 retried, 4 running, 375 to do, 41/s, 9 s left`; zeros are left out."""
        parts = [f"{self.done}/{self.total} done"]
        shown = (
            (self.failed, "failed"),
            (self.cancelled, "cancelled"),
            (self.retries, "retried"),
            (self.running, "running"),
            (self.todo, "to do"),
        )
        parts += [f"{number} {label}" for number, label in shown if number]
        if self.paused and self.finished < self.total:
            parts.append("paused")
        elif self.finished < self.total:
            parts += [f"{speed(self.rate)}"] if self.rate else []
            parts += [f"{duration(self.left)} left"] if self.left is not None else []
        else:
            parts.append(f"{duration(self.seconds)}")
        return ", ".join(parts)


def speed(rate: float) -> str:
    """`41/s`, `2.5/s`, `12/min`."""
    if rate >= 10:
        return f"{rate:.0f}/s"
    return f"{rate:.1f}/s" if rate >= 1 else f"{rate * 60:.0f}/min" if rate * 60 >= 1 else f"{rate * 3600:.0f}/h"


def duration(seconds: float | None) -> str:
    """`0.4 s`, `12 s`, `3:07 min`, `2:04 h`."""
    if seconds is None:
        return "?"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


class Display(Protocol):
    """Shows counts."""

    interval: float

    def show(self, live: list[Counts], ended: list[Counts]) -> None:
        """The fan-outs that are under way, and those that ended since the last call."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


class _Seen:
    """A board, and what it had when it was first seen: a resumed fan-out begins with results."""

    def __init__(self, board: Board, now: float) -> None:
        self.board, self.since, self.before = board, now, board.collected
        fanout = board.context.fanout
        self.name = fanout.name.partition("-")[2] if fanout is not None else f"-> {board.context.exit or 'end'}"
        self.nested = fanout is not None and fanout.path.count("/fanouts/") > 1

    def counts(self, now: float) -> Counts:
        board = self.board
        counts = board.counts
        done, cancelled = counts[Outcome.SUCCEEDED], counts[Outcome.CANCELLED]
        finished = sum(counts.values())
        # A board that was first seen late has been at work since `began`.
        seconds = now - board.began
        return Counts(
            name=self.name,
            total=board.total,
            done=done,
            failed=finished - done - cancelled,
            cancelled=cancelled,
            retries=board.retries,
            running=min(getattr(board, "running", 0), board.total - finished),
            seconds=seconds,
            rate=(finished - self.before) / (now - self.since) if now - self.since > 0.2 else 0.0,
            nested=self.nested,
            paused=board.paused,
        )


class Progress:
    """Called with boards as often as anybody likes; shows them through a display now and then.

    Boards of fan-outs that run at the same time may call from threads of their own.
    """

    def __init__(self, display: Display, clock: Callable[[], float] = time.monotonic) -> None:
        self._display, self._clock = display, clock
        self._next = 0.0
        self._seen: dict[Board, _Seen] = {}
        self._last: Board | None = None
        self._lock = threading.Lock()

    def __call__(self, board: Board) -> None:
        now = self._clock()
        if now < self._next and board is self._last:
            return
        with self._lock:
            self._last = board
            if board not in self._seen:
                self._seen[board] = _Seen(board, now)
            if now >= self._next:
                self._show(now)

    def _show(self, now: float) -> None:
        self._next = now + self._display.interval
        live: list[Counts] = []
        ended: list[Counts] = []
        for board, seen in list(self._seen.items()):
            (ended if board.complete else live).append(seen.counts(now))
            if board.complete:
                del self._seen[board]
        self._display.show(live, ended)

    def close(self) -> None:
        """Show the end, and leave the terminal as it was."""
        with self._lock:
            self._show(self._clock())
            self._display.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Lines:
    """Plain lines, for logs: only when something has changed."""

    def __init__(self, file: IO[str], interval: float = LINE_INTERVAL) -> None:
        self.interval = interval
        self._file = file
        self._told: dict[str, tuple[int, ...]] = {}

    def show(self, live: list[Counts], ended: list[Counts]) -> None:
        for counts in live[:LIVE_LINES]:
            state = (counts.finished, counts.retries, counts.total, counts.paused)
            if self._told.get(counts.name) != state and counts.seconds >= self.interval / 2:
                self._told[counts.name] = state
                self._print(counts)
        for counts in ended:
            told = self._told.pop(counts.name, None) is not None
            if told or not counts.nested:
                self._print(counts)

    def _print(self, counts: Counts) -> None:
        print(f"tea: {counts.name}: {counts.text()}", file=self._file, flush=True)

    def close(self) -> None:
        self._told.clear()


class Bar:
    """One line with a bar for each fan-out under way; a plain line stays for each that has ended."""

    interval = BAR_INTERVAL

    def __init__(self, file: IO[str]) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=file, highlight=False)
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,  # who keeps what branches print has its own streams in these places
            redirect_stderr=False,
        )
        self._open = False

    def show(self, live: list[Counts], ended: list[Counts]) -> None:
        if live and not self._open:
            self._live.start()
            self._open = True
        if self._open:
            self._live.update(_table(live))
        for counts in ended:
            if not counts.nested:
                self._console.print(f"[bold]{_plain(counts.name)}[/bold]  {counts.text()}")
        if self._open:
            self._live.refresh()
        if not live:
            self.close()  # what nodes print until the next fan-out does not meet a bar

    def close(self) -> None:
        if self._open:
            self._live.stop()
            self._open = False


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _table(live: list[Counts]) -> Any:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    for counts in live[:LIVE_LINES]:
        bar = ProgressBar(total=max(counts.total, 1), completed=counts.finished, width=24)
        table.add_row(Text(counts.name, style="bold"), bar, _coloured(counts))
    if len(live) > LIVE_LINES:
        rest = live[LIVE_LINES:]
        done, total = sum(counts.done for counts in rest), sum(counts.total for counts in rest)
        table.add_row(Text(f"{len(rest)} more"), "", Text(f"{done}/{total} done"))
    return table


def _coloured(counts: Counts) -> Any:
    from rich.text import Text

    text = Text(counts.text(), no_wrap=True, overflow="ellipsis")
    text.highlight_regex(r"\d+ failed", "red")
    text.highlight_regex(r"\d+ retried", "yellow")
    return text


def progress(mode: str, file: IO[str] | None = None) -> Progress | None:
    """What a run's boards report to; None for no display.

    mode: "auto" (a bar on a terminal, else lines), "bar", "plain" or "none".
    """
    file = file or sys.stderr
    if mode == "none":
        return None
    if mode == "bar" or (mode == "auto" and file.isatty()):
        return Progress(Bar(file))
    return Progress(Lines(file))
