"""Reading the documentation as data: blocks, links, headings, shell commands. The checks are in `test_docs.py`."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.support import ROOT

MARKER = re.compile(r"<!--\s*(not-[a-z-]+)")
SHELLS = ("sh", "bash", "shell", "console")
_ENDS_A_COMMAND = frozenset({"|", "||", "&&", "&", ";", "(", ")", "\n"})
_HERE_DOCUMENT = re.compile(r"<<-?\s*['\"]?(\w+)")
_REDIRECTS = re.compile(r"[<>]+&?")


@dataclass(frozen=True)
class Block:
    """A fenced block. line: of its first line of text, from 1. markers: comments on the line before the fence."""

    path: Path
    line: int
    language: str
    text: str
    markers: frozenset[str]

    @property
    def place(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"

    @property
    def in_place(self) -> str:
        """The text, moved down to its own line numbers, so that an error names the line in the document."""
        return "\n" * (self.line - 1) + self.text


@dataclass(frozen=True)
class Link:
    path: Path
    line: int
    target: str

    @property
    def place(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Every Markdown page of the repository that is for people to read."""
    found = [*ROOT.glob("*.md")]
    for folder in ("docs", "examples", "benchmarks"):
        found += (ROOT / folder).rglob("*.md")
    return sorted(found)


def blocks(path: Path) -> Iterator[Block]:
    lines = path.read_text(encoding="utf-8").splitlines()
    for token in _tokens(path):
        if token.type == "fence" and token.map:
            start = token.map[0]
            before = lines[start - 1] if start else ""
            language = (token.info.split() or [""])[0].lower()
            yield Block(path, start + 2, language, token.content, frozenset(MARKER.findall(before)))


def links(path: Path) -> Iterator[Link]:
    for token in _tokens(path):
        for child in token.children or ():
            target = child.attrGet("href") or child.attrGet("src")
            if target is not None:
                yield Link(path, token.map[0] + 1 if token.map else 1, str(target))


def anchors(path: Path) -> set[str]:
    """The names that headings get on the usual hosts: lower case, no punctuation, dashes for spaces."""
    found: set[str] = set()
    tokens = _tokens(path)
    for heading, inline in itertools.pairwise(tokens):
        if heading.type == "heading_open":
            text = "".join(child.content for child in inline.children or ())
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            number = 0
            while (name := f"{slug}-{number}" if number else slug) in found:
                number += 1
            found.add(name)
    return found


def _tokens(path: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8"))


def commands(block: Block) -> Iterator[tuple[int, list[str]]]:
    """The commands in a shell block, each with its line: words without assignments, redirections and pipes.

    In a `console` block commands stand behind `$ `, and the rest is output.
    """
    for line, text in _joined_lines(block):
        for words in _simple_commands(text.removeprefix("$ ")):
            yield line, words


def _joined_lines(block: Block) -> Iterator[tuple[int, str]]:
    """Lines, with what belongs to them: lines after a backslash or in open quotes; here-documents are left out."""
    start, held, here_document = block.line, "", ""
    for number, text in enumerate(block.text.splitlines(), block.line):
        if here_document:
            here_document = "" if text.strip() == here_document else here_document
            continue
        if block.language == "console" and not held and not text.startswith("$ "):
            continue
        start = start if held else number
        held += text
        if held.endswith("\\"):
            held = held[:-1] + " "
        elif _is_open(held):
            held += "\n"
        else:
            found = _HERE_DOCUMENT.search(held)
            here_document = found.group(1) if found else ""
            yield start, held
            held = ""
    if held:
        yield start, held


def _is_open(text: str) -> bool:
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return True
    return False


def _simple_commands(text: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    words: list[str] = []
    skip = False
    for word in lexer:
        if skip:
            skip = False  # where a redirection goes to
        elif word in _ENDS_A_COMMAND:
            yield from _without_assignments(words)
            words = []
        elif _REDIRECTS.fullmatch(word):
            if words and words[-1].isdigit():
                words.pop()  # 2> file
            skip = True
        else:
            words.append(word)
    yield from _without_assignments(words)


def _without_assignments(words: list[str]) -> Iterator[list[str]]:
    while words and (re.match(r"[A-Za-z_]\w*=", words[0]) or words[0] in ("sudo", "time", "exec", "env", "!")):
        words = words[1:]
    if words:
        yield words
