"""Ctrl-C and SIGTERM while a guest runs.

Python runs signal handlers between bytecodes only, and a guest may keep the engine in C for minutes; an exception
raised inside one of the engine's callbacks would be lost.  So the handlers do nothing, and a thread that the
interpreter wakes from C asks the machine to end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import attrs

from sevplug.core.machine import Machine
from sevplug.core.result import QUIT


@attrs.define
class Interrupted:
    """Which signal ended the run; None when none did."""

    number: int | None = None

    @property
    def status(self) -> int | None:
        """The shell's exit status for a death by that signal: 130 for Ctrl-C."""
        return None if self.number is None else 128 + self.number


@contextlib.contextmanager
def ended_by_signals(machine: Machine, *signals: signal.Signals) -> Iterator[Interrupted]:
    """Within the block, ``signals`` end ``machine``'s run in order; outside the main thread nothing changes."""
    interrupted = Interrupted()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def end() -> None:
        machine.end(QUIT, f"interrupted by {signal.Signals(interrupted.number or 0).name}")

    def wait() -> None:
        while data := os.read(reading, 1):
            if data[0] not in signals:
                continue
            interrupted.number = data[0]
            machine.control.submit(end)

    waiter = threading.Thread(target=wait, name="sevplug-signals", daemon=True)
    previous = [signal.signal(number, _ignore) for number in signals]
    previous_descriptor = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    waiter.start()
    try:
        yield interrupted
    finally:
        signal.set_wakeup_fd(previous_descriptor)
        for number, handler in zip(signals, previous, strict=True):
            signal.signal(number, handler)
        os.close(writing)
        waiter.join()
        os.close(reading)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Keep Python from raising KeyboardInterrupt; the wake-up descriptor carries the news."""
