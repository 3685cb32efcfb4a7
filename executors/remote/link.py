"""One host: its session, and what becomes of it.

    connecting --probe, program, setup--> ready --session lost--> waiting --back-off--> connecting ...
         |                                                           |
         +-- a failure that lasts (key, Python, version) --> out <---+-- the breaker is open

A thread for each host connects, listens and connects again; another one writes, so that a link that hangs holds up
nobody. Both only talk to the feeder through a queue. Every wait has a deadline.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from executors.breaker import CircuitBreaker, CircuitState
from executors.policy import CircuitBreakerConfig
from executors.remote.failures import HostError, of_refusal
from executors.remote.frames import Frame, FrameError
from executors.remote.parcel import Program
from executors.remote.session import Session
from executors.remote.settings import RemoteConfig, RemoteHost

SILENCE = 30.0
"""Seconds without a word from a host that should beat after which it counts as lost."""

ANSWER = 20.0
"""Seconds that a host may take to log us in and start Python, beyond the time to connect."""

BREAKER = CircuitBreakerConfig(failure_threshold=4, reset_timeout=30.0)
"""Failures in a row after which a host is out, and seconds until it is tried again while others work."""

NEED = 8 * 1024 * 1024
"""Bytes that must be free in a host's workdir."""


class News(NamedTuple):
    """What a link tells the feeder. what: `ready`, `lost`, or a message of the host's, which is in `frame`."""

    link: Link
    session: int
    what: str
    frame: Frame = Frame({})
    error: HostError | None = None


class Setup(NamedTuple):
    """What every session begins with. programs: what must be installed on the host."""

    program: Program
    version: str
    runner: str
    environment: dict[str, str]
    frames: Callable[[], Iterable[Frame]]
    programs: tuple[str, ...] = ()


class Link:
    """A host that jobs can be sent to.

    Args:
        setup: what a session begins with. tell: takes the news, from this link's thread.
    """

    def __init__(self, host: RemoteHost, config: RemoteConfig, setup: Setup, tell: Callable[[News], None]) -> None:
        self.host, self.name = host, host.host
        self.breaker = CircuitBreaker(BREAKER, host.host)
        self.slots = host.slots or 1
        self.session = 0
        self.ready = False
        """As the feeder knows it."""
        self.error: HostError | None = None
        self._config, self._setup, self._tell = config, setup, tell
        self._live: Session | None = None
        self._connecting: Session | None = None
        self._closing = threading.Event()
        self._grace, self._late = 5.0, 0.0
        self._thread = threading.Thread(target=self._run, name=f"tea-host-{host.host}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def out(self) -> bool:
        """Whether nothing is to be hoped from this host for now."""
        error = self.error
        return error is not None and (error.lasting or self.breaker.state is CircuitState.OPEN)

    def send(self, frame: Frame) -> None:
        """Send a message to the worker on the host, if there is one."""
        session = self._live
        if session is not None:
            session.send(frame)

    def close(self, grace: float, late: float = 0.0) -> None:
        """Begin to end: the worker on the host has `grace` seconds for its jobs, and some more to clean up, also what
        comes `late`.
        """
        self._grace, self._late = grace + late + 5.0, late
        self._closing.set()
        self.send(self._stop())
        connecting = self._connecting
        if connecting is not None:
            connecting.kill()

    def _stop(self) -> Frame:
        return Frame({"op": "stop", "late": self._late})

    def join(self) -> None:
        """Wait until the session has ended, not for ever."""
        self._thread.join(self._grace + ANSWER)

    # -- in its own thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        failures = 0
        while not self._closing.is_set():
            if not self.breaker.allow_request():
                self._closing.wait(0.2)
                continue
            before = time.monotonic()
            try:
                self._one_session()
            except HostError as error:
                failures = 0 if time.monotonic() - before > 60 else failures + 1
                if self._failed(error):
                    return
                self._closing.wait(min(8.0, 0.5 * 2 ** (failures - 1)) * random.uniform(0.5, 1.0))

    def _failed(self, error: HostError) -> bool:
        """Note a failure; True when no further session makes sense."""
        if self._closing.is_set():
            return True
        self.breaker.record_failure()
        self.error = error
        self._tell(News(self, self.session, "lost", error=error))
        return error.lasting

    def _one_session(self) -> None:
        """Connect and listen until the session ends. Raises HostError, but when this link is closed."""
        session = self._connecting = Session(self.host, self._config)
        try:
            if self._closing.is_set():  # `close` has looked before there was anything to kill
                return
            self.session += 1
            try:
                self._begin(session)
                self._listen(session)
            except TimeoutError as error:
                raise HostError(self.name, f"does not answer ({error})") from None
            except FrameError as error:
                raise HostError(self.name, f"speaks out of turn ({error})", NOISE, lasting=True) from None
        finally:
            self._live = self._connecting = None
            session.end(self._grace if self._closing.is_set() else 0.0)

    def _begin(self, session: Session) -> None:
        mark = f"tea-{secrets.token_hex(8)} "
        setup, program = self._setup, self._setup.program
        workdir = self.host.workdir or self._config.workdir
        asked: dict[str, Any] = {"workdir": workdir, "program": program.name, "sha256": program.sha256, "need": NEED}
        asked["programs"] = setup.programs
        hello = session.probe(mark, asked, self._config.connect_timeout + ANSWER)
        if not hello["have"]:
            session.send(Frame({"op": "program"}, program.data))
        environment = {**setup.environment, **self.host.env}
        argv = ["worker", "--fed", f"{setup.version}:{mark.strip()}", setup.runner]
        session.send(Frame({"op": "start", "argv": argv, "env": environment}))
        slots = self.host.slots or int(hello["cpus"] or 1)
        session.send(Frame({"op": "slots", "slots": slots, "host": self.name}))
        session.send(iter(setup.frames()))
        session.answer(mark, SILENCE)
        self.slots, self._live, self._connecting = slots, session, None
        if self._closing.is_set():  # `close` may have seen neither
            session.send(self._stop())
        self._tell(News(self, self.session, "ready", Frame(hello)))

    def _listen(self, session: Session) -> None:
        while True:
            frame = session.reader.read(SILENCE)
            if frame is None:
                if self._closing.is_set():
                    return
                raise HostError(self.name, f"the connection was lost{_because(session.said())}")
            if frame.op == "refused":
                raise of_refusal(self.host, str(frame.header.get("kind")), str(frame.header.get("text")))
            if frame.op != "beat":
                self._tell(News(self, self.session, frame.op, frame))


NOISE = "something on the host writes to the stdout of programs that run without a terminal"


def _because(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return f" ({lines[-1][:200]})" if lines else ""
