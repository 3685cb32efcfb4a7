"""What holds for every verb of `tea spool`: help with examples, `--json`, completion of all that it takes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest
from click.shell_completion import CompletionItem

from tea.cli.complete import offer_paths
from tea.cli.main import SPOOL_COMMANDS, main, spool
from tests.tools.kit import run, write_workflow

VERBS = list(SPOOL_COMMANDS)

OPTIONS = {
    "status": {"--watch"},
    "list": {"--csv", "--sort", "--state", "--quiet"},
    "logs": {"--follow", "-f"},
    "replay": {"--set", "--input", "--workflow", "--pdb", "--strategy"},
    "retry": {"--state", "--with-input"},
    "gc": {"--older-than", "--keep", "--outcome", "--dry-run", "--yes"},
    "pack": {"--keep"},
    "unpack": {"--keep"},
    "doctor": {"--fix", "--quick"},
}
"""Options that each of these has, beside those that all have."""


def command(verb: str) -> click.Command:
    found = spool.get_command(click.Context(spool), verb)
    assert found is not None
    return found


def options(verb: str) -> set[str]:
    return {name for one in command(verb).params for name in (*one.opts, *one.secondary_opts)}


def help_of(verb: str) -> str:
    one = command(verb)
    return one.get_help(click.Context(one, info_name=f"tea spool {verb}"))


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_examples_that_use_the_verb_and_its_own_options(verb: str) -> None:
    examples = [line.strip() for line in help_of(verb).splitlines() if re.match(r"\s+tea spool ", line)]
    mine = [line for line in examples if line.startswith(f"tea spool {verb}")]
    assert len(mine) >= 2, help_of(verb)
    for line in mine:
        used = set(re.findall(r"(?<= )--?[a-z][a-z-]*", line.partition("|")[0]))
        assert used <= options(verb), line


@pytest.mark.parametrize("verb", VERBS)
def test_help_and_table_say_the_same_in_one_line(verb: str) -> None:
    assert command(verb).get_short_help_str(200) == SPOOL_COMMANDS[verb].help


@pytest.mark.parametrize("verb", VERBS)
def test_options(verb: str) -> None:
    assert {"--json", "--spool"} | OPTIONS.get(verb, set()) <= options(verb)
    assert all(one.help for one in command(verb).params if isinstance(one, click.Option))


@pytest.mark.parametrize("verb", VERBS)
def test_all_that_is_a_name_is_completed(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one = command(verb)
    offer_paths(one)
    for param in one.params:
        named = param.make_metavar(click.Context(one))
        if re.search("FILE|DIR", named):
            offered = param.shell_complete(click.Context(one), "./")
            assert [type(item) for item in offered] == [CompletionItem], named
            assert offered[0].type == ("file" if "FILE" in named else "dir"), named
        elif re.search("RUN|JOB", named):
            assert [item.type for item in param.shell_complete(click.Context(one), "./")] == ["dir"], named


READ = {
    "status": [],
    "list": [],
    "show": ["1"],
    "logs": ["1"],
    "explain": ["1"],
    "report": [],
    "doctor": ["--quick"],
    "gc": ["--older-than", "0"],
    "retry": ["1"],
    "cancel": ["1"],
    "unpause": [],
    "pack": [],
    "unpack": [],
}
"""Arguments with which each verb works, one after the other, on a run that has ended and in which job 1 failed."""

ELSEWHERE = {"replay", "pause"}
"""Verbs whose JSON is read in their own tests: one takes the descriptors of its process, one a run that goes on."""


def test_json_is_json_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert set(READ) | ELSEWHERE == set(VERBS)
    write_workflow(tmp_path, retries=0)
    run(tmp_path)
    monkeypatch.chdir(tmp_path)
    for verb, arguments in READ.items():
        assert main(["spool", verb, *arguments, "--json"]) == 0, verb
        found = json.loads(capfd.readouterr().out)
        assert isinstance(found, dict | list), verb
        assert found, verb
