"""`tea spool logs`: what a job printed, also while it runs."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable
from typing import Any

import click

from spool.find import fanout_of, in_run, job_at, spool_of
from spool.hosts import host_of
from spool.layout import JobFiles
from spool.opened import home
from spool.output import STREAMS, Output, Piece, attempts_of, chosen_attempt, follow, has_ended
from spool.publish import read_quietly
from spool.worker import Observer
from tea.cli.complete import job_names
from tea.cli.errors import say
from tea.cli.options import json_option, spool_option, spool_path

HELP = """What the newest attempt of a job printed: its standard output on stdout, its standard error on stderr. Of a
job that runs, what it has printed so far.

\b
  tea spool logs 7
  tea spool logs 001-split/0007-scale --attempt 1
  tea spool logs 7 --follow
  tea spool logs 7 --stderr | grep -i error

With --follow it goes on until the job has ended, also into its next attempts. A branch that runs in a thread of its
coordinator shows what it printed when its attempt has ended.
"""


@click.command("logs", help=HELP, short_help="What a job printed, also while it runs.")
@click.argument("job", metavar="JOB", shell_complete=job_names)
@click.option("--follow", "-f", "following", is_flag=True, help="Go on until the job has ended.")
@click.option("--attempt", metavar="N", type=click.IntRange(min=1), help="This attempt, not the newest.")
@click.option("--stdout", "only", flag_value="stdout", help="Only its standard output.")
@click.option("--stderr", "only", flag_value="stderr", help="Only its standard error; on stdout.")
@spool_option
@json_option
def command(
    job: str, following: bool, attempt: int | None, only: str | None, spool: str | None, as_json: bool
) -> int:
    files = job_at(spool_path(spool), job)
    number = chosen_attempt(files, attempt)
    streams = (only,) if only else STREAMS
    if as_json and not following:
        click.echo(json.dumps(data(files, number, streams), indent=2, ensure_ascii=False))
        return 0
    observer = Observer(spool_of(files.path))
    writer = _Writer(files, mixed=only is None, as_json=as_json)
    if following:
        _follow(files, number, observer, writer, streams)
    else:
        writer.write(Output(files, number, streams).more() if number else ())
        _tell_nothing(files, number, observer, writer)
    return 0


class _Writer:
    """Writes pieces where they belong, and counts them."""

    def __init__(self, job: JobFiles, *, mixed: bool, as_json: bool) -> None:
        self.job, self._mixed, self._json = job, mixed, as_json
        self.written = 0

    def write(self, pieces: Iterable[Piece], announced: int = 0) -> None:
        """Write pieces; attempts after `announced` are announced."""
        for piece in pieces:
            if piece.attempt > announced > 0:
                say(f"attempt {piece.attempt} of {in_run(self.job.path)}:")
            announced = piece.attempt
            self.written += len(piece.data)
            if self._json:
                line = {"attempt": piece.attempt, "stream": piece.stream, "text": _text(piece.data)}
                print(json.dumps(line, ensure_ascii=False), flush=True)
            else:
                self._copy(piece)

    def _copy(self, piece: Piece) -> None:
        stream = sys.stderr if self._mixed and piece.stream == "stderr" else sys.stdout
        if stream.isatty():
            print(tame(_text(piece.data)), end="", file=stream, flush=True)
            return
        stream.flush()
        stream.buffer.write(piece.data)
        stream.buffer.flush()


def _follow(job: JobFiles, number: int, observer: Observer, writer: _Writer, streams: Iterable[str]) -> None:
    if _in_threads(job) and not os.path.lexists(job.accepted):
        say(f"{in_run(job.path)} runs in a thread: what it prints is shown when an attempt has ended")
    try:
        writer.write(follow(job, observer, number, tuple(streams)), number)
    except FileNotFoundError:
        say(f"{job.path} has been removed")
        return
    except KeyboardInterrupt:  # the way to leave
        return
    if not os.path.lexists(job.accepted):
        say(f"{in_run(job.path)} waits, and no worker lives that could take it; `tea spool explain` says more")


def _tell_nothing(job: JobFiles, number: int, observer: Observer, writer: _Writer) -> None:
    """Why there is nothing to see."""
    if writer.written:
        return
    if not number:
        say(f"{in_run(job.path)} has not begun")
    elif has_ended(job, number, observer):
        say(f"attempt {number} of {in_run(job.path)} printed nothing")
    elif _in_threads(job):
        say(f"attempt {number} of {in_run(job.path)} runs in a thread: what it prints is kept when it has ended")
    elif host := host_of(spool_of(job.path), job, observer):
        say(f"attempt {number} of {in_run(job.path)} runs on host {host}: what it prints is here when it has ended")
    else:
        say(f"attempt {number} of {in_run(job.path)} has printed nothing yet")


def _in_threads(job: JobFiles) -> bool:
    return read_quietly(fanout_of(job).fanout).get("strategy") == "thread"


_CONTROL = re.compile(r"\x1b(?!\[[0-9;]*m)|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]")


def tame(text: str) -> str:
    """Text that may be shown on a terminal: colours stay, what moves the cursor or asks for answers does not."""
    return _CONTROL.sub("?", text)


def _text(data_: bytes) -> str:
    return data_.decode("utf-8", "replace")


def data(job: JobFiles, number: int, streams: Iterable[str]) -> dict[str, Any]:
    """What an attempt printed, for programs. ended: whether it will print no more."""
    printed = dict.fromkeys(streams, b"")
    for piece in Output(job, number, tuple(printed)).more() if number else ():
        printed[piece.stream] += piece.data
    return {
        "job": in_run(job.path),
        "path": home(job.path),
        "attempt": number or None,
        "attempts": attempts_of(job),
        "ended": bool(number) and has_ended(job, number, Observer(spool_of(job.path))),
        **{stream: _text(text) for stream, text in printed.items()},
    }
