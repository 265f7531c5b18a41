"""A split virtqueue as the device sees it (VIRTIO 1.2, section 2.7), read from a guest that may lie.

Everything lies in guest memory and is reached through the view of the world outside the CPU.  What the guest gets
wrong raises `QueueError`, never anything else; the device then asks for a reset.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from sevplug.core.memory import GuestMemory
from sevplug.core.snapshot.fields import load_fields, save_fields

_NEXT, _WRITE, _INDIRECT = 1, 2, 4
_NO_INTERRUPT = 1
_DESCRIPTOR = struct.Struct("<QIHH")
_SAVED = (
    "size", "descriptors", "driver_area", "device_area", "enabled", "event_index", "indirect", "_next_available",
    "_next_used",
)  # fmt: skip
_CHAIN_LIMIT = 1 << 32


class QueueError(Exception):
    """The driver broke the rules of the queue; the text says which, in one line."""


@attrs.frozen
class Buffer:
    """``size`` bytes of guest memory at ``gpa``; at least one, and all of them there."""

    gpa: int
    size: int


@attrs.frozen
class Chain:
    """One request: the buffers to read from, then those to write to.  ``head`` names it in the used ring."""

    head: int
    readable: tuple[Buffer, ...]
    writable: tuple[Buffer, ...]


def size_of(buffers: tuple[Buffer, ...]) -> int:
    """The bytes in ``buffers``."""
    return sum(buffer.size for buffer in buffers)


def split(buffers: tuple[Buffer, ...], size: int) -> tuple[tuple[Buffer, ...], tuple[Buffer, ...]]:
    """The first ``size`` bytes of ``buffers``, and the rest; a driver may cut a request wherever it likes."""
    first: list[Buffer] = []
    rest: list[Buffer] = []
    for buffer in buffers:
        count = min(size, buffer.size)
        size -= count
        if count:
            first.append(Buffer(buffer.gpa, count))
        if count < buffer.size:
            rest.append(Buffer(buffer.gpa + count, buffer.size - count))
    return tuple(first), tuple(rest)


class VirtQueue:
    """One queue.  The transport sets ``size`` and the addresses of the three areas, then calls `enable`.

    ``descriptors``, ``driver_area`` (available ring) and ``device_area`` (used ring) are guest-physical addresses.
    """

    def __init__(self, memory: GuestMemory, max_size: int) -> None:
        """``max_size``: descriptors at most, a power of two up to 32768."""
        self._memory = memory
        self.max_size = max_size
        self.reset()

    def reset(self) -> None:
        """The state after a reset of the device."""
        self.size = self.max_size
        self.descriptors = self.driver_area = self.device_area = 0
        self.enabled = False
        self.event_index = self.indirect = False
        self._next_available = 0
        self._next_used = 0

    def save(self) -> dict[str, Any]:
        """What the driver has set up, and how far the rings were followed, as plain data."""
        return save_fields(self, _SAVED)

    def load(self, state: Mapping[str, Any]) -> None:
        """Put back what `save` gave."""
        load_fields(self, _SAVED, state)

    def enable(self) -> None:
        """Start to use the areas; `QueueError` for a size or an address that the specification forbids."""
        size = self.size
        if not 0 < size <= self.max_size or size & (size - 1):
            raise QueueError(f"queue size {size}, expected a power of two up to {self.max_size}")
        for what, gpa, alignment, length in (
            ("descriptor table", self.descriptors, 16, 16 * size),
            ("available ring", self.driver_area, 2, 6 + 2 * size),
            ("used ring", self.device_area, 4, 6 + 8 * size),
        ):
            if gpa % alignment:
                raise QueueError(f"{what} at {gpa:#x}, expected a multiple of {alignment}")
            if not self._memory.holds(gpa, length):
                raise QueueError(f"{what} at {gpa:#x}, {length} bytes: not in guest memory")
        self.enabled = True

    def available(self) -> Iterator[Chain]:
        """The chains that the driver has made available up to now; `QueueError` at the first that is wrong."""
        index = self._read_word(self.driver_area + 2)
        # Read once: a request that writes into the ring must not keep us here.
        count = (index - self._next_available) & 0xFFFF
        if count > self.size:
            raise QueueError(f"the available index moved from {self._next_available} to {index}, by more than the size")
        for _ in range(count):
            head = self._read_word(self.driver_area + 4 + 2 * (self._next_available % self.size))
            chain = self._chain(head)
            self._next_available = (self._next_available + 1) & 0xFFFF
            yield chain
        if self.event_index:
            self._write_word(self.device_area + 4 + 8 * self.size, self._next_available)

    def put(self, chain: Chain, written: int) -> bool:
        """Return ``chain`` with ``written`` bytes stored in it; whether the driver wants an interrupt for that."""
        ring = self.device_area
        slot = ring + 4 + 8 * (self._next_used % self.size)
        self._memory.write(slot, struct.pack("<II", chain.head, min(written, 0xFFFF_FFFF)))
        old, self._next_used = self._next_used, (self._next_used + 1) & 0xFFFF
        self._write_word(ring + 2, self._next_used)
        if self.event_index:
            return self._read_word(self.driver_area + 4 + 2 * self.size) == old
        return not self._read_word(self.driver_area) & _NO_INTERRUPT

    # -- chains --------------------------------------------------------------------------------------------------------

    def _chain(self, head: int) -> Chain:
        readable: list[Buffer] = []
        writable: list[Buffer] = []
        total = 0
        for gpa, size, flags in self._descriptors(head):
            if size == 0:
                raise QueueError(f"descriptor of {gpa:#x}: a buffer of no bytes")
            if not self._memory.holds(gpa, size):
                raise QueueError(f"buffer at {gpa:#x}, {size} bytes: not in guest memory")
            total += size
            if total > _CHAIN_LIMIT:
                raise QueueError("a chain of more than 2^32 bytes")
            if flags & _WRITE:
                writable.append(Buffer(gpa, size))
            elif writable:
                raise QueueError(f"buffer at {gpa:#x}: one to read behind one to write")
            else:
                readable.append(Buffer(gpa, size))
        return Chain(head, tuple(readable), tuple(writable))

    def _descriptors(self, head: int) -> Iterator[tuple[int, int, int]]:
        """The descriptors of a chain as (address, size, flags), an indirect table followed."""
        table, size = self.descriptors, self.size
        number, left, limit = head, size, size
        inside = False
        while True:
            if number >= size:
                raise QueueError(f"descriptor {number} of a table of {size}")
            if left == 0:
                raise QueueError(f"a chain that is longer than {limit} descriptors")
            left -= 1
            gpa, length, flags, following = _DESCRIPTOR.unpack(self._memory.read(table + 16 * number, 16))
            if flags & _INDIRECT:
                self._check_indirect(gpa, length, flags, inside)
                table, size = gpa, length // 16
                number, left, limit = 0, self.max_size, self.max_size
                inside = True
                continue
            yield gpa, length, flags
            if not flags & _NEXT:
                return
            number = following

    def _check_indirect(self, gpa: int, length: int, flags: int, inside: bool) -> None:
        if not self.indirect:
            raise QueueError("an indirect descriptor, which was not negotiated")
        if inside:
            raise QueueError("an indirect descriptor in an indirect table")
        if flags & _NEXT:
            raise QueueError("an indirect descriptor with a next one")
        if length == 0 or length % 16:
            raise QueueError(f"an indirect table of {length} bytes, expected a multiple of 16")
        if not self._memory.holds(gpa, length):
            raise QueueError(f"indirect table at {gpa:#x}, {length} bytes: not in guest memory")

    def _read_word(self, gpa: int) -> int:
        return int.from_bytes(self._memory.read(gpa, 2), "little")

    def _write_word(self, gpa: int, value: int) -> None:
        self._memory.write(gpa, value.to_bytes(2, "little"))
