"""The engine's one CPU, as hooks and devices see it (`sevplug.core.vcpu.VCpu`)."""

from __future__ import annotations

import ctypes
from array import array
from ctypes import c_uint32, c_uint64, c_void_p
from typing import TYPE_CHECKING

from sevplug.core.engine import internals as at
from sevplug.core.engine import library, media
from sevplug.core.engine.internals import CpuState
from sevplug.core.engine.tlb import TranslationCache
from sevplug.core.vcpu import CpuidRegisters

if TYPE_CHECKING:
    from sevplug.core.engine.engine import Engine

GENERAL = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16)))
# The sixteen general registers and RIP lie at the start of the state.
REGISTERS = 17
_INDEX = {name: number for number, name in enumerate(GENERAL)}
_INDEX |= {"rip": at.EIP // 8, "cr2": at.CR2 // 8, "cr3": at.CR3 // 8}
# Where each segment's selector, base, limit and flags are.
_SEGMENTS = tuple(
    (offset // 4, offset // 8 + 1, offset // 4 + 4, offset // 4 + 5)
    for offset in range(at.SEGMENTS, at.SEGMENTS + 10 * at.SEGMENT_SIZE, at.SEGMENT_SIZE)
)
_READ_ONLY_INDEX = {"cr0": at.CR0 // 8, "cr4": at.CR4 // 8, "efer": at.EFER // 8}

CC_MASK = 0x8D5  # CF PF AF ZF SF OF, which the engine keeps apart
FLAG_TF, FLAG_IF, FLAG_DF, FLAG_NT, FLAG_RF, FLAG_VM, FLAG_AC = (
    1 << 8, 1 << 9, 1 << 10, 1 << 14, 1 << 16, 1 << 17, 1 << 18,
)  # fmt: skip


class EngineCpu:
    """Registers in place, without a call into the engine; see `VCpu` for what each method promises."""

    index = 0

    def __init__(self, engine: Engine, state: CpuState, handle: c_void_p) -> None:
        self.private: dict[str, object] = {}
        self.state = state
        self._engine = engine
        self.handle = handle
        self._flags = c_uint64()
        self._flags_pointer = ctypes.byref(self._flags)
        self._words = (c_uint32 * 4)()
        self._word_pointers = [ctypes.byref(self._words, 4 * number) for number in range(4)]
        # How often all translations were forgotten; the engine does so by itself too, which is not counted.  An array
        # of one, which the compiled callback reads.
        self.flushes = array("Q", [1])
        self.translations = TranslationCache(state)

    @property
    def rip(self) -> int:
        return self.state.q[at.EIP // 8]

    @property
    def in_64bit_code(self) -> bool:
        """Whether the code that runs is 64-bit."""
        return bool(self.state.d[at.HFLAGS // 4] & at.HF_CS64)

    @property
    def in_wide_code(self) -> bool:
        """Whether operands are 32 bits wide without a prefix: 32- and 64-bit code."""
        return bool(self.state.d[at.HFLAGS // 4] & at.HF_CS32)

    @property
    def cpl(self) -> int:
        return self.state.d[at.HFLAGS // 4] & at.HF_CPL

    def get(self, register: str) -> int:
        index = _INDEX.get(register)
        if index is None:
            index = _READ_ONLY_INDEX.get(register)
        if index is not None:
            return self.state.q[index]
        if register == "rflags":
            # Only the engine can compute the arithmetic flags it has put off.
            library.load().uc_reg_read(self.handle, library.REG_RFLAGS, self._flags_pointer)
            return self._flags.value
        if register in media.REGISTERS:
            return media.read(self.handle, register)
        raise KeyError(f"no register {register!r}")

    def set(self, register: str, value: int) -> None:
        index = _INDEX.get(register)
        state = self.state
        if index is not None:
            state.q[index] = value & 0xFFFF_FFFF_FFFF_FFFF
            if register == "cr3":
                self.flush_translations()
        elif register == "rflags":
            state.q[at.CC_SRC // 8] = value & CC_MASK
            state.d[at.CC_OP // 4] = at.CC_OP_EFLAGS
            state.d[at.DF // 4] = 0xFFFFFFFF if value & FLAG_DF else 1
            state.q[at.EFLAGS // 8] = (value & ~(CC_MASK | FLAG_DF)) | 2
        elif register == "cr0":
            library.load().cpu_x86_update_cr0_x86_64(c_void_p(state.env_address), c_uint32(value))
        elif register == "cr4":
            library.load().cpu_x86_update_cr4_x86_64(c_void_p(state.env_address), c_uint32(value))
        elif register == "efer":
            state.q[at.EFER // 8] = value
            self.flush_translations()
        elif register in media.REGISTERS:
            media.write(self.handle, register, value)
        else:
            raise KeyError(f"no register {register!r}")

    # -- segments: the cached descriptor, as the engine keeps it ---------------------------------------------------

    def segment(self, number: int) -> tuple[int, int, int, int]:
        """(selector, base, limit, flags) of segment ``number`` (es cs ss ds fs gs ldt tr gdt idt = 0..9).

        ``flags`` is the second word of the descriptor, as in QEMU's SegmentCache.
        """
        selector, base, limit, flags = _SEGMENTS[number]
        d = self.state.d
        return d[selector], self.state.q[base], d[limit], d[flags]

    def set_segment(self, number: int, selector: int, base: int, limit: int, flags: int) -> None:
        """Write a segment with its descriptor cache; `sync_mode` must follow once all are written."""
        at_selector, at_base, at_limit, at_flags = _SEGMENTS[number]
        d = self.state.d
        d[at_selector] = selector & 0xFFFF
        self.state.q[at_base] = base & 0xFFFF_FFFF_FFFF_FFFF
        d[at_limit] = limit & 0xFFFFFFFF
        d[at_flags] = flags & 0xFFFFFFFF

    def sync_mode(self, cpl: int) -> None:
        """Derive the engine's mode bits from the segments, CR0 and EFER, as its own cpu_x86_load_seg_cache does."""
        d = self.state.d
        hflags = d[at.HFLAGS // 4] & ~(
            at.HF_CPL | at.HF_CS32 | at.HF_CS64 | at.HF_SS32 | at.HF_ADDSEG | at.HF_INHIBIT_IRQ
        )
        cs_flags, ss_flags = self.segment(1)[3], self.segment(2)[3]
        if hflags & at.HF_LMA and cs_flags & 1 << 21:
            hflags |= at.HF_CS64 | at.HF_CS32 | at.HF_SS32
        else:
            hflags |= (cs_flags >> 22 & 1) * at.HF_CS32 | (ss_flags >> 22 & 1) * at.HF_SS32
            flags = self.state.q[at.EFLAGS // 8]
            real = not hflags & at.HF_PE or flags & FLAG_VM
            bases = self.segment(0)[1] | self.segment(2)[1] | self.segment(3)[1]
            if real or not hflags & at.HF_CS32 or bases:
                hflags |= at.HF_ADDSEG
        # Any write of DR7 takes the breakpoint bit away; see portio.py for what it is needed for.
        d[at.HFLAGS // 4] = hflags | cpl | at.HF_IOBPT

    # -- the rest of VCpu ------------------------------------------------------------------------------------------

    def native_cpuid(self, leaf: int, subleaf: int) -> CpuidRegisters:
        """What the engine's own CPU model answers."""
        words = self._words
        library.load().cpu_x86_cpuid_x86_64(self.state.env_address, leaf, subleaf, *self._word_pointers)
        return CpuidRegisters(words[0], words[1], words[2], words[3])

    def cpuid(self, leaf: int, subleaf: int) -> CpuidRegisters:
        return self._engine.intercepts.cpuid(leaf, subleaf)

    def msr_read(self, index: int) -> int:
        return self._engine.intercepts.msr_read(index)

    def msr_write(self, index: int, value: int) -> None:
        self._engine.intercepts.msr_write(index, value)

    def raise_exception(self, vector: int, error_code: int | None = None) -> None:
        self._engine.delivery.exception(vector, error_code)

    def set_interrupt_line(self, level: bool) -> None:
        if level:
            self.state.request(at.REQUEST_IRQ_BYTE, at.REQUEST_IRQ)
        else:
            self.state.withdraw(at.REQUEST_IRQ_BYTE)

    @property
    def interrupt_line(self) -> bool:
        """The level of the INTR pin."""
        return self.state.cpu[at.CPU_INTERRUPT_REQUEST + at.REQUEST_IRQ_BYTE] != 0

    def flush_page(self, address: int) -> None:
        """Forget the cached translation of one linear page."""
        library.load().tlb_flush_page_x86_64(self.state.cpu_address, address)

    def flush_translations(self) -> None:
        self.flushes[0] += 1
        self.translations.flush()
