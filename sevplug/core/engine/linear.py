"""Memory at linear addresses, as the CPU itself reaches it: descriptor tables, gates, stacks.

These accesses are the processor's own, so they have supervisor rights whatever the current privilege level is.
"""

from __future__ import annotations

from collections.abc import Iterator

from sevplug.core.engine import internals as at
from sevplug.core.engine.fills import Fills
from sevplug.core.engine.vcpu import EngineCpu
from sevplug.core.errors import GuestFault
from sevplug.core.memory import PAGE_SIZE, GuestMemory
from sevplug.core.vcpu import PRIVATE, Access

PROTECTION, PAGE_FAULT = 13, 14


class LinearMemory:
    """Reads and writes through the guest's page tables; a failed walk raises `GuestFault` #PF with CR2 set, an
    address that is not canonical #GP(0)."""

    def __init__(self, cpu: EngineCpu, fills: Fills, memory: GuestMemory) -> None:
        self._cpu = cpu
        self._fills = fills
        self._memory = memory

    def read(self, address: int, size: int, access: int = Access.READ) -> bytes:
        """``size`` bytes at linear ``address``."""
        if size and (address & 0xFFF) + size <= PAGE_SIZE:
            gpa, private = self._physical(address, access)
            return self._memory.read(gpa, size, private=private, dma=False)
        parts = []
        while size:
            step = min(size, PAGE_SIZE - (address & 0xFFF))
            gpa, private = self._physical(address, access)
            parts.append(self._memory.read(gpa, step, private=private, dma=False))
            address += step
            size -= step
        return b"".join(parts)

    def read_code(self, address: int, size: int) -> bytes:
        """Instruction bytes, with the rights of the code that runs (a supervisor's reads may fault under SMAP)."""
        page = self._fills.code_page(address)
        inside = address & 0xFFF
        if page is not None and inside + size <= PAGE_SIZE:
            return self._memory.read(page | inside, size, private=True)
        user = Access.USER if self._cpu.cpl == 3 else 0
        return self.read(address, size, Access.FETCH | user)

    def read_int(self, address: int, size: int) -> int:
        """A little-endian number of ``size`` bytes."""
        return int.from_bytes(self.read(address, size), "little")

    def write(self, address: int, data: bytes) -> None:
        """Store ``data``; nothing is stored unless every page can be written."""
        if data and (address & 0xFFF) + len(data) <= PAGE_SIZE:
            gpa, private = self._physical(address, Access.WRITE)
            self._memory.write_as_cpu(gpa, data, private=private)
            return
        pieces = []
        done = 0
        while done < len(data):
            step = min(len(data) - done, PAGE_SIZE - (address + done & 0xFFF))
            pieces.append((*self._physical(address + done, Access.WRITE), data[done : done + step]))
            done += step
        for gpa, private, piece in pieces:
            self._memory.write_as_cpu(gpa, piece, private=private)

    def look(self, address: int) -> tuple[int, bool] | None:
        """Where a read of ``address`` goes and whether it is private, for a debugger; None where nothing is mapped.

        Rights do not matter, and the guest's page tables stay as they are.
        """
        long_mode = self._cpu.state.d[at.HFLAGS // 4] & at.HF_LMA
        if not _is_canonical(address) if long_mode else address >> 32:
            return None
        found = self._fills.look(address)
        return None if found < 0 else _place(found, address)

    def peek(self, address: int, size: int) -> bytes:
        """See `Engine.peek`."""
        parts = []
        for gpa, private, count in self._looked_at(address, size):
            parts.append(self._memory.read(gpa, count, private=private, dma=False))
        return b"".join(parts)

    def poke(self, address: int, data: bytes) -> bool:
        """See `Engine.poke`."""
        places = list(self._looked_at(address, len(data)))
        if sum(count for _gpa, _private, count in places) != len(data):
            return False
        done = 0
        for gpa, private, count in places:
            self._memory.patch(gpa, data[done : done + count], private=private)
            done += count
        return True

    def _looked_at(self, address: int, size: int) -> Iterator[tuple[int, bool, int]]:
        """(guest-physical address, whether private, bytes) of each piece of memory, up to the first that is none."""
        end = address + size
        while address < end:
            count = min(end - address, PAGE_SIZE - (address & 0xFFF))
            place = self.look(address & 0xFFFF_FFFF_FFFF_FFFF)
            if place is None or not self._memory.holds(place[0], count):
                return
            yield *place, count
            address += count

    def _physical(self, address: int, access: int) -> tuple[int, bool]:
        """The guest-physical address, and whether the access is private."""
        if self._cpu.state.d[at.HFLAGS // 4] & at.HF_LMA:
            address &= 0xFFFF_FFFF_FFFF_FFFF
            if not _is_canonical(address):
                raise GuestFault(PROTECTION, 0)
        found = self._fills.walk(address, access)
        if found < 0:
            self._cpu.set("cr2", address)
            raise GuestFault(PAGE_FAULT, ~found)
        return _place(found, address)


def _is_canonical(address: int) -> bool:
    return not address + 0x8000_0000_0000 & 0xFFFF_0000_0000_0000


def _place(found: int, address: int) -> tuple[int, bool]:
    return (found & 0x000F_FFFF_FFFF_F000) | (address & 0xFFF), bool(found & PRIVATE)
