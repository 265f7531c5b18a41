r"""A guest that runs in the test's own thread, and only while the test waits for it.

In virtual time a test that uses no other clock is the same run each time, down to the instruction at which the guest
gets what is typed.
"""

from __future__ import annotations

import contextlib
import re
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from sevplug.board.console import Console, ConsoleError, Pattern, last_lines
from sevplug.core.errors import ConfigError, SevplugError
from sevplug.core.machine import Machine
from sevplug.core.result import QUIT, TIMEOUT, RunResult
from sevplug.core.signals import Interrupted, ended_by_signals

if TYPE_CHECKING:
    from sevplug.core.snapshot.snapshot import Snapshot

T = TypeVar("T")
# Wall seconds that a machine in another thread gets to end.
_PATIENCE = 10.0


class Guest:
    """A machine, its serial console, and its end.

    ``machine``: the machine itself, whose methods belong to the test's thread.  ``timeout``: wall seconds that `expect`
    and `wait` take where they are not told otherwise.
    """

    def __init__(self, machine: Machine, timeout: float = 60.0) -> None:
        self.machine = machine
        self._timeout = timeout
        self._console: Console | None = None
        with contextlib.suppress(ConfigError):
            self._console = Console(machine, timeout)
        self._result: RunResult | None = None
        # A test may have handed the guest to a thread of its own.
        self._running = threading.RLock()
        self._explained = False

    @property
    def console(self) -> Console:
        """The serial console; `ConfigError` where the machine has no serial port (plug-in pc-board is off)."""
        return self._console or Console(self.machine)

    @property
    def output(self) -> bytes:
        """All that the guest said on its serial port (the newest 16 MiB at most); empty where it has none."""
        return b"" if self._console is None else self._console.output

    @property
    def result(self) -> RunResult | None:
        """How the guest ended; None before `wait` has returned."""
        return self._result

    def expect(self, pattern: Pattern, timeout: float | None = None) -> re.Match[bytes]:
        r"""Run the guest until it has said ``pattern``, a regular expression; the match, which is used up.

        Lines end in ``\r\n``.  `ConsoleError`, with the last lines that it said, when ``timeout`` wall seconds pass or
        the guest ends before.
        """
        __tracebackhide__ = True
        try:
            with self._run():
                return self.console.expect(pattern, timeout)
        except ConsoleError as error:
            self._explained = True
            # The test's own line is where to look.
            raise error.with_traceback(None) from None

    def send(self, text: str | bytes) -> None:
        r"""Type ``text``; the key Enter is ``\r``.  `expect` the guest's prompt first."""
        self.console.send(text)

    def wait(self, timeout: float | None = None) -> RunResult:
        """Run the guest to its end, and say how it ended; `ConsoleError` when ``timeout`` wall seconds pass first."""
        __tracebackhide__ = True
        seconds = self._timeout if timeout is None else timeout
        if self._result is None:
            with self._run():
                run = self.machine.run(seconds)
            if run.result == TIMEOUT:
                self._explained = True
                raise ConsoleError(f"the guest did not end within {seconds:g} s; {said(self.output)}")
            self._result = run
        return self._result

    def call(self, function: Callable[[Machine], T]) -> T:
        """What ``function`` returns of the machine; here the same as calling it."""
        return function(self.machine)

    def snapshot(self) -> Snapshot:
        """The guest at this moment; `Machine.snapshot` says when there is none."""
        return self.machine.snapshot()

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to ``snapshot``, whatever has become of the guest since: what it said since was not said."""
        self.machine.restore(snapshot)
        self._result, self._explained = None, False

    def close(self) -> None:
        """End the guest and give everything back, whoever runs it; harmless when called again."""
        if not self._running.acquire(blocking=False):
            self.machine.control.submit(lambda: self.machine.end(QUIT, "the test is over"))
            if not self._running.acquire(timeout=_PATIENCE):
                raise SevplugError(f"the guest did not end within {_PATIENCE:g} s; {said(self.output)}")
        try:
            self.machine.close()
        finally:
            self._running.release()

    @contextlib.contextmanager
    def _run(self) -> Iterator[None]:
        """Within the block the guest may run; Ctrl-C ends it, and then is what it is everywhere else."""
        signals = [signal.SIGINT] if signal.getsignal(signal.SIGINT) is signal.default_int_handler else []
        with self._running:
            interrupted = Interrupted()
            try:
                with ended_by_signals(self.machine, *signals) as interrupted:
                    yield
            finally:
                if interrupted.number is not None:
                    raise KeyboardInterrupt

    def report(self) -> str:
        """How it is with the guest, for whoever looks at a failed test; empty where that was told already."""
        if self._explained:
            return ""
        how = "it did not come to its end" if self._result is None else f"{self._result.result}: {self._result.detail}"
        return f"{how}; {said(self.output)}"


def said(output: bytes) -> str:
    """The last lines of ``output``, as a sentence's end."""
    return f"the last that the guest said:{last_lines(output)}"
