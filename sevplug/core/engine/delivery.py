"""Exceptions and interrupts, delivered as the architecture says.

AMD's APM, volume 2, chapter 8 is the specification: real mode through the vector table, 16- and 32-bit gates with and
without a change of privilege, virtual-8086 mode, long mode with interrupt stacks; double and triple faults.  Everything
that can fault is read and written before the CPU state changes, so a failed delivery leaves no trace.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from sevplug.core.engine import internals as at
from sevplug.core.engine.internals import CpuState
from sevplug.core.engine.linear import LinearMemory
from sevplug.core.engine.vcpu import FLAG_AC, FLAG_IF, FLAG_NT, FLAG_RF, FLAG_TF, FLAG_VM, EngineCpu
from sevplug.core.errors import GuestFault

DIVIDE, DEBUG, NMI, BREAKPOINT, OVERFLOW = 0, 1, 2, 3, 4
INVALID_OPCODE, DOUBLE_FAULT, INVALID_TSS, NOT_PRESENT, STACK, PROTECTION, PAGE_FAULT = 6, 8, 10, 11, 12, 13, 14
_CONTRIBUTORY = frozenset({DIVIDE, INVALID_TSS, NOT_PRESENT, STACK, PROTECTION})
_WITH_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17, 21, 29, 30})
_FAULTS_WITH_RF = frozenset({0, 5, 6, 7, 10, 11, 12, 13, 14, 16, 17, 19})

DR6_BS = 1 << 14

ES, CS, SS, DS, FS, GS, LDT, TR, GDT, IDT = range(10)
# Bits of a descriptor's second word, where QEMU's SegmentCache keeps them too.
DESC_P, DESC_S, DESC_CODE, DESC_CONFORMING, DESC_WRITABLE = 1 << 15, 1 << 12, 1 << 11, 1 << 10, 1 << 9
DESC_L, DESC_B, DESC_G = 1 << 21, 1 << 22, 1 << 23


class Delivery:
    """Puts events into one CPU.  RIP must point at the instruction that resumes (faults: the faulting one)."""

    def __init__(self, cpu: EngineCpu, linear: LinearMemory, shutdown: Callable[[str], None]) -> None:
        self._cpu = cpu
        self._state: CpuState = cpu.state
        self._linear = linear
        self._shutdown = shutdown

    def exception(self, vector: int, error_code: int | None = None) -> None:
        """A fault, trap or abort raised by the CPU.

        The vector decides whether an error code is pushed: None counts as 0, and one that has no place is dropped.
        """
        error_code = (error_code or 0) if vector in _WITH_ERROR_CODE else None
        self._deliver(vector, error_code, software=False, resume=vector in _FAULTS_WITH_RF)

    def interrupt(self, vector: int) -> None:
        """An external interrupt."""
        self._deliver(vector, None, software=False, resume=False)

    def software(self, vector: int) -> None:
        """INT n, INT3, INTO; RIP is already behind the instruction."""
        self._deliver(vector, None, software=True, resume=False)

    def single_step(self) -> None:
        """#DB behind an instruction that was emulated while RFLAGS.TF was set."""
        self._state.q[at.DR6 // 8] |= DR6_BS
        self.exception(DEBUG)

    def _deliver(self, vector: int, error_code: int | None, *, software: bool, resume: bool) -> None:
        # What a program raises itself is benign whatever its number; only the CPU's own exceptions can become double.
        first = -1 if software else vector
        while True:
            try:
                self._once(vector, error_code, software, resume)
                return
            except GuestFault as nested:
                if software:
                    self._cpu.set("rip", self._start_of_interrupt(vector))
                serious = first in _CONTRIBUTORY and nested.vector in _CONTRIBUTORY
                serious |= first == PAGE_FAULT and (nested.vector in _CONTRIBUTORY or nested.vector == PAGE_FAULT)
                if vector == DOUBLE_FAULT:
                    self._shutdown(
                        f"triple fault: exception {nested.vector} while the double fault was delivered, "
                        f"at rip {self._cpu.rip:#x}"
                    )
                    return
                software, resume = False, True
                if serious:
                    vector, error_code = DOUBLE_FAULT, 0
                else:
                    first = vector = nested.vector
                    error_code = nested.error_code

    def _once(self, vector: int, error_code: int | None, software: bool, resume: bool) -> None:
        hflags = self._state.d[at.HFLAGS // 4]
        flags = self._cpu.get("rflags")
        if not hflags & at.HF_PE:
            self._real(vector, flags)
            return
        pushed = flags | FLAG_RF if resume else flags & ~FLAG_RF
        if hflags & at.HF_LMA:
            self._long(vector, error_code, software, flags, pushed)
        else:
            self._protected(vector, error_code, software, flags, pushed)

    def _start_of_interrupt(self, vector: int) -> int:
        """Where the INT n, INT3 or INTO lies that RIP is behind: its fault is reported there."""
        rip = self._cpu.rip
        code = self._linear.read_code(self._cpu.segment(CS)[1] + rip - 2, 2)
        return rip - 2 if code == bytes([0xCD, vector]) else rip - 1

    # -- real mode -------------------------------------------------------------------------------------------------

    def _real(self, vector: int, flags: int) -> None:
        cpu, linear = self._cpu, self._linear
        _selector, idt_base, idt_limit, _flags = cpu.segment(IDT)
        if vector * 4 + 3 > idt_limit:
            raise GuestFault(DOUBLE_FAULT if vector == PROTECTION else PROTECTION)
        target = linear.read_int(idt_base + vector * 4, 4)
        ss_base = cpu.segment(SS)[1]
        sp = cpu.get("rsp")
        code = cpu.segment(CS)
        for word in (flags & 0xFFFF, code[0], cpu.rip & 0xFFFF):
            sp = (sp & ~0xFFFF) | (sp - 2 & 0xFFFF)
            linear.write(ss_base + (sp & 0xFFFF), (word & 0xFFFF).to_bytes(2, "little"))
        cpu.set("rsp", sp)
        selector = target >> 16
        cpu.set_segment(CS, selector, selector << 4, code[2], code[3])
        cpu.set("rip", target & 0xFFFF)
        cpu.set("rflags", flags & ~(FLAG_IF | FLAG_TF | FLAG_AC | FLAG_RF))
        cpu.sync_mode(0)

    # -- gates and descriptors -------------------------------------------------------------------------------------

    def _gate(self, vector: int, size: int, software: bool) -> int:
        _selector, base, limit, _flags = self._cpu.segment(IDT)
        code = vector * 8 + 2
        if vector * size + size - 1 > limit:
            raise GuestFault(PROTECTION, code)
        gate = self._linear.read_int(base + vector * size, size)
        high = gate >> 32
        if high >> 8 & 0x1F not in ((0xE, 0xF) if size == 16 else (5, 6, 7, 0xE, 0xF)):
            raise GuestFault(PROTECTION, code)
        if software and high >> 13 & 3 < self._cpu.cpl:
            raise GuestFault(PROTECTION, code)
        if not high & DESC_P:
            raise GuestFault(NOT_PRESENT, code)
        return gate

    def _descriptor(self, selector: int, vector: int) -> tuple[int, int]:
        """The two words of ``selector``'s descriptor; the fault ``vector`` when it is outside its table."""
        table = self._cpu.segment(LDT if selector & 4 else GDT)
        offset = selector & ~7
        if selector & ~3 == 0 or offset + 7 > table[2]:
            raise GuestFault(vector, selector & ~3)
        raw = self._linear.read_int(table[1] + offset, 8)
        return raw & 0xFFFFFFFF, raw >> 32

    def _target(self, selector: int) -> tuple[int, int, int]:
        """Check a gate's code segment; returns its descriptor's words and the new privilege level."""
        if selector & ~3 == 0:
            raise GuestFault(PROTECTION, 0)
        low, high = self._descriptor(selector, PROTECTION)
        dpl, cpl = high >> 13 & 3, self._cpu.cpl
        if not high & DESC_S or not high & DESC_CODE or dpl > cpl:
            raise GuestFault(PROTECTION, selector & ~3)
        if not high & DESC_P:
            raise GuestFault(NOT_PRESENT, selector & ~3)
        return low, high, cpl if high & DESC_CONFORMING else dpl

    # -- long mode -------------------------------------------------------------------------------------------------

    def _long(self, vector: int, error_code: int | None, software: bool, flags: int, pushed: int) -> None:
        cpu = self._cpu
        gate = self._gate(vector, 16, software)
        selector = gate >> 16 & 0xFFFF
        low, high, cpl = self._target(selector)
        if not high & DESC_L or high & DESC_B:
            raise GuestFault(PROTECTION, selector & ~3)
        stack_index = gate >> 32 & 7
        old_ss, old_rsp = cpu.segment(SS)[0], cpu.get("rsp")
        if stack_index:
            rsp = self._tss_stack(36 + 8 * (stack_index - 1))
        elif cpl != cpu.cpl:
            rsp = self._tss_stack(4 + 8 * cpl)
        else:
            rsp = old_rsp
        rsp &= ~15
        words = [] if error_code is None else [error_code]
        words += [cpu.rip, cpu.segment(CS)[0], pushed, old_rsp, old_ss]
        frame = struct.pack(f"<{len(words)}Q", *words)
        rsp = rsp - len(frame) & 0xFFFF_FFFF_FFFF_FFFF
        self._push(rsp, frame, 8)
        if cpl != cpu.cpl or stack_index:
            # In long mode a new stack comes with a null selector in SS.
            cpu.set_segment(
                SS, cpl, 0, 0xFFFFFFFF, DESC_P | DESC_S | DESC_WRITABLE | 1 << 8 | DESC_B | DESC_G | cpl << 13
            )
        cpu.set("rsp", rsp)
        cpu.set_segment(CS, selector & ~3 | cpl, _base(low, high), _limit(low, high), high)
        cpu.set("rip", (gate & 0xFFFF) | (gate >> 32 & 0xFFFF0000) | (gate >> 64 & 0xFFFFFFFF) << 32)
        cleared = FLAG_TF | FLAG_VM | FLAG_RF | FLAG_NT
        if not gate >> 40 & 1:
            cleared |= FLAG_IF
        cpu.set("rflags", flags & ~cleared)
        cpu.sync_mode(cpl)

    def _push(self, address: int, frame: bytes, width: int) -> None:
        """Store a stack frame in one go; where that fails, word by word from the top, to fault as the CPU does."""
        try:
            self._linear.write(address, frame)
        except GuestFault as fault:
            if fault.vector == PROTECTION:
                raise GuestFault(STACK, 0) from None
            for offset in range(len(frame) - width, -1, -width):
                self._linear.write(address + offset, frame[offset : offset + width])

    def _tss_stack(self, offset: int) -> int:
        selector, base, limit, _flags = self._cpu.segment(TR)
        if offset + 7 > limit:
            raise GuestFault(INVALID_TSS, selector & ~3)
        return self._linear.read_int(base + offset, 8)

    # -- protected mode --------------------------------------------------------------------------------------------

    def _protected(self, vector: int, error_code: int | None, software: bool, flags: int, pushed: int) -> None:
        cpu = self._cpu
        gate = self._gate(vector, 8, software)
        kind = gate >> 40 & 0x1F
        if kind == 5:
            self._shutdown(f"exception {vector} goes through a task gate, which this machine does not have")
            return
        selector = gate >> 16 & 0xFFFF
        low, high, cpl = self._target(selector)
        width = 4 if kind & 8 else 2
        virtual = bool(flags & FLAG_VM)
        if virtual and cpl != 0:
            raise GuestFault(PROTECTION, selector & ~3)
        old_ss, old_rsp = cpu.segment(SS), cpu.get("rsp")
        words = [] if error_code is None else [error_code]
        words += [cpu.rip, cpu.segment(CS)[0], pushed]
        inner = cpl != cpu.cpl
        if inner:
            stack_selector, esp = self._inner_stack(cpl)
            stack_low, stack_high = self._stack_descriptor(stack_selector, cpl)
            stack = (stack_selector, _base(stack_low, stack_high), _limit(stack_low, stack_high), stack_high)
            words += [old_rsp, old_ss[0]]
            if virtual:
                words += [cpu.segment(number)[0] for number in (ES, DS, FS, GS)]
        else:
            stack, esp = old_ss, old_rsp
        mask = 0xFFFFFFFF if stack[3] & DESC_B else 0xFFFF
        limit = (1 << 8 * width) - 1
        frame = b"".join((word & limit).to_bytes(width, "little") for word in words)
        new_esp = esp - len(frame) & mask
        # A stack pointer that wraps around leaves the older part at the segment's end.
        upper = min(len(frame), mask + 1 - new_esp)
        self._push(stack[1], frame[upper:], width)
        self._push(stack[1] + new_esp & 0xFFFFFFFF, frame[:upper], width)
        if virtual:
            for number in (ES, DS, FS, GS):
                cpu.set_segment(number, 0, 0, 0, 0)
        if inner:
            cpu.set_segment(SS, stack[0] & ~3 | cpl, stack[1], stack[2], stack[3])
        cpu.set("rsp", (old_rsp & ~mask | new_esp) & 0xFFFFFFFF)
        cpu.set_segment(CS, selector & ~3 | cpl, _base(low, high), _limit(low, high), high)
        cpu.set("rip", (gate & 0xFFFF) | (gate >> 32 & 0xFFFF0000 if width == 4 else 0))
        cleared = FLAG_TF | FLAG_VM | FLAG_RF | FLAG_NT
        if not kind & 1:
            cleared |= FLAG_IF
        cpu.set("rflags", flags & ~cleared)
        cpu.sync_mode(cpl)

    def _inner_stack(self, cpl: int) -> tuple[int, int]:
        """(ss, esp) of privilege ``cpl`` from the task-state segment, 16- or 32-bit by its type."""
        selector, base, limit, tss_flags = self._cpu.segment(TR)
        width = 4 if tss_flags & 0x800 else 2
        offset = (cpl * 2 + 1) * width
        if offset + 2 * width - 1 > limit:
            raise GuestFault(INVALID_TSS, selector & ~3)
        esp = self._linear.read_int(base + offset, width)
        return self._linear.read_int(base + offset + width, 2), esp

    def _stack_descriptor(self, selector: int, cpl: int) -> tuple[int, int]:
        if selector & ~3 == 0 or selector & 3 != cpl:
            raise GuestFault(INVALID_TSS, selector & ~3)
        low, high = self._descriptor(selector, INVALID_TSS)
        if high >> 13 & 3 != cpl or not high & DESC_S or high & DESC_CODE or not high & DESC_WRITABLE:
            raise GuestFault(INVALID_TSS, selector & ~3)
        if not high & DESC_P:
            raise GuestFault(STACK, selector & ~3)
        return low, high


def _base(low: int, high: int) -> int:
    return (low >> 16) | (high & 0xFF) << 16 | (high & 0xFF000000)


def _limit(low: int, high: int) -> int:
    limit = (low & 0xFFFF) | (high & 0xF0000)
    return limit << 12 | 0xFFF if high & DESC_G else limit
