"""A thread that watches the guest: time limits, loops without events, and guests that will never end.

It never touches the engine; it kicks it, and the machine's thread does the rest between two instructions.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from sevplug.core import result

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

# Processor seconds without any event after which a guest counts as busy waiting, and time skips to its next timer.
STALL_SECONDS = 3.0
# Processor seconds between two looks at the CPU, and of how many in a row most have to see the same; the others may
# meet an interrupt handler.
LOOK_SECONDS = 0.5
LOOKS = 30
_WATCH_SECONDS = 0.05
# How late a timer may be on the host's clock while the guest computes.
_HOST_CLOCK_SECONDS = 0.004


class DeadLoop:
    """Tells a loop that will never end from one that computes: the same registers again and again, and no rest."""

    def __init__(self) -> None:
        self._seen: deque[bytes] = deque(maxlen=LOOKS)
        self._io = -1

    def look(self, registers: bytes, io: int, *, rested: bool) -> bool:
        """One look at a CPU.  True: it is in such a loop.

        ``io``: how many port accesses there were so far; ``rested``: whether the CPU was halted since the last look.
        """
        if rested or io != self._io:
            self._seen.clear()
            self._io = io
            return False
        self._seen.append(registers)
        if len(self._seen) < LOOKS:
            return False
        return Counter(self._seen).most_common(1)[0][1] > LOOKS / 2


class Watch:
    """The watch over one machine.  ``kick`` makes its engine call `kicked` soon; it may be called from any thread."""

    def __init__(self, machine: Machine, kick: Callable[[], None]) -> None:
        self._machine = machine
        self._clock = machine.clock
        self._kick = kick
        self._loop = DeadLoop()
        self._stalled = self._looking = self._warned = False
        # The engine says so: the CPU was halted.
        self.rested = False

    @contextlib.contextmanager
    def watching(self, deadline: float) -> Iterator[None]:
        """Watch the calling thread's guest until monotonic time ``deadline`` and beyond, as long as the block lasts."""
        done = threading.Event()
        # Processor time, because a machine that shares its host is slow and not waiting.
        spent = time.pthread_getcpuclockid(threading.get_ident())
        watcher = threading.Thread(target=self._watch, args=(done, spent, deadline), name="sevplug-watch", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    def _watch(self, done: threading.Event, spent: int, deadline: float) -> None:
        clock = self._clock
        seen, since = -1, time.clock_gettime(spent)
        looked = since
        period = _WATCH_SECONDS if clock.virtual else _HOST_CLOCK_SECONDS
        while not done.wait(period):
            now = time.clock_gettime(spent)
            if not clock.virtual:
                if clock.overdue:
                    self._kick()
            elif clock.now != seen:
                seen, since = clock.now, now
            elif now - since >= STALL_SECONDS:
                self._stalled = True
                since = now
                self._kick()
            if now - looked >= LOOK_SECONDS:
                self._looking = True
                looked = now
                self._kick()
            if time.monotonic() >= deadline or self._machine.control.waiting:
                self._kick()

    def kicked(self, registers: bytes) -> None:
        """The machine's thread is between two instructions, with these ``registers``."""
        clock = self._clock
        clock.catch_up()
        if self._stalled:
            self._stalled = False
            clock.skip_to_next()
        if clock.now >= clock.next_deadline:
            clock.run_due()
        if self._looking:
            self._looking = False
            rested, self.rested = self.rested, False
            if self._loop.look(registers, self._machine.counters.io, rested=rested):
                self._hangs()

    def _hangs(self) -> None:
        machine = self._machine
        text = f"a loop that nothing ends, at rip {machine.cpu.rip:#x}"
        if not machine.control.attended:
            machine.end(result.HANG, text)
        elif not self._warned:
            # Whoever is there may know what it waits for.
            self._warned = True
            machine.warn(f"the guest seems to hang: {text}")
