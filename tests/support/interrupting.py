"""An interrupt controller for tests: the guest raises an interrupt by a port write, at once or by a timer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sevplug.core.bus import Device
from sevplug.core.clock import Timer
from sevplug.core.hookspecs import hookimpl
from sevplug.core.machine import Machine

RAISE_PORT, TIMER_PORT, PERIODIC_PORT = 0x90, 0x91, 0x92
TIMER_VECTOR = 0x21
MICROSECOND = 1000


class TestInterrupts(Device):
    """OUT 0x90, vector: raise it now.  OUT 0x91, n: raise 0x21 in n microseconds of virtual time.

    OUT 0x92, n: raise 0x21 each n microseconds.  ``taken`` holds the vectors that the CPU acknowledged.
    """

    __test__ = False

    def __init__(self) -> None:
        self.pending: list[int] = []
        self.taken: list[int] = []
        # The interrupts to come: (microseconds, periodic, timer).
        self.timers: list[tuple[int, bool, Timer]] = []

    def attach(self, machine: Machine) -> None:
        self.machine = machine
        machine.interrupt_source = self
        ports = machine.bus.claim_ports
        ports(RAISE_PORT, 1, None, lambda _port, _size, vector: self.raise_vector(vector), "test interrupts")
        ports(TIMER_PORT, 1, None, lambda _port, _size, value: self._arm(value, periodic=False), "test interrupts")
        ports(PERIODIC_PORT, 1, None, lambda _port, _size, value: self._arm(value, periodic=True), "test interrupts")

    def _arm(self, microseconds: int, *, periodic: bool) -> None:
        clock = self.machine.clock
        clock.start(self._timer(microseconds, periodic), clock.now + microseconds * MICROSECOND)

    def _timer(self, microseconds: int, periodic: bool) -> Timer:
        def fire() -> None:
            self.timers.remove(entry)
            self.raise_vector(TIMER_VECTOR)
            if periodic:
                self._arm(microseconds, periodic=True)

        entry = (microseconds, periodic, Timer(fire))
        self.timers.append(entry)
        return entry[2]

    def save(self) -> dict[str, Any]:
        clock = self.machine.clock
        timers = [[length, periodic, clock.save_timer(timer)] for length, periodic, timer in self.timers]
        return {"pending": list(self.pending), "taken": list(self.taken), "timers": timers}

    def load(self, state: Mapping[str, Any]) -> None:
        self.pending, self.taken = list(state["pending"]), list(state["taken"])
        self.timers.clear()
        for length, periodic, armed in state["timers"]:
            self.machine.clock.load_timer(self._timer(length, periodic), armed)

    def raise_vector(self, vector: int) -> None:
        self.pending.append(vector)
        self.machine.cpu.set_interrupt_line(True)

    def acknowledge(self) -> int | None:
        vector = self.pending.pop(0)
        self.taken.append(vector)
        self.machine.cpu.set_interrupt_line(bool(self.pending))
        return vector


class TestInterruptsPlugin:
    """Brings the controller."""

    name = "test-interrupts"
    __test__ = False

    def __init__(self) -> None:
        self.device = TestInterrupts()

    @hookimpl
    def snapshot_save(self) -> None:
        """The controller saves itself."""

    @hookimpl
    def add_devices(self, machine: Machine) -> None:
        machine.add_device(self.device)
