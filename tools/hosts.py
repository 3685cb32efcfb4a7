"""Which hosts a person names, where a verb of `tea hosts` takes workflows and hosts. No verb; several use it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from executors.remote import RemoteConfig, RemoteHost
from executors.remote.parcel import Program, program

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Target:
    """Hosts with the settings they are used with. folder: what relative paths in the settings start from."""

    config: RemoteConfig
    folder: str

    def program(self) -> Program:
        """What would run on them. Raises ValueError when `basefile` cannot be read."""
        return program(self.config, self.folder)


def targets(texts: Sequence[str], workdir: str | None = None, python: str | None = None) -> list[Target]:
    """The hosts of the workflows, and the hosts, that are named. workdir, python: of those.

    Raises ValueError for a workflow without hosts and for settings that are wrong, OSError for a file that cannot be
    read.
    """
    files = [text for text in texts if _is_file(text)]
    found = [_of_workflow(path) for path in files]
    names = [text for text in texts if text not in files]
    if names:
        hosts = [RemoteHost(name, python=python, workdir=workdir) for name in dict.fromkeys(names)]
        found.append(Target(RemoteConfig(hosts), os.getcwd()))
    return found


def _is_file(text: str) -> bool:
    return os.path.isfile(text) or "/" in text or text.endswith((".yaml", ".yml", ".json"))


def _of_workflow(path: str) -> Target:
    from tea.dialect import load_file

    loaded = load_file(path)
    remote = loaded.parallel.get("remote")
    if remote is None:
        raise ValueError(f"{path}: it names no hosts; they stand under settings.parallel.remote.hosts")
    return Target(RemoteConfig.from_mapping(remote), str(loaded.folder))


@contextlib.contextmanager
def asking(number: int) -> Iterator[None]:
    """On a terminal, say what is waited for."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True, highlight=False).status(f"asking {number} host{'' if number == 1 else 's'}"):
        yield


def host_options(function: F) -> F:
    """What hosts are used with that are named by themselves."""
    for option in (
        click.option("--workdir", metavar="PATH", help="Their work folder; without it /tmp/tea-jobs-UID."),
        click.option("--python", metavar="PATH", help="Their Python; without it python3."),
    ):
        function = option(function)
    return function
