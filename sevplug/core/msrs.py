"""Model-specific registers of the machine itself.

Three kinds: those the engine keeps natively and nobody need trap; those that hardware of this family has and that
read as a constant and ignore writes, as in KVM's and QEMU's tables; and all others, which take #GP as on hardware.
"""

from __future__ import annotations

TSC = 0x10
APIC_BASE = 0x1B
EFER = 0xC0000080
TSC_ADJUST = 0x3B
TSC_AUX = 0xC0000103

# Memory types: variable ranges, fixed ranges, default.
MTRR = (*range(0x200, 0x210), 0x250, 0x258, 0x259, *range(0x268, 0x270), 0x2FF)

NATIVE = frozenset(
    [
        0x174, 0x175, 0x176,  # SYSENTER_CS, _ESP, _EIP
        0x277,  # PAT
        *MTRR,
        0xFE,  # MTRRcap
        0xC0000080, 0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084,  # EFER, STAR, LSTAR, CSTAR, FMASK
        0xC0000100, 0xC0000101, 0xC0000102, TSC_AUX,  # FS, GS, kernel GS base, TSC_AUX
    ]
)  # fmt: skip

# index -> the value a read gives; writes are taken and forgotten.
CONSTANT: dict[int, int] = {
    0x17: 0,  # IA32_PLATFORM_ID
    0x8B: 0x0A0011D5,  # PATCH_LEVEL
    0x79: 0,  # microcode update trigger
    0x179: 0, 0x17A: 0, 0x17B: 0,  # machine check: no banks
    0x1A0: 0,  # IA32_MISC_ENABLE
    0x1D9: 0, 0x1DB: 0, 0x1DC: 0, 0x1DD: 0, 0x1DE: 0,  # DEBUGCTL and last-branch records
    0x48: 0, 0x49: 0,  # SPEC_CTRL, PRED_CMD
    0xC0010010: 0,  # SYSCFG
    0xC0010015: 1 << 24,  # HWCR, with TscFreqSel
    0xC0010016: 0, 0xC0010018: 0, 0xC001001A: 0, 0xC001001D: 0,  # IORR, TOP_MEM, TOP_MEM2
    0xC001001F: 0,  # NB_CFG
    0xC0010055: 0,  # interrupt pending and CMP halt
    0xC0010058: 0,  # MMIO configuration base
    0xC0010112: 0, 0xC0010113: 0,  # SMM address and mask
    0xC0010114: 1 << 4,  # VM_CR with SVMDIS
    0xC0010140: 0, 0xC0010141: 0,  # OSVW
    0xC001102A: 0, 0xC0011020: 0, 0xC0011021: 0, 0xC0011022: 0, 0xC0011023: 0, 0xC0011029: 0,  # LS/IC/DC/DE config
    **dict.fromkeys(range(0xC0010000, 0xC0010008), 0),  # PERF_CTL and PERF_CTR
    **dict.fromkeys(range(0xC0010200, 0xC001020C), 0),
    **dict.fromkeys(range(0x400, 0x420), 0),  # machine check banks
    **dict.fromkeys(range(0xC0010061, 0xC0010072), 0),  # P-states, cooling, COFVID
}  # fmt: skip


def permission_bitmap() -> bytes:
    """SVM's MSR permission map, 8 KiB: two bits an MSR (read, write), set = intercepted (APM 2, section 15.11).

    Everything is intercepted except what the engine keeps itself.
    """
    bitmap = bytearray(b"\xff" * 0x2000)
    for index in NATIVE:
        if index < 0x2000:
            bit = index * 2
        elif 0xC0000000 <= index < 0xC0002000:
            bit = 0x800 * 8 + (index - 0xC0000000) * 2
        else:
            continue
        bitmap[bit // 8] &= ~(3 << bit % 8) & 0xFF
    return bytes(bitmap)
