"""A PCI function: 256 bytes of configuration space, what of it can be written, and base address registers.

The interface for devices to come: make a `PciFunction`, give it BARs with `add_bar`, hand it to `PciHost.add_function`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from sevplug.board.irq import IrqLine

# Registers of a type 0 header (PCI Local Bus Specification 3.0, section 6.1), and bits of the command register.
VENDOR, DEVICE, COMMAND, STATUS, REVISION, CLASS, HEADER_TYPE = 0x00, 0x02, 0x04, 0x06, 0x08, 0x09, 0x0E
CACHE_LINE, LATENCY, BAR0, SUBSYSTEM, INTERRUPT_LINE, INTERRUPT_PIN = 0x0C, 0x0D, 0x10, 0x2C, 0x3C, 0x3D
COMMAND_IO, COMMAND_MEMORY, COMMAND_NO_INTX = 0x0001, 0x0002, 0x0400
STATUS_INTERRUPT = 0x0008
# Red Hat's subsystem vendor and QEMU's number under it.
_SUBSYSTEM = 0x1100_1AF4
_WRITABLE_COMMAND = 0x0507

OffsetRead = Callable[[int, int], int]
OffsetWrite = Callable[[int, int, int], None]


class BarKind(enum.Enum):
    """The address space a BAR decodes."""

    IO = "io"
    MEMORY = "memory"


@attrs.define(eq=False)
class PciBar:
    """A range whose place the guest chooses.

    ``size``: a power of two, at least 4 bytes (I/O) or 16 (memory).  Handlers get ``(offset, size)`` and
    ``(offset, size, value)`` with the offset from the BAR's start.  ``base``: where it is decoded now, or None.
    """

    index: int
    size: int
    kind: BarKind
    read: OffsetRead
    write: OffsetWrite
    base: int | None = None


class PciFunction:
    """One function of a PCI device; subclasses override `written` to react to the guest's writes."""

    def __init__(
        self,
        name: str,
        vendor: int,
        device: int,
        class_code: int,
        *,
        revision: int = 0,
        interrupt_pin: int = 0,
        subsystem: int = _SUBSYSTEM,
        multifunction: bool = False,
    ) -> None:
        """``class_code``: base class, subclass and interface, 24 bits; ``interrupt_pin``: 0 none, 1 INTA … 4 INTD."""
        self.name = name
        self.config = bytearray(256)
        self.writable = bytearray(256)
        self.bars: list[PciBar] = []
        self.interrupt_pin = interrupt_pin
        self.intx: IrqLine = lambda _level: None
        self.bars_changed: Callable[[PciFunction], None] = lambda _function: None
        for offset, size, value in (
            (VENDOR, 2, vendor),
            (DEVICE, 2, device),
            (REVISION, 1, revision),
            (CLASS, 3, class_code),
            (HEADER_TYPE, 1, 0x80 if multifunction else 0),
            (SUBSYSTEM, 4, subsystem),
            (INTERRUPT_PIN, 1, interrupt_pin),
        ):
            self.preset(offset, size, value)
        self.writable[COMMAND : COMMAND + 2] = _WRITABLE_COMMAND.to_bytes(2, "little")
        self.writable[CACHE_LINE] = 0xFF
        self.writable[INTERRUPT_LINE] = 0xFF
        self._power_on = bytes(self.config)
        self._interrupt = False

    def preset(self, offset: int, size: int, value: int) -> None:
        """Set a power-on value, little-endian; before the function is added to a bus."""
        self.config[offset : offset + size] = value.to_bytes(size, "little")
        self._power_on = bytes(self.config)

    def allow_writes(self, first: int, count: int, mask: int = 0xFF) -> None:
        """Let the guest write the bits of ``mask`` in each of ``count`` bytes from ``first`` on."""
        self.writable[first : first + count] = bytes([mask]) * count

    def add_bar(self, index: int, size: int, kind: BarKind, read: OffsetRead, write: OffsetWrite) -> PciBar:
        """Declare BAR ``index`` (0..5), a 32-bit one; before the function is added to a bus.

        ValueError for a size that is no power of two or too small.
        """
        least = 4 if kind is BarKind.IO else 16
        if size < least or size & (size - 1):
            raise ValueError(f"BAR {index} of {self.name}: size {size}, expected a power of two from {least} on")
        bar = PciBar(index, size, kind, read, write)
        offset = BAR0 + 4 * index
        self.preset(offset, 4, 1 if kind is BarKind.IO else 0)
        low_bits = 3 if kind is BarKind.IO else 0xF
        self.writable[offset : offset + 4] = (0xFFFF_FFFF & ~(size - 1) & ~low_bits).to_bytes(4, "little")
        self.bars.append(bar)
        return bar

    def wanted_base(self, bar: PciBar) -> int | None:
        """Where the guest wants ``bar`` decoded: None when decoding is off or no address was given."""
        enable = COMMAND_IO if bar.kind is BarKind.IO else COMMAND_MEMORY
        if not self.config[COMMAND] & enable:
            return None
        offset = BAR0 + 4 * bar.index
        base = int.from_bytes(self.config[offset : offset + 4], "little") & ~(bar.size - 1)
        last = base + bar.size - 1
        # All ones is a guest that asks for the size.
        if base == 0 or last >= (0xFFFF if bar.kind is BarKind.IO else 0xFFFF_FFFF):
            return None
        return base

    def set_interrupt(self, level: bool) -> None:
        """Drive the function's INTx pin."""
        self._interrupt = level
        if level:
            self.config[STATUS] |= STATUS_INTERRUPT
        else:
            self.config[STATUS] &= ~STATUS_INTERRUPT
        self.intx(level and not self.config[COMMAND + 1] & COMMAND_NO_INTX >> 8)

    def read(self, offset: int, size: int) -> int:
        """``size`` bytes of configuration space, little-endian."""
        return int.from_bytes(self.config[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """The guest's write; only writable bits change."""
        config, writable = self.config, self.writable
        for index in range(offset, min(offset + size, 256)):
            mask = writable[index]
            config[index] = config[index] & ~mask | value & mask
            value >>= 8
        if offset < BAR0 + 24 and offset + size > COMMAND:
            if self.bars:
                self.bars_changed(self)
            if self._interrupt:
                self.set_interrupt(True)
        self.written(offset, size)

    def written(self, offset: int, size: int) -> None:
        """Called after each write of the guest to ``[offset, offset + size)``."""

    def save(self) -> dict[str, Any]:
        """The configuration space, and where BARs are decoded, as plain data; subclasses add theirs."""
        return {
            "config": bytes(self.config),
            "interrupt": self._interrupt,
            "bars": [bar.base for bar in self.bars],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Put back what `save` gave, but for BARs, whose place is the bus's; wires are restored on their own."""
        if len(state["config"]) != len(self.config):
            raise ValueError(f"{len(state['config'])} bytes of configuration space")
        self.config[:] = state["config"]
        self._interrupt = bool(state["interrupt"])

    def reset(self) -> None:
        """Power-on values; BARs are no longer decoded."""
        self.config[:] = self._power_on
        self.set_interrupt(False)
        if self.bars:
            self.bars_changed(self)
        self.written(0, 256)
