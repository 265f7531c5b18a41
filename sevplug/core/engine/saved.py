"""The CPU's registers as plain data: one table of what is saved, each entry by its name.

Not the engine's structure as it lies there: it holds pointers, and what the engine derives from the rest.  What a test
finds different after a restore, and is not in the list `DERIVED` there, is missing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from ctypes import c_void_p
from typing import Any, Final

from sevplug.core import msrs
from sevplug.core.engine import internals as at
from sevplug.core.engine import library
from sevplug.core.engine.vcpu import GENERAL, EngineCpu

_NAMES: Final = (*GENERAL, "rip")
SEGMENT_NAMES: Final = ("es", "cs", "ss", "ds", "fs", "gs", "ldt", "tr", "gdt", "idt")
# Registers of 64 bits, at their offset in the engine's state.
_QUADS: Final = {
    "cr0": at.CR0, "cr2": at.CR2, "cr3": at.CR3, "cr4": at.CR4, "efer": at.EFER, "xcr0": at.XCR0,
    **{f"dr{number}": at.DR0 + 8 * number for number in (0, 1, 2, 3)}, "dr6": at.DR6,
    "fpu_instruction": at.FPIP, "fpu_data": at.FPDP,
}  # fmt: skip
_MSRS: Final = (
    0x174, 0x175, 0x176,  # SYSENTER_CS, _ESP, _EIP
    0x277, *msrs.MTRR,  # PAT, memory types
    0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084,  # STAR, LSTAR, CSTAR, FMASK
    0xC0000102, msrs.TSC_AUX,  # kernel GS base
)  # fmt: skip
_XMM_COUNT, _XMM_BYTES = 16, 16
# How many bits a number has, and how many bytes the rest.
_WIDTHS: Final = {
    **dict.fromkeys((*_NAMES, *_QUADS, "rflags"), 64), "dr7": 32, "mode": 32, "fpu_top": 3, "fpu_status": 16,
    "fpu_control": 16, "mxcsr": 32,
}  # fmt: skip
_SEGMENT_WIDTHS: Final = (16, 64, 32, 32)
_SIZES: Final = {"fpu_tags": 8, "fpu_registers": 128, "fpu_last": 6, "xmm": _XMM_COUNT * _XMM_BYTES}
# Mode bits that a guest can have here: all of QEMU's but system management mode and MPX, which are not there.
_HFLAGS_KNOWN: Final = (1 << 25) - 1 & ~(1 << 19)


def save_registers(cpu: EngineCpu) -> dict[str, Any]:
    """Every register that the architecture has and a guest can change.  Between two instructions only."""
    state = cpu.state
    q, d = state.q, state.d
    # Put-off arithmetic flags are settled, so that whoever goes on here does it from the same state as whoever loads.
    cpu.set("rflags", cpu.get("rflags"))
    raw = state.q.cast("B")
    return {
        **{name: q[number] for number, name in enumerate(_NAMES)},
        **{name: q[offset // 8] for name, offset in _QUADS.items()},
        "rflags": cpu.get("rflags"),
        "dr7": q[at.DR7 // 8],
        "mode": d[at.HFLAGS // 4],
        "segments": {name: list(cpu.segment(number)) for number, name in enumerate(SEGMENT_NAMES)},
        "msrs": [[index, library.read_msr(cpu.handle, index)] for index in _MSRS],
        "fpu_top": d[at.FPSTT // 4],
        "fpu_status": int.from_bytes(raw[at.FPUS : at.FPUS + 2], "little"),
        "fpu_control": int.from_bytes(raw[at.FPUC : at.FPUC + 2], "little"),
        "fpu_tags": bytes(raw[at.FPTAGS : at.FPTAGS + 8]),
        "fpu_registers": bytes(raw[at.FPREGS : at.FPREGS + 128]),
        "fpu_last": bytes(raw[at.FPOP : at.FPOP + 6]),  # opcode, code and data selector
        "mxcsr": d[at.MXCSR // 4],
        "xmm": b"".join(bytes(raw[offset : offset + _XMM_BYTES]) for offset in _xmm_offsets()),
    }


def load_registers(cpu: EngineCpu, saved: Mapping[str, Any]) -> None:
    """Put back what `save_registers` gave, into a CPU that does not run; translations are forgotten.

    KeyError, TypeError or ValueError for what no guest's CPU holds.
    """
    lib, state = library.load(), cpu.state
    env = c_void_p(state.env_address)
    q, d = state.q, state.d
    raw = state.q.cast("B")
    _check(saved)
    lib.cpu_x86_update_dr7_x86_64(env, 0)  # it frees the breakpoints
    for number, name in enumerate(_NAMES):
        q[number] = saved[name]
    for name, offset in _QUADS.items():
        q[offset // 8] = saved[name]
    for number, name in enumerate(SEGMENT_NAMES):
        cpu.set_segment(number, *saved["segments"][name])
    for index, value in saved["msrs"]:
        library.write_msr(cpu.handle, index, value)
    d[at.FPSTT // 4] = saved["fpu_top"]
    for offset, size, name in ((at.FPTAGS, 8, "tags"), (at.FPREGS, 128, "registers"), (at.FPOP, 6, "last")):
        raw[offset : offset + size] = saved[f"fpu_{name}"]
    raw[at.FPUS : at.FPUS + 2] = saved["fpu_status"].to_bytes(2, "little")
    for number, offset in enumerate(_xmm_offsets()):
        raw[offset : offset + _XMM_BYTES] = saved["xmm"][number * _XMM_BYTES : (number + 1) * _XMM_BYTES]
    lib.helper_fldcw_x86_64(env, saved["fpu_control"])  # these two derive how the engine rounds
    lib.helper_ldmxcsr_x86_64(env, saved["mxcsr"])
    lib.cpu_x86_update_dr7_x86_64(env, saved["dr7"])
    cpu.set("rflags", saved["rflags"])
    d[at.HFLAGS // 4] = saved["mode"]
    d[at.OLD_EXCEPTION // 4] = 0xFFFFFFFF
    d[at.ERROR_CODE // 4] = d[at.IS_INT // 4] = 0
    cpu.flush_translations()


def _check(saved: Mapping[str, Any]) -> None:
    """KeyError, TypeError or ValueError for what cannot be put into the engine's structure without harm to it."""
    for name, bits in _WIDTHS.items():
        _number(name, saved[name], bits)
    for name in SEGMENT_NAMES:
        for value, bits in zip(saved["segments"][name], _SEGMENT_WIDTHS, strict=True):
            _number(name, value, bits)
    for index, value in saved["msrs"]:
        if index not in _MSRS:
            raise ValueError(f"MSR {index!r}")
        _number("MSR", value, 64)
    for name, size in _SIZES.items():
        if type(saved[name]) is not bytes or len(saved[name]) != size:
            raise ValueError(f"{name}: expected {size} bytes")
    mode = saved["mode"]
    if mode & ~_HFLAGS_KNOWN or not mode & at.HF_GUEST:
        raise ValueError(f"mode bits {mode:#x}")


def _number(name: str, value: Any, bits: int) -> None:
    if type(value) is not int:
        raise TypeError(f"{name}: a {type(value).__name__}")
    if not 0 <= value < 1 << bits:
        raise ValueError(f"{name}: {value:#x}")


def _xmm_offsets() -> range:
    return range(at.XMM, at.XMM + _XMM_COUNT * at.XMM_SIZE, at.XMM_SIZE)
