"""What is wrong in a workflow file, said so that a person can mend it: place, message, hint.

A `Problem` is one mistake; a `WorkflowError` carries all that were found, so a file is mended in one go.
Warnings are problems too: they don't stop a workflow, they are shown.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

KeyPath = tuple["str | int", ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. `line` and `column` count from 1; both are 0 where there is no text (`load_dict`).

    where: the key path, such as `nodes[2].run`; it is the place when there is no text.
    level: "error" or "warning".
    """

    file: str
    line: int
    column: int
    message: str
    hint: str = ""
    where: str = ""
    level: str = "error"

    @property
    def place(self) -> str:
        """`file:line:column`, or the key path where there is no text."""
        if self.line:
            return f"{self.file}:{self.line}:{self.column}"
        return ": ".join(part for part in (self.file, self.where) if part) or "workflow"

    def __str__(self) -> str:
        label = "warning: " if self.level == "warning" else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.place}: {label}{self.message}{hint}"


class WorkflowError(ValueError):
    """A workflow that can't be run as it is written; `problems` lists every mistake in it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[WorkflowError], tuple[list[Problem]]]:
        return type(self), (self.problems,)


def path_text(path: KeyPath) -> str:
    """`("nodes", 2, "run")` as `nodes[2].run`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """`did you mean 'x'?`, or nothing when no known name is near."""
    close = difflib.get_close_matches(str(name), [str(one) for one in known], n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else ""
