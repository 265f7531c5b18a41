"""The engine's TLB-miss callback: a page walk, and what the engine may do with the page it finds.

This is the hot path of the whole emulator.  The rules that are not in the page tables come from the engine
(measured, see docs/explanation/engine.md): a translation that is executable makes every store through it slow, so a
page is handed out executable only once it was ever fetched from, and from then on always.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ctypes import c_uint32, c_uint64, c_void_p
from functools import partial
from typing import TYPE_CHECKING, Any

from sevplug.core.engine import compiled, library
from sevplug.core.engine import internals as at
from sevplug.core.engine.aliases import Aliases
from sevplug.core.engine.compiled.fills import CompiledFills
from sevplug.core.engine.opcodes import loads_descriptor
from sevplug.core.engine.pages import CodePlaces, LocalPages, Pages
from sevplug.core.engine.vcpu import EngineCpu
from sevplug.core.errors import GuestFault
from sevplug.core.memory import MemoryRange, RangeKind
from sevplug.core.paging import CR4_PGE, EXECUTABLE, GLOBAL, READABLE, RFLAGS_AC, UNLIKE_DATA, WRITABLE, PageWalker
from sevplug.core.vcpu import Access
from sevplug.core.views import PRIVATE_FORM, UNTOUCHED, PageEvent

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

# Where accesses to nothing go: a page of the engine's address space that no guest can name (guest-physical addresses
# are narrower).
NOWHERE = 1 << 51
_PAGE = 0x000F_FFFF_FFFF_F000
# Up to here flushing pages one by one is cheaper than walking all the others again.
_FEW_PAGES = 256
CS, LDT, GDT = 1, 6, 8
# Where the callback looks in the CPU state.
_HFLAGS, _EFLAGS, _EIP = at.HFLAGS // 4, at.EFLAGS // 8, at.EIP // 8
_CR0, _CR3, _CR4, _EFER = at.CR0 // 8, at.CR3 // 8, at.CR4 // 8, at.EFER // 8
_LMA, _CPL = at.HF_LMA, at.HF_CPL
_WRITE, _FETCH, _USER = Access.WRITE, Access.FETCH, Access.USER
_KINDS = {Access.READ: "read", Access.WRITE: "write", Access.FETCH: "fetch"}
# In place of a fault's vector: the instruction is to be tried again, from outside the engine.
RESTART = -1
_ACCESS = {library.MEM_READ: Access.READ, library.MEM_WRITE: Access.WRITE, library.MEM_FETCH: Access.FETCH}

Walk = Callable[[int, int, int, int, int, int, bool], int]


def _no_walk(*_arguments: object) -> int:
    raise AssertionError("a walk before the translation is bound, or after the end")


def _no_store(_gpa: int, _value: int) -> None:
    """A debugger's walk sets no bits."""


class Fills:
    """The callback's state: the bound walker, what is known of pages, and the last fault."""

    def __init__(self, machine: Machine, cpu: EngineCpu, fail: Callable[[BaseException], None]) -> None:
        self._machine = machine
        self._cpu = cpu
        self._fail = fail
        self._q, self._d = cpu.state.q, cpu.state.d
        self._count = 0
        # The fault that made the last fill fail: (vector or RESTART, error code, CR2 page) or None.
        self.fault: tuple[int, int | None, int] | None = None
        # What is left to do where the fault is RESTART, or None when translated code has to be dropped.
        self.crossing: Callable[[], object] | None = None
        # The page for which an instruction was tried again last, -1 once it has had it.
        self._tried_again = -1
        # A page table that the last walks read and that was not written as one.
        self.misread: PageEvent | None = None
        self._pages = Pages(machine.memory)
        self._aliases = Aliases(
            cpu, self._pages, lambda: machine.engine.defer(self._drop_all), lambda: self.code_page(self._linear_rip)
        )
        self._local_pages = LocalPages(_FEW_PAGES)
        self._places = CodePlaces()
        self._walk: Walk = _no_walk
        self._quiet_walk: Walk = _no_walk
        self._slots: dict[int, tuple[memoryview, memoryview]] = {}
        self._low = machine.memory.ranges[0]
        self._low_size = self._low.size
        # The states of low RAM's pages; None where memory has but one form.
        self._states = None if self._low.forms is None else self._low.forms.states
        self._low_code = self._pages.ram[0].code
        # Pages that were converted while translated code of theirs was kept.
        self._stale_code: set[int] = set()
        self._forget: Callable[[int], None] = lambda _page: None
        for entry in machine.memory.ranges:
            if entry.forms is not None:
                entry.forms.converted = partial(self._converted, entry.gpa)
        self._python = library.FILL_CALLBACK(self._fill)
        twin = compiled.load()
        # The compiled callback, where there is one.
        self.compiled: CompiledFills | None = None
        if twin is not None:
            self.compiled = CompiledFills(twin, cpu, self._pages.ram, self._places, self._local_pages, self._python)

    @property
    def callback(self) -> tuple[object, c_void_p]:
        """What the engine has to call, and with which argument."""
        if self.compiled is None:
            return self._python, c_void_p()
        return self.compiled.callback

    @property
    def walked_by(self) -> str:
        """``compiled`` or ``python``."""
        return "python" if self.compiled is None or not self.compiled.bound else "compiled"

    @property
    def count(self) -> int:
        """How many translations the engine asked for."""
        return self._count + (0 if self.compiled is None else self.compiled.count)

    def bind(self, mask: int, translate: Callable[[int, int], int] | None, physical_bits: int) -> None:
        """Make the walker; ``mask`` and ``translate`` as in `PageWalker`."""
        memory = self._machine.memory
        low64 = self._low.buffer.cast("Q")
        low32 = self._low.buffer.cast("I")
        size, states = self._low_size, self._states

        def at_hand(gpa: int) -> bool:
            return gpa < size and (states is None or states[gpa >> 12] == PRIVATE_FORM)

        def read64(gpa: int) -> int:
            if at_hand(gpa):
                return low64[gpa >> 3]
            self._look_at_table(gpa)
            return int.from_bytes(memory.read(gpa, 8, private=True), "little")

        def write64(gpa: int, value: int) -> None:
            if at_hand(gpa):
                low64[gpa >> 3] = value
            else:
                memory.write_as_cpu(gpa, value.to_bytes(8, "little"), private=True)

        def read32(gpa: int) -> int:
            if at_hand(gpa):
                return low32[gpa >> 2]
            self._look_at_table(gpa)
            return int.from_bytes(memory.read(gpa, 4, private=True), "little")

        def write32(gpa: int, value: int) -> None:
            if at_hand(gpa):
                low32[gpa >> 2] = value
            else:
                memory.write_as_cpu(gpa, value.to_bytes(4, "little"), private=True)

        walker = PageWalker(read64, write64, read32, write32, physical_bits, mask, translate, low64, states)
        self._walk, self._forget = walker.walk, walker.forget
        self._places.forget()
        if self.compiled is not None:
            if translate is None:
                self.compiled.bind(mask, ~((1 << physical_bits) - 1) & _PAGE)
            else:
                self.compiled.unbind()

        def peek(size: int) -> Callable[[int], int]:
            return lambda gpa: int.from_bytes(memory.read(gpa, size, private=True, dma=False), "little")

        quiet = PageWalker(peek(8), _no_store, peek(4), _no_store, physical_bits, mask, translate)
        self._quiet_walk = quiet.walk

    def _look_at_table(self, gpa: int) -> None:
        """A table is read that is not in private form: that may be a surprise."""
        entry = self._machine.memory.find(gpa)
        if entry is not None and entry.forms is not None:
            self.misread = entry.forms.table_read((gpa - entry.gpa) >> 12) or self.misread

    def unbind(self) -> None:
        """Let go of the memory's buffers."""
        self._walk = self._quiet_walk = _no_walk
        if self.compiled is not None:
            self.compiled.close()

    def load_cr3(self, value: int) -> None:
        """MOV to CR3: translations of global pages stay when CR4.PGE is set (APM 2, section 5.5.2).

        Kernels switch CR3 back and forth for every patched instruction; with the engine's own full flush each of their
        pages would be walked again after each switch.
        """
        self._q[at.CR3 // 8] = value
        local = self._local_pages.drain()
        if local is None or not self._q[at.CR4 // 8] & CR4_PGE:
            self._cpu.flush_translations()
        else:
            for address in local:
                self._cpu.flush_page(address)

    def walk(self, address: int, access: int) -> int:
        """A walk with the CPU's present control registers; see `PageWalker.walk` for the result."""
        q = self._q
        return self._walk(address, access, q[_CR0], q[_CR3], q[_CR4], q[_EFER], bool(q[_EFLAGS] & RFLAGS_AC))

    def look(self, address: int) -> int:
        """Where a supervisor's read of ``address`` goes, for a debugger: no rights matter, nothing is written."""
        q = self._q
        return self._quiet_walk(address, Access.READ, q[_CR0], q[_CR3], q[_CR4], q[_EFER], True)

    def code_page(self, address: int) -> int | None:
        """The guest-physical page of the code that runs at linear ``address``; None: it takes a walk to say."""
        return self._places.find(address & ~0xFFF)

    def holds_code(self, gpa: int, size: int) -> bool:
        """Whether a page of ``[gpa, gpa + size)`` was ever fetched from."""
        if gpa + size <= self._low_size and (gpa & 0xFFF) + size <= 0x1000:
            return self._low_code[gpa >> 12] != 0
        return self._pages.any_code(range(gpa & ~0xFFF, gpa + size, 0x1000))

    def _fill(self, _handle: int, address: int, kind: int, result: int, _user: int) -> bool:
        try:
            self._count += 1
            q, hflags = self._q, self._d[_HFLAGS]
            if hflags & _LMA and (address + 0x8000_0000_0000) & 0xFFFF_0000_0000_0000:
                self.fault = (13, 0, address)  # not canonical
                return False
            access = _ACCESS[kind]
            user = hflags & _CPL == 3
            found = self._walk(
                address,
                access | _USER if user else access,
                q[_CR0],
                q[_CR3],
                q[_CR4],
                q[_EFER],
                bool(q[_EFLAGS] & RFLAGS_AC),
            )
            if found < 0:
                if user and access != _FETCH and self._is_descriptor_access(address):
                    found = self.walk(address, access)
                if found < 0:
                    self.fault = (14, ~found, address)
                    return False
            if not found & GLOBAL:
                self._local_pages.add(address)
            page = found & _PAGE
            if page >= self._low_size:
                page, found = self._elsewhere(page, found, access, address)
                if found < 0:
                    return False
                code = self._pages.is_code(page)
            else:
                number = page >> 12
                if self._states is not None and self._states[number] != found >> 62:
                    found = self._enter(self._low, page, found, access, address)
                    if found < 0:
                        return False
                code = self._low_code[number] != 0
            if access == _FETCH and not code:
                if page in self._stale_code:
                    # The engine is looking for this code right now, and must not find what it translated before.
                    self.fault = (RESTART, None, address)
                    return False
                self._pages.mark_code(page)
                self._aliases.forget(page)
                code = True
            executable = access == _FETCH or (code and found & EXECUTABLE != 0)
            self._aliases.hand_out(page, address, code=code, executable=executable, stores=access == _WRITE)
            permissions = found & (READABLE | WRITABLE)
            if executable:
                self._places.remember(address, page)
                permissions |= EXECUTABLE
            elif code and access != _WRITE:
                permissions &= ~WRITABLE
            if access == _FETCH and found & UNLIKE_DATA:
                self._fetched_from_shared(page, address)
            slot = self._slots.get(result) or self._slot(result)
            slot[0][0] = page
            slot[1][0] = permissions
            return True
        except GuestFault as fault:
            self.fault = (fault.vector, fault.error_code, address)
            return False
        except BaseException as error:  # it must not pass through the engine's C frames
            self._fail(error)
            return False

    def _enter(self, entry: MemoryRange, page: int, found: int, access: int, address: int) -> int:
        """The page at guest-physical ``page`` gets the form that this access wants; what the walk ``found``, for it.

        A negative number, and `fault` and `crossing` set, where the instruction is to be tried again.
        """
        forms = entry.forms
        if forms is None:
            return found
        number, want = (page - entry.gpa) >> 12, found >> 62
        state = forms.states[number]
        if state == want:
            return found
        if state & UNTOUCHED:  # nearly all of those that come here
            return found if forms.touch(number, want, address, write=access == _WRITE) else found & ~WRITABLE
        crosses = access != _WRITE and state & PRIVATE_FORM != want
        # Whoever is told of it wants to know the instruction, which the engine says when it has stopped.  Where the
        # instruction itself lies in this page, its fetch takes the page back, and the second try has to do.
        if crosses and (access == _FETCH or self._tried_again != page):
            if access != _FETCH:
                self._tried_again = page
            self.crossing = partial(forms.enter, number, want, address, _KINDS[access])
            self.fault = (RESTART, None, address)
            return -1
        self._tried_again = -1
        if forms.enter(number, want, address, _KINDS[access]):
            return found
        # Whoever stores is to come back here: the page was last written through the other view.
        return found & ~WRITABLE

    def _fetched_from_shared(self, page: int, address: int) -> None:
        entry = self._machine.memory.find(page)
        if entry is not None and entry.forms is not None:
            entry.forms.fetched_from_shared((page - entry.gpa) >> 12, address)

    def _converted(self, base: int, number: int) -> None:
        """Page ``number`` of the range at ``base`` has changed its form: no translation of it is right any more."""
        page = base + (number << 12)
        if self._pages.is_code(page):
            self._pages.forget_code(page)
            self._stale_code.add(page)
            self._cpu.flush_translations()
        else:
            self._aliases.forget(page)
        self._forget(page)

    @property
    def _linear_rip(self) -> int:
        return self._q[_EIP] + self._cpu.segment(CS)[1]

    def _drop_all(self) -> None:
        self._machine.engine.drop_code()
        self._cpu.flush_translations()

    def save(self) -> dict[str, Any]:
        """What is known of pages, as plain data."""
        return self._pages.save()

    def load(self, state: Mapping[str, Any]) -> None:
        """Put back what `save` gave, where no translation and no translated code is left."""
        self._pages.load(state)

    def rest(self) -> None:
        """Nothing is left of what was handed out, nor of an instruction to be tried again: all starts from here."""
        self.fault = self.crossing = self.misread = None
        self._tried_again = -1
        self._local_pages.drain()
        self._stale_code.clear()

    def code_is_dropped(self) -> None:
        """The engine has thrown away all translated code."""
        self._stale_code.clear()

    def _elsewhere(self, page: int, found: int, access: int, address: int) -> tuple[int, int]:
        """What an access to ``page``, not in low RAM, gets of what the walk ``found``: (page, permissions)."""
        entry = self._machine.memory.find(page)
        if entry is None:
            return (NOWHERE if self._machine.bus.find_mmio(page) is None else page), found
        rom = entry.kind is RangeKind.ROM
        if rom and access == _WRITE:
            # A store to ROM goes nowhere; the next load comes back here.
            return NOWHERE, WRITABLE
        found = self._enter(entry, page, found, access, address)
        return page, found & ~WRITABLE if rom else found

    def _slot(self, result: int) -> tuple[memoryview, memoryview]:
        """The two words of the engine's answer at ``result``: it lies on its stack, at one of a handful of places."""
        slot = (
            memoryview((c_uint64 * 1).from_address(result)).cast("B").cast("Q"),
            memoryview((c_uint32 * 1).from_address(result + 8)).cast("B").cast("I"),
        )
        self._slots[result] = slot
        return slot

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
        address = self._linear_rip
        found = self.walk(address, Access.FETCH | Access.USER)
        if found < 0:
            return b""
        inside = address & 0xFFF
        return self._machine.memory.read((found & _PAGE) | inside, min(15, 0x1000 - inside), private=True)
