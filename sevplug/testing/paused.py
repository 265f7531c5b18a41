"""A guest that waits for its owner: paused, on a thread of its own, with a QMP server."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sevplug.board.console import ConsoleError, Heard, Pattern, serial_of, typed, unheard
from sevplug.core.errors import ConfigError, SevplugError
from sevplug.core.machine import Machine
from sevplug.core.result import RunResult
from sevplug.testing.guest import said
from sevplug.testing.machine_thread import MachineThread

T = TypeVar("T")
_PAUSED = ", and it is paused: QMP's cont, or resume(), lets it run"


class PausedGuest:
    """A guest that was launched and does not run before it is told to; it lives as in a process of its own.

    ``qmp``: the path of its server's UNIX socket, which serves one client at a time and hangs up when the guest has
    ended.  ``timeout``: wall seconds that `expect` and `wait` take where they are not told otherwise.
    """

    def __init__(self, machine: Machine, qmp: Path, timeout: float = 60.0) -> None:
        self.qmp = qmp
        self._timeout = timeout
        self._machine = machine
        self._heard = Heard()
        self._told = threading.Condition()  # the guest said something, or is over
        self._over = False
        self._explained = False
        with contextlib.suppress(ConfigError):
            serial_of(machine).on_output.append(self._hear)
        self._thread = MachineThread(machine, self._ended)

    @property
    def qmp_address(self) -> str:
        """The socket as ``--qmp`` spells it: ``unix:PATH``."""
        return f"unix:{self.qmp}"

    @property
    def output(self) -> bytes:
        """All that the guest said on its serial port (the newest 16 MiB at most); empty where it has none."""
        with contextlib.suppress(ConfigError):
            return bytes(serial_of(self._machine).output)
        return b""

    @property
    def result(self) -> RunResult | None:
        """How the guest ended; None while it lives."""
        return self._thread.result

    @property
    def summary(self) -> dict[str, Any]:
        """The run as ``--summary`` writes it; empty while the guest lives."""
        return self._thread.summary

    def expect(self, pattern: Pattern, timeout: float | None = None) -> re.Match[bytes]:
        r"""Wait until the guest has said ``pattern``, a regular expression; the match, which is used up.

        Lines end in ``\r\n``.  `ConsoleError`, with the last lines that it said, when ``timeout`` wall seconds pass or
        the guest ends before.  `ConfigError` where the machine has no serial port (plug-in pc-board is off).
        """
        __tracebackhide__ = True
        seconds = self._timeout if timeout is None else timeout
        heard, serial = self._heard, serial_of(self._machine)
        try:
            with self._told:
                heard.wait_for(pattern)
                self._told.wait_for(lambda: heard.found or self._over, seconds)
            if not heard.found:
                # Half a line, which virtual time would bring later; a guest that is over or hangs has no more.
                with contextlib.suppress(SevplugError):
                    self._thread.call(lambda _machine: serial.flush())
        finally:
            with self._told:
                found = heard.take()
        if found is None:
            self._thread.check()
            self._explained = True
            raise unheard(pattern, "did not come " + self._why(seconds), self.output)
        return found

    def send(self, text: str | bytes) -> None:
        r"""Type ``text``; the key Enter is ``\r``.  `expect` the guest's prompt first."""
        self._thread.call(lambda machine: serial_of(machine).feed(typed(text)))

    def resume(self) -> None:
        """Let the guest run, as QMP's ``cont`` does."""
        self._thread.call(Machine.resume)

    def wait(self, timeout: float | None = None) -> RunResult:
        """Wait for the guest's end, and say how it ended; `ConsoleError` when ``timeout`` wall seconds pass first."""
        __tracebackhide__ = True
        seconds = self._timeout if timeout is None else timeout
        with self._told:
            self._told.wait_for(lambda: self._over, seconds)
        self._thread.check()
        if self.result is None:
            self._explained = True
            raise ConsoleError(f"the guest did not end {self._why(seconds)}; {said(self.output)}")
        return self.result

    def call(self, function: Callable[[Machine], T]) -> T:
        """Have the machine's thread call ``function`` with the machine; what it returns.

        `SevplugError` when the guest has ended.
        """
        return self._thread.call(function)

    def close(self) -> None:
        """End the guest and give everything back; harmless when called again."""
        self._thread.end()

    def report(self) -> str:
        """How it is with the guest, for whoever looks at a failed test; empty where that was told already."""
        if self._explained:
            return ""
        how = "it failed" if self.result is None else f"{self.result.result}: {self.result.detail}"
        return f"{how}; {said(self.output)}"

    def _hear(self, piece: bytes) -> None:
        with self._told:
            self._heard.hear(piece)
            self._told.notify_all()

    def _ended(self) -> None:
        with self._told:
            self._over = True
            self._told.notify_all()

    def _why(self, seconds: float) -> str:
        if self._over:
            return "before the guest ended"
        status = self._machine.status
        return f"within {seconds:g} s{_PAUSED if status in ('prelaunch', 'paused') else ''}"
