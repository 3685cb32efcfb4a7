from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from executors.breaker import CircuitState
from executors.callbacks import CallbackManager, ParallelFlowCallback, ParallelFlowContext
from executors.result import ParallelFlowResult
from tests.support import calls, wait_until

CONTEXT = ParallelFlowContext("left", "merge", {"n": 1}, 0.0)
PATIENT = 240.0
"""Seconds for a callback that does not hang: however late its thread gets its turn."""
RESULT = ParallelFlowResult.from_success("left", {}, 1.0)


class Recorder:
    """Has every method, and remembers the calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *args: self.calls.append((name, *args))


class Broken:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_flow_start(self, context: ParallelFlowContext) -> None:
        raise self.error


class Hanging:
    """Hangs in `on_flow_start` until released."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.started = 0
        self.completed = 0

    def on_flow_start(self, context: ParallelFlowContext) -> None:
        self.started += 1
        self.release.wait(600)

    def on_flow_complete(self, context: ParallelFlowContext, result: ParallelFlowResult) -> None:
        self.completed += 1


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    callback = Hanging()
    yield callback
    callback.release.set()


def test_every_event_reaches_every_callback_with_its_arguments() -> None:
    recorders = [Recorder(), Recorder()]
    manager = CallbackManager(recorders, timeout=PATIENT)
    error = ValueError("x")
    manager.fire_flow_start(CONTEXT)
    manager.fire_flow_error(CONTEXT, error, 0)
    manager.fire_flow_retry(CONTEXT, 1, 0.5, error)
    manager.fire_flow_timeout(CONTEXT, 2.0)
    manager.fire_circuit_state_change(CONTEXT, CircuitState.CLOSED, CircuitState.OPEN)
    manager.fire_flow_complete(CONTEXT, RESULT)
    for recorder in recorders:
        assert recorder.calls == [
            ("on_flow_start", CONTEXT),
            ("on_flow_error", CONTEXT, error, 0),
            ("on_flow_retry", CONTEXT, 1, 0.5, error),
            ("on_flow_timeout", CONTEXT, 2.0),
            ("on_circuit_state_change", CONTEXT, CircuitState.CLOSED, CircuitState.OPEN),
            ("on_flow_complete", CONTEXT, RESULT),
        ]


def test_methods_are_optional() -> None:
    class OnlyStart:
        def __init__(self) -> None:
            self.n = 0

        def on_flow_start(self, context: ParallelFlowContext) -> None:
            self.n += 1

    callback = OnlyStart()
    manager = CallbackManager([callback, object()], timeout=PATIENT)
    manager.fire_flow_start(CONTEXT)
    manager.fire_flow_complete(CONTEXT, RESULT)
    assert callback.n == 1


def test_the_protocol_can_be_checked_and_inherited() -> None:
    class Quiet(ParallelFlowCallback):
        pass

    class Whole:
        on_flow_start = on_flow_complete = on_flow_error = on_flow_timeout = on_flow_retry = print
        on_circuit_state_change = print

    assert isinstance(Whole(), ParallelFlowCallback)
    assert not isinstance(Broken(ValueError()), ParallelFlowCallback)
    CallbackManager([Quiet()], timeout=PATIENT, error_policy="raise").fire_flow_complete(CONTEXT, RESULT)


def test_callbacks_come_and_go() -> None:
    recorder = Recorder()
    manager = CallbackManager(timeout=PATIENT)
    manager.fire_flow_start(CONTEXT)
    manager.add_callback(recorder)
    manager.fire_flow_start(CONTEXT)
    manager.remove_callback(recorder)
    manager.remove_callback(recorder)
    manager.fire_flow_start(CONTEXT)
    assert recorder.calls == [("on_flow_start", CONTEXT)]


class TestErrors:
    @pytest.mark.parametrize("error", [ValueError("no good"), SystemExit("no good"), KeyboardInterrupt("no good")])
    def test_they_are_logged_and_the_next_callback_is_called(
        self, error: BaseException, caplog: pytest.LogCaptureFixture
    ) -> None:
        recorder = Recorder()
        manager = CallbackManager([Broken(error), recorder], timeout=PATIENT)
        with caplog.at_level(logging.WARNING):
            manager.fire_flow_start(CONTEXT)
        assert recorder.calls
        assert "Broken.on_flow_start" in caplog.text
        assert "no good" in caplog.text
        assert len(manager.callbacks) == 2

    def test_raise_gives_the_error_to_the_caller(self) -> None:
        manager = CallbackManager([Broken(ZeroDivisionError())], timeout=PATIENT, error_policy="raise")
        with pytest.raises(ZeroDivisionError):
            manager.fire_flow_start(CONTEXT)

    def test_remove_calls_it_only_once(self) -> None:
        broken = Broken(ValueError())
        manager = CallbackManager([broken], timeout=PATIENT, error_policy="remove")
        manager.fire_flow_start(CONTEXT)
        assert manager.callbacks == []

    def test_handlers_are_told_and_may_fail_too(self, caplog: pytest.LogCaptureFixture) -> None:
        told: list[tuple[Any, BaseException]] = []
        broken = Broken(ValueError("first"))
        manager = CallbackManager([broken], timeout=PATIENT)
        manager.add_error_handler(lambda callback, error: 1 / 0)
        manager.add_error_handler(lambda callback, error: told.append((callback, error)))
        with caplog.at_level(logging.WARNING):
            manager.fire_flow_start(CONTEXT)
        assert told == [(broken, broken.error)]
        assert "ZeroDivisionError" in caplog.text

    def test_an_unknown_policy_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"'ignore'.*log, raise, remove"):
            CallbackManager(error_policy="ignore")


class TestHanging:
    def test_it_is_abandoned_with_a_warning(self, hanging: Hanging, caplog: pytest.LogCaptureFixture) -> None:
        recorder = Recorder()
        manager = CallbackManager([hanging, recorder], timeout=0.05)
        with caplog.at_level(logging.WARNING):
            manager.fire_flow_start(CONTEXT)
        wait_until(lambda: recorder.calls, what="the next callback to be called")  # its thread may be late, too
        assert "Hanging.on_flow_start" in caplog.text
        assert "0.05s" in caplog.text

    def test_the_hanging_method_is_left_alone_but_others_are_called(
        self, hanging: Hanging, caplog: pytest.LogCaptureFixture
    ) -> None:
        manager = CallbackManager([hanging], timeout=0.05)
        with caplog.at_level(logging.WARNING):
            manager.fire_flow_start(CONTEXT)
            wait_until(lambda: hanging.started, what="the call that hangs to begin")
            manager.timeout = PATIENT
            for _ in range(3):
                manager.fire_flow_complete(CONTEXT, RESULT)
                manager.fire_flow_start(CONTEXT)
        assert (hanging.started, hanging.completed) == (1, 3)
        assert "skipped" in caplog.text

    def test_it_is_called_again_when_it_has_come_back(self, hanging: Hanging) -> None:
        manager = CallbackManager([hanging], timeout=0.05)
        manager.fire_flow_start(CONTEXT)
        hanging.release.set()

        def called_again() -> bool:
            manager.fire_flow_start(CONTEXT)
            return hanging.started > 1

        wait_until(called_again, what="the callback to be called again")

    def test_handlers_hear_of_a_timeout_and_remove_removes(self, hanging: Hanging) -> None:
        told: list[BaseException] = []
        manager = CallbackManager([hanging], timeout=0.05, error_policy="remove")
        manager.add_error_handler(lambda callback, error: told.append(error))
        manager.fire_flow_start(CONTEXT)
        assert [type(error) for error in told] == [TimeoutError]
        assert manager.callbacks == []

    def test_without_a_timeout_the_caller_s_thread_does_it(self) -> None:
        seen: list[int] = []

        class Where:
            def on_flow_start(self, context: ParallelFlowContext) -> None:
                seen.append(threading.get_ident())

        CallbackManager([Where()], timeout=None).fire_flow_start(CONTEXT)
        assert seen == [threading.get_ident()]


def test_threads_may_fire_and_change_the_list_at_once() -> None:
    recorder = Recorder()
    manager = CallbackManager([recorder], timeout=None)

    def work() -> None:
        for _ in range(200):
            extra = Recorder()
            manager.add_callback(extra)
            manager.fire_flow_start(CONTEXT)
            manager.remove_callback(extra)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(recorder.calls) == 6 * 200
    assert manager.callbacks == [recorder]


def test_nobody_listening_costs_next_to_nothing() -> None:
    """Counted in function calls, not in seconds: an event nobody hears takes no lock and starts no thread."""
    manager = CallbackManager()
    called = calls(lambda: manager.fire_flow_start(CONTEXT))
    assert called == ["CallbackManager.fire_flow_start", "CallbackManager.fire_event"]
