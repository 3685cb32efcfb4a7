"""What is asked of a run, and how it ended: no more than that, so that the command line has it before all else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from executors.board import Board
    from executors.result import ParallelFlowResult
    from spool.layout import RunFiles


@dataclass(slots=True)
class RunOptions:
    """What the user wants of a run.

    spool: folder; None takes TEA_SPOOL, then the workflow's, then `.tea/spool`. record: False keeps no record.
    strategy, max_workers: for every fan-out, instead of the workflow's.
    entry, exit: run only from one node up to, and not including, another.
    strict: a strategy that is not known is an error instead of a warning.
    progress: called often with the board of the fan-out that runs. warn: takes visible warnings.
    on_run: called with the run as soon as there is one.
    """

    spool: str | None = None
    record: bool = True
    strategy: str | None = None
    max_workers: int | None = None
    entry: str | None = None
    exit: str | None = None
    strict: bool = False
    argv: tuple[str, ...] = ()
    progress: Callable[[Board], None] | None = None
    warn: Callable[[str], None] | None = None
    on_run: Callable[[RunFiles], None] | None = None


@dataclass(slots=True)
class Ended:
    """How a run ended. state: the final one; None when it failed or was interrupted by a node's `interrupt_...`."""

    run: RunFiles | None
    state: dict[str, Any] | None = None
    error: str | None = None
    node: str | None = None
    traceback: str | None = None
    failures: list[ParallelFlowResult] = field(default_factory=list)
    failed: int = 0
    warnings: list[str] = field(default_factory=list)
    interrupted_at: str | None = None
    cancelled_by: str | None = None
