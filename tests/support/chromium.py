"""A real headless Chromium, spoken to by the DevTools protocol over a pair of pipes: no driver, no port, no network.

Source: https://chromedevtools.github.io/devtools-protocol/, and ``--remote-debugging-pipe`` (messages end in a NUL,
descriptor 3 is read and 4 is written by the browser).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
from parts import find_tool

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


@attrs.define
class Page:
    """One tab.  ``events``: what the browser told of it since the page was opened, by method."""

    _writing: int
    _reading: int
    _session: str = ""
    _buffer: bytes = b""
    _last: int = 0
    events: list[tuple[str, dict[str, Any]]] = attrs.field(factory=list)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command, and its result."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive(60)
            if answer.get("id") == message["id"]:
                assert "error" not in answer, answer
                found: dict[str, Any] = answer["result"]
                return found

    def wait_for(self, method: str, seconds: float = 60) -> None:
        """Return when the browser has told of ``method``."""
        while not any(name == method for name, _parameters in self.events):
            self._receive(seconds)

    def _receive(self, seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            left = deadline - time.monotonic()
            assert left > 0, "the browser does not answer"
            if select.select([self._reading], [], [], left)[0]:
                piece = os.read(self._reading, 1 << 20)
                assert piece, "the browser has gone"
                self._buffer += piece
        line, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        if "method" in message:
            self.events.append((message["method"], message["params"]))
        return message

    def open(self, path: Path, *, width: int, dark: bool, scripts: bool = True, print_media: bool = False) -> None:
        """Show the file at ``path`` in a window of ``width`` CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme], media="print" if print_media else "screen")
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.wait_for("Page.loadEventFired")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, which is run whatever the page's own policy says."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG."""
        done = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(done["data"]))

    @property
    def complaints(self) -> list[dict[str, Any]]:
        """Console messages, log entries and exceptions."""
        names = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [parameters for name, parameters in self.events if name in names]

    @property
    def requests(self) -> list[str]:
        """The addresses of everything that was asked for."""
        return [parameters["request"]["url"] for name, parameters in self.events if name == "Network.requestWillBeSent"]


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """A browser with an empty profile in ``folder``; a skip where there is none."""
    program = find_tool("chromium", "chromium")
    its_input, writing = os.pipe()
    reading, its_output = os.pipe()

    def pipes() -> None:
        # Both may be 3 or 4 themselves.
        first, second = os.dup(its_input), os.dup(its_output)
        os.dup2(first, 3)
        os.dup2(second, 4)

    process = subprocess.Popen(
        [program, *_FLAGS, f"--user-data-dir={folder}", "about:blank"],
        preexec_fn=pipes,
        close_fds=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(its_input)
    os.close(its_output)
    try:
        page = Page(writing, reading)
        target = page.call("Target.createTarget", url="about:blank")["targetId"]
        page._session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        yield page
        page._session = ""
        with contextlib.suppress(AssertionError, OSError):
            page.call("Browser.close")
        process.wait(20)
    finally:
        process.kill()
        process.wait()
        os.close(writing)
        os.close(reading)
