"""An interrupt controller for tests: the guest raises an interrupt by a port write, at once or by a timer."""

from __future__ import annotations

from functools import partial

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

    def attach(self, machine: Machine) -> None:
        self.machine = machine
        machine.interrupt_source = self
        ports = machine.bus.claim_ports
        ports(RAISE_PORT, 1, None, lambda _port, _size, vector: self.raise_vector(vector), "test interrupts")
        ports(TIMER_PORT, 1, None, lambda _port, _size, value: self._arm(value, periodic=False), "test interrupts")
        ports(PERIODIC_PORT, 1, None, lambda _port, _size, value: self._arm(value, periodic=True), "test interrupts")

    def _arm(self, microseconds: int, *, periodic: bool) -> None:
        clock = self.machine.clock
        timer = Timer(partial(self._fire, microseconds, periodic))
        clock.start(timer, clock.now + microseconds * MICROSECOND)

    def _fire(self, microseconds: int, periodic: bool) -> None:
        self.raise_vector(TIMER_VECTOR)
        if periodic:
            self._arm(microseconds, periodic=True)

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
    def add_devices(self, machine: Machine) -> None:
        machine.add_device(self.device)
