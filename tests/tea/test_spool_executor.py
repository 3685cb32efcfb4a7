"""`SpoolExecutor`: what programs expect of a `concurrent.futures.Executor`, and the record that it keeps beside.

After the cases of CPython's own tests of executors: submit, map, wait, as_completed, callbacks, cancel, shutdown,
the end of the program, exceptions with their traceback, workers that crash.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import math
import operator
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, CancelledError, as_completed, wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tea
from tea import (
    JobError,
    JobTimeoutError,
    ParallelConfig,
    PoolBrokenError,
    RetryPolicy,
    SpoolExecutor,
    WorkerDiedError,
)
from tests.support import ROOT, clean_env, is_running, tea_cmd, wait_until

pytestmark = pytest.mark.usefixtures("no_leftovers")

STRATEGIES = ("process", "thread")
Make = Callable[..., SpoolExecutor]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """`make(strategy=..., ...)`: an executor with two workers, shut down after the test."""
    made = []

    def one(max_workers: int = 2, **options: Any) -> SpoolExecutor:
        executor = SpoolExecutor(max_workers, spool=tmp_path / "spool", **options)
        made.append(weakref.ref(executor))
        return executor

    yield one
    for executor in made:
        if (living := executor()) is not None:
            living.shutdown()


@pytest.fixture(params=STRATEGIES)
def own(request: pytest.FixtureRequest, make: Make) -> SpoolExecutor:
    """An executor that the test may end, or whose run it counts."""
    return make(strategy=request.param)


@pytest.fixture(scope="module", params=STRATEGIES)
def executor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpoolExecutor]:
    """An executor that tests share: its workers live on between them."""
    spool = tmp_path_factory.mktemp("shared") / "spool"
    with SpoolExecutor(2, spool=spool, strategy=request.param) as one:
        one.submit(pow, 2, 2).result()
        yield one


# -- what jobs do ---------------------------------------------------------------------------------------------------


def double(value: Any) -> Any:
    return value * 2


def capitals(*args: Any, **kwargs: Any) -> dict[str, Any]:
    return {"args": args, "kwargs": kwargs}


def divide(a: float, b: float) -> float:
    return a / b


def until(path: str, value: Any = None) -> Any:
    """Wait until a file exists."""
    end = time.monotonic() + 600
    while not os.path.exists(path) and time.monotonic() < end:
        time.sleep(0.002)
    return value


def count_up(path: str) -> int:
    """How often this was called with this file."""
    with open(path, "a") as file:
        file.write("x")
    return os.path.getsize(path)


def third_time(path: str) -> int:
    if (number := count_up(path)) < 3:
        raise ConnectionError(f"attempt {number}")
    return number


def pid() -> int:
    return os.getpid()


def kill_worker(signal_number: int) -> None:
    os.kill(os.getpid(), signal_number)
    time.sleep(60)


class TwoArgumentsError(Exception):
    """Pickles, and cannot be unpickled: what it hands to its base is not what it takes."""

    def __init__(self, a: str, b: str) -> None:
        super().__init__(f"{a} and {b}")


class WithLockError(Exception):
    def __init__(self) -> None:
        super().__init__("has a lock")
        self.lock = threading.Lock()


def raise_it(error: type[BaseException], *args: Any) -> None:
    raise error(*args)


def nested(value: int) -> int:
    raise KeyError(value)


# -- submit ---------------------------------------------------------------------------------------------------------


class TestSubmit:
    def test_a_result(self, executor: SpoolExecutor) -> None:
        future = executor.submit(pow, 2, 8)
        assert future.result() == 256
        assert (future.done(), future.cancelled(), future.running(), future.exception()) == (True, False, False, None)

    def test_arguments_of_both_kinds(self, executor: SpoolExecutor) -> None:
        future = executor.submit(capitals, 16, self=1, fn=2)
        assert future.result() == {"args": (16,), "kwargs": {"self": 1, "fn": 2}}

    def test_without_a_function(self, executor: SpoolExecutor) -> None:
        with pytest.raises(TypeError):
            executor.submit()
        with pytest.raises(TypeError):
            executor.submit(arg=1)

    @pytest.mark.parametrize(
        "value", [None, 1.5, "é", (1, 2), {1: {2}}, [b"bytes", complex(1, 2)], float("inf"), 2**80]
    )
    def test_values_come_back_as_they_are(self, executor: SpoolExecutor, value: Any) -> None:
        result = executor.submit(copied, value).result()
        assert (type(result), result) == (type(value), value)

    def test_lambdas_closures_partials_and_methods(self, executor: SpoolExecutor) -> None:
        offset = 10
        functions = [lambda x: x + offset, functools.partial(operator.add, offset), Adder(offset).add, Adder(offset)]
        assert [executor.submit(function, 5).result() for function in functions] == [15] * 4

    def test_functions_of_other_processes_run_there(self, make: Make) -> None:
        executor = make()
        pids = {executor.submit(pid).result() for _ in range(5)}
        assert os.getpid() not in pids
        assert len(pids) <= 2

    def test_threads_take_and_give_the_object_itself(self, make: Make) -> None:
        executor, value = make(strategy="thread"), [threading.Lock()]
        assert executor.submit(same, value).result() is value

    def test_threads_change_what_they_are_given(self, make: Make) -> None:
        value: list[int] = []
        make(strategy="thread").submit(value.append, 1).result()
        assert value == [1]

    def test_what_cannot_travel_is_told_by_the_future(self, make: Make) -> None:
        executor = make()
        future = executor.submit(double, threading.Lock())
        with pytest.raises(TypeError, match="'args'"):
            future.result()
        assert future.job is None
        assert executor.submit(double, 1).result() == 2

    def test_a_result_that_cannot_travel_fails_its_job(self, make: Make) -> None:
        executor = make()
        with pytest.raises(JobError, match="'result'"):
            executor.submit(threading.Lock).result()
        assert executor.submit(double, 1).result() == 2

    def test_no_more_run_at_once_than_there_are_workers(self, executor: SpoolExecutor, tmp_path: Path) -> None:
        let_go = str(tmp_path / "go")
        futures = [executor.submit(until, let_go) for _ in range(6)]
        wait_until(lambda: sum(future.running() for future in futures) == 2)
        assert sum(future.running() for future in futures) == 2
        Path(let_go).touch()
        assert not wait(futures, 240).not_done

    def test_jobs_that_submit_jobs(self, make: Make) -> None:
        executor = make(strategy="thread")
        assert executor.submit(lambda: executor.submit(double, 4)).result().result() == 8

    def test_an_initializer(self, executor: SpoolExecutor, make: Make, tmp_path: Path) -> None:
        strategy = executor._pool.setup.strategy
        one = make(strategy=strategy, initializer=set_variable, initargs=("yes",))
        try:
            assert one.submit(os.getenv, "TEA_TEST_INITIALIZED").result() == "yes"
        finally:
            os.environ.pop("TEA_TEST_INITIALIZED", None)

    def test_an_initializer_that_fails_breaks_the_executor(self, executor: SpoolExecutor, make: Make) -> None:
        one = make(strategy=executor._pool.setup.strategy, initializer=divide, initargs=(1, 0))
        future = one.submit(double, 1)
        with pytest.raises(PoolBrokenError, match="division by zero"):
            future.result(240)
        with pytest.raises(PoolBrokenError, match="division by zero"):
            one.submit(double, 1)


def set_variable(value: str) -> None:
    os.environ["TEA_TEST_INITIALIZED"] = value


def copied(value: Any) -> Any:
    return value


def same(value: Any) -> Any:
    return value


class Adder:
    def __init__(self, offset: int) -> None:
        self.offset = offset

    def add(self, value: int) -> int:
        return self.offset + value

    __call__ = add


# -- map ------------------------------------------------------------------------------------------------------------


class TestMap:
    def test_as_the_builtin(self, executor: SpoolExecutor) -> None:
        assert list(executor.map(pow, range(10), range(10))) == list(map(pow, range(10), range(10)))
        assert list(executor.map(pow, range(4), range(3), chunksize=3)) == [1, 1, 4]
        assert list(executor.map(double, [])) == []

    @pytest.mark.parametrize("chunksize", [1, 3, 40, 50])
    def test_chunks(self, executor: SpoolExecutor, chunksize: int) -> None:
        before = len(executor.run.jobs())
        assert list(executor.map(math.sqrt, range(40), chunksize=chunksize)) == [math.sqrt(i) for i in range(40)]
        assert len(executor.run.jobs()) - before == math.ceil(40 / chunksize)

    def test_sizes_below_one(self, executor: SpoolExecutor) -> None:
        with pytest.raises(ValueError, match="chunksize"):
            executor.map(double, [1], chunksize=0)
        with pytest.raises(ValueError, match="buffersize"):
            executor.map(double, [1], buffersize=0)

    def test_an_exception_comes_in_its_place_and_cancels_the_rest(self, make: Make, tmp_path: Path) -> None:
        executor = make(1)
        results = executor.map(divide, [1, 1, 1, 1], [5, 0, 1, 1], buffersize=2)
        assert next(results) == 0.2
        with pytest.raises(ZeroDivisionError):
            next(results)
        with pytest.raises(StopIteration):
            next(results)

    def test_a_timeout(self, executor: SpoolExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = SimpleNamespace(monotonic=lambda: now)
        monkeypatch.setattr(sys.modules["tea.executor"], "time", clock)
        now = 0.0
        results = executor.map(until, [str(tmp_path), str(tmp_path / "go")], ["first", "second"], timeout=240)
        try:
            assert next(results) == "first"
            now = 240.0
            with pytest.raises(TimeoutError):
                next(results)
        finally:
            (tmp_path / "go").touch()

    def test_a_buffer_takes_no_more_items_than_it_holds(self, executor: SpoolExecutor) -> None:
        taken: list[int] = []

        def items() -> Iterator[int]:
            for number in range(1000):
                taken.append(number)
                yield number

        results = executor.map(double, items(), buffersize=4)
        assert taken == [0, 1, 2, 3]
        assert [next(results), next(results)] == [0, 2]
        assert taken == [0, 1, 2, 3, 4, 5]

    def test_chunks_as_programs_make_them(self, executor: SpoolExecutor) -> None:
        """A table cut into pieces, each worked on in a job, and put together again."""
        rows = [{"city": f"c{number % 3}", "size": number} for number in range(30)]
        chunks = [rows[start : start + 10] for start in range(0, len(rows), 10)]
        totals: dict[str, int] = {}
        for part in executor.map(by_city, chunks):
            for city, size in part.items():
                totals[city] = totals.get(city, 0) + size
        assert totals == by_city(rows)


def by_city(rows: list[dict[str, Any]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in rows:
        found[row["city"]] = found.get(row["city"], 0) + row["size"]
    return found


# -- waiting --------------------------------------------------------------------------------------------------------


class TestWaiting:
    def test_as_completed_in_the_order_of_their_ends(self, executor: SpoolExecutor, tmp_path: Path) -> None:
        slow, quick = executor.submit(until, str(tmp_path / "go")), executor.submit(double, 1)
        found = as_completed([slow, quick], timeout=240)
        assert next(found) is quick
        (tmp_path / "go").touch()
        assert next(found) is slow

    def test_the_first_of_several(self, executor: SpoolExecutor, tmp_path: Path) -> None:
        slow, quick = executor.submit(until, str(tmp_path / "go")), executor.submit(double, 1)
        assert wait([slow, quick], 240, FIRST_COMPLETED) == ({quick}, {slow})
        (tmp_path / "go").touch()
        assert wait([slow, quick], 240) == ({quick, slow}, set())

    def test_the_first_exception(self, executor: SpoolExecutor, tmp_path: Path) -> None:
        slow, bad = executor.submit(until, str(tmp_path / "go")), executor.submit(divide, 1, 0)
        assert wait([slow, bad], 240, FIRST_EXCEPTION) == ({bad}, {slow})
        (tmp_path / "go").touch()

    def test_patience(self, executor: SpoolExecutor, tmp_path: Path) -> None:
        future = executor.submit(until, str(tmp_path / "go"))
        with pytest.raises(TimeoutError):
            future.result(timeout=0.05)
        assert wait([future], timeout=0.05).not_done == {future}
        (tmp_path / "go").touch()

    def test_callbacks(self, executor: SpoolExecutor) -> None:
        seen: list[Any] = []
        future = executor.submit(double, 4)
        future.add_done_callback(lambda one: seen.append(one.result()))
        assert future.result() == 8
        wait_until(lambda: seen == [8])
        future.add_done_callback(lambda one: seen.append(one))
        assert seen == [8, future]

    def test_a_callback_may_submit(self, executor: SpoolExecutor) -> None:
        second: list[Any] = []
        executor.submit(double, 1).add_done_callback(lambda one: second.append(executor.submit(double, one.result())))
        wait_until(lambda: second)
        assert second[0].result() == 4

    def test_with_asyncio(self, executor: SpoolExecutor) -> None:
        async def main() -> list[Any]:
            loop = asyncio.get_running_loop()
            return await asyncio.gather(
                *(loop.run_in_executor(executor, double, number) for number in range(5)),
                loop.run_in_executor(executor, divide, 1, 0),
                return_exceptions=True,
            )

        *numbers, error = asyncio.run(main())
        assert numbers == [0, 2, 4, 6, 8]
        assert isinstance(error, ZeroDivisionError)


# -- cancelling -----------------------------------------------------------------------------------------------------


class TestCancel:
    def test_what_waits_can_be_cancelled_what_runs_cannot(self, make: Make, tmp_path: Path) -> None:
        for strategy in STRATEGIES:
            executor, let_go = make(1, strategy=strategy), tmp_path / strategy
            running = executor.submit(until, str(let_go), "ran")
            wait_until(running.running)
            waiting = executor.submit(double, 1)
            assert (running.cancel(), waiting.cancel(), waiting.cancel()) == (False, True, True)
            assert (waiting.cancelled(), waiting.done()) == (True, True)
            with pytest.raises(CancelledError):
                waiting.result()
            let_go.touch()
            assert running.result() == "ran"
            assert (running.cancel(), executor.submit(double, 2).result()) == (False, 4)
            assert executor.run.counts() == {"todo": 0, "done": 2, "failed": 0, "cancelled": 1}

    def test_waiters_hear_of_it(self, make: Make, tmp_path: Path) -> None:
        executor = make(1)
        running, waiting = executor.submit(until, str(tmp_path / "go")), executor.submit(double, 1)
        wait_until(running.running)
        threading.Timer(0.05, waiting.cancel).start()
        assert wait([running, waiting], 240, FIRST_COMPLETED).done == {waiting}
        (tmp_path / "go").touch()

    def test_a_cancelled_job_never_runs(self, make: Make, tmp_path: Path) -> None:
        executor = make(1)
        first = executor.submit(until, str(tmp_path / "go"))
        wait_until(first.running)
        futures = [executor.submit(count_up, str(tmp_path / str(number))) for number in range(100)]
        cancelled = [future.cancel() for future in futures[:50]]
        assert all(cancelled)
        (tmp_path / "go").touch()
        cancelled += [future.cancel() for future in futures[50:]]  # while the worker claims them
        assert not wait(futures, 240).not_done
        assert cancelled == [future.cancelled() for future in futures]
        assert [(tmp_path / str(number)).exists() for number in range(100)] == [not one for one in cancelled]

    def test_a_job_from_the_command_line(self, make: Make, tmp_path: Path) -> None:
        executor = make(1)
        running, waiting = executor.submit(until, str(tmp_path / "go")), executor.submit(double, 1)
        wait_until(running.running)
        name = f"{executor.run.name}/{running.job.name}"
        done = tea_cmd("spool", "cancel", name, "--spool", tmp_path / "spool")
        assert done.returncode == 0, done.stderr
        with pytest.raises(CancelledError):
            running.result(240)
        assert waiting.result(240) == 2

    def test_the_run_from_the_command_line(self, own: SpoolExecutor, tmp_path: Path) -> None:
        futures = [own.submit(until, str(tmp_path / "go")) for _ in range(4)]
        wait_until(lambda: sum(future.running() for future in futures) == 2)
        done = tea_cmd("spool", "cancel", own.run.name, "--spool", tmp_path / "spool")
        assert done.returncode == 0, done.stderr
        for future in futures:
            with pytest.raises(CancelledError):
                future.result(240)
        with pytest.raises(RuntimeError, match="cancelled by"):
            own.submit(double, 1)
        own.shutdown()
        assert own.run.state == "cancelled"
        assert own.run.counts() == {"todo": 0, "done": 0, "failed": 0, "cancelled": 4}
        (tmp_path / "go").touch()


# -- the end --------------------------------------------------------------------------------------------------------


class TestShutdown:
    def test_no_job_after_it(self, own: SpoolExecutor) -> None:
        own.shutdown()
        with pytest.raises(RuntimeError, match="after shutdown"):
            own.submit(double, 1)
        with pytest.raises(RuntimeError, match="after shutdown"):
            own.map(double, [1])
        own.shutdown()

    def test_it_waits_for_all(self, own: SpoolExecutor) -> None:
        with own:
            futures = [own.submit(double, number) for number in range(20)]
        assert all(future.done() for future in futures)
        assert own.run.state == "done"

    def test_while_another_thread_submits(self, own: SpoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
        """A job that `submit` has taken runs: the end comes before it or after it."""
        assert own.submit(double, 1).result(240) == 2
        pool, make_job = own._pool, own._pool._make
        ending = threading.Thread(target=own.shutdown)

        def slowly(parcel: Any, name: str) -> Any:
            ending.start()
            ending.join(0.1)
            pool.wake()  # whoever would end now does
            ending.join(0.2)
            return make_job(parcel, name)

        monkeypatch.setattr(pool, "_make", slowly)
        assert own.submit(double, 4).result(240) == 8
        ending.join(240)
        assert own.run.state == "done"

    def test_without_waiting(self, own: SpoolExecutor, tmp_path: Path) -> None:
        future = own.submit(until, str(tmp_path / "go"), "ran")
        own.shutdown(wait=False)
        assert not future.done()
        (tmp_path / "go").touch()
        assert future.result(240) == "ran"
        wait_until(lambda: own.run.state == "done")

    def test_what_waits_is_cancelled_on_demand(self, own: SpoolExecutor, tmp_path: Path) -> None:
        futures = [own.submit(until, str(tmp_path / "go")) for _ in range(20)]
        wait_until(lambda: sum(future.running() for future in futures) == 2)
        own.shutdown(wait=False, cancel_futures=True)
        (tmp_path / "go").touch()
        own.shutdown()
        assert sum(future.cancelled() for future in futures) == 18
        assert own.run.counts() == {"todo": 0, "done": 2, "failed": 0, "cancelled": 18}

    def test_an_executor_that_nobody_holds_ends_its_jobs_and_its_workers(
        self, make: Make, tmp_path: Path, own: SpoolExecutor
    ) -> None:
        strategy = own._pool.setup.strategy
        other = make(strategy=strategy)
        future, gone, run = other.submit(double, 4), weakref.ref(other), other.run
        del other
        gc.collect()
        assert gone() is None
        assert future.result(240) == 8
        wait_until(lambda: run.state == "done")

    def test_without_any_job(self, make: Make) -> None:
        with make() as executor:
            pass
        assert (executor.run.state, executor.run.jobs()) == ("done", [])

    def test_wrong_arguments(self, tmp_path: Path) -> None:
        for bad in (0, -1, 1.5, "2"):
            with pytest.raises(ValueError, match="max_workers"):
                SpoolExecutor(bad, spool=tmp_path / "spool")
        with pytest.raises(TypeError, match="callable"):
            SpoolExecutor(spool=tmp_path / "spool", initializer=1)
        with pytest.raises(ValueError, match="fail_fast"):
            SpoolExecutor(spool=tmp_path / "spool", config=ParallelConfig(fail_fast=True))
        with pytest.raises(ValueError, match="not both"):
            SpoolExecutor(spool=tmp_path / "spool", config=ParallelConfig(), timeout_seconds=1)
        with pytest.raises(TypeError, match=r"no argument 'timeout_second'.*timeout_seconds"):
            SpoolExecutor(spool=tmp_path / "spool", timeout_second=5)
        with pytest.raises(ValueError, match="'magic'"):
            SpoolExecutor(spool=tmp_path / "spool", strategy="magic")
        assert not (tmp_path / "spool").exists()


PROGRAM = """
import os, sys, time
from tea import SpoolExecutor

def work(number):
    while number and os.path.exists("hold"):
        time.sleep(0.005)
    print("working on", number)
    return number * number

executor = SpoolExecutor(2, strategy=sys.argv[1])
futures = [executor.submit(work, number) for number in range(6)]
"""

INTERRUPTIBLE = """
with executor:
    open("interruptible", "w").close()
    [future.result() for future in futures]
"""


class Program:
    """A script that uses an executor, without any guard of its main module."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.hold = folder, folder / "hold"
        self.started: list[subprocess.Popen[str]] = []

    def start(self, more: str = "", strategy: str = "process", before: str = "") -> subprocess.Popen[str]:
        (self.folder / "p.py").write_text(textwrap.dedent(before) + PROGRAM + textwrap.dedent(more))
        process = subprocess.Popen(
            [sys.executable, "p.py", strategy],
            cwd=self.folder,
            env=clean_env({"PYTHONPATH": str(ROOT)}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def run(self) -> Any:
        return tea.open_spool(self.folder / ".tea/spool").run()

    def running(self) -> list[Any]:
        """The jobs that run now; none before there is a run."""
        spool = self.folder / ".tea" / "spool"
        runs = tea.open_spool(spool).runs() if (spool / "spool.json").exists() else []
        return runs[-1].jobs(state="running") if runs else []

    def results(self) -> list[Any]:
        return [job.result and job.result["state"].get("result") for job in self.run().jobs()]


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    made = Program(tmp_path)
    yield made
    for process in made.started:
        process.kill()
        process.communicate(timeout=240)


class TestTheProgramEnds:
    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_what_was_submitted_is_run_first(self, program: Program, strategy: str) -> None:
        out, err = program.start(strategy=strategy).communicate(timeout=240)
        assert "Traceback" not in err
        assert out == "" or strategy == "thread"
        assert program.run().state == "done"
        assert program.results() == [0, 1, 4, 9, 16, 25]

    def test_with_an_exception(self, program: Program) -> None:
        process = program.start("raise SystemExit(3)")
        process.communicate(timeout=240)
        assert process.returncode == 3
        assert program.results() == [0, 1, 4, 9, 16, 25]

    def test_no_semaphore_is_called_leaked(self, program: Program) -> None:
        """Whoever lets go of the workers' semaphores is waited for, however long that takes."""
        slow = """
            import time
            from multiprocessing.synchronize import SemLock
            at_once = SemLock._cleanup
            SemLock._cleanup = staticmethod(lambda name: (time.sleep(0.1), at_once(name)))
        """
        process = program.start(before=slow)
        _, err = process.communicate(timeout=240)
        assert (process.returncode, err) == (0, "")
        assert program.results() == [0, 1, 4, 9, 16, 25]

    def test_killed_and_gone_on_with(self, program: Program) -> None:
        """What has ended is kept, what waits is run by `tea resume`, from its files."""
        program.hold.touch()
        process = program.start()
        wait_until(lambda: len(program.running()) == 2)
        wait_until(lambda: program.run().counts() == {"todo": 5, "done": 1, "failed": 0, "cancelled": 0})
        process.kill()
        process.communicate(timeout=240)
        wait_until(lambda: program.run().state == "stopped")
        assert "tea resume" in tea_cmd("spool", "status", cwd=program.folder).stdout
        program.hold.unlink()
        done = tea_cmd("resume", cwd=program.folder)
        assert (done.returncode, json.loads(done.stdout)) == (0, {"done": 6, "failed": 0, "cancelled": 0}), (
            done.stderr
        )
        assert program.results() == [0, 1, 4, 9, 16, 25]
        assert program.run().state == "done"

    def test_ctrl_c_ends_the_workers_and_keeps_what_waits(self, program: Program) -> None:
        program.hold.touch()
        process = program.start(INTERRUPTIBLE)
        wait_until(lambda: (program.folder / "interruptible").exists() and len(program.running()) == 2)
        wait_until(lambda: program.run().counts()["done"] == 1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=240)
        assert "KeyboardInterrupt" in err
        assert (program.run().state, program.run().counts()["todo"]) == ("interrupted", 5)
        program.hold.unlink()
        assert tea_cmd("resume", cwd=program.folder).returncode == 0
        assert program.results() == [0, 1, 4, 9, 16, 25]


# -- failures -------------------------------------------------------------------------------------------------------


class TestFailures:
    def test_the_same_exception(self, executor: SpoolExecutor) -> None:
        error = executor.submit(divide, 1, 0).exception()
        assert type(error) is ZeroDivisionError
        assert str(error) == "division by zero"

    def test_with_the_traceback_it_had_there(self, make: Make) -> None:
        error = make().submit(nested, 7).exception()
        assert isinstance(error, KeyError)
        assert error.args == (7,)
        assert "raise KeyError(value)" in str(error.__cause__)

    def test_with_its_own_traceback_in_a_thread(self, make: Make) -> None:
        error = make(strategy="thread").submit(nested, 7).exception()
        assert error is not None
        assert error.__traceback__ is not None
        assert error.__cause__ is None

    def test_of_a_class_that_only_this_program_has(self, make: Make) -> None:
        class LocalError(Exception):
            pass

        with pytest.raises(LocalError, match="here"):
            make().submit(raise_it, LocalError, "here").result()

    @pytest.mark.parametrize(("kind", "args"), [(TwoArgumentsError, ("a", "b")), (WithLockError, ())])
    def test_that_does_not_travel(self, make: Make, kind: type[BaseException], args: tuple[Any, ...]) -> None:
        executor = make()
        with pytest.raises(JobError, match=f"{kind.__name__}.* see .*") as caught:
            executor.submit(raise_it, kind, *args).result()
        assert "raise error(*args)" in str(caught.value.__cause__)
        assert caught.value.kind == kind.__name__
        assert executor.submit(double, 1).result() == 2

    @pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
    def test_that_ends_programs_ends_only_the_job(self, executor: SpoolExecutor, kind: type[BaseException]) -> None:
        assert type(executor.submit(raise_it, kind).exception()) is kind
        assert executor.submit(double, 1).result() == 2

    @pytest.mark.parametrize("how", [signal.SIGSEGV, signal.SIGABRT])
    def test_a_crash_fails_its_own_job_only(self, make: Make, how: int) -> None:
        executor = make()
        futures = [executor.submit(kill_worker, how), *(executor.submit(double, number) for number in range(20))]
        with pytest.raises(WorkerDiedError, match=signal.Signals(how).name) as caught:
            futures[0].result(240)
        assert caught.value.job == futures[0].job.path
        assert [future.result(240) for future in futures[1:]] == [number * 2 for number in range(20)]
        assert (
            executor.submit(os._exit, 3)
            .exception(240)
            .args[0]
            .startswith("the job ended its worker process: exit code 3")
        )
        assert executor.submit(double, 4).result(240) == 8

    def test_a_worker_that_is_killed_is_no_failure(self, make: Make, tmp_path: Path) -> None:
        executor = make(1)
        future = executor.submit(until, str(tmp_path / "go"), "ran")
        (attempt,) = wait_until(lambda: future.running() and future.job.attempts)
        os.kill(int(attempt.claimant.split(":")[1]), signal.SIGKILL)
        wait_until(lambda: len(future.job.attempts) == 2)
        (tmp_path / "go").touch()
        assert future.result(240) == "ran"

    def test_a_job_that_kills_its_workers_is_given_up(self, make: Make) -> None:
        executor = make(1, max_lost=1)
        with pytest.raises(WorkerDiedError, match="died 2 times"):
            executor.submit(kill_worker, signal.SIGKILL).result(240)
        assert executor.submit(double, 4).result(240) == 8

    def test_retries(self, executor: SpoolExecutor, make: Make, tmp_path: Path) -> None:
        strategy = executor._pool.setup.strategy
        retrying = make(strategy=strategy, retry_policy=RetryPolicy(max_retries=2, base_delay=0.01))
        future = retrying.submit(third_time, str(tmp_path / "count"))
        assert future.result(240) == 3
        assert [one.state for one in future.job.attempts] == ["failed", "failed", "succeeded"]
        assert type(retrying.submit(divide, 1, 0).exception(240)) is ZeroDivisionError

    def test_a_job_that_takes_too_long(self, executor: SpoolExecutor, make: Make) -> None:
        strategy = executor._pool.setup.strategy
        limited = make(1, strategy=strategy, timeout_seconds=1.5, grace_seconds=0.1)
        future = limited.submit(time.sleep, 60)
        with pytest.raises(JobTimeoutError, match=r"1\.5s"):
            future.result(240)
        # Others go on. One that the machine itself holds up for so long rightly exceeds its time, too.
        wait_until(lambda: limited.submit(pow, 2, 3).exception(240) is None)

    def test_a_result_that_nobody_can_read_is_asked_for_again(self, make: Make, tmp_path: Path) -> None:
        """A spoiled file is put aside, and the job runs again; as with fan-outs."""
        executor = make(1)
        first = executor.submit(until, str(tmp_path / "go"))
        wait_until(first.running)
        second = executor.submit(count_up, str(tmp_path / "count"))
        job = second.job
        (Path(job.path) / "result.json").write_text("{}")
        (tmp_path / "go").touch()
        assert second.result(240) in (1, 2)
        assert list(Path(job.path).glob("result.json.corrupt*"))


# -- the record -----------------------------------------------------------------------------------------------------


def talk(number: int) -> int:
    print("about to work on", number)
    print("careful", file=sys.stderr)
    return 100 // number


class TestTheRecord:
    def test_a_future_shows_its_job_while_it_waits(self, make: Make, tmp_path: Path) -> None:
        executor = make(1)
        first, second = executor.submit(until, str(tmp_path / "go")), executor.submit(double, [1, 2])
        wait_until(first.running)
        job: Any = second.job
        assert (job.name, job.state, job.branch) == ("001-calls/000001-double", "todo", "double")
        assert job.input == {"function": f"{__name__}:double", "args": [[1, 2]]}
        assert job.result is None
        (tmp_path / "go").touch()
        assert second.result(240) == [1, 2, 1, 2]
        assert job.result["state"] == {"result": [1, 2, 1, 2]}
        assert (job.state, job.run.name) == ("done", executor.run.name)

    def test_every_verb_reads_it(self, make: Make, tmp_path: Path) -> None:
        with make(name="calls of a test") as executor:
            futures = [executor.submit(talk, number) for number in (5, 0, 4)]
            wait(futures, 240)

            def verb(*words: str, code: int = 0) -> str:
                done = tea_cmd("spool", *words, "--spool", tmp_path / "spool")
                assert done.returncode == code, done.stderr
                return done.stdout

            assert "running" in verb("status")
        assert "ZeroDivisionError" in verb("status")
        assert verb("list", "--state", "failed", "--quiet").split()[-1].endswith("001-calls/000001-talk")
        assert "talk" in verb("show", "1")
        assert "ZeroDivisionError" in verb("show", "1")
        assert "about to work on 0" in verb("logs", "1")
        assert "ZeroDivisionError" in verb("explain", "1")
        assert "same result" in verb("replay", "0")
        assert "fixed" in verb("replay", "1", "--set", "args=[20]")
        assert json.loads(verb("replay", "1", "--set", "args=[20]", "--json"))["result"]["state"]["result"] == 5
        assert "still fails" in verb("replay", "1", code=1)
        findings = json.loads(verb("doctor", "--quick", "--json"))["findings"]
        assert [one for one in findings if one["severity"] != "ok"] == []
        assert futures[1].job.error.startswith("ZeroDivisionError: ")
        assert "careful" in futures[0].job.stderr()

    def test_closures_can_be_replayed_too(self, make: Make) -> None:
        offset, executor = 3, make()
        future = executor.submit(lambda pair: pair[0] + offset, (1, 2))
        assert future.result(240) == 4
        replayed = future.job.replay()
        assert (replayed.compared.verdict, replayed.result["state"]) == ("same", {"result": 4})

    def test_what_only_a_thread_had_is_marked(self, make: Make) -> None:
        executor = make(strategy="thread")
        plain, special = executor.submit(double, 4), executor.submit(double, (threading, 1))
        wait([plain, special], 240)
        assert plain.job.replay().compared.verdict == "same"
        with pytest.raises(ValueError, match="JSON cannot hold args"):
            special.job.replay()

    def test_failed_jobs_run_again_from_their_files(self, make: Make, tmp_path: Path) -> None:
        needed = tmp_path / "needed"
        with make() as executor:
            wait([executor.submit(os.path.getsize, str(needed)), executor.submit(double, 1)], 240)
        needed.write_text("four")
        done = tea_cmd("resume", "--retry-failed", "--spool", tmp_path / "spool")
        assert (done.returncode, json.loads(done.stdout)) == (0, {"done": 2, "failed": 0, "cancelled": 0}), (
            done.stderr
        )
        assert [job.result["state"]["result"] for job in executor.run.jobs()] == [4, 2]
        again = tea_cmd("resume", "--spool", tmp_path / "spool")
        assert json.loads(again.stdout) == {"done": 2, "failed": 0, "cancelled": 0}

    def test_a_worker_from_outside_may_help(self, make: Make, tmp_path: Path) -> None:
        executor, let_go = make(1), tmp_path / "go"
        futures = [executor.submit(until, str(let_go), 1), executor.submit(double, 4)]
        wait_until(futures[0].running)
        helper = tea_cmd_started("worker", str(tmp_path / "spool"))
        try:
            assert futures[1].result(240) == 8
        finally:
            let_go.touch()
            helper.wait(240)

    def test_paused_from_the_command_line(self, own: SpoolExecutor, tmp_path: Path) -> None:
        assert own.submit(pow, 2, 2).result(240) == 4
        assert tea_cmd("spool", "pause", "--spool", tmp_path / "spool").returncode == 0

        def held() -> Any:
            """A job that nobody takes; who has just looked whether the run is paused may take some more."""
            future = own.submit(pow, 2, 3)
            return wait([future], 0.5).not_done

        (future,) = wait_until(held)
        assert tea_cmd("spool", "unpause", "--spool", tmp_path / "spool").returncode == 0
        assert future.result(240) == 8

    def test_many_jobs_by_many_threads(self, own: SpoolExecutor) -> None:
        executor = own
        found: list[int] = []

        def submit(start: int) -> None:
            found.extend(future.result() for future in [executor.submit(double, start + n) for n in range(40)])

        threads = [threading.Thread(target=submit, args=(1000 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(240)
        assert sorted(found) == sorted(2 * (1000 * n + m) for n in range(4) for m in range(40))
        names = [job.name for job in executor.run.jobs()]
        assert len(set(names)) == 160
        assert not executor._pool.pending

    def test_a_future_keeps_no_argument_alive(self, executor: SpoolExecutor) -> None:
        argument = Adder(1)
        gone = weakref.ref(argument)
        future = executor.submit(Adder.add, argument, 2)
        assert future.result(240) == 3
        del argument
        wait_until(lambda: gc.collect() is not None and gone() is None)


def tea_cmd_started(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tea", *words], env=clean_env(), stdin=subprocess.DEVNULL)


def test_the_program_needs_no_thread_a_job(make: Make, tmp_path: Path) -> None:
    executor = make(1)
    before = threading.active_count()
    futures = [executor.submit(until, str(tmp_path / "go")) for _ in range(200)]
    wait_until(futures[0].running)
    assert threading.active_count() - before < 10
    executor.shutdown(wait=False, cancel_futures=True)
    (tmp_path / "go").touch()


def test_a_program_that_is_killed_leaves_no_worker(program: Program) -> None:
    program.hold.touch()
    process = program.start()
    jobs = wait_until(lambda: program.running()[1:])
    pids = [int(job.attempts[0].claimant.split(":")[1]) for job in jobs]
    process.kill()
    process.communicate(timeout=240)
    wait_until(lambda: not any(map(is_running, pids)))
