"""SYSCALL and SYSENTER, which the engine leaves to its user.

AMD's APM, volume 3, SYSCALL and SYSENTER; the engine adds the instruction's two bytes to RIP after the callback.
"""

from __future__ import annotations

from sevplug.core.engine import internals as at
from sevplug.core.engine.vcpu import FLAG_IF, FLAG_RF, FLAG_VM, EngineCpu
from sevplug.core.errors import GuestFault

LENGTH = 2
EFER_SCE = 1
INVALID_OPCODE, PROTECTION = 6, 13
_CODE64 = 1 << 23 | 1 << 15 | 1 << 12 | 0xB00 | 1 << 21
_CODE32 = 1 << 23 | 1 << 22 | 1 << 15 | 1 << 12 | 0xB00
_DATA = 1 << 23 | 1 << 22 | 1 << 15 | 1 << 12 | 0x300


def enter_by_syscall(cpu: EngineCpu) -> None:
    """SYSCALL; `GuestFault` #UD where EFER.SCE is clear or the CPU is not in protected mode."""
    q = cpu.state.q
    if not q[at.EFER // 8] & EFER_SCE or not cpu.state.d[at.HFLAGS // 4] & at.HF_PE:
        raise GuestFault(INVALID_OPCODE)
    selector = q[at.STAR // 8] >> 32 & 0xFFFC
    flags = cpu.get("rflags")
    following = cpu.rip + LENGTH
    if cpu.state.d[at.HFLAGS // 4] & at.HF_LMA:
        in_64bit = cpu.state.d[at.HFLAGS // 4] & at.HF_CS64
        cpu.set("rcx", following)
        cpu.set("r11", flags & ~FLAG_RF)
        target = q[at.LSTAR // 8] if in_64bit else q[at.CSTAR // 8]
        cpu.set("rflags", flags & ~q[at.FMASK // 8] & ~FLAG_RF)
        code = _CODE64
    else:
        cpu.set("rcx", following & 0xFFFFFFFF)
        target = q[at.STAR // 8] & 0xFFFFFFFF
        cpu.set("rflags", flags & ~(FLAG_IF | FLAG_RF | FLAG_VM))
        code = _CODE32
    _enter(cpu, selector, code, target)


def enter_by_sysenter(cpu: EngineCpu) -> None:
    """SYSENTER outside 64-bit mode (the engine raises #UD there); `GuestFault` #GP where SYSENTER_CS is null."""
    q = cpu.state.q
    if not q[at.SYSENTER_CS // 8] & 0xFFFC:
        raise GuestFault(PROTECTION, 0)
    long_mode = cpu.state.d[at.HFLAGS // 4] & at.HF_LMA
    selector = q[at.SYSENTER_CS // 8] & 0xFFFC
    cpu.set("rflags", cpu.get("rflags") & ~(FLAG_IF | FLAG_RF | FLAG_VM))
    cpu.set("rsp", q[at.SYSENTER_ESP // 8])
    _enter(cpu, selector, _CODE64 if long_mode else _CODE32, q[at.SYSENTER_EIP // 8])


def _enter(cpu: EngineCpu, selector: int, code: int, target: int) -> None:
    cpu.set_segment(1, selector, 0, 0xFFFFFFFF, code)
    cpu.set_segment(2, selector + 8, 0, 0xFFFFFFFF, _DATA)
    cpu.sync_mode(0)
    cpu.set("rip", target - LENGTH)
