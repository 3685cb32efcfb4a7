"""A real browser for the tests and for the pictures of the documentation: Chromium without a window.

It is driven by the DevTools protocol over two pipes (`--remote-debugging-pipe`): no port, no driver program, nothing
to install but the browser.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support import wait_until

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # root can't have one, and a container often neither
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--remote-debugging-pipe",
)

DEADLINE = 240.0
"""Seconds for one answer of the browser."""

KEYS = {"Enter": (13, "\r"), "Escape": (27, ""), "Tab": (9, ""), " ": (32, " "), "+": (187, "+"), "-": (189, "-")}
KEYS |= {"ArrowLeft": (37, ""), "ArrowUp": (38, ""), "ArrowRight": (39, ""), "ArrowDown": (40, ""), "0": (48, "0")}


def program() -> str | None:
    """The path of a Chromium; None when there is none."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


class Browser:
    """A running Chromium. Close it, or use it as a context manager."""

    def __init__(self, path: str) -> None:
        self._home = tempfile.mkdtemp(prefix="tea-browser-", dir="/tmp")  # short: it makes a socket in a folder in it
        there, self._out = os.pipe()
        self._in, back = os.pipe()
        os.set_blocking(self._in, False)
        # The browser reads descriptor 3 and writes to descriptor 4.
        script = f'exec "$@" 3<&{there} 4>&{back}'
        argv = ["bash", "-c", script, "browser", path, *FLAGS, f"--user-data-dir={self._home}", "about:blank"]
        quiet = subprocess.DEVNULL
        # It is killed in the end: what it leaves in the folder for temporary files and at home goes with its own.
        env = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
        self._process = subprocess.Popen(
            argv,
            pass_fds=(there, back),
            stdin=quiet,
            stdout=quiet,
            stderr=quiet,
            start_new_session=True,
            env={**env, "HOME": self._home, "TMPDIR": self._home},
        )
        os.close(there)
        os.close(back)
        self._buffer = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the browser and all processes of it."""
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=240)
        os.close(self._in)
        os.close(self._out)
        wait_until(self._removed, what="the browser's folder to be removed")

    def _removed(self) -> bool:
        shutil.rmtree(self._home, ignore_errors=True)
        return not os.path.exists(self._home)

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol. Raises RuntimeError with what the browser answers to a wrong call."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def _receive(self) -> dict[str, Any]:
        """The next message; events are kept, too."""
        end = time.monotonic() + DEADLINE
        while b"\0" not in self._buffer:
            if not select.select([self._in], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError(f"the browser has not answered for {DEADLINE:g} s")
            data = os.read(self._in, 1 << 20)
            if not data:
                raise RuntimeError("the browser is gone")
            self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message

    def page(self, path: Path, width: int = 1280, height: int = 900, **look: Any) -> Page:
        """Open a file in a tab of its own; `look` as of `Page.look`."""
        return Page(self, path, width, height, **look)


class Page:
    """A tab with a file in it."""

    def __init__(self, browser: Browser, path: Path, width: int, height: int, **look: Any) -> None:
        self._browser = browser
        self._target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=self._target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.look(width, height, **look)
        browser.events.clear()
        self.url = path.as_uri()
        self.call("Page.navigate", url=self.url)
        wait_until(lambda: self.js("document.readyState === 'complete' && location.protocol === 'file:'"))
        self.settle()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)

    def close(self) -> None:
        self._browser.call("Target.closeTarget", targetId=self._target)

    def look(
        self,
        width: int,
        height: int,
        *,
        dark: bool = False,
        still: bool = True,
        scale: float = 1,
        touch: bool = False,
    ) -> None:
        """The size of the window, the colours and the motion that the system wants."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=touch
        )
        wishes = {"prefers-color-scheme": "dark" if dark else "light"}
        wishes["prefers-reduced-motion"] = "reduce" if still else "no-preference"
        self.call("Emulation.setEmulatedMedia", features=[{"name": n, "value": v} for n, v in wishes.items()])

    def js(self, expression: str) -> Any:
        """The value of an expression; promises are awaited. Raises RuntimeError for what it throws."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"].get("exception", {}).get("description", str(found)))
        return found["result"].get("value")

    def text(self, selector: str) -> str:
        """The visible text of an element."""
        found: str = self.js(f"document.querySelector({json.dumps(selector)}).innerText")
        return found

    def settle(self) -> None:
        """Wait until what was asked for is done, also what the page put off with a timer of 0 ms, and drawn."""
        drawn = "requestAnimationFrame(() => requestAnimationFrame(done))"
        self.js(f"new Promise(done => setTimeout(() => {drawn}, 0))")

    def click(self, selector: str) -> None:
        """A real click on the middle of an element, which is scrolled into view before."""
        place = self.js(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect(); "
            "return [r.left + r.width / 2, r.top + r.height / 2] })()"
        )
        self.click_at(*place)

    def click_at(self, x: float, y: float) -> None:
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        self.settle()

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press, move, release."""
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        for kind, (x, y) in (("Pressed", start), ("Moved", middle), ("Moved", end), ("Released", end)):
            self.call("Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, button="left", clickCount=1)
        self.settle()

    def key(self, name: str) -> None:
        """Press and release a key."""
        code, text = KEYS[name]
        shared = {"key": name, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **shared, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **shared)
        self.settle()

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)
        self.settle()

    def picture(self, path: Path, full: bool = False) -> None:
        """Take a picture of the window, or of the whole page, as PNG."""
        self.settle()
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        path.write_bytes(base64.b64decode(found["data"]))

    def complaints(self) -> list[str]:
        """What the browser had to say: errors and warnings in its console, and exceptions."""
        self.settle()
        return list(self._complaints())

    def _complaints(self) -> Iterator[str]:
        for event in self._mine():
            told = event["params"]
            if event["method"] == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
                yield told["entry"]["text"]
            elif event["method"] == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
                yield str(told["args"])
            elif event["method"] == "Runtime.exceptionThrown":
                yield str(told["exceptionDetails"])

    def requests(self) -> list[str]:
        """What was asked from anywhere, the page itself and what is written in it (`data:`) left out."""
        found = [event["params"] for event in self._mine() if event["method"] == "Network.requestWillBeSent"]
        urls = [told["request"]["url"] for told in found]
        return [url for url in urls if not url.startswith("data:") and url != self.url]

    def _mine(self) -> list[dict[str, Any]]:
        return [event for event in self._browser.events if event.get("sessionId") == self._session]
