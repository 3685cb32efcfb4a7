"""What an executor is, and which there are.

An executor takes the branches of one fan-out and gives one result for each, in their order:

    execute(flows, states, config) -> list[ParallelFlowResult]

Where the branches run is all in which executors differ. What they share (job directories, retries, fail-fast, circuit
breaker, callbacks) is in `executors.board`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

from executors.breaker import CircuitBreakerRegistry
from executors.callbacks import CallbackManager
from executors.cancel import CancellationToken
from executors.policy import ParallelConfig
from executors.result import ParallelFlowResult
from spool.journal import Journal
from spool.layout import FanOutFiles, JobFiles, SpoolFiles
from spool.worker import LEASE

ENTRY_POINTS = "tea.executors"

Run = Callable[[Any, CancellationToken, "JobFiles | None"], Any]


@dataclass(slots=True)
class Flow:
    """A branch: its name, the node it begins at, and how this process runs it.

    run: called with the branch's state, its cancellation token and its job directory (None without a record);
        returns the final state (or None for the same).
    workflow: key of its subset in the context's `workflows`; None when it has none.
    config: what differs for this branch from the configuration of the fan-out.
    """

    branch: str
    run: Run
    entry: str = ""
    workflow: str | None = None
    config: ParallelConfig | None = None

    def __call__(self, state: Any) -> Any:
        return self.run(state, CancellationToken(), None)


@dataclass(slots=True)
class FanOutContext:
    """What an executor needs to know of the fan-out beyond its branches.

    spool, fanout: where the record is kept; None for none.
    exit: the fan-in node, where every branch ends.
    workflows: the subset of each kind of branch, as YAML text.
    runner: `module:factory` that a worker process calls to get what runs jobs; see `executors.slot`.
    options: what that factory needs, as JSON; stands in fanout.json.
    runtime: what it needs and no file can show (functions of a graph built in Python), pickled.
    not_replayable: why the record alone can't run a branch; None when it can.
    token: cancels the whole fan-out. interrupt: set when the user wants to stop and go on later.
    progress: called with the board now and then. on_result: called with each branch's index and result.
    warn: takes visible warnings. sync: fsync results before they count.
    """

    spool: SpoolFiles | None = None
    fanout: FanOutFiles | None = None
    exit: str = ""
    workflows: dict[str, bytes] = field(default_factory=dict)
    runner: str = "executors.slot:FlowRunner"
    options: dict[str, Any] = field(default_factory=dict)
    runtime: bytes | None = None
    not_replayable: str | None = None
    graph_name: str | None = None
    callbacks: CallbackManager | None = None
    breakers: CircuitBreakerRegistry = field(default_factory=CircuitBreakerRegistry)
    breaker_name: str | None = None
    journal: Journal | None = None
    token: CancellationToken = field(default_factory=CancellationToken)
    progress: Callable[[Any], None] | None = None
    on_result: Callable[[int, ParallelFlowResult], None] | None = None
    warn: Callable[[str], None] = lambda _text: None
    sync: bool = False
    lease: float = LEASE
    version: str = ""
    path: tuple[str, ...] = ()
    """Folders that come first on a worker's `sys.path`: the workflow's."""


@runtime_checkable
class ParallelExecutor(Protocol):
    """Runs the branches of a fan-out."""

    strategy: str

    def execute(
        self, flows: Sequence[Any], states: Sequence[Any], config: ParallelConfig
    ) -> list[ParallelFlowResult]:
        """Run each flow with its state; one result a flow, in order, whatever happens to it.

        Raises PickleValidationError or ValueError before anything has started when the input cannot be used.
        """
        ...


class WorkersFailedError(RuntimeError):
    """No worker is left to run branches on; what has finished is kept, and the run can be resumed."""


class UnknownStrategyError(ValueError):
    """No executor of this name."""


class NotBuiltError(UnknownStrategyError):
    """A strategy that this version names but does not have yet."""


Factory = Callable[..., ParallelExecutor]

_BUILT_IN = {
    "thread": "executors.thread:ThreadExecutor",
    "process": "executors.process:ProcessExecutor",
    "remote": "executors.remote:RemoteExecutor",
    "workers": "executors.workers:WorkersExecutor",
}
_PLANNED = ("slurm", "dask")
_registered: dict[str, Factory] = {}


def register_executor(strategy: str, factory: Factory) -> None:
    """Make a strategy known, or replace it; `factory(max_workers=None, context=None)` makes its executor."""
    _registered[strategy] = factory


def available_strategies() -> list[str]:
    """The strategies that can be used now: built in, registered, and of installed packages."""
    return sorted({*_BUILT_IN, *_registered, *(point.name for point in _plugged())})


def _plugged() -> Any:
    """The executors of installed packages. Imported late: looking for packages costs more than starting tea."""
    from importlib.metadata import entry_points

    return entry_points(group=ENTRY_POINTS)


def get_executor(
    strategy: str = "thread", max_workers: int | None = None, context: FanOutContext | None = None
) -> ParallelExecutor:
    """The executor of a strategy.

    Raises UnknownStrategyError, which names those there are.
    """
    factory = _registered.get(strategy) or _load(strategy)
    return factory(max_workers=max_workers, context=context)


def _load(strategy: str) -> Factory:
    if strategy in _BUILT_IN:
        module, _, name = _BUILT_IN[strategy].partition(":")
        return getattr(import_module(module), name)  # type: ignore[no-any-return]
    for point in _plugged():
        if point.name == strategy:
            return point.load()  # type: ignore[no-any-return]
    if strategy in _PLANNED:
        raise NotBuiltError(
            f"strategy '{strategy}' is not in this version of tea yet; use one of {', '.join(available_strategies())}"
        )
    raise UnknownStrategyError(f"no strategy '{strategy}'; there are {', '.join(available_strategies())}")


def as_flows(flows: Sequence[Any]) -> list[Flow]:
    """Flows as they are, plain functions `state -> state` wrapped."""
    return [flow if isinstance(flow, Flow) else _wrapped(flow, i) for i, flow in enumerate(flows)]


def _wrapped(function: Callable[[Any], Any], index: int) -> Flow:
    name = getattr(function, "__name__", "")
    return Flow(name if name.isidentifier() else f"flow_{index}", lambda state, _token, _job: function(state))
