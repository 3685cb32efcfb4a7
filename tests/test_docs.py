"""The documentation is right: workflows validate, Python compiles, links lead somewhere, commands exist.

A check is switched off for one block by a comment on the line before it: `<!-- not-a-workflow -->` for a `yaml` block
that has `nodes:` and is no workflow, `<!-- not-checked -->` for any block; both leave room for a reason.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from tea.dialect import load_text
from tests import docs
from tests.docs import SHELLS, Block
from tests.support import ROOT

PAGES = docs.pages()
BLOCKS = [block for page in PAGES for block in docs.blocks(page) if "not-checked" not in block.markers]
OUR_PACKAGES = ("tea", "spool", "executors", "tools")


def blocks_in(*languages: str) -> list[Any]:
    chosen = [block for block in BLOCKS if block.language in languages]
    return [pytest.param(block, id=block.place) for block in chosen]


def is_workflow(block: Block) -> bool:
    return re.search(r"^nodes:", block.text, re.MULTILINE) is not None and "not-a-workflow" not in block.markers


@pytest.mark.parametrize("block", blocks_in("yaml", "yml"))
def test_yaml_is_yaml_and_workflows_validate(block: Block) -> None:
    """A warning counts too: what the documentation shows should not need one."""
    yaml.safe_load(block.text)
    if is_workflow(block):
        workflow = load_text(block.in_place, block.path.relative_to(ROOT), block.path.parent)
        assert not workflow.problems, "\n".join(map(str, workflow.problems))


@pytest.mark.parametrize("block", blocks_in("python", "py", "pycon"))
def test_python_compiles_and_its_imports_exist(block: Block) -> None:
    tree = ast.parse(python_of(block), block.place)
    compile(tree, block.place, "exec")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in OUR_PACKAGES:
            module = importlib.import_module(str(node.module))
            missing = [alias.name for alias in node.names if not provides(module, alias.name)]
            assert not missing, f"{block.place}: {node.module} has no {missing}"


def python_of(block: Block) -> str:
    if ">>>" not in block.text:
        return block.in_place
    return "".join(example.source for example in doctest.DocTestParser().get_examples(block.text))


def provides(module: Any, name: str) -> bool:
    try:
        return hasattr(module, name) or bool(importlib.import_module(f"{module.__name__}.{name}"))
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("block", blocks_in("json"))
def test_json_is_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = [f"{link.place}: {link.target}" for link in docs.links(page) if is_broken(page, link.target)]
    assert not broken


def is_broken(page: Path, target: str) -> bool:
    if re.match(r"[a-z][a-z0-9+.-]*:", target):  # http, mailto: the network is nobody's test
        return False
    name, _, anchor = target.partition("#")
    there = (page.parent / name).resolve() if name else page
    if not there.exists() or not there.is_relative_to(ROOT):
        return True
    return bool(anchor) and there.suffix == ".md" and anchor not in docs.anchors(there)


@pytest.mark.parametrize("block", blocks_in(*SHELLS))
def test_commands_exist(block: Block) -> None:
    wrong = [
        f"{block.path.relative_to(ROOT)}:{line}: {problem}"
        for line, words in docs.commands(block)
        if (problem := problem_with(words))
    ]
    assert not wrong


def problem_with(words: list[str]) -> str | None:
    program, *arguments = words
    if Path(program).name == "tea":
        return problem_with_call(tea(), arguments)
    if Path(program).name.startswith("python") and arguments[:2] == ["-m", "tea"]:
        return problem_with_call(tea(), arguments[2:])
    if program == "make":
        return problem_with_make(arguments)
    if program.startswith(("./", "scripts/", ".ci/")) and not (ROOT / program).exists():
        return f"there is no {program}"
    return None


def problem_with_make(arguments: list[str]) -> str | None:
    known = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    unknown = [word for word in arguments if "=" not in word and not word.startswith("-") and word not in known]
    return f"make has no target {unknown}" if unknown else None


def tea() -> click.Command:
    cli: click.Command = importlib.import_module("tea.cli.main").cli
    return cli


def problem_with_call(command: click.Command, arguments: list[str]) -> str | None:
    """What `tea ARGUMENTS` would complain of before doing anything: unknown commands, options and choices."""
    context = click.Context(command, info_name="tea")
    while True:
        try:
            values, rest, _ = command.make_parser(context).parse_args(list(arguments))
            complain_of_choices(command, context, values)
        except click.UsageError as error:
            return f"{context.command_path}: {error.format_message()}"
        if not isinstance(command, click.Group):
            return f"{context.command_path}: unexpected {rest}" if rest else missing(command, context, values)
        if not rest:
            return None
        name, *arguments = rest
        found = command.get_command(context, name)
        if found is None:
            return f"{context.command_path} has no command {name!r}"
        command, context = found, click.Context(found, context, name)


def complain_of_choices(command: click.Command, context: click.Context, values: dict[str, Any]) -> None:
    for parameter in command.params:
        value = values.get(str(parameter.name))
        if isinstance(parameter.type, click.Choice) and isinstance(value, str):
            parameter.type.convert(value, parameter, context)


def missing(command: click.Command, context: click.Context, values: dict[str, Any]) -> str | None:
    if any(
        parameter.is_eager and given(values.get(str(parameter.name))) for parameter in command.get_params(context)
    ):
        return None  # --help, --version: the rest does not matter
    lacking = [
        parameter.make_metavar(context)
        for parameter in command.params
        if isinstance(parameter, click.Argument) and parameter.required and not given(values.get(str(parameter.name)))
    ]
    return f"{context.command_path}: missing {lacking}" if lacking else None


def given(value: Any) -> bool:
    # Click marks what was not given with None, an empty tuple, or (since 8.2) a sentinel.
    return bool(value) and type(value).__name__ != "Sentinel"


def every_command(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
    """The command and all below it, hidden ones left out, each with its full name."""
    found = [(path, command)]
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                found += every_command(below, f"{path} {name}")
    return found


def test_every_command_and_option_is_documented() -> None:
    cli = pytest.importorskip("tea.cli.main").cli
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    missing = []
    for path, command in every_command(cli, "tea"):
        missing += [] if path in text else [path]
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                name = max(parameter.opts, key=len)
                missing += [] if re.search(re.escape(name) + r"(?![\w-])", text) else [f"{path} {name}"]
    assert not missing


SAMPLE = click.Group("tea")
SAMPLE.add_command(
    click.Command(
        "run",
        params=[
            click.Argument(["workflow"]),
            click.Option(["--strategy"], type=click.Choice(["thread", "process"])),
        ],
    )
)
SAMPLE.add_command(click.Group("spool"))
SAMPLE.commands["spool"].add_command(  # type: ignore[attr-defined]
    click.Command("status", params=[click.Argument(["run"], required=False), click.Option(["--json"], is_flag=True)])
)
SAMPLE.add_command(click.Command("secret", hidden=True))


class TestTheChecksThemselves:
    """A check that finds nothing must be able to find something."""

    def block(self, text: str, language: str = "sh") -> Block:
        return Block(ROOT / "README.md", 1, language, text, frozenset())

    def test_shell_blocks_are_taken_apart(self) -> None:
        text = "# it's first\nFOO=1 tea run x.yaml > out 2> log && make test\ncat a | tea \\\n validate 'b c.yaml'\n"
        assert list(docs.commands(self.block(text))) == [
            (2, ["tea", "run", "x.yaml"]),
            (2, ["make", "test"]),
            (3, ["cat", "a"]),
            (3, ["tea", "validate", "b c.yaml"]),
        ]

    def test_quotes_and_here_documents_span_lines(self) -> None:
        text = "python3 -c '\nimport x'\ncat > w.yaml <<'EOF'\nit's not a command\nEOF\ntea run w.yaml\n"
        assert list(docs.commands(self.block(text))) == [
            (1, ["python3", "-c", "\nimport x"]),
            (3, ["cat"]),
            (6, ["tea", "run", "w.yaml"]),
        ]

    def test_console_blocks_hold_output_too(self) -> None:
        text = "$ ls failed\ntea isn't a command here\n$ tea resume\n"
        assert list(docs.commands(self.block(text, "console"))) == [(1, ["ls", "failed"]), (3, ["tea", "resume"])]

    def test_make_targets_are_known(self) -> None:
        assert problem_with(["make", "test", "WORKERS=0"]) is None
        assert problem_with(["make", "love"])

    def test_broken_links_are_broken(self) -> None:
        page = ROOT / "CONTRIBUTING.md"
        assert not is_broken(page, "CHANGELOG.md")
        assert not is_broken(page, "#the-gate")
        assert not is_broken(page, "https://example.org/x")
        assert is_broken(page, "#no-such-heading")
        assert is_broken(page, "docs/no-such-page.md")

    def test_blocks_know_their_place_and_their_markers(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text("# T\n\n<!-- not-a-workflow: half of one -->\n```yaml\nnodes: []\n```\n")
        (block,) = docs.blocks(page)
        assert (block.line, block.language, block.text) == (5, "yaml", "nodes: []\n")
        assert block.markers == {"not-a-workflow"}
        assert not is_workflow(block)

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            (["--help"], None),
            (["run", "a.yaml", "--strategy", "process"], None),
            (["run", "--strategy=thread", "a.yaml"], None),
            (["run", "--help"], None),
            (["spool", "status", "--json"], None),
            (["spool", "status", "some-run"], None),
            (["fly"], "tea has no command 'fly'"),
            (["spool", "fly"], "tea spool has no command 'fly'"),
            (["run"], "tea run: missing"),
            (["run", "a.yaml", "--fly"], "--fly"),
            (["run", "a.yaml", "--strategy"], "requires an argument"),
            (["run", "a.yaml", "--strategy", "magic"], "'magic' is not one of"),
            (["run", "a.yaml", "b.yaml"], "unexpected ['b.yaml']"),
            (["--fly", "run", "a.yaml"], "--fly"),
        ],
    )
    def test_command_lines_are_checked(self, arguments: list[str], problem: str | None) -> None:
        answer = problem_with_call(SAMPLE, arguments)
        assert answer is None if problem is None else problem in str(answer)

    def test_every_command_of_the_tree_is_found(self) -> None:
        assert [path for path, _ in every_command(SAMPLE, "tea")] == [
            "tea",
            "tea run",
            "tea spool",
            "tea spool status",
        ]
