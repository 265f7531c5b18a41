"""The state of a virtual processor as SEV-ES measures it: one page (VMSA) a processor, as QEMU and KVM set it up.

What is measured is the state at reset: QEMU's registers plus what KVM adds of its own (EFER.SVME, CR4.MCE). Two
variants exist in the field. KVM_SEV_ES_INIT leaves the state of the FPU out of the page, KVM_SEV_INIT2 (Linux 6.10,
QEMU's `legacy-vm-type=off`) has it in. Sources: AMD APM volume 2, table B-4, "VMSA layout", and 14.1.3, "Processor
initialization state"; Linux, `arch/x86/kvm/svm/sev.c` (`sev_es_sync_vmsa`); sev-snp-measure, `vmsa.py`; virtee/sev,
`src/vmsa/mod.rs`.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator

from sevplug.sevapi.errors import FormatError

VMSA_SIZE = 4096
BSP_RESET = 0xFFFFFFF0

# Offsets in the page, APM volume 2, table B-4.
_EFER, _CR4, _CR0, _DR7, _DR6, _RFLAGS, _RIP = 0xD0, 0x148, 0x158, 0x160, 0x168, 0x170, 0x178
_G_PAT, _RDX, _SEV_FEATURES, _XCR0, _MXCSR, _X87_FCW = 0x268, 0x310, 0x3B0, 0x3E8, 0x408, 0x410
_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "gdtr", "ldtr", "idtr", "tr")
_ATTRIBUTES = {"gdtr": 0, "idtr": 0, "cs": 0x9B, "ldtr": 0x82, "tr": 0x8B}
_DATA_SEGMENT = 0x93


class VmsaVariant(enum.Enum):
    """Which of KVM's calls made the guest, and with it whether the FPU's state is measured."""

    INIT = "init"
    INIT2 = "init2"


def cpu_signature(family: int, model: int, stepping: int) -> int:
    """EAX of CPUID 1, which RDX holds at reset. Raises FormatError for a number that has no place in it.

    Source: AMD APM volume 3, E.3.2, "CPUID Fn0000_0001_EAX".
    """
    for name, value, limit in (("family", family, 0x10E), ("model", model, 0xFF), ("stepping", stepping, 0xF)):
        if not 0 <= value <= limit:
            raise FormatError(f"CPU {name}: expected 0 to {limit}, found {value}")
    base, extended = min(family, 0xF), max(family - 0xF, 0)
    return extended << 20 | model >> 4 << 16 | base << 8 | (model & 0xF) << 4 | stepping


def build_vmsa(reset: int, signature: int, variant: VmsaVariant, sev_features: int = 0) -> bytes:
    """The page (4096 bytes) of a processor that starts at `reset`, a 32-bit linear address.

    `signature` is EAX of CPUID 1 (u32); `sev_features` the features that KVM switched on (u64), such as 0x20 for the
    swapping of debug registers, which some releases of Linux from 6.5 on did unasked where the hardware can. Raises
    FormatError for a value out of range.
    """
    for name, value, bits in (
        ("reset address", reset, 32),
        ("CPU signature", signature, 32),
        ("features", sev_features, 64),
    ):
        if not 0 <= value < 1 << bits:
            raise FormatError(f"VMSA: {name}: expected {bits} bits, found {value:#x}")
    page = bytearray(VMSA_SIZE)
    for index, name in enumerate(_SEGMENTS):
        selector, base = (0xF000, reset & 0xFFFF0000) if name == "cs" else (0, 0)
        struct.pack_into("<HHIQ", page, 16 * index, selector, _ATTRIBUTES.get(name, _DATA_SEGMENT), 0xFFFF, base)
    for offset, value in (
        (_EFER, 0x1000),
        (_CR4, 0x40),
        (_CR0, 0x10),
        (_DR7, 0x400),
        (_DR6, 0xFFFF0FF0),
        (_RFLAGS, 0x2),
        (_RIP, reset & 0xFFFF),
        (_G_PAT, 0x0007040600070406),
        (_RDX, signature),
        (_SEV_FEATURES, sev_features),
        (_XCR0, 0x1),
    ):
        struct.pack_into("<Q", page, offset, value)
    if variant is VmsaVariant.INIT2:
        struct.pack_into("<I", page, _MXCSR, 0x1F80)
        struct.pack_into("<H", page, _X87_FCW, 0x37F)
    return bytes(page)


def vmsa_pages(
    count: int, ap_reset: int | None, signature: int, variant: VmsaVariant, sev_features: int = 0
) -> Iterator[bytes]:
    """The pages of `count` processors, in the order in which they are measured: the first one at 4 GiB - 16.

    `ap_reset` is where the others start, from the firmware's GUID table (`es_reset_vector`). Raises FormatError for no
    processor, and for more than one where `ap_reset` is None.
    """
    if count < 1:
        raise FormatError(f"number of vCPUs: expected at least 1, found {count}")
    if count > 1 and ap_reset is None:
        raise FormatError("number of vCPUs: more than one needs firmware with an SEV-ES reset vector in its GUID table")
    yield build_vmsa(BSP_RESET, signature, variant, sev_features)
    if ap_reset is not None and count > 1:
        page = build_vmsa(ap_reset, signature, variant, sev_features)
        for _ in range(count - 1):
            yield page
