"""What memory holds, as pieces of a file that are mapped copy-on-write: by one machine again and again, or by many.

Blocks of zeros are left out.  In a file on disk, so are pages that nobody has touched, whatever was deciphered there
ahead of time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Final

import attrs

from sevplug.core.engine import host_memory
from sevplug.core.images import OwnedFile
from sevplug.core.memory import PAGE_SIZE, GuestMemory
from sevplug.core.views import UNTOUCHED

# The unit in which what need not be kept is left out.
_BLOCK: Final = 1 << 16
_ZEROS: Final = bytes(_BLOCK)


def memory_file() -> OwnedFile:
    """A file in memory that has no name."""
    return OwnedFile(os.memfd_create("sevplug-snapshot", os.MFD_CLOEXEC))


@attrs.frozen
class Extent:
    """``size`` bytes at ``start`` of the memory range number ``where`` lie at ``offset`` of the file; whole pages."""

    where: int
    start: int
    size: int
    offset: int


@attrs.frozen
class MemoryImage:
    """``file`` from ``base`` on holds the ``extents`` (offsets count from there); all else is zeros."""

    file: OwnedFile = attrs.field(repr=False)
    base: int
    extents: tuple[Extent, ...]

    @property
    def size(self) -> int:
        """Bytes of the file that hold memory."""
        return sum(extent.size for extent in self.extents)

    def map_into(self, memory: GuestMemory) -> None:
        """The contents of ``memory``, whose ranges have been checked, become these."""
        for entry in memory.ranges:
            host_memory.map_zeros(entry.buffer)
        for extent in self.extents:
            piece = memory.ranges[extent.where].buffer[extent.start : extent.start + extent.size]
            host_memory.map_file(piece, self.file.descriptor, self.base + extent.offset)

    def read(self, extent: Extent) -> Iterator[bytes]:
        """What ``extent`` holds, in blocks (the last may be shorter)."""
        for done in range(0, extent.size, _BLOCK):
            wanted = min(_BLOCK, extent.size - done)
            piece = os.pread(self.file.descriptor, wanted, self.base + extent.offset + done)
            if len(piece) != wanted:
                raise OSError("the file of the snapshot has become shorter")
            yield piece


def describe_ranges(memory: GuestMemory) -> list[list[Any]]:
    """The ranges of memory as plain data: name, kind, guest-physical address, size."""
    return [[entry.name, entry.kind.value, entry.gpa, entry.size] for entry in memory.ranges]


def image_of(memory: GuestMemory) -> MemoryImage:
    """A copy of what ``memory`` holds."""
    file = memory_file()
    extents = []
    end = 0
    for where, entry in enumerate(memory.ranges):
        for start, size in _runs(entry.buffer):
            written = 0
            while written < size:
                piece = entry.buffer[start + written : start + size]
                written += os.pwrite(file.descriptor, piece, end + written)
            extents.append(Extent(where, start, size, end))
            end += size
    return MemoryImage(file, 0, tuple(extents))


def _runs(buffer: memoryview) -> Iterator[tuple[int, int]]:
    """(start, size) of what is not zeros."""
    begin = None
    for start in range(0, len(buffer), _BLOCK):
        piece = bytes(buffer[start : start + _BLOCK])
        empty = piece == _ZEROS[: len(piece)]
        if empty and begin is not None:
            yield begin, start - begin
            begin = None
        elif not empty and begin is None:
            begin = start
    if begin is not None:
        yield begin, len(buffer) - begin


def touched_only(extents: tuple[Extent, ...], states: list[bytearray | None]) -> Iterator[tuple[Extent, int]]:
    """The parts of ``extents`` in which a page was touched: (the part, from which offset it comes).

    Their offsets are those of a file that holds them alone, one behind the other.  ``states``: of the pages of each
    range, or None; those of what is left out become those of zeros.
    """
    end = 0
    for extent in extents:
        held = states[extent.where]
        begin = extent.start
        stop = extent.start + extent.size
        for start in [*range(extent.start, stop, _BLOCK), stop]:
            first, last = start // PAGE_SIZE, min(start + _BLOCK, stop) // PAGE_SIZE
            left_out = held is not None and start < stop and all(state & UNTOUCHED for state in held[first:last])
            if left_out and held is not None:
                held[first:last] = bytes([UNTOUCHED]) * (last - first)
            if (left_out or start == stop) and start > begin:
                source = extent.offset + begin - extent.start
                yield Extent(extent.where, begin, start - begin, end), source
                end += start - begin
            if left_out:
                begin = min(start + _BLOCK, stop)
