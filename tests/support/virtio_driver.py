"""The driver's side of a split virtqueue in guest memory (VIRTIO 1.2, section 2.7), for tests that play the guest."""

from __future__ import annotations

import struct

from sevplug.core.memory import GuestMemory

NEXT, WRITE, INDIRECT = 1, 2, 4
TABLE, AVAILABLE, USED = 0x1000, 0x3000, 0x4000


class Driver:
    """A queue of ``size`` descriptors whose areas are at `TABLE`, `AVAILABLE` and `USED`."""

    def __init__(self, memory: GuestMemory, size: int = 8) -> None:
        self.memory = memory
        self.size = size
        self._offered = 0
        memory.write(TABLE, bytes(0x4000))

    def describe(
        self, number: int, gpa: int, size: int, flags: int = 0, following: int = 0, table: int = TABLE
    ) -> None:
        """Write descriptor ``number``."""
        self.memory.write(table + 16 * number, struct.pack("<QIHH", gpa, size, flags, following))

    def chain(self, *buffers: tuple[int, int, int], table: int = TABLE, first: int = 0) -> None:
        """Descriptors from ``first`` on for buffers (gpa, size, flags), linked one to the next."""
        for number, (gpa, size, flags) in enumerate(buffers, first):
            more = NEXT if number < first + len(buffers) - 1 else 0
            self.describe(number, gpa, size, flags | more, number + 1, table)

    def offer(self, *heads: int, ahead: int = 0) -> None:
        """Make chains available; ``ahead`` is added to the index, as only a broken driver does."""
        for head in heads:
            self.memory.write(AVAILABLE + 4 + 2 * (self._offered % self.size), struct.pack("<H", head))
            self._offered = (self._offered + 1) & 0xFFFF
        self.memory.write(AVAILABLE + 2, struct.pack("<H", self._offered + ahead & 0xFFFF))

    def want_interrupts(self, flags: int = 0, event: int = 0) -> None:
        """``flags`` of the available ring, and the used index that the driver waits for (EVENT_IDX)."""
        self.memory.write(AVAILABLE, struct.pack("<H", flags))
        self.memory.write(AVAILABLE + 4 + 2 * self.size, struct.pack("<H", event))

    @property
    def used(self) -> list[tuple[int, int]]:
        """(head, bytes written) of every chain that came back; up to the queue's size."""
        (count,) = struct.unpack("<H", self.memory.read(USED + 2, 2))
        return [struct.unpack("<II", self.memory.read(USED + 4 + 8 * slot, 8)) for slot in range(count)]

    @property
    def expected_notification(self) -> int:
        """The available index at which the device wants to be told (EVENT_IDX)."""
        return int.from_bytes(self.memory.read(USED + 4 + 8 * self.size, 2), "little")
