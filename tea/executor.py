"""`SpoolExecutor`: the interface of `concurrent.futures`, with a job directory for every call.

    with SpoolExecutor() as executor:
        for future in as_completed([executor.submit(work, item) for item in items]):
            print(future.result())

Programs that use an `Executor` keep a record when they use this one: each call can be inspected, also while it waits
or after the program was killed, and replayed. A worker that dies costs the job that killed it and no other.

Not promised: that a call runs only once (a job whose worker was killed from outside runs again).
"""

from __future__ import annotations

import os
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import fields
from itertools import islice
from types import TracebackType
from typing import Any, TypeVar

from executors.policy import ParallelConfig
from executors.thread import default_workers
from tea.futures import JobError, JobFuture, JobTimeoutError, PoolBrokenError, WorkerDiedError
from tea.graph import nearest
from tea.pool import Pool, PoolSetup

T = TypeVar("T")

_LEFT_OUT = ("fail_fast", "circuit_breaker", "remote_config")
_LIMITS = frozenset(field.name for field in fields(ParallelConfig)) - {"strategy", "max_workers"}


class SpoolExecutor(Executor):
    """An executor whose calls are jobs of one run in a spool.

    Args:
        max_workers: processes or threads; None takes one process for each cpu, or `min(32, cpus + 4)` threads.
        spool: the spool's folder; None takes TEA_SPOOL, then `.tea/spool`.
        strategy: `process` or `thread`.
        name: of the run, for people; the program's name by default.
        config: retries and limits of the calls.
        initializer, initargs: called in each worker process, or thread, before its first call.
        limits: fields of `ParallelConfig`, instead of `config`: `timeout_seconds`, `retry_policy`, ...

    Raises ValueError or TypeError for an argument that is wrong, SpoolError or OSError when the spool cannot be used.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        spool: str | os.PathLike[str] | None = None,
        strategy: str = "process",
        name: str | None = None,
        config: ParallelConfig | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        **limits: Any,
    ) -> None:
        if config is not None and limits:
            raise ValueError(f"give config, or {', '.join(limits)}, not both")
        if unknown := sorted(set(limits) - _LIMITS):
            raise TypeError(f"no argument '{unknown[0]}'{nearest(unknown[0], sorted(_LIMITS))}")
        config = config or ParallelConfig(**limits)
        if left_out := [field for field in _LEFT_OUT if getattr(config, field)]:
            raise ValueError(f"{left_out[0]} is for fan-outs; an executor's calls are independent of each other")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be callable")
        setup = PoolSetup(
            None if spool is None else os.fspath(spool),
            name or os.path.basename(sys.argv[0] or "python").removesuffix(".py") or "python",
            strategy,
            _workers(max_workers if max_workers is not None else config.max_workers, strategy),
            config,
            None if initializer is None else (initializer, initargs),
        )
        self._pool = _pool(setup)
        weakref.finalize(self, self._pool.close).atexit = False  # at exit, `tea.pool` knows the right moment

    @property
    def run(self) -> Any:
        """The run in the spool; see `tea.open_spool`."""
        from tea.spool_api import SpoolRun

        return SpoolRun(self._pool.files)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> JobFuture[T]:
        """Make a job of `fn(*args, **kwargs)`; it is in the spool when this returns. `.job` of the future shows it.

        Raises RuntimeError after `shutdown`, PoolBrokenError when workers do not start, OSError when a disk refuses.
        """
        return self._pool.submit(fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """`fn` over items, with the results in their order.

        Args:
            timeout: seconds from now, after which asking for a result that is not there raises TimeoutError.
            chunksize: items in one job.
            buffersize: jobs that are submitted before their results are asked for; None submits all at once.

        Raises ValueError for a size below 1. What a call raises is raised when its result is asked for; the jobs
        that have not begun are cancelled then.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        deadline = None if timeout is None else time.monotonic() + timeout
        submitted = self._submitted(fn, zip(*iterables), chunksize)  # noqa: B905 - the shortest ends it, as in `map`
        futures = deque(submitted if buffersize is None else islice(submitted, buffersize))
        return _results(futures, submitted, deadline, chunked=chunksize > 1)

    def _submitted(
        self, fn: Callable[..., T], items: Iterator[tuple[Any, ...]], chunksize: int
    ) -> Iterator[JobFuture[Any]]:
        pool = self._pool
        if chunksize == 1:
            for item in items:
                yield pool.submit(fn, item, {})
            return
        while chunk := tuple(islice(items, chunksize)):
            yield pool.submit(fn, chunk, {}, chunk=True)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; with `wait`, return when all have ended and the workers are gone.

        With `cancel_futures`, what no worker has begun is cancelled.
        """
        self._pool.close()
        if cancel_futures:
            self._pool.cancel_all()
        if wait and self._pool.thread is not None:
            self._pool.thread.join()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Wait for all calls. After a Ctrl-C the workers are ended, and what has not finished stays in the spool."""
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._pool.stop("interrupted", "interrupted")
        self.shutdown(wait=True)
        return None

    def __repr__(self) -> str:
        return f"<SpoolExecutor {self._pool.files.name}: {self._pool.setup.workers} of {self._pool.setup.strategy}>"


def _workers(wanted: int | None, strategy: str) -> int:
    if wanted is None:
        return default_workers() if strategy == "thread" else _cpus()
    if type(wanted) is not int or wanted <= 0:
        raise ValueError("max_workers must be greater than 0")
    return wanted


def _cpus() -> int:
    """The cpus that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _pool(setup: PoolSetup) -> Pool:
    if setup.strategy == "process":
        from tea.pool_process import ProcessPool

        return ProcessPool(setup)
    if setup.strategy == "thread":
        from tea.pool_thread import ThreadPool

        return ThreadPool(setup)
    raise ValueError(f"strategy {setup.strategy!r}: an executor's calls run by 'process' or 'thread'")


def _results(
    futures: deque[JobFuture[Any]], more: Iterator[JobFuture[Any]], deadline: float | None, *, chunked: bool
) -> Iterator[Any]:
    """The results in order; for each that is taken, one more job is submitted, if there is one."""
    try:
        while futures:
            future = futures.popleft()
            futures.extend(islice(more, 1))
            value = _result(future, deadline)
            del future  # nobody needs it while the results are used
            if chunked:
                value.reverse()
                while value:
                    yield value.pop()
            else:
                yield value
    finally:
        for future in futures:
            future.cancel()


def _result(future: JobFuture[Any], deadline: float | None) -> Any:
    try:
        return future.result(None if deadline is None else deadline - time.monotonic())
    finally:
        future.cancel()  # one that is done stays as it is


__all__ = [
    "JobError",
    "JobFuture",
    "JobTimeoutError",
    "PoolBrokenError",
    "SpoolExecutor",
    "WorkerDiedError",
]
