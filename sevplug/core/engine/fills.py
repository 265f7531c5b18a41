"""The engine's TLB-miss callback: a page walk, and what the engine may do with the page it finds.

This is the hot path of the whole emulator.  The rules that are not in the page tables come from the engine
(measured, see docs/engine.md): a translation that is executable makes every store through it slow, so a page is
handed out executable only once it was ever fetched from, and from then on always.
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_uint32, c_uint64
from typing import TYPE_CHECKING

from sevplug.core.bus import MmioRange
from sevplug.core.engine import internals as at
from sevplug.core.engine import library
from sevplug.core.engine.opcodes import loads_descriptor
from sevplug.core.engine.vcpu import EngineCpu
from sevplug.core.errors import GuestFault
from sevplug.core.memory import MemoryRange, RangeKind
from sevplug.core.paging import CR4_PGE, EXECUTABLE, GLOBAL, READABLE, RFLAGS_AC, WRITABLE, PageWalker
from sevplug.core.vcpu import Access

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

# Where accesses to nothing go: a page of the engine's address space that no guest can name (guest-physical addresses
# are narrower).
NOWHERE = 1 << 51
_PAGE = 0x000F_FFFF_FFFF_F000
# Up to here flushing pages one by one is cheaper than walking all the others again.
_FEW_PAGES = 256
CS, LDT, GDT = 1, 6, 8


class Fills:
    """The callback's state: the bound walker, the pages that hold code, and the last fault."""

    def __init__(self, machine: Machine, cpu: EngineCpu, fail: Callable[[BaseException], None]) -> None:
        self._machine = machine
        self._cpu = cpu
        self._fail = fail
        self._q, self._d = cpu.state.q, cpu.state.d
        self.count = 0
        # The fault that made the last fill fail: (vector, error code, CR2 page) or None.
        self.fault: tuple[int, int | None, int] | None = None
        self.code_pages: set[int] = set()
        # Linear pages whose cached translation a load of CR3 ends.
        self._local_pages: set[int] = set()
        self._walker: PageWalker | None = None
        self._slots: dict[int, tuple[memoryview, memoryview]] = {}
        self._low = machine.memory.ranges[0]
        self._low_size = self._low.size
        self.callback = library.FILL_CALLBACK(self._fill)

    def bind(self, mask: int, translate: Callable[[int, int], int] | None, physical_bits: int) -> None:
        """Make the walker; ``mask`` and ``translate`` as in `PageWalker`."""
        memory = self._machine.memory
        low64 = self._low.buffer.cast("Q")
        low32 = self._low.buffer.cast("I")
        size = self._low_size

        def read64(gpa: int) -> int:
            if gpa < size:
                return low64[gpa >> 3]
            return int.from_bytes(memory.read(gpa, 8), "little")

        def write64(gpa: int, value: int) -> None:
            if gpa < size:
                low64[gpa >> 3] = value
            else:
                memory.write(gpa, value.to_bytes(8, "little"))

        def read32(gpa: int) -> int:
            if gpa < size:
                return low32[gpa >> 2]
            return int.from_bytes(memory.read(gpa, 4), "little")

        def write32(gpa: int, value: int) -> None:
            if gpa < size:
                low32[gpa >> 2] = value
            else:
                memory.write(gpa, value.to_bytes(4, "little"))

        self._walker = PageWalker(read64, write64, read32, write32, physical_bits, mask, translate, low64)

    def unbind(self) -> None:
        """Let go of the memory's buffers."""
        self._walker = None

    def load_cr3(self, value: int) -> None:
        """MOV to CR3: translations of global pages stay when CR4.PGE is set (APM 2, section 5.5.2).

        Kernels switch CR3 back and forth for every patched instruction; with the engine's own full flush each of their
        pages would be walked again after each switch.
        """
        self._q[at.CR3 // 8] = value
        local = self._local_pages
        if len(local) > _FEW_PAGES or not self._q[at.CR4 // 8] & CR4_PGE:
            self._cpu.flush_translations()
        else:
            for address in local:
                self._cpu.flush_page(address)
        local.clear()

    def walk(self, address: int, access: int) -> int:
        """A walk with the CPU's present control registers; see `PageWalker.walk` for the result."""
        assert self._walker is not None
        q = self._q
        ac = bool(q[at.EFLAGS // 8] & RFLAGS_AC)
        return self._walker.walk(address, access, q[at.CR0 // 8], q[at.CR3 // 8], q[at.CR4 // 8], q[at.EFER // 8], ac)

    def _fill(self, _handle: int, address: int, kind: int, result: int, _user: int) -> bool:
        try:
            self.count += 1
            user = self._d[at.HFLAGS // 4] & at.HF_CPL == 3
            access = 4 if kind == 18 else kind - 15  # MEM_FETCH, MEM_READ, MEM_WRITE -> Access
            if self._d[at.HFLAGS // 4] & at.HF_LMA and (address + 0x8000_0000_0000) & 0xFFFF_0000_0000_0000:
                self.fault = (13, 0, address)  # not canonical
                return False
            found = self.walk(address, access | 16 if user else access)
            if found < 0:
                if user and kind != library.MEM_FETCH and self._is_descriptor_access(address):
                    found = self.walk(address, access)
                if found < 0:
                    self.fault = (14, ~found, address)
                    return False
            if not found & GLOBAL:
                self._local_pages.add(address)
            page = found & _PAGE
            entry: MemoryRange | MmioRange | None
            if page < self._low_size:
                writable = found & WRITABLE
            else:
                entry = self._machine.memory.find(page)
                if entry is None:
                    if self._machine.bus.find_mmio(page) is None:
                        page = NOWHERE
                    writable = found & WRITABLE
                elif entry.kind is RangeKind.ROM:
                    writable = 0
                    if access == Access.WRITE:
                        # A store to ROM goes nowhere; the next load comes back here.
                        return self._answer(result, NOWHERE, WRITABLE)
                else:
                    writable = found & WRITABLE
            permissions = (found & READABLE) | writable
            if access == 4:
                permissions |= EXECUTABLE
                if page not in self.code_pages:
                    self.code_pages.add(page)
                    self._cpu.flush_translations()
            elif page in self.code_pages:
                permissions |= found & EXECUTABLE
            return self._answer(result, page, permissions)
        except GuestFault as fault:
            self.fault = (fault.vector, fault.error_code, address)
            return False
        except BaseException as error:  # it must not pass through the engine's C frames
            self._fail(error)
            return False

    def _answer(self, result: int, page: int, permissions: int) -> bool:
        slot = self._slots.get(result)
        if slot is None:
            # The result lies on the engine's stack, at one of a handful of places.
            slot = (
                memoryview((c_uint64 * 1).from_address(result)).cast("B").cast("Q"),
                memoryview((c_uint32 * 1).from_address(result + 8)).cast("B").cast("I"),
            )
            self._slots[result] = slot
        slot[0][0] = page
        slot[1][0] = permissions
        return True

    def _is_descriptor_access(self, address: int) -> bool:
        """Whether it is the CPU itself that wants a page-aligned linear address: it reaches for its GDT or LDT.

        Such accesses have supervisor rights at any privilege level.  The engine does not tell them from the
        program's own, so the present instruction has to be one that loads a descriptor.
        """
        for number in (LDT, GDT):
            _selector, base, limit, _flags = self._cpu.segment(number)
            if base & ~0xFFF <= address <= base + limit:
                rex = bool(self._d[at.HFLAGS // 4] & at.HF_CS64)
                return loads_descriptor(self._code(), rex=rex)
        return False

    def _code(self) -> bytes:
        """The bytes from RIP on, up to the end of their page or 15 of them."""
        address = self._cpu.rip + self._cpu.segment(CS)[1]
        found = self.walk(address, Access.FETCH | Access.USER)
        if found < 0:
            return b""
        return self._machine.memory.read((found & _PAGE) | (address & 0xFFF), min(15, 0x1000 - (address & 0xFFF)))
