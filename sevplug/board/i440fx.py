"""The chip set's own PCI functions: the 82441FX host bridge and the PIIX3 ISA bridge with its interrupt steering.

Power-on values are those of QEMU's pc-i440fx (hw/pci-host/i440fx.c, hw/isa/piix3.c).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sevplug.board.irq import IrqLine, IrqRouter, SharedInput
from sevplug.board.pci_function import STATUS, PciFunction
from sevplug.core.snapshot.fields import load_fields, save_fields

INTEL = 0x8086
_PIRQ_ROUTE = 0x60
_PIRQ_OFF = 0x80


class HostBridge(PciFunction):
    """00:00.0.  The PAM and SMRAM registers are kept; all of low memory is RAM whatever they say."""

    def __init__(self, ram_size: int) -> None:
        super().__init__("host bridge", INTEL, 0x1237, 0x060000, revision=2)
        # QEMU's I440FX_COREBOOT_RAM_SIZE, in units of 8 MiB.
        self.preset(0x57, 1, min(ram_size >> 23, 0xFF))
        self.preset(0x72, 1, 0x02)  # SMRAM
        self.allow_writes(0x40, 0xC0)


class IsaBridge(PciFunction):
    """00:01.0.  Steers the four PCI interrupts to the ISA interrupts that the guest chooses."""

    def __init__(self, router: IrqRouter) -> None:
        super().__init__("ISA bridge", INTEL, 0x7000, 0x060100, multifunction=True)
        self.preset(STATUS, 2, 0x0200)
        for offset, value in (
            (0x4C, 0x4D), (0x4E, 0x03), (0x60, 0x80), (0x61, 0x80), (0x62, 0x80), (0x63, 0x80), (0x69, 0x02),
            (0x70, 0x80), (0x76, 0x0C), (0x77, 0x0C), (0x78, 0x02), (0xA0, 0x08), (0xA8, 0x0F),
        ):  # fmt: skip
            self.preset(offset, 1, value)
        self.allow_writes(0x40, 0xC0)
        self._levels = [False] * 4
        self._routes = [_PIRQ_OFF] * 4
        # A source on each ISA interrupt for each PIRQ.
        self._lines = [[router.line(irq) for irq in range(16)] for _ in range(4)]
        self._inputs = [SharedInput(self._pin(pirq)) for pirq in range(4)]

    def save(self) -> dict[str, Any]:
        inputs = [one.save() for one in self._inputs]
        return {**super().save(), **save_fields(self, ("_levels", "_routes")), "inputs": inputs}

    def load(self, state: Mapping[str, Any]) -> None:
        super().load(state)
        if len(state["levels"]) != 4 or len(state["routes"]) != 4:
            raise ValueError("expected four interrupts")
        load_fields(self, ("_levels", "_routes"), state)
        for one, levels in zip(self._inputs, state["inputs"], strict=True):
            one.load(levels)

    def line(self, slot: int, pin: int) -> IrqLine:
        """A new source at INT``pin`` (1 = A) of ``slot``, swizzled as on QEMU's board (pci_slot_get_pirq)."""
        return self._inputs[(slot + pin - 2) & 3].line()

    def _pin(self, pirq: int) -> IrqLine:
        def drive(level: bool) -> None:
            self._levels[pirq] = level
            self._drive(pirq, level)

        return drive

    def _drive(self, pirq: int, level: bool) -> None:
        route = self._routes[pirq]
        if route < 16:
            self._lines[pirq][route](level)

    def written(self, offset: int, size: int) -> None:
        if offset > _PIRQ_ROUTE + 3 or offset + size <= _PIRQ_ROUTE:
            return
        for pirq in range(4):
            if self._routes[pirq] != self.config[_PIRQ_ROUTE + pirq]:
                self._drive(pirq, False)
                self._routes[pirq] = self.config[_PIRQ_ROUTE + pirq]
                self._drive(pirq, self._levels[pirq])
