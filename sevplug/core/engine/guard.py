"""What holds for each of the engine's callbacks: time passes, and no exception leaves it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sevplug.core.clock import DEADLINE, NOW, Clock
from sevplug.core.engine import internals as at
from sevplug.core.engine.internals import CpuState

# Virtual nanoseconds that one I/O access or intercepted instruction takes, about what it takes on hardware.
EVENT_NS = 1000


class Guard:
    """Of one engine; ``stop`` ends its loop after the present instruction."""

    def __init__(self, clock: Clock, state: CpuState, stop: Callable[[], None]) -> None:
        self._clock, self._state, self._stop = clock, state, stop
        self._times, self._virtual = clock.times, clock.virtual
        self._failure: BaseException | None = None

    def tick(self) -> None:
        """An event's time passes, and timers that are due run."""
        times = self._times
        if self._virtual:
            times[NOW] += EVENT_NS
        else:
            self._clock.advance(EVENT_NS)
        if times[NOW] >= times[DEADLINE]:
            self._clock.run_due()

    def run(self, action: Callable[[], Any], otherwise: Any) -> Any:
        """Run a device's handler as one event; ``otherwise`` is the result where it fails."""
        try:
            self.tick()
            return action()
        except BaseException as error:
            self.fail(error)
            return otherwise

    def fail(self, error: BaseException) -> None:
        """Keep an exception, which must not pass through the engine's C frames, until the engine has returned."""
        if self._failure is None:
            self._failure = error
        # The engine looks for interrupts before it looks whether it is to stop.
        self._state.withdraw(at.REQUEST_IRQ_BYTE)
        self._stop()

    def settle(self) -> None:
        """The engine has returned: raise what was kept."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def forget(self) -> None:
        """What failed belongs to a life that is over."""
        self._failure = None
