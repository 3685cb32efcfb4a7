"""YAML text to plain data, with the place of every key and value kept beside it.

Read from the parser's events, not from composed objects, so that what is dangerous never comes into being:
explicit tags, aliases that expand without end, deep nesting, duplicate keys and second documents are refused,
each with its place. What is left is dicts, lists, text, numbers, booleans and None. Dates and sexagesimal
numbers (`12:30`) stay text: a state travels as JSON, which has neither.

Not promised: that the data are a valid workflow (`validate`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tea.dialect.problems import KeyPath, Problem, WorkflowError, path_text

MAX_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 100
MAX_WEIGHT = 500_000
"""Values a file may expand to, aliases counted each time they are used; long texts weigh more."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_CONVERT: dict[str, Any] = {
    _TAG + "null": lambda loader, node: None,
    _TAG + "bool": yaml.SafeLoader.construct_yaml_bool,
    _TAG + "int": yaml.SafeLoader.construct_yaml_int,
    _TAG + "float": yaml.SafeLoader.construct_yaml_float,
}
_MERGE = object()
"""Stands for the key `<<`."""


@dataclass(slots=True)
class Located:
    """Where a value stands: line and column from 1, the scalar's style, its keys' places and its children."""

    line: int
    column: int
    style: str | None = None
    keys: dict[Any, tuple[int, int]] = field(default_factory=dict)
    children: dict[Any, Located] = field(default_factory=dict)


@dataclass(slots=True)
class Source:
    """A workflow's text and the places in it. `root` is None where the workflow came as a mapping."""

    file: str = ""
    text: str = ""
    root: Located | None = None

    def find(self, path: KeyPath) -> Located | None:
        """The place of the value at a key path, or of the nearest thing around it."""
        here = self.root
        for part in path:
            child = here.children.get(part) if here else None
            if child is None:
                break
            here = child
        return here

    def spot(self, path: KeyPath, at_key: bool = False) -> tuple[int, int]:
        """Line and column of a value, or of its key; (0, 0) where there is no text."""
        if at_key and path and (parent := self.find(path[:-1])) and path[-1] in parent.keys:
            return parent.keys[path[-1]]
        here = self.find(path)
        return (here.line, here.column) if here else (0, 0)

    def problem(
        self, path: KeyPath, message: str, hint: str = "", level: str = "error", at_key: bool = False
    ) -> Problem:
        """A problem with the value (or the key) at a key path."""
        line, column = self.spot(path, at_key)
        return Problem(self.file, line, column, message, hint, path_text(path), level)


@dataclass(slots=True)
class Loaded:
    """What a file holds: its data, its source, and the mistakes that did not stop the reading."""

    data: dict[str, Any]
    source: Source
    problems: list[Problem]


def read_file(path: Path) -> Loaded:
    """Read a workflow file. Raises OSError when it can't be read, WorkflowError when it is no workflow."""
    with path.open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    name = str(path)
    if len(raw) > MAX_BYTES:
        raise _refused(name, f"file is larger than {MAX_BYTES // 1024 // 1024} MiB", "keep data in files of its own")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - (raw.rfind(b"\n", 0, error.start) + 1) + 1
        problem = Problem(name, line, column, "file is not UTF-8", f"byte 0x{raw[error.start]:02x} is in the way")
        raise WorkflowError([problem]) from None
    return read_text(text, name)


def read_text(text: str, name: str = "") -> Loaded:
    """Read a workflow's text; `name` stands for the file in messages. Raises WorkflowError."""
    if len(text) > MAX_BYTES:
        raise _refused(name, f"text is larger than {MAX_BYTES // 1024 // 1024} MiB", "keep data in files of its own")
    reader = _Reader(text, name)
    try:
        data, root = reader.document()
    except yaml.MarkedYAMLError as error:
        raise WorkflowError([_not_yaml(name, text, error)]) from None
    except yaml.YAMLError as error:  # a character YAML does not allow: it has an offset but no mark
        offset = int(getattr(error, "position", 0) or 0)
        line = text.count("\n", 0, offset) + 1
        message = f"not valid YAML: {str(error).splitlines()[0]}"
        raise WorkflowError([Problem(name, line, 1, message)]) from None
    finally:
        reader.loader.dispose()
    return Loaded(data, Source(name, text, root), reader.problems)


_REMEDIES = (
    ("tab character", "indent with blanks, not with tabs"),
    ("'\\t'", "indent with blanks, not with tabs"),
    ("mapping values are not allowed", "put text that has ': ' in it in quotes, or mend the indentation"),
    ("found unexpected end of stream", "a quote or bracket is not closed"),
    ("did not find expected", "look at the indentation, and at quotes and brackets that are not closed"),
    ("cannot start any token", "put text that begins with this character in quotes"),
)


def _not_yaml(name: str, text: str, error: yaml.MarkedYAMLError) -> Problem:
    mark, began = error.problem_mark or error.context_mark, error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    message = " ".join(part for part in (error.context, error.problem) if part)
    here = "".join(text.split("\n")[line - 1 : line])
    if here[column - 1 : column] == "\t":  # libyaml does not say which character
        message = message.replace("found character that", "found a tab character that")
    remedy = next((hint for part, hint in _REMEDIES if part in message), "")
    if began is not None and began.line + 1 < line:
        remedy = f"{remedy}; what is wrong begins in line {began.line + 1}".removeprefix("; ")
    return Problem(name, line, column, f"not valid YAML: {message}", remedy)


def _refused(name: str, message: str, hint: str = "") -> WorkflowError:
    return WorkflowError([Problem(name, 1, 1, message, hint)])


class _Reader:
    """One pass over the parser's events."""

    def __init__(self, text: str, name: str) -> None:
        self.loader = _Loader(text)
        self.name = name
        self.anchors: dict[str, tuple[Any, Located, int]] = {}
        self.weight = 0
        self.problems: list[Problem] = []

    def document(self) -> tuple[dict[str, Any], Located]:
        self.loader.get_event()  # the stream's start
        if isinstance(self.loader.get_event(), yaml.StreamEndEvent):
            raise _refused(self.name, "file is empty", "a workflow is a mapping with 'nodes'")
        first = self.loader.get_event()
        value, located = self.value(first, 0)
        self.loader.get_event()  # the document's end
        after = self.loader.get_event()
        if not isinstance(after, yaml.StreamEndEvent):
            raise self.fatal(after, "a second document begins here", "one file holds one workflow")
        if not isinstance(value, dict):
            raise self.fatal(first, "a workflow is a mapping of keys such as 'nodes:'")
        return value, located

    def fatal(self, event: Any, message: str, hint: str = "") -> WorkflowError:
        mark = event.start_mark
        return WorkflowError([*self.problems, Problem(self.name, mark.line + 1, mark.column + 1, message, hint)])

    def note(self, event: Any, message: str, hint: str = "") -> None:
        mark = event.start_mark
        self.problems.append(Problem(self.name, mark.line + 1, mark.column + 1, message, hint))

    def weigh(self, event: Any, weight: int) -> None:
        self.weight += weight
        if self.weight > MAX_WEIGHT:
            raise self.fatal(event, "file expands to too many values", "aliases count each time they are used")

    def value(self, event: Any, depth: int) -> tuple[Any, Located]:
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event)
        if depth > MAX_DEPTH:
            raise self.fatal(event, f"nested deeper than {MAX_DEPTH} levels")
        before = self.weight
        self.weigh(event, 1)
        if event.tag is not None:
            self.note(event, f"tag '{event.tag}' is not allowed", "workflows are plain data, without '!'")
        mark = event.start_mark
        located = Located(mark.line + 1, mark.column + 1)
        if isinstance(event, yaml.ScalarEvent):
            value: Any = self.scalar(event, located)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self.sequence(located, depth)
        else:
            value = self.mapping(located, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, located, self.weight - before)
        return value, located

    def alias(self, event: Any) -> tuple[Any, Located]:
        if event.anchor not in self.anchors:
            raise self.fatal(event, f"alias '*{event.anchor}' names nothing that is complete at this point")
        value, located, weight = self.anchors[event.anchor]
        self.weigh(event, weight)
        return value, located

    def scalar(self, event: Any, located: Located) -> Any:
        text: str = event.value
        located.style = event.style
        self.weigh(event, len(text) // 100)
        if event.style or event.tag is not None:
            return text
        tag = self.loader.resolve(yaml.ScalarNode, text, (True, False))
        if tag == _TAG + "merge":
            return _MERGE
        if tag not in _CONVERT or ":" in text:
            return text
        try:
            return _CONVERT[tag](self.loader, yaml.ScalarNode(tag, text))
        except ValueError:  # a number too long to convert
            self.note(event, f"number '{text[:20]}...' is too long", "quote it to make it text")
            return text

    def sequence(self, located: Located, depth: int) -> list[Any]:
        values: list[Any] = []
        while not isinstance(event := self.loader.get_event(), yaml.SequenceEndEvent):
            value, child = self.value(event, depth + 1)
            located.children[len(values)] = child
            values.append("<<" if value is _MERGE else value)
        return values

    def mapping(self, located: Located, depth: int) -> dict[Any, Any]:
        values: dict[Any, Any] = {}
        merges: list[tuple[Any, Any, Located]] = []
        while not isinstance(event := self.loader.get_event(), yaml.MappingEndEvent):
            key, key_at = self.value(event, depth + 1)
            value_event = self.loader.get_event()
            value, child = self.value(value_event, depth + 1)
            if key is _MERGE:
                merges.append((value_event, value, child))
            elif self.good_key(event, key, located):
                values[key] = "<<" if value is _MERGE else value
                located.keys[key] = (key_at.line, key_at.column)
                located.children[key] = child
        for value_event, value, child in merges:
            self.merge(value_event, value, child, values, located)
        return values

    def good_key(self, event: Any, key: Any, located: Located) -> bool:
        if isinstance(key, bool) or not isinstance(key, str | int):
            if isinstance(key, dict | list):
                kind = "mapping" if isinstance(key, dict) else "list"
                self.note(event, f"a {kind} where a key belongs", 'put templates in quotes: "{{ ... }}"')
            else:
                self.note(event, f"key {getattr(event, 'value', 'this')} is not text", "put it in quotes")
            return False
        if key in located.keys:
            self.note(event, f"duplicate key '{key}'", f"it already stands in line {located.keys[key][0]}")
            return False
        return True

    def merge(self, event: Any, value: Any, child: Located, values: dict[Any, Any], located: Located) -> None:
        """`<<: *defaults`: take over the keys that the mapping does not have itself."""
        several = isinstance(value, list)
        parts = [(one, child.children[n]) for n, one in enumerate(value)] if several else [(value, child)]
        for part, part_at in parts:
            if not isinstance(part, dict):
                self.note(event, "'<<' merges mappings only")
                continue
            for key in part:
                if key not in values:
                    values[key] = part[key]
                    located.keys[key] = part_at.keys[key]
                    located.children[key] = part_at.children[key]
