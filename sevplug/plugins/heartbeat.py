"""A look at a running guest now and then, by the host's clock, on the machine's thread.

A timer of the machine's own would be an event in virtual time: a guest that sleeps for ever would never be told from
one that waits for its next timer.  A kick is none, so a guest that is looked at runs on as it would have.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import Future

    from sevplug.core.machine import Machine


class Heartbeat:
    """Has ``look`` called between two instructions every ``period`` seconds while the guest does something.

    `start`, `stop` and ``period`` belong to the machine's thread.
    """

    def __init__(self, machine: Machine, period: float, look: Callable[[], None]) -> None:
        self._machine = machine
        self.period = period
        self._look = look
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="sevplug-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking; harmless when called again, or before `start`."""
        self._done.set()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _beat(self) -> None:
        machine = self._machine
        seen: dict[str, int] = {}
        asked: Future[None] | None = None
        while not self._done.wait(self.period):
            if machine.status != "running" or (asked is not None and not asked.done()):
                continue
            # Who sleeps is left asleep: to be kicked would pass for being awake.
            before, seen = seen, machine.engine.count()
            if seen != before:
                asked = machine.control.submit(self._look)
