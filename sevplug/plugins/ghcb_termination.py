"""A guest's request to be terminated, as it writes it to the GHCB MSR (AMD's GHCB specification, section 2.3.1).

Kernels and firmware that find SEV other than they expect send it from their first instructions on, when there is no
console yet.
"""

from __future__ import annotations

MSR_GHCB = 0xC0010130
_INFO_MASK, _TERMINATION_REQUEST = 0xFFF, 0x100

# (reason code set, reason code) -> meaning: the set 0 of the specification, and the set 1 of Linux
# (arch/x86/include/asm/sev-common.h).
_REASONS = {
    (0, 0): "no reason given",
    (0, 1): "the GHCB protocol versions do not meet",
    (0, 2): "the hypervisor lacks SEV-SNP features",
    (1, 0): "registering the GHCB page failed",
    (1, 1): "a page state change failed",
    (1, 2): "PVALIDATE failed",
    (1, 3): "not at VMPL 0",
    (1, 4): "CPUID could not be validated",
    (1, 5): "CPUID failed at the hypervisor",
    (1, 6): "the secrets page is missing or unusable",
}


def describe_termination(value: int) -> str | None:
    """One line for ``value``, a 64-bit number on its way to the MSR; None when it is no termination request."""
    if value & _INFO_MASK != _TERMINATION_REQUEST:
        return None
    code_set, code = value >> 12 & 0xF, value >> 16 & 0xFF
    meaning = _REASONS.get((code_set, code))
    return f"GHCB termination request, reason {code_set}:{code:#x}" + (f" ({meaning})" if meaning else "")
