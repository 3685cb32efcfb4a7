"""`YAMLEngine`: from a file or a mapping to a compiled graph, in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tea.dialect.build import build
from tea.dialect.workflow import Workflow, load_dict, load_file


class YAMLEngine:
    """Makes compiled `tea.StateGraph`s from workflows.

    actions_registry: functions by the name under which nodes call them with `uses`.
    """

    def __init__(self, actions_registry: Mapping[str, Callable[..., Any]] | None = None) -> None:
        self.actions_registry: dict[str, Callable[..., Any]] = dict(actions_registry or {})

    def load_from_file(self, path: str | Path) -> Any:
        """The compiled graph of a workflow file. Raises OSError or WorkflowError."""
        return self._compiled(load_file(path))

    def load_from_dict(self, config: Mapping[str, Any], folder: str | Path | None = None) -> Any:
        """The compiled graph of a workflow that is a mapping; `folder` is where its relative paths are.

        Raises WorkflowError.
        """
        return self._compiled(load_dict(config, folder))

    def _compiled(self, workflow: Workflow) -> Any:
        graph: Any = build(workflow, actions_registry=self.actions_registry, engine=self, functions=False)
        return graph.compile(
            interrupt_before=graph.interrupt_before,
            interrupt_after=graph.interrupt_after,
            checkpoint_dir=graph.checkpoint_dir,
        )
