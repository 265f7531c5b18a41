"""Port I/O and memory-mapped I/O: what a device is, and who answers an access.

A device is called without an instruction (`Bus.io_read`, `Bus.mmio_write`, …), because a guest may ask through memory
as well as through IN and OUT.  Two devices that claim one port or one page are an error at construction, as in
propolis' pio.rs.  What nobody claims reads as all ones and swallows writes, like an undriven PC bus.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from sevplug.core.errors import ConfigError, SnapshotError

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

IoRead = Callable[[int, int], int]
IoWrite = Callable[[int, int, int], None]
# The largest number of so many bytes.
ALL_ONES = tuple((1 << 8 * size) - 1 for size in range(9))


class Device:
    """A part of the board.  A device claims its ranges in `attach` and forgets its state in `reset`."""

    name = "device"

    def attach(self, machine: Machine) -> None:
        """Claim ports, MMIO and interrupt lines; called once, in the order of adding, before the guest starts."""

    def reset(self) -> None:
        """Return to the power-on state."""

    def save(self) -> Mapping[str, Any]:
        """The state at this moment as plain data (`sevplug.core.snapshot.fields`); empty where there is none.

        Timers are saved by `Clock.save_timer`.  A device that has not this method and `load` lets no snapshot of its
        machine be made: none is ever incomplete.  `SnapshotError` for a state that cannot be saved.
        """
        raise SnapshotError(f"device {self.name} has not said how it is saved")

    def load(self, state: Mapping[str, Any]) -> None:
        """Put back what `save` gave, without an effect on others: wires and memory are restored on their own.

        Devices are loaded in the order of adding.  KeyError, TypeError or ValueError for what cannot have come from
        `save`.
        """
        raise SnapshotError(f"device {self.name} has not said how it is loaded")

    def close(self) -> None:
        """Give back what the host lent (files, sockets); called once, at the machine's end."""


@attrs.frozen
class MmioRange:
    """A claimed range of guest-physical addresses: ``[base, base + size)``, both multiples of 4096."""

    base: int
    size: int
    read: IoRead
    write: IoWrite
    owner: str


class Bus:
    """Dispatch tables of one machine.

    Handlers get ``(address, size)`` and ``(address, size, value)``: the absolute port or guest-physical address, the
    width in bytes (1, 2, 4; MMIO also 8), and the little-endian value as an int.
    """

    def __init__(self) -> None:
        self._owners: dict[int, str] = {}
        self._reads: dict[int, IoRead] = {}
        self._writes: dict[int, IoWrite] = {}
        self.mmio_ranges: list[MmioRange] = []

    def claim_ports(self, first: int, count: int, read: IoRead | None, write: IoWrite | None, owner: str) -> None:
        """Give ports ``first`` .. ``first + count - 1`` to ``owner``; `ConfigError` names both on a conflict."""
        for port in range(first, first + count):
            if port in self._owners:
                raise ConfigError(f"port {port:#06x} is claimed by both {self._owners[port]} and {owner}")
        for port in range(first, first + count):
            self._owners[port] = owner
            if read is not None:
                self._reads[port] = read
            if write is not None:
                self._writes[port] = write

    def release_ports(self, first: int, count: int) -> None:
        """Take ports back, for devices whose base the guest programs."""
        for port in range(first, first + count):
            for table in (self._owners, self._reads, self._writes):
                table.pop(port, None)

    def claim_mmio(self, base: int, size: int, read: IoRead, write: IoWrite, owner: str) -> None:
        """Give ``[base, base + size)`` (whole pages) to ``owner``; `ConfigError` names both on a conflict."""
        if base & 0xFFF or size & 0xFFF or size <= 0:
            raise ConfigError(f"MMIO range of {owner} at {base:#x}, {size:#x} bytes: expected whole pages")
        for other in self.mmio_ranges:
            if base < other.base + other.size and other.base < base + size:
                raise ConfigError(f"MMIO at {base:#x} is claimed by both {other.owner} and {owner}")
        self.mmio_ranges.append(MmioRange(base, size, read, write, owner))

    def io_read(self, port: int, size: int) -> int:
        """IN: ``size`` bytes from ``port``; what nobody claims reads as all ones."""
        read = self._reads.get(port)
        return ALL_ONES[size] if read is None else read(port, size) & ALL_ONES[size]

    def io_write(self, port: int, size: int, value: int) -> None:
        """OUT: ``size`` bytes to ``port``; what nobody claims is swallowed."""
        write = self._writes.get(port)
        if write is not None:
            write(port, size, value)

    def find_mmio(self, gpa: int) -> MmioRange | None:
        """The range that holds ``gpa``, or None."""
        for entry in self.mmio_ranges:
            if entry.base <= gpa < entry.base + entry.size:
                return entry
        return None

    def mmio_read(self, gpa: int, size: int) -> int:
        """A load of ``size`` bytes at ``gpa``; all ones where no device is."""
        entry = self.find_mmio(gpa)
        return ALL_ONES[size] if entry is None else entry.read(gpa, size) & ALL_ONES[size]

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        """A store of ``size`` bytes at ``gpa``; swallowed where no device is."""
        entry = self.find_mmio(gpa)
        if entry is not None:
            entry.write(gpa, size, value)
