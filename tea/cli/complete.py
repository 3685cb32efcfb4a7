"""What a shell offers for RUN and JOB: names from the spool that the command line names so far; for files, files.

Completion never fails and never waits: a spool that cannot be read offers nothing, and of many names the first are
offered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from tea.cli.options import spool_path

if TYPE_CHECKING:
    from spool.layout import RunFiles, SpoolFiles

OFFERED = 100
"""Names that are offered at most."""

TICKETS = ("todo", "done", "failed", "cancelled")

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
_Names = Callable[["SpoolFiles", str], Iterator[str]]


class _Path(click.types.StringParamType):
    """A text that names a file or folder, or may."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type=self._kind)]


def offer_paths(command: click.Command) -> None:
    """See to it that files and folders are offered wherever a parameter says that it takes one."""
    for param in command.params:
        name = param.make_metavar(click.Context(command)) if type(param.type) is click.types.StringParamType else ""
        words = set(re.findall("[A-Z]+", name))
        if not words.isdisjoint(("FILE", "WORKFLOW")):
            param.type = _Path("file")
        elif not words.isdisjoint(("DIR", "SPOOL")):
            param.type = _Path("dir")


def _completer(names: _Names, paths: str = "dir") -> Completer:
    def complete(context: click.Context, _parameter: click.Parameter, typed: str) -> list[CompletionItem]:
        from spool.errors import SpoolError
        from spool.layout import SpoolFiles

        if typed.startswith((".", "/", "~")):
            return [CompletionItem(typed, type=paths)]
        files = SpoolFiles(spool_path(context.params.get("spool")))
        try:
            return [CompletionItem(name) for name in islice(names(files, typed), OFFERED)]
        except (SpoolError, OSError):
            return []

    return complete


def _runs(files: SpoolFiles, typed: str) -> Iterator[str]:
    """Runs by name, the newest first; when none begins so, those that end in `-7f3a` by that end."""
    from spool.run import run_names

    known = run_names(files)[::-1]
    whole = [name for name in known if name.startswith(typed)]
    yield from whole or (name.rpartition("-")[2] for name in known if name.rpartition("-")[2].startswith(typed))


def _packs(files: SpoolFiles, typed: str) -> Iterator[str]:
    """Runs that are packed, the newest first."""
    from spool.opened import packed_runs

    yield from (name for name in reversed(packed_runs(files)) if name.startswith(typed))


def _jobs(*kinds: str) -> _Names:
    """Jobs of the newest run whose ticket lies in one of these folders: `FANOUT/JOB`, or `JOB` when that is typed."""

    def names(files: SpoolFiles, typed: str) -> Iterator[str]:
        from spool.run import runs

        for run in runs(files)[-1:]:
            yield from _jobs_of(run, kinds, typed)

    return names


def _jobs_of(run: RunFiles, kinds: tuple[str, ...], typed: str) -> Iterator[str]:
    from spool import tickets
    from spool.run import fanouts

    for fanout in fanouts(run.fanouts):
        found = sorted(name for kind in kinds for name in tickets.names(fanout, kind))
        long = f"{fanout.name}/"
        if long.startswith(typed) or typed.startswith(long):
            yield from (long + name for name in found if (long + name).startswith(typed))
        if typed and "/" not in typed:
            yield from (name for name in found if name.startswith(typed))


def _both(*kinds: str) -> _Names:
    def names(files: SpoolFiles, typed: str) -> Iterator[str]:
        yield from _jobs(*kinds)(files, typed)
        yield from _runs(files, typed)

    return names


run_names = _completer(_runs)
job_names = _completer(_jobs(*TICKETS))
failed_names = _completer(_both("failed", "cancelled"))
open_names = _completer(_both("todo"))
pack_names = _completer(_packs, "file")


def workflows_and_hosts(_context: click.Context, _parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Files, and the hosts that the user's ssh_config names."""
    from executors.remote.openssh import aliases

    known = [CompletionItem(name) for name in aliases() if name.startswith(typed)]
    return [*known[:OFFERED], CompletionItem(typed, type="file")]
