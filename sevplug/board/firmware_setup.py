"""What firmware leaves set up, where there is none and a kernel is started directly.

The local APIC passes the 8259 pair's interrupts on (virtual wire mode), which a kernel that keeps away from the APIC
relies on.  PCI's interrupt router gets its targets, these become level-triggered, and each function's interrupt line
register says which interrupt it will raise: a kernel without ACPI tables believes that register.  As SeaBIOS'
src/fw/smp.c and src/fw/pciinit.c.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sevplug.board.local_apic import BASE
from sevplug.board.pci import ADDRESS, DATA
from sevplug.board.pci_function import INTERRUPT_LINE, INTERRUPT_PIN, VENDOR
from sevplug.core.bus import Device

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

# The local APIC's registers: spurious vector, with the software enable bit; LINT0 as the 8259s' input; LINT1 as NMI.
_VIRTUAL_WIRE = ((0xF0, 0x1FF), (0x350, 0x8700), (0x360, 0x8400))
# The ISA interrupts behind PIRQ A to D.
ROUTES = (10, 10, 11, 11)
_ISA_BRIDGE, _PIRQ_ROUTE = 1 << 3, 0x60
_LEVEL_CONTROL = 0x4D0
# The power management function has a fixed interrupt of its own.
_POWER_MANAGEMENT, _POWER_MANAGEMENT_IRQ = 1 << 3 | 3, 9
_PLACES = 256


class FirmwareSetup(Device):
    """Does it at power-on and after each reset; added behind the devices that it sets up."""

    name = "firmware setup"

    def attach(self, machine: Machine) -> None:
        self._bus = machine.bus
        self._program()

    def reset(self) -> None:
        self._program()

    def save(self) -> dict[str, Any]:
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """What it has set up, others hold."""

    def _program(self) -> None:
        for register, value in _VIRTUAL_WIRE:
            self._bus.mmio_write(BASE + register, 4, value)
        levels = sum(1 << irq for irq in set(ROUTES))
        self._bus.io_write(_LEVEL_CONTROL, 1, levels & 0xFF)
        self._bus.io_write(_LEVEL_CONTROL + 1, 1, levels >> 8)
        for pirq, irq in enumerate(ROUTES):
            self._config_write(_ISA_BRIDGE, _PIRQ_ROUTE + pirq, irq)
        for place in range(_PLACES):
            if self._config_read(place, VENDOR) == 0xFF:
                continue
            pin = self._config_read(place, INTERRUPT_PIN)
            if place == _POWER_MANAGEMENT:
                self._config_write(place, INTERRUPT_LINE, _POWER_MANAGEMENT_IRQ)
            elif pin:
                # The board's swizzle, see IsaBridge.line.
                self._config_write(place, INTERRUPT_LINE, ROUTES[((place >> 3) + pin - 2) & 3])
        self._bus.io_write(ADDRESS, 4, 0)

    def _config_read(self, place: int, register: int) -> int:
        self._select(place, register)
        return self._bus.io_read(DATA + (register & 3), 1)

    def _config_write(self, place: int, register: int, value: int) -> None:
        self._select(place, register)
        self._bus.io_write(DATA + (register & 3), 1, value)

    def _select(self, place: int, register: int) -> None:
        self._bus.io_write(ADDRESS, 4, 1 << 31 | place << 8 | register & 0xFC)
