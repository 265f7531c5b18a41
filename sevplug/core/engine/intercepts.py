"""Instructions that a hypervisor would trap, and who answers them.

The engine runs the guest in its own SVM guest mode (see docs/explanation/engine.md), so an intercepted instruction does
not execute: the engine reports the exit code of the APM (volume 2, appendix C) with RIP at the instruction.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from ctypes import c_void_p
from typing import TYPE_CHECKING, Any

from sevplug.core import cpumodel, msrs
from sevplug.core.binding import bind_first
from sevplug.core.engine import internals as at
from sevplug.core.engine import library
from sevplug.core.engine.linear import LinearMemory
from sevplug.core.engine.opcodes import PREFIXES, REX, is_vex_integer, prefix_length
from sevplug.core.engine.rdrand import SeededRandom
from sevplug.core.engine.vcpu import GENERAL, EngineCpu
from sevplug.core.errors import GuestFault
from sevplug.core.vcpu import CpuidRegisters

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

EXIT_SMI, EXIT_VINTR = 0x62, 0x64
EXIT_RDTSC, EXIT_CPUID, EXIT_HLT, EXIT_MSR, EXIT_SHUTDOWN, EXIT_VMMCALL, EXIT_RDTSCP = (
    0x6E, 0x72, 0x78, 0x7C, 0x7F, 0x81, 0x87,
)  # fmt: skip
EXIT_PAUSE = 0x77
EXIT_CR3_WRITE = 0x13
# Writes of control register 3, in the engine's word of register intercepts.
INTERCEPT_CR_WORD = 1 << 16 + 3
VMMCALL = bytes([0x0F, 0x01, 0xD9])
_INTERCEPTED = (
    EXIT_SMI, EXIT_VINTR, EXIT_RDTSC, EXIT_CPUID, EXIT_PAUSE, EXIT_HLT, EXIT_MSR, EXIT_SHUTDOWN, EXIT_RDTSCP,
)  # fmt: skip
# Virtual nanoseconds of a PAUSE, far more than hardware takes: who executes it waits for something, and waits less
# wall time the sooner that comes.
PAUSE_NS = 10_000
# Second opcode bytes that a third follows: 0F 01 /r (RDTSCP, VMMCALL), 0F 22 /r (MOV to CR).
_WITH_MODRM = frozenset([0x01, 0x22])
# The engine's intercept word, one bit an exit code from 0x60 on.
INTERCEPT_WORD = sum(1 << (code - 0x60) for code in _INTERCEPTED)

_LOW = 0xFFFFFFFF
_WORD = 0xFFFF_FFFF_FFFF_FFFF
_EIP, _HFLAGS = at.EIP // 8, at.HFLAGS // 4
GENERAL_PROTECTION, INVALID_OPCODE = 13, 6


class Intercepts:
    """Dispatch of one CPU: plug-ins first, then the machine's own answer."""

    def __init__(
        self, machine: Machine, cpu: EngineCpu, linear: LinearMemory, handle: c_void_p, load_cr3: Callable[[int], None]
    ) -> None:
        self._machine = machine
        self._cpu = cpu
        self._linear = linear
        self._handle = handle
        self._model = cpumodel.find_model(machine.config.cpu)
        self.physical_bits = cpumodel.PHYSICAL_BITS
        manager = machine.plugins
        self._hook_cpuid = bind_first(manager, "cpuid")
        self._hook_rdmsr = bind_first(manager, "rdmsr")
        self._hook_wrmsr = bind_first(manager, "wrmsr")
        self._hook_intercept = bind_first(manager, "intercept")
        self._hook_unknown = bind_first(manager, "unknown_opcode")
        # An array of one, which compiled code reads too: what the counter is ahead of the clock, modulo 2^64.
        self.tsc_offset = array("Q", [0])
        self._random = SeededRandom(machine.config.seed)
        self.jitter = self._random.jitter
        self._load_cr3 = load_cr3
        self._actions: dict[int, Callable[[int], None]] = {
            EXIT_CPUID: self._do_cpuid,
            EXIT_MSR: self._do_msr,
            EXIT_RDTSC: self._do_rdtsc,
            EXIT_RDTSCP: self._do_rdtsc,
            EXIT_PAUSE: self._do_pause,
            EXIT_CR3_WRITE: self._do_cr3_write,
        }

    def reset(self) -> None:
        """The machine's own MSRs after a reset."""
        self.tsc_offset[0] = -(self._machine.clock.now * cpumodel.TSC_MHZ // 1000) & _WORD
        self._random.reset()
        for index in msrs.MTRR:
            self._native_write(index, 0)

    def save(self) -> dict[str, Any]:
        """What the machine's own MSRs and generators hold, as plain data."""
        return {"tsc_offset": self.tsc_offset[0], **self._random.save()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Put back what `save` gave; TypeError or ValueError for what cannot have come from there."""
        self._random.load(state)
        self.tsc_offset[0] = int(state["tsc_offset"]) & _WORD

    @property
    def hooked(self) -> bool:
        """Whether a plug-in wants to see each exit."""
        return self._hook_intercept is not None

    def exit(self, code: int, info: int) -> bool:
        """An exit with the APM's ``code`` and EXITINFO1.  False: this one is the engine's own to handle.

        Raises `GuestFault` where the instruction faults.
        """
        if self._hook_intercept is not None and self._hook_intercept(self._cpu, code, info):
            return True
        action = self._actions.get(code)
        if action is None:
            return False
        action(info)
        return True

    def unknown_opcode(self) -> None:
        """An instruction the engine does not know: a plug-in emulates it, or the guest takes #UD.

        VMMCALL is among them, since the engine knows it only for a guest that may use SVM itself.
        """
        code = self._code(15)
        hflags = self._cpu.state.d[at.HFLAGS // 4]
        if self._cpu.in_wide_code and not hflags & at.HF_OSFXSR and is_vex_integer(code):
            # The engine takes these for SSE and wants CR4.OSFXSR, which they do not need: let it try again as if it
            # were set, until CR4 is written next.
            self._cpu.state.d[at.HFLAGS // 4] = hflags | at.HF_OSFXSR
            return
        start = prefix_length(code)
        is_vmmcall = code[start : start + 3] == VMMCALL
        if is_vmmcall and self._hook_intercept is not None and self._hook_intercept(self._cpu, EXIT_VMMCALL, 0):
            return
        length = self._random.emulate(self._cpu, code)
        if length is None and self._hook_unknown is not None:
            length = self._hook_unknown(self._cpu, code)
        if length is None:
            raise GuestFault(INVALID_OPCODE)
        self._cpu.set("rip", self._cpu.rip + length)

    # -- instructions ----------------------------------------------------------------------------------------------

    def _do_cpuid(self, _info: int) -> None:
        cpu = self._cpu
        self._machine.counters.cpuid += 1
        result = self.cpuid(cpu.get("rax") & _LOW, cpu.get("rcx") & _LOW)
        cpu.set("rax", result.eax)
        cpu.set("rbx", result.ebx)
        cpu.set("rcx", result.ecx)
        cpu.set("rdx", result.edx)
        self.skip()

    def _do_msr(self, info: int) -> None:
        cpu = self._cpu
        index = cpu.get("rcx") & _LOW
        if info & 1:
            self._machine.counters.wrmsr += 1
            self.msr_write(index, (cpu.get("rdx") & _LOW) << 32 | cpu.get("rax") & _LOW)
        else:
            self._machine.counters.rdmsr += 1
            value = self.msr_read(index)
            cpu.set("rax", value & _LOW)
            cpu.set("rdx", value >> 32)
        self.skip()

    def _do_pause(self, _info: int) -> None:
        self._machine.clock.advance(PAUSE_NS)
        self.skip()

    def _do_cr3_write(self, _info: int) -> None:
        cpu = self._cpu
        # Its end has to be found in the old address space.
        code, start = self._instruction()
        self._move_behind(code, start)
        rex_b = code[start - 1] & 1 if start and code[start - 1] in REX else 0
        value = cpu.get(GENERAL[rex_b << 3 | code[start + 2] & 7])
        self._load_cr3(value if cpu.in_64bit_code else value & _LOW)

    def _do_rdtsc(self, _info: int) -> None:
        cpu = self._cpu
        code, start = self._instruction()
        # Hardware never takes the same time twice, and software that gathers randomness from that (Linux'
        # jitterentropy) works on, for minutes here, until it sees it.
        self._machine.clock.advance(self.jitter.next())
        value = self._tsc()
        cpu.set("rax", value & _LOW)
        cpu.set("rdx", value >> 32)
        if code[start + 1] == 0x01:  # 0F 01 F9, RDTSCP
            cpu.set("rcx", self._native_read(msrs.TSC_AUX) & _LOW)
        self._move_behind(code, start)

    def skip(self) -> None:
        """Move RIP behind the intercepted instruction: prefixes, then 0F and its opcode, or a one-byte opcode.

        With it ends the interrupt shadow of the instruction before.
        """
        self._move_behind(*self._instruction())

    def _instruction(self) -> tuple[bytes, int]:
        """The bytes from RIP on, and where behind its prefixes the intercepted instruction's opcode is in them."""
        code = self._code(15)
        if code[0] in PREFIXES or code[0] in REX:
            return code, min(13, prefix_length(code))
        return code, 0

    def _move_behind(self, code: bytes, start: int) -> None:
        """`skip`, with what `_instruction` gave."""
        state = self._cpu.state
        opcode_length = 1
        if code[start] == 0x0F:
            opcode_length = 3 if code[start + 1] in _WITH_MODRM else 2
        state.q[_EIP] = state.q[_EIP] + start + opcode_length & 0xFFFF_FFFF_FFFF_FFFF
        state.d[_HFLAGS] &= ~at.HF_INHIBIT_IRQ

    def _code(self, size: int) -> bytes:
        """Up to ``size`` bytes at RIP; fewer at the end of what is mapped."""
        cpu = self._cpu
        address = cpu.rip + cpu.segment(1)[1]
        cr2 = cpu.get("cr2")
        try:
            return self._linear.read_code(address, size)
        except GuestFault:
            self._cpu.set("cr2", cr2)
            inside = 0x1000 - (address & 0xFFF)
            return self._linear.read_code(address, min(size, inside)).ljust(size, b"\0")

    # -- answers ---------------------------------------------------------------------------------------------------

    def cpuid(self, leaf: int, subleaf: int) -> CpuidRegisters:
        """CPUID as the guest would see it."""
        native = self._cpu.native_cpuid(leaf, subleaf)
        registers = cpumodel.answer(self._model, leaf, subleaf, native)
        if self._hook_cpuid is not None:
            replaced: CpuidRegisters | None = self._hook_cpuid(self._cpu, leaf, subleaf, registers)
            if replaced is not None:
                return replaced
        return registers

    def msr_read(self, index: int) -> int:
        """RDMSR as the guest would see it; `GuestFault` #GP(0) for an MSR that is not there."""
        if self._hook_rdmsr is not None:
            value: int | None = self._hook_rdmsr(self._cpu, index)
            if value is not None:
                return value
        if index in msrs.NATIVE:
            return self._native_read(index)
        if index == msrs.TSC:
            return self._tsc()
        if index == msrs.TSC_ADJUST:
            return self.tsc_offset[0]
        if index in msrs.CONSTANT:
            return msrs.CONSTANT[index]
        raise GuestFault(GENERAL_PROTECTION, 0)

    def msr_write(self, index: int, value: int) -> None:
        """WRMSR as the guest would do it; `GuestFault` #GP(0) for an MSR that is not there."""
        if self._hook_wrmsr is not None and self._hook_wrmsr(self._cpu, index, value):
            return
        if index in msrs.NATIVE:
            self._native_write(index, value)
        elif index == msrs.TSC:
            self.tsc_offset[0] = self.tsc_offset[0] + value - self._tsc() & _WORD
        elif index == msrs.TSC_ADJUST:
            self.tsc_offset[0] = value
        elif index not in msrs.CONSTANT:
            raise GuestFault(GENERAL_PROTECTION, 0)

    def _tsc(self) -> int:
        """The time-stamp counter."""
        return self._machine.clock.now * cpumodel.TSC_MHZ // 1000 + self.tsc_offset[0] & _WORD

    def _native_write(self, index: int, value: int) -> None:
        library.write_msr(self._handle, index, value)

    def _native_read(self, index: int) -> int:
        return library.read_msr(self._handle, index)
