"""The local APIC's timer: a count-down of the 1 GHz bus clock, divided by 1 to 128, once or again and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sevplug.core.clock import Clock, Timer
from sevplug.core.snapshot.fields import load_fields, save_fields

_SAVED = ("initial", "divide", "_shift", "_started", "_periodic")


class ApicTimer:
    """Counts from ``initial`` to zero and calls ``fired``; a tick is ``1 << shift`` nanoseconds."""

    def __init__(self, clock: Clock, fired: Callable[[], None]) -> None:
        self._clock = clock
        self._fired = fired
        self._timer = Timer(self._due)
        self._shift = 1
        self.reset()

    def reset(self) -> None:
        """Stopped, one-shot, divided by two."""
        self.initial = 0
        self.divide = 0
        self._shift = 1
        self._started = 0
        self._periodic = False
        self.stop()

    def save(self) -> dict[str, Any]:
        """The registers and the deadline, as plain data."""
        return {**save_fields(self, _SAVED), "timer": self._clock.save_timer(self._timer)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Put back what `save` gave."""
        load_fields(self, _SAVED, state)
        self._clock.load_timer(self._timer, state["timer"])

    def stop(self) -> None:
        """Disarm."""
        self._clock.cancel(self._timer)

    def start(self, initial: int) -> None:
        """Count down from ``initial`` (32 bits) from now on; 0 stops."""
        self.initial = initial
        self._started = self._clock.now
        self._arm()

    def set_divide(self, register: int) -> None:
        """The divide configuration register: bits 3, 1 and 0 are log2 of the divisor minus one, modulo 8."""
        self.divide = register & 0x0B
        code = (register & 3 | register >> 1 & 4) + 1 & 7
        if code != self._shift:
            self._restart_from(self.current())
            self._shift = code
            self._arm()

    def set_periodic(self, periodic: bool) -> None:
        """The mode, from the LVT entry."""
        if periodic != self._periodic:
            self._restart_from(self.current())
            self._periodic = periodic
            self._arm()

    def current(self) -> int:
        """The count now; 0 when a one-shot has run out."""
        if not self.initial:
            return 0
        ticks = (self._clock.now - self._started) >> self._shift
        if self._periodic:
            return self.initial - ticks % self.initial
        return max(self.initial - ticks, 0)

    def _restart_from(self, count: int) -> None:
        """Go on from ``count`` across a change of mode, as if counting had begun that much earlier."""
        self._started = self._clock.now - ((self.initial - count) << self._shift)

    def _arm(self) -> None:
        if not self.initial:
            self.stop()
            return
        length = self.initial << self._shift
        periods = (self._clock.now - self._started) // length + 1 if self._periodic else 1
        deadline = self._started + periods * length
        if deadline > self._clock.now:
            self._clock.start(self._timer, deadline)
        else:
            self.stop()

    def _due(self) -> None:
        self._fired()
        # The handler of the interrupt runs later, so nobody has changed the mode meanwhile.
        if self._periodic:
            self._arm()
