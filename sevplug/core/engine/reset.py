"""The CPU's state after RESET (APM 2, section 14.1.3), and the engine's guest mode, in which it runs from then on."""

from __future__ import annotations

from sevplug.core.engine import internals as at
from sevplug.core.engine.intercepts import INTERCEPT_CR_WORD, INTERCEPT_WORD
from sevplug.core.engine.mapping import INTERCEPT_PAGE
from sevplug.core.engine.vcpu import EngineCpu


def reset_registers(cpu: EngineCpu) -> None:
    """All but RDX, which holds what CPUID says of the processor."""
    state = cpu.state
    q, d = state.q, state.d
    state.reset()
    d[at.HFLAGS // 4] &= ~(at.HF_LMA | at.HF_CS64 | at.HF_INHIBIT_IRQ)
    q[at.EFER // 8] = 0
    cpu.set("cr0", 0x60000010)
    cpu.set("cr4", 0)
    cpu.set("cr2", 0)
    cpu.set("cr3", 0)
    for number in (0, 2, 3, 4, 5):
        cpu.set_segment(number, 0, 0, 0xFFFF, 0x9300)
    cpu.set_segment(1, 0xF000, 0xFFFF0000, 0xFFFF, 0x9B00)
    cpu.set_segment(6, 0, 0, 0xFFFF, 0x8200)
    cpu.set_segment(7, 0, 0, 0xFFFF, 0x8B00)
    cpu.set_segment(8, 0, 0, 0xFFFF, 0)
    cpu.set_segment(9, 0, 0, 0xFFFF, 0)
    cpu.set("rflags", 2)
    cpu.set("rip", 0xFFF0)
    cpu.sync_mode(0)
    q[at.VM_VMCB // 8] = INTERCEPT_PAGE
    q[at.INTERCEPT // 8] = INTERCEPT_WORD
    q[at.INTERCEPT_CR // 8] = INTERCEPT_CR_WORD
    d[at.HFLAGS // 4] |= at.HF_GUEST
