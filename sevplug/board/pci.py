"""PCI configuration mechanism #1 at 0xCF8/0xCFC, the decoding of BARs, and the reset control register at 0xCF9.

After the PCI Local Bus Specification 3.0, section 3.2.2.3.2, and QEMU's hw/pci/pci_host.c.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sevplug.board.irq import IrqLine
from sevplug.board.pci_function import BarKind, PciBar, PciFunction
from sevplug.core.bus import Device, MmioRange
from sevplug.core.errors import ConfigError

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

ADDRESS, RESET_CONTROL, DATA = 0xCF8, 0xCF9, 0xCFC
_ENABLE = 1 << 31
WINDOW_END = 0xFEC0_0000
"""Memory BARs are decoded from the end of low memory up to here, where the I/O APIC is."""

InterruptRoute = Callable[[int, int], IrqLine]
"""(slot, pin 1..4) -> a new source of the interrupt behind that pin."""


class PciHost(Device):
    """Bus 0; ``machine.private["pci"]``.  ``route`` wires the INTx pins of functions that are added."""

    name = "pci"

    def __init__(self, route: InterruptRoute) -> None:
        self._route = route
        self._functions: dict[int, PciFunction] = {}
        self._window: MmioRange | None = None
        self._address = 0
        self._reset_control = 0

    def attach(self, machine: Machine) -> None:
        self._machine = machine
        self._bus = machine.bus
        self._bus.claim_ports(ADDRESS, 4, self._read_address, self._write_address, self.name)
        self._bus.claim_ports(DATA, 4, self._read_data, self._write_data, self.name)
        machine.private["pci"] = self

    def reset(self) -> None:
        self._address = 0
        self._reset_control = 0
        for function in self._functions.values():
            function.reset()

    def save(self) -> dict[str, Any]:
        functions = {f"{place:02x}": function.save() for place, function in self._functions.items()}
        return {"address": self._address, "reset_control": self._reset_control, "functions": functions}

    def load(self, state: Mapping[str, Any]) -> None:
        functions = {f"{place:02x}": function for place, function in self._functions.items()}
        if functions.keys() != state["functions"].keys():
            raise ValueError("other functions than are on the bus")
        self._address, self._reset_control = int(state["address"]), int(state["reset_control"])
        for place, function in functions.items():
            held = state["functions"][place]
            function.load(held)
            for bar, base in zip(function.bars, held["bars"], strict=True):
                if bar.kind is BarKind.MEMORY:
                    bar.base = None if base is None else int(base)
                elif bar.base != base:
                    self._move_io(function, bar, base)

    def add_function(self, slot: int, number: int, function: PciFunction) -> None:
        """Put ``function`` at 00:``slot``.``number`` (0..31, 0..7); `ConfigError` when that place is taken.

        From inside the hook ``add_devices`` only: a function with a memory BAR makes the bus claim its MMIO window.
        """
        place = slot << 3 | number
        if place in self._functions:
            other = self._functions[place].name
            raise ConfigError(f"PCI 00:{slot:02x}.{number} is claimed by both {other} and {function.name}")
        self._functions[place] = function
        function.bars_changed = self._decode
        if function.interrupt_pin:
            function.intx = self._route(slot, function.interrupt_pin)
        if self._window is None and any(bar.kind is BarKind.MEMORY for bar in function.bars):
            self._claim_window()

    def free_slot(self) -> int:
        """The lowest slot without a function; `ConfigError` when the bus is full."""
        for slot in range(32):
            if not any(place >> 3 == slot for place in self._functions):
                return slot
        raise ConfigError("the PCI bus is full: 32 slots are taken")

    # -- configuration space -------------------------------------------------------------------------------------------

    def _read_address(self, port: int, size: int) -> int:
        if port == RESET_CONTROL and size == 1:
            return self._reset_control
        return self._address >> 8 * (port - ADDRESS)

    def _write_address(self, port: int, size: int, value: int) -> None:
        if port == ADDRESS and size == 4:
            self._address = value
        elif port == RESET_CONTROL and size == 1:
            # Bit 2 resets when it rises; bit 1 says how hard.
            if value & 4:
                self._machine.reset_request("the guest asked for a reset (port 0xcf9)")
            else:
                self._reset_control = value & 2

    def _read_data(self, port: int, size: int) -> int:
        address = self._address
        function = self._functions.get(address >> 8 & 0xFFFF)
        if function is None or not address & _ENABLE:
            return 0xFFFF_FFFF
        return function.read(address & 0xFC | port & 3, size)

    def _write_data(self, port: int, size: int, value: int) -> None:
        address = self._address
        function = self._functions.get(address >> 8 & 0xFFFF)
        if function is not None and address & _ENABLE:
            function.write(address & 0xFC | port & 3, size, value)

    # -- BARs ----------------------------------------------------------------------------------------------------------

    def _decode(self, function: PciFunction) -> None:
        for bar in function.bars:
            wanted = function.wanted_base(bar)
            if wanted == bar.base:
                continue
            if bar.kind is BarKind.IO:
                self._move_io(function, bar, wanted)
            else:
                bar.base = wanted

    def _move_io(self, function: PciFunction, bar: PciBar, wanted: int | None) -> None:
        if bar.base is not None:
            self._bus.release_ports(bar.base, bar.size)
            bar.base = None
        if wanted is None:
            return
        read, write = bar.read, bar.write
        try:
            self._bus.claim_ports(
                wanted,
                bar.size,
                lambda port, size: read(port - wanted, size),
                lambda port, size, value: write(port - wanted, size, value),
                function.name,
            )
        except ConfigError:
            # The guest chose ports that are in use: they stay with their owner.
            return
        bar.base = wanted

    def _claim_window(self) -> None:
        first = self._machine.memory.low_ram_size
        self._bus.claim_mmio(first, WINDOW_END - first, self._window_read, self._window_write, self.name)
        self._window = self._bus.find_mmio(first)

    def _find_bar(self, gpa: int) -> PciBar | None:
        for function in self._functions.values():
            for bar in function.bars:
                if bar.kind is BarKind.MEMORY and bar.base is not None and bar.base <= gpa < bar.base + bar.size:
                    return bar
        return None

    def _window_read(self, gpa: int, size: int) -> int:
        bar = self._find_bar(gpa)
        if bar is None or bar.base is None:
            return (1 << 8 * size) - 1
        return bar.read(gpa - bar.base, size)

    def _window_write(self, gpa: int, size: int, value: int) -> None:
        bar = self._find_bar(gpa)
        if bar is not None and bar.base is not None:
            bar.write(gpa - bar.base, size, value)
