"""`remote`: the executor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from executors.base import FanOutContext
from executors.board import Board
from executors.policy import ParallelConfig
from executors.remote.batches import Batches
from executors.remote.feeder import Feeder
from executors.remote.parcel import Cargo
from executors.remote.settings import RemoteConfig
from executors.result import ParallelFlowResult
from executors.state import as_branch_states
from executors.travel import PickleValidationError
from spool import jsonio


class RemoteExecutor:
    """Runs branches on hosts that are reached by ssh.

    Args:
        max_workers: branches at once on all hosts together; None leaves it to the hosts' slots.
        context: where the record is kept.
    """

    strategy = "remote"

    def __init__(self, max_workers: int | None = None, context: FanOutContext | None = None) -> None:
        self.max_workers = max_workers
        self.context = context or FanOutContext()

    def execute(
        self, flows: Sequence[Any], states: Sequence[Any], config: ParallelConfig
    ) -> list[ParallelFlowResult]:
        """Run each flow with its state on some host; see `ParallelExecutor`.

        Raises ValueError for settings, PickleValidationError for a state that is no JSON, before anything starts, and
        WorkersFailedError when no host is left: what has finished is kept, and the run can be resumed.
        """
        remote = RemoteConfig.usable(config.remote_config)
        if self.context.fanout is None:
            raise ValueError("strategy 'remote' needs a spool: it runs branches of workflows, not single functions")
        if self.context.runtime is not None:
            raise ValueError(
                "strategy 'remote' runs branches from their files alone, but these need functions or a config of "
                "this process; use 'process' or 'thread'"
            )
        board = Board(flows, states, config, self.context, carry=True)
        _check_travels(board)
        folder = self.context.path[0] if self.context.path else "."
        cargo = Cargo(remote, folder)
        try:
            board.prepare()
            launch = Batches if remote.launcher == "parallel" else Feeder
            feeder = launch(board, remote, cargo, folder, self.max_workers or config.max_workers)
        except BaseException:
            cargo.close()
            raise
        return feeder.run()


def _check_travels(board: Board) -> None:
    """Only JSON travels to a host. Raises PickleValidationError for the first key that it cannot hold."""
    states = as_branch_states(board.states)
    _check(states.base, board.flows[0].branch if board.flows else "", 0)
    for i in range(board.total):
        _check(states.own(i), board.flows[i].branch, i)


def _check(values: Any, branch: str, index: int) -> None:
    if jsonio.is_json(values):
        return
    for key, value in values.items():
        if not (jsonio.is_json(key) and jsonio.is_json(value)):
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            error = TypeError("only JSON travels to a host, and JSON cannot hold it")
            raise PickleValidationError(str(key), index, error, branch, kind)
