"""tea: workflows that fan out, every branch a job directory that can be inspected, retried and replayed.

The names below are the public Python interface. They are loaded when they are first used, so that `import tea` and
the command line start quickly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tea.version import __version__

if TYPE_CHECKING:
    from executors.base import (
        FanOutContext,
        Flow,
        ParallelExecutor,
        available_strategies,
        get_executor,
        register_executor,
    )
    from executors.breaker import CircuitBreaker, CircuitBreakerRegistry, CircuitOpenError, CircuitState
    from executors.callbacks import CallbackManager, ParallelFlowCallback, ParallelFlowContext
    from executors.cancel import CancellationToken
    from executors.policy import CircuitBreakerConfig, ParallelConfig, RetryPolicy
    from executors.process import ProcessExecutor
    from executors.remote import RemoteConfig, RemoteExecutor
    from executors.result import ParallelFlowResult, RetryExhaustedError
    from executors.thread import ThreadExecutor
    from executors.travel import PickleValidationError
    from executors.workers import WorkersExecutor
    from tea.checkpoint import MemoryCheckpointer
    from tea.dialect import Workflow, WorkflowError, YAMLEngine
    from tea.executor import JobError, JobFuture, JobTimeoutError, PoolBrokenError, SpoolExecutor, WorkerDiedError
    from tea.graph import END, START, GraphError
    from tea.spool_api import Spool, open_spool
    from tea.stategraph import StateGraph

_HOMES = {
    "executors.base": ("FanOutContext Flow ParallelExecutor available_strategies get_executor register_executor"),
    "executors.breaker": "CircuitBreaker CircuitBreakerRegistry CircuitOpenError CircuitState",
    "executors.callbacks": "CallbackManager ParallelFlowCallback ParallelFlowContext",
    "executors.cancel": "CancellationToken",
    "executors.policy": "CircuitBreakerConfig ParallelConfig RetryPolicy",
    "executors.process": "ProcessExecutor",
    "executors.remote": "RemoteConfig RemoteExecutor",
    "executors.result": "ParallelFlowResult RetryExhaustedError",
    "executors.thread": "ThreadExecutor",
    "executors.travel": "PickleValidationError",
    "executors.workers": "WorkersExecutor",
    "tea.checkpoint": "MemoryCheckpointer",
    "tea.dialect": "Workflow WorkflowError YAMLEngine",
    "tea.executor": "JobError JobFuture JobTimeoutError PoolBrokenError SpoolExecutor WorkerDiedError",
    "tea.graph": "END START GraphError",
    "tea.spool_api": "Spool open_spool",
    "tea.stategraph": "StateGraph",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "END",
    "START",
    "CallbackManager",
    "CancellationToken",
    "CircuitBreaker",
    "CircuitBreakerConfig",
    "CircuitBreakerRegistry",
    "CircuitOpenError",
    "CircuitState",
    "FanOutContext",
    "Flow",
    "GraphError",
    "JobError",
    "JobFuture",
    "JobTimeoutError",
    "MemoryCheckpointer",
    "ParallelConfig",
    "ParallelExecutor",
    "ParallelFlowCallback",
    "ParallelFlowContext",
    "ParallelFlowResult",
    "PickleValidationError",
    "PoolBrokenError",
    "ProcessExecutor",
    "RemoteConfig",
    "RemoteExecutor",
    "RetryExhaustedError",
    "RetryPolicy",
    "Spool",
    "SpoolExecutor",
    "StateGraph",
    "ThreadExecutor",
    "WorkerDiedError",
    "WorkersExecutor",
    "Workflow",
    "WorkflowError",
    "YAMLEngine",
    "__version__",
    "available_strategies",
    "get_executor",
    "open_spool",
    "register_executor",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'tea' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
