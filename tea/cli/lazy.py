"""A group of commands that are imported by name when they are called, not before.

So `tea --version` and `tea --help` stay quick, and the process that runs a user's nodes holds no module that one of
the user's own might be named after.
"""

from __future__ import annotations

import os
import select
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command is, `module:object`, and what it is for: the first line of its help."""

    reference: str
    help: str


class ReaderGoneError(Exception):
    """Whoever read our stdout has seen enough."""


class LazyGroup(click.Group):
    """A group whose commands are the entries of a table.

    Args:
        entries: the commands by name, in the order in which help lists them.
    """

    def __init__(self, *args: Any, entries: Mapping[str, Entry], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.entries = entries

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        module, _, name = entry.reference.partition(":")
        command = getattr(import_module(module), name)
        assert isinstance(command, click.Command)
        if _completing():
            from tea.cli.complete import offer_paths

            offer_paths(command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command. Raises ReaderGoneError instead of the BrokenPipeError of a stdout without a reader."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # click would end the process with 1; a broken pipe elsewhere is an error
            if _has_no_reader(1):
                raise ReaderGoneError from error
            raise click.ClickException(f"a pipe broke: {error}") from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self.entries.items()])


def _completing() -> bool:
    """Whether a shell asks what may follow."""
    return "_TEA_COMPLETE" in os.environ


def _has_no_reader(descriptor: int) -> bool:
    """Whether this is a pipe or socket whose other end is closed."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return any(events & select.POLLERR for _, events in poll.poll(0))
