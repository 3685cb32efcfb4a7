"""`docs/cli.md` says of each command what its `--help` says: the same options, no more and no fewer."""

from __future__ import annotations

import re

import click
import pytest

from tea.cli.lazy import LazyGroup
from tea.cli.main import cli
from tests.support import ROOT

SECTIONS = dict(
    re.findall(r"^##+ (tea.*)\n((?:.*\n(?!##))*.*\n?)", (ROOT / "docs" / "cli.md").read_text(), re.MULTILINE)
)


def commands(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
    found = [(path, command)]
    if isinstance(command, LazyGroup):
        for name in command.entries:
            below = command.get_command(click.Context(command), name)
            assert below is not None
            found += commands(below, f"{path} {name}")
    return found


COMMANDS = dict(commands(cli, "tea"))


@pytest.mark.parametrize("path", COMMANDS)
def test_options(path: str) -> None:
    documented = set(re.findall(r"^\| `(--[a-z-]+)", SECTIONS[path], re.MULTILINE))
    options = [parameter for parameter in COMMANDS[path].params if isinstance(parameter, click.Option)]
    assert documented == {
        name
        for option in options
        for name in (max(option.opts, key=len), *option.secondary_opts)
        if not option.hidden
    }


def test_no_section_is_about_a_command_that_is_gone() -> None:
    assert set(SECTIONS) == set(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS)
def test_choices(path: str) -> None:
    for option in COMMANDS[path].params:
        if isinstance(option.type, click.Choice):
            assert "\\|".join(option.type.choices) in SECTIONS[path]
