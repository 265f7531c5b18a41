"""Virtual time: nanoseconds that pass by events, not by the host's clock.

Each event in the guest (an I/O access, an intercept) costs a fixed amount; HLT skips to the next timer.  So two runs of
one machine see the same time at the same place.  `HostClock` is for those who want wall time instead.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable

import attrs


@attrs.define(eq=False)
class Timer:
    """A callback that is due at a point of virtual time; `Clock.start` and `Clock.cancel` control it."""

    callback: Callable[[], None]
    deadline: int | None = None
    _generation: int = 0


class Clock:
    """Virtual nanoseconds since power-on and the timers that wait for them."""

    virtual = True

    def __init__(self) -> None:
        self.now = 0
        self._queue: list[tuple[int, int, int, Timer]] = []
        self._sequence = 0
        # The earliest deadline, kept as a plain number because the run loop compares it at each event.
        self.next_deadline: float = float("inf")

    def advance(self, nanoseconds: int) -> None:
        """Let virtual time pass; due timers are run by `run_due`, not here."""
        self.now += nanoseconds

    def start(self, timer: Timer, deadline: int) -> None:
        """(Re)arm ``timer`` for virtual time ``deadline`` (ns since power-on)."""
        timer.deadline = deadline
        timer._generation += 1
        self._sequence += 1
        heapq.heappush(self._queue, (deadline, self._sequence, timer._generation, timer))
        self._refresh()

    def cancel(self, timer: Timer) -> None:
        """Disarm ``timer``; harmless when it was not armed."""
        timer.deadline = None
        timer._generation += 1
        self._refresh()

    def run_due(self) -> None:
        """Run each timer whose deadline has passed, earliest first."""
        while self.next_deadline <= self.now:
            _deadline, _sequence, _generation, timer = heapq.heappop(self._queue)
            timer.deadline = None
            timer._generation += 1
            self._refresh()
            timer.callback()

    def skip_to_next(self) -> bool:
        """Move time to the next deadline, as a halted CPU does.  False when no timer is armed."""
        if self.next_deadline == float("inf"):
            return False
        self.now = max(self.now, int(self.next_deadline))
        return True

    @property
    def overdue(self) -> bool:
        """Whether a timer waits for `catch_up` only; may be asked by any thread."""
        return False

    def catch_up(self) -> None:
        """Let the time pass that has passed without an event; virtual time never does."""

    def stand_still(self) -> None:
        """The guest does not run from now on, and no time is to pass; virtual time does not anyway."""

    def go_on(self) -> None:
        """The guest runs again; harmless when it did."""

    def _refresh(self) -> None:
        queue = self._queue
        while queue and queue[0][2] != queue[0][3]._generation:
            heapq.heappop(queue)
        self.next_deadline = queue[0][0] if queue else float("inf")


class HostClock(Clock):
    """The host's monotonic clock: two runs differ, a guest's seconds are a person's seconds."""

    virtual = False

    def __init__(self) -> None:
        super().__init__()
        self._origin = time.monotonic_ns()
        # Since when it stands still.
        self._standing: int | None = None

    def advance(self, nanoseconds: int) -> None:
        self.catch_up()

    @property
    def overdue(self) -> bool:
        return self._elapsed() >= self.next_deadline

    def catch_up(self) -> None:
        self.now = self._elapsed()

    def stand_still(self) -> None:
        if self._standing is None:
            self._standing = time.monotonic_ns()

    def go_on(self) -> None:
        if self._standing is not None:
            self._origin += time.monotonic_ns() - self._standing
            self._standing = None

    def _elapsed(self) -> int:
        standing = self._standing
        return (time.monotonic_ns() if standing is None else standing) - self._origin

    def skip_to_next(self) -> bool:
        if self.next_deadline == float("inf"):
            return False
        wait = int(self.next_deadline) - self._elapsed()
        if wait > 0:
            # In short steps, so that a request from another thread is not kept waiting for a far timer.
            time.sleep(min(wait, 10_000_000) / 1e9)
        self.catch_up()
        return True
