"""Interrupt wires: each source gets a line of its own, and a shared input is high while any source holds it high."""

from __future__ import annotations

from collections.abc import Callable

IrqLine = Callable[[bool], None]
"""A wire as its source sees it: call it with the level."""


class SharedInput:
    """One input pin with any number of sources, as PCI's wired-or INTx."""

    def __init__(self, drive: IrqLine) -> None:
        self._drive = drive
        self._high = 0

    def line(self) -> IrqLine:
        """A new source; it starts low and may be called again with the level it has."""
        state = False

        def set_level(level: bool) -> None:
            nonlocal state
            if level == state:
                return
            state = level
            self._high += 1 if level else -1
            if self._high == (1 if level else 0):
                self._drive(level)

        return set_level


class IrqRouter:
    """The 16 ISA interrupts, each wired to the 8259 pair and to the I/O APIC.

    IRQ 0 arrives at pin 2 of the I/O APIC, the others at the pin of their number (QEMU's hw/intc/ioapic.c and the
    interrupt source override of its MADT).
    """

    def __init__(self, pic: Callable[[int, bool], None], io_apic: Callable[[int, bool], None]) -> None:
        self._inputs = [SharedInput(self._driver(irq, pic, io_apic)) for irq in range(16)]

    @staticmethod
    def _driver(irq: int, pic: Callable[[int, bool], None], io_apic: Callable[[int, bool], None]) -> IrqLine:
        pin = 2 if irq == 0 else irq

        def drive(level: bool) -> None:
            pic(irq, level)
            io_apic(pin, level)

        return drive

    def line(self, irq: int) -> IrqLine:
        """A new source of ISA interrupt ``irq`` (0..15)."""
        return self._inputs[irq].line()
