"""Virtual time: nanoseconds that pass by events, not by the host's clock.

Each event in the guest (an I/O access, an intercept) costs a fixed amount; HLT skips to the next timer.  So two runs of
one machine see the same time at the same place.  `HostClock` is for those who want wall time instead.
"""

from __future__ import annotations

import heapq
import time
from array import array
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

# The next deadline where no timer is armed.
NEVER: Final = (1 << 64) - 1
# Where `Clock.times` has what time it is, and when the next timer is due.
NOW, DEADLINE = 0, 1


@attrs.define(eq=False)
class Timer:
    """A callback that is due at a point of virtual time; `Clock.start` and `Clock.cancel` control it."""

    callback: Callable[[], None]
    deadline: int | None = None
    _generation: int = 0
    # Of those that are due at once, the lower one is run first.
    _sequence: int = 0


class Clock:
    """Virtual nanoseconds since power-on and the timers that wait for them."""

    virtual = True

    def __init__(self) -> None:
        # What time it is and the earliest deadline, as plain numbers because the run loop compares them at each event,
        # in an array because compiled code does it too.
        self.times = array("Q", [0, NEVER])
        self._queue: list[tuple[int, int, int, Timer]] = []
        self._sequence = 0
        self._saved: list[Timer] = []

    @property
    def now(self) -> int:
        """Virtual nanoseconds since power-on."""
        return self.times[NOW]

    @property
    def next_deadline(self) -> int:
        """When the next timer is due, `NEVER` where none is armed."""
        return self.times[DEADLINE]

    def advance(self, nanoseconds: int) -> None:
        """Let virtual time pass; due timers are run by `run_due`, not here."""
        self.times[NOW] += nanoseconds

    def start(self, timer: Timer, deadline: int) -> None:
        """(Re)arm ``timer`` for virtual time ``deadline`` (ns since power-on)."""
        timer.deadline = deadline
        timer._generation += 1
        self._sequence += 1
        self._push(timer, deadline, self._sequence)

    def _push(self, timer: Timer, deadline: int, sequence: int) -> None:
        timer._sequence = sequence
        heapq.heappush(self._queue, (deadline, sequence, timer._generation, timer))
        self._refresh()

    def cancel(self, timer: Timer) -> None:
        """Disarm ``timer``; harmless when it was not armed."""
        timer.deadline = None
        timer._generation += 1
        self._refresh()

    def run_due(self) -> None:
        """Run each timer whose deadline has passed, earliest first."""
        times = self.times
        while times[DEADLINE] <= times[NOW]:
            _deadline, _sequence, _generation, timer = heapq.heappop(self._queue)
            timer.deadline = None
            timer._generation += 1
            self._refresh()
            timer.callback()

    def skip_to_next(self) -> bool:
        """Move time to the next deadline, as a halted CPU does.  False when no timer is armed."""
        if self.next_deadline == NEVER:
            return False
        self.times[NOW] = max(self.now, self.next_deadline)
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

    # -- snapshots -------------------------------------------------------------------------------------------------

    def save(self) -> dict[str, Any]:
        """The time, as plain data.  Whoever owns a timer saves it by `save_timer`, behind this."""
        self.catch_up()
        self._saved = []
        return {"now": self.now, "sequence": self._sequence}

    def load(self, state: Mapping[str, Any]) -> None:
        """The time is what `save` said, and stands still; no timer is armed: those who own one load it behind this.

        KeyError, TypeError or ValueError for anything else.
        """
        now, sequence = _time(state["now"]), int(state["sequence"])
        for _deadline, _sequence, _generation, timer in self._queue:
            timer.deadline = None
            timer._generation += 1
        self._queue.clear()
        self._refresh()
        self._set(now)
        self._sequence = sequence

    def save_timer(self, timer: Timer) -> list[int] | None:
        """``timer`` as plain data: when it is due and its place among those due at once, None when it is not armed."""
        self._saved.append(timer)
        return None if timer.deadline is None else [timer.deadline, timer._sequence]

    def load_timer(self, timer: Timer, state: list[int] | None) -> None:
        """Arm ``timer`` as `save_timer` found it."""
        self.cancel(timer)
        if state is not None:
            deadline, sequence = _time(state[0]), int(state[1])
            timer.deadline = deadline
            self._push(timer, deadline, sequence)

    def unsaved(self) -> list[Timer]:
        """The armed timers that nobody has saved since `save`."""
        saved = {id(timer) for timer in self._saved}
        armed = [entry[3] for entry in self._queue if entry[2] == entry[3]._generation]
        return [timer for timer in armed if id(timer) not in saved]

    def _set(self, now: int) -> None:
        self.times[NOW] = now

    def _refresh(self) -> None:
        queue = self._queue
        while queue and queue[0][2] != queue[0][3]._generation:
            heapq.heappop(queue)
        self.times[DEADLINE] = queue[0][0] if queue else NEVER


def _time(value: Any) -> int:
    """Nanoseconds since power-on that were saved."""
    found = int(value)
    if not 0 <= found < NEVER:
        raise ValueError("a time that no clock shows")
    return found


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

    def _set(self, now: int) -> None:
        # The time in which nothing ran has not passed, nor will any before the guest runs.
        self._standing = time.monotonic_ns()
        self._origin, self.times[NOW] = self._standing - now, now

    def catch_up(self) -> None:
        self.times[NOW] = self._elapsed()

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
        if self.next_deadline == NEVER:
            return False
        wait = self.next_deadline - self._elapsed()
        if wait > 0:
            # In short steps, so that a request from another thread is not kept waiting for a far timer.
            time.sleep(min(wait, 10_000_000) / 1e9)
        self.catch_up()
        return True
