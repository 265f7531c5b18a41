"""Interrupt wires: each source gets a line of its own, and a shared input is high while any source holds it high."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sevplug.core.bus import Device

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

IrqLine = Callable[[bool], None]
"""A wire as its source sees it: call it with the level."""


class SharedInput:
    """One input pin with any number of sources, as PCI's wired-or INTx."""

    def __init__(self, drive: IrqLine) -> None:
        self._drive = drive
        self._high = 0
        self._levels: list[bool] = []

    def line(self) -> IrqLine:
        """A new source; it starts low and may be called again with the level it has."""
        levels, number = self._levels, len(self._levels)
        levels.append(False)

        def set_level(level: bool) -> None:
            if level == levels[number]:
                return
            levels[number] = level
            self._high += 1 if level else -1
            if self._high == (1 if level else 0):
                self._drive(level)

        return set_level

    def save(self) -> list[bool]:
        """The level of each source, in the order of `line`."""
        return list(self._levels)

    def load(self, levels: list[bool]) -> None:
        """Put back what `save` gave; the input itself is restored by whoever has it."""
        if len(levels) != len(self._levels):
            raise ValueError(f"{len(levels)} sources of an input that has {len(self._levels)}")
        self._levels[:] = [bool(level) for level in levels]
        self._high = sum(self._levels)


class IrqRouter(Device):
    """The 16 ISA interrupts, each wired to the 8259 pair and to the I/O APIC.

    IRQ 0 arrives at pin 2 of the I/O APIC, the others at the pin of their number (QEMU's hw/intc/ioapic.c and the
    interrupt source override of its MADT).
    """

    name = "irq"

    def __init__(self, pic: Callable[[int, bool], None], io_apic: Callable[[int, bool], None]) -> None:
        self._inputs = [SharedInput(self._driver(irq, pic, io_apic)) for irq in range(16)]

    @staticmethod
    def _driver(irq: int, pic: Callable[[int, bool], None], io_apic: Callable[[int, bool], None]) -> IrqLine:
        pin = 2 if irq == 0 else irq

        def drive(level: bool) -> None:
            pic(irq, level)
            io_apic(pin, level)

        return drive

    def attach(self, machine: Machine) -> None:
        """Wires claim nothing."""

    def line(self, irq: int) -> IrqLine:
        """A new source of ISA interrupt ``irq`` (0..15)."""
        return self._inputs[irq].line()

    def save(self) -> dict[str, Any]:
        return {"inputs": [one.save() for one in self._inputs]}

    def load(self, state: Mapping[str, Any]) -> None:
        for one, levels in zip(self._inputs, state["inputs"], strict=True):
            one.load(levels)
