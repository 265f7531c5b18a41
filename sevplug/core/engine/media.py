"""Registers of the x87 and SSE units, by the engine's API: nobody is in a hurry for them."""

from __future__ import annotations

import ctypes
from ctypes import c_void_p

from sevplug.core.engine import library

# name -> (the engine's number, size in bytes)
REGISTERS = {
    **{f"st{number}": (library.REG_ST0 + number, 10) for number in range(8)},
    **{f"xmm{number}": (library.REG_XMM0 + number, 16) for number in range(16)},
    "fcw": (library.REG_FPCW, 2),
    "fsw": (library.REG_FPSW, 2),
    "ftw": (library.REG_FPTAG, 2),
    "mxcsr": (library.REG_MXCSR, 4),
}


def read(handle: c_void_p, name: str) -> int:
    """The register ``name`` of `REGISTERS`; KeyError for another."""
    number, size = REGISTERS[name]
    buffer = (ctypes.c_uint8 * size)()
    library.check(library.load().uc_reg_read(handle, number, ctypes.byref(buffer)), name)
    return int.from_bytes(buffer, "little")


def write(handle: c_void_p, name: str, value: int) -> None:
    """Set the register ``name`` of `REGISTERS`, as far as it is wide; KeyError for another."""
    number, size = REGISTERS[name]
    data = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
    buffer = (ctypes.c_uint8 * size).from_buffer_copy(data)
    library.check(library.load().uc_reg_write(handle, number, ctypes.byref(buffer)), name)
