"""CPU models by QEMU's names: what CPUID says beyond the features that the engine really has.

A model is a signature and a name on top of the engine's own feature bits, never more features than those, since a
guest that believes in an instruction the engine lacks drowns in #UD.
"""

from __future__ import annotations

import attrs

from sevplug.core.errors import ConfigError
from sevplug.core.vcpu import CpuidRegisters

# The width of a guest-physical address without any memory-encryption bit: QEMU's default for x86-64.
PHYSICAL_BITS = 40
LINEAR_BITS = 48
# TSC ticks a microsecond; virtual time is kept in nanoseconds.
TSC_MHZ = 1000

_LEAF1_ECX_XSAVE, _LEAF1_ECX_OSXSAVE, _LEAF1_ECX_HYPERVISOR = 1 << 26, 1 << 27, 1 << 31
_LEAF1_ECX_RDRAND = 1 << 30
_LEAF1_ECX_X2APIC, _LEAF1_ECX_TSC_DEADLINE, _LEAF1_ECX_MONITOR = 1 << 21, 1 << 24, 1 << 3
_LEAF1_ECX_HIDDEN = (
    _LEAF1_ECX_XSAVE | _LEAF1_ECX_OSXSAVE | _LEAF1_ECX_X2APIC | _LEAF1_ECX_TSC_DEADLINE | _LEAF1_ECX_MONITOR
)
_EXT1_ECX_SVM = 1 << 2
_EXT7_EDX_INVARIANT_TSC = 1 << 8
MAX_EXTENDED_LEAF = 0x8000001F


@attrs.frozen
class CpuModel:
    """``signature`` is CPUID 1 EAX: extended family and model, family, model, stepping."""

    name: str
    signature: int
    brand: str


# Signatures as in QEMU's target/i386/cpu.c.
MODELS = {
    model.name: model
    for model in (
        CpuModel("EPYC", 0x00800F12, "AMD EPYC Processor"),
        CpuModel("EPYC-Rome", 0x00830F10, "AMD EPYC-Rome Processor"),
        CpuModel("EPYC-Milan", 0x00A00F11, "AMD EPYC-Milan Processor"),
        CpuModel("EPYC-Genoa", 0x00A10F10, "AMD EPYC-Genoa Processor"),
    )
}


def find_model(name: str) -> CpuModel:
    """The model of that name (QEMU's versioned names, ``EPYC-Milan-v2``, mean the model without the version).

    `ConfigError` names the known ones otherwise.
    """
    stem, _, version = name.rpartition("-v")
    known = stem if stem and version.isdigit() else name
    if known not in MODELS:
        import difflib  # only for a name that nobody knows

        close = difflib.get_close_matches(known, MODELS, 1)
        hint = f", did you mean {close[0]}?" if close else ""
        raise ConfigError(f"cpu model {name!r} is not known: expected one of {', '.join(MODELS)}{hint}")
    return MODELS[known]


def answer(model: CpuModel, leaf: int, subleaf: int, native: CpuidRegisters, apic_id: int = 0) -> CpuidRegisters:
    """CPUID of ``model``: ``native`` (what the engine's own model says) with this machine's facts put in."""
    if leaf == 1:
        # RDRAND is emulated beside the engine.
        ebx = (native.ebx & 0x00FFFFFF) | apic_id << 24
        ecx = (native.ecx & ~_LEAF1_ECX_HIDDEN) | _LEAF1_ECX_HYPERVISOR | _LEAF1_ECX_RDRAND
        return CpuidRegisters(model.signature, ebx, ecx, native.edx)
    if leaf in (0xB, 0xD) or 0x40000000 <= leaf < 0x50000000:
        # No x2APIC topology, no XSAVE areas, no paravirtual interface.
        return CpuidRegisters(0, 0, 0, 0)
    if leaf == 0x80000000:
        return attrs.evolve(native, eax=MAX_EXTENDED_LEAF)
    if leaf == 0x80000001:
        return attrs.evolve(native, eax=model.signature, ecx=native.ecx & ~_EXT1_ECX_SVM)
    if 0x80000002 <= leaf <= 0x80000004:
        text = model.brand.encode().ljust(48, b"\0")
        at = (leaf - 0x80000002) * 16
        words = [int.from_bytes(text[at + 4 * n : at + 4 * n + 4], "little") for n in range(4)]
        return CpuidRegisters(*words)
    if leaf == 0x80000007:
        return CpuidRegisters(0, 0, 0, _EXT7_EDX_INVARIANT_TSC)
    if leaf == 0x80000008:
        return attrs.evolve(native, eax=LINEAR_BITS << 8 | PHYSICAL_BITS, ecx=0)
    if leaf == 0x8000000A or leaf == 0x8000001F:
        return CpuidRegisters(0, 0, 0, 0)
    return native
