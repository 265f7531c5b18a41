"""The guest-physical address space: RAM and ROM as attributes of ranges; overlap is an error.

RAM is one host buffer, mapped into the engine once (two mappings of one buffer would break its detection of
self-modifying code).  Readers here are the world outside the CPU: devices, the launch, debuggers.  With a cipher
(`GuestMemory.use_cipher`) they see the shared view of memory unless they name the private one.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import mmap
from collections.abc import Callable, Iterator

import attrs

from sevplug.core.errors import ConfigError
from sevplug.core.views import PRIVATE_FORM, PageCipher, PageCounts, PageForms, PageRun

PAGE_SIZE = 4096
GIB = 1 << 30
# The PC's layout (QEMU's pc-i440fx): RAM up to 3 GiB below the hole for devices, the rest from 4 GiB on.
LOW_RAM_LIMIT = 0xC000_0000
HIGH_RAM_BASE = 0x1_0000_0000
_RAM_NAMES = ("ram", "ram-high")
_DIGEST_PIECE = 1 << 20


class RangeKind(enum.Enum):
    """What stands behind a range; MMIO is the bus's own."""

    RAM = "ram"
    ROM = "rom"


@attrs.frozen
class MemoryRange:
    """``[gpa, gpa + size)`` backed by ``buffer`` (exactly ``size`` bytes, writable to us whatever the kind).

    ``forms``: which form each page of it is in, where there is a cipher.
    """

    gpa: int
    size: int
    kind: RangeKind
    name: str
    buffer: memoryview = attrs.field(repr=False, eq=False)
    forms: PageForms | None = attrs.field(default=None, repr=False, eq=False)

    @property
    def end(self) -> int:
        return self.gpa + self.size


class GuestMemory:
    """RAM of ``ram_size`` bytes (a multiple of 4096) and whatever ROM is added."""

    def __init__(self, ram_size: int) -> None:
        if ram_size <= 0 or ram_size % PAGE_SIZE:
            raise ConfigError(f"memory size {ram_size}: expected a positive multiple of {PAGE_SIZE} bytes")
        self.ram_size = ram_size
        self._backing: list[mmap.mmap] = []
        # Told (gpa, size) of each store from outside the CPU; the engine keeps its translated code right with it.
        self.on_write: Callable[[int, int], None] | None = None
        self.ranges: list[MemoryRange] = []
        # Pages that were stored to before there is an engine: a cipher that comes then has to know.
        self._loaded: set[int] = set()
        ram = self._allocate(ram_size)
        low = min(ram_size, LOW_RAM_LIMIT)
        # Nearly every access goes here.
        self._low = MemoryRange(0, low, RangeKind.RAM, _RAM_NAMES[0], ram[:low])
        self._insert(self._low)
        if ram_size > low:
            self._insert(MemoryRange(HIGH_RAM_BASE, ram_size - low, RangeKind.RAM, _RAM_NAMES[1], ram[low:]))

    @property
    def low_ram_size(self) -> int:
        """Bytes of RAM from address 0 on, below the device hole."""
        return min(self.ram_size, LOW_RAM_LIMIT)

    @property
    def high_ram_size(self) -> int:
        """Bytes of RAM from 4 GiB on."""
        return self.ram_size - self.low_ram_size

    @property
    def ram(self) -> list[MemoryRange]:
        """The ranges of RAM proper, without flash and ROM, from the lowest up."""
        return [entry for entry in self.ranges if entry.name in _RAM_NAMES]

    def add_rom(self, gpa: int, data: bytes, name: str, *, writable: bool = False) -> MemoryRange:
        """Add a range that holds ``data``, padded with zeros to whole pages.

        ``writable`` makes it RAM to the guest (a flash without a command interface).  `ConfigError` on overlap.
        """
        size = -(-len(data) // PAGE_SIZE) * PAGE_SIZE
        if gpa % PAGE_SIZE or size == 0:
            raise ConfigError(f"{name} at {gpa:#x}, {len(data)} bytes: expected a page-aligned address and some data")
        kind = RangeKind.RAM if writable else RangeKind.ROM
        entry = MemoryRange(gpa, size, kind, name, self._allocate(size))
        self._insert(entry)
        entry.buffer[: len(data)] = data
        self._loaded.update(range(gpa, entry.end, PAGE_SIZE))
        return entry

    def find(self, gpa: int) -> MemoryRange | None:
        """The range that holds ``gpa``, or None."""
        for entry in self.ranges:
            if entry.gpa <= gpa < entry.end:
                return entry
        return None

    def holds(self, gpa: int, size: int) -> bool:
        """True when every byte of ``[gpa, gpa + size)`` is RAM or ROM."""
        end = gpa + size
        while gpa < end:
            entry = self.find(gpa)
            if entry is None:
                return False
            gpa = entry.end
        return True

    def use_cipher(self, cipher: PageCipher) -> None:
        """Hold memory in two forms from now on; what it holds so far is the shared form.

        Before the engine is there, and once.
        """
        for number, entry in enumerate(self.ranges):
            loaded = [(page - entry.gpa) // PAGE_SIZE for page in self._loaded if entry.gpa <= page < entry.end]
            self.ranges[number] = attrs.evolve(entry, forms=PageForms(entry.gpa, entry.buffer, cipher, loaded))
        self._low = self.ranges[0]

    def read(self, gpa: int, size: int, *, private: bool = False, dma: bool = True) -> bytes:
        """``size`` bytes at ``gpa`` as the world outside the CPU sees them; 0xFF where nothing is.

        ``private``: as the guest sees them through its private view.  ``dma``: the reader is a device, whose mistakes
        are worth telling; False for a debugger or a dump.
        """
        low = self._low
        if gpa + size <= low.size and size:
            forms = low.forms
            if forms is None:
                return bytes(low.buffer[gpa : gpa + size])
            if private and forms.states[gpa >> 12] == PRIVATE_FORM and gpa & 0xFFF <= PAGE_SIZE - size:
                return bytes(low.buffer[gpa : gpa + size])  # each instruction that is intercepted comes here
            return forms.read(gpa, size, private=private, dma=dma and not private)
        pieces = []
        for entry, start, length in self._pieces(gpa, size):
            if entry is None:
                pieces.append(b"\xff" * length)
            elif entry.forms is None:
                pieces.append(bytes(entry.buffer[start : start + length]))
            else:
                pieces.append(entry.forms.read(start, length, private=private, dma=dma and not private))
        return b"".join(pieces)

    def write(self, gpa: int, data: bytes | memoryview, *, private: bool = False) -> None:
        """Store ``data`` at ``gpa`` from outside the CPU; what falls on ROM or on nothing is dropped.

        ``private``: through the guest's private view, as the platform's firmware and the CPU itself do.
        """
        self._store(gpa, data, rom=False, private=private, device=not private)

    def write_as_cpu(self, gpa: int, data: bytes, *, private: bool) -> None:
        """A store that the CPU makes by itself: an entry's accessed bit, a frame on a stack."""
        self._store(gpa, data, rom=False, private=private, device=False)

    def patch(self, gpa: int, data: bytes, *, private: bool) -> None:
        """Like `write_as_cpu`, but into ROM too: a debugger's store."""
        self._store(gpa, data, rom=True, private=private, device=False)

    def load(self, gpa: int, data: bytes | memoryview, *, private: bool = False) -> None:
        """Like `write`, but into ROM too: what the board does at power-on."""
        self._store(gpa, data, rom=True, private=private, device=not private)

    def _store(self, gpa: int, data: bytes | memoryview, *, rom: bool, private: bool, device: bool) -> None:
        low, done = self._low, 0
        pieces = [(low, gpa, len(data))] if gpa + len(data) <= low.size else self._pieces(gpa, len(data))
        for entry, start, length in pieces:
            if entry is not None and (rom or entry.kind is RangeKind.RAM):
                piece = data[done : done + length]
                if entry.forms is None:
                    entry.buffer[start : start + length] = piece
                else:
                    entry.forms.write(start, piece, private=private, device=device)
            done += length
        if self.on_write is not None:
            self.on_write(gpa, len(data))
        elif self._low.forms is None:
            self._loaded.update(range(gpa & -PAGE_SIZE, gpa + len(data), PAGE_SIZE))

    # -- all of RAM --------------------------------------------------------------------------------------------------

    def page_counts(self) -> PageCounts | None:
        """RAM's pages by their form; None where memory has but one form."""
        counts = [entry.forms.counts() for entry in self.ram if entry.forms is not None]
        if not counts:
            return None
        return PageCounts(*(sum(column) for column in zip(*map(attrs.astuple, counts), strict=True)))

    def page_map(self) -> list[PageRun]:
        """RAM from its lowest address up, in runs of pages of one form; empty where memory has but one."""
        return [run for entry in self.ram if entry.forms is not None for run in entry.forms.runs()]

    def ram_digest(self) -> str:
        """The SHA-256, in hex, of the guest's RAM in the order of its addresses, as seen from outside the CPU.

        RAM is all of it, and nothing else: no ROM, no flash, no device.  A second takes about a gigabyte.
        """
        digest = hashlib.sha256()
        for entry in self.ram:
            for done in range(0, entry.size, _DIGEST_PIECE):
                digest.update(self.read(entry.gpa + done, min(_DIGEST_PIECE, entry.size - done), dma=False))
        return digest.hexdigest()

    def close(self) -> None:
        """Give the buffers back; the memory cannot be used afterwards."""
        self.ranges.clear()
        self._low = MemoryRange(0, 0, RangeKind.RAM, "ram", memoryview(b""))
        self._backing.clear()

    def _allocate(self, size: int) -> memoryview:
        # Not shared with a child, and in huge pages where the host has them: a first touch costs a sixth of the time.
        backing = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):
            backing.madvise(mmap.MADV_HUGEPAGE)
        self._backing.append(backing)
        return memoryview(backing)

    def _insert(self, new: MemoryRange) -> None:
        for other in self.ranges:
            if new.gpa < other.end and other.gpa < new.end:
                raise ConfigError(
                    f"{new.name} [{new.gpa:#x}, {new.end:#x}) overlaps {other.name} [{other.gpa:#x}, {other.end:#x})"
                )
        self.ranges.append(new)

    def _pieces(self, gpa: int, size: int) -> Iterator[tuple[MemoryRange | None, int, int]]:
        """Cut ``[gpa, gpa + size)`` at range borders: (range or None, offset in it, length)."""
        end = gpa + size
        while gpa < end:
            entry = self.find(gpa)
            if entry is not None:
                length = min(end, entry.end) - gpa
                yield entry, gpa - entry.gpa, length
            else:
                later = [other.gpa for other in self.ranges if other.gpa > gpa]
                length = min([end, *later]) - gpa
                yield None, 0, length
            gpa += length
