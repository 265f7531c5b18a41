"""What Python and the compiled part share, as C lays it out."""

from __future__ import annotations

import ctypes
from ctypes import c_bool, c_uint32, c_uint64, c_void_p
from typing import Final

from sevplug.core.engine import internals as at

# As in walk.h.
_RANGES: Final = 2
RARE: Final = -(1 << 63)


# Where the state has what, by the names of ``struct offsets`` of fill.h.
OFFSETS: Final = {
    "hflags": at.HFLAGS,
    "eflags": at.EFLAGS,
    "cr0": at.CR0,
    "cr3": at.CR3,
    "cr4": at.CR4,
    "efer": at.EFER,
    "eip": at.EIP,
    "old_exception": at.OLD_EXCEPTION,
}


class Range(ctypes.Structure):
    """``struct range`` of walk.h."""

    _fields_ = (
        ("gpa", c_uint64),
        ("size", c_uint64),
        ("bytes", c_void_p),
        ("states", c_void_p),
        ("linear", c_void_p),
        ("code", c_void_p),
        ("handed_out", c_void_p),
        ("executed", c_void_p),
        ("stored", c_void_p),
    )


class Walker(ctypes.Structure):
    """``struct walker`` of walk.h."""

    _fields_ = (("ranges", Range * _RANGES), ("mask", c_uint64), ("too_wide", c_uint64))


class Controls(ctypes.Structure):
    """``struct controls`` of walk.h."""

    _fields_ = (("cr0", c_uint64), ("cr3", c_uint64), ("cr4", c_uint64), ("efer", c_uint64), ("ac", c_bool))


class Fills(ctypes.Structure):
    """``struct fills`` of fill.h."""

    _fields_ = (
        ("walker", Walker),
        ("state", c_void_p),
        *((name, c_uint32) for name in OFFSETS),
        ("python", c_void_p),
        ("enabled", c_uint32),
        ("local_size", c_uint32),
        ("local_count", c_void_p),
        ("local", c_void_p),
        ("code_linear", c_void_p),
        ("code_gpa", c_void_p),
        ("count", c_uint64),
        ("flushes", c_void_p),
        ("cpu", c_void_p),
        ("flush_page", c_void_p),
        ("flush", c_void_p),
    )


class Exits(ctypes.Structure):
    """``struct exits`` of exits.c."""

    _fields_ = (
        *((name, c_void_p) for name in ("fills", "python")),
        *((name, c_void_p) for name in ("times", "jitter", "tsc_offset")),
        *((name, c_uint32) for name in ("tsc_mhz", "event_ns", "pause_ns", "enabled")),
    )


def address_of_function(function: object) -> int | None:
    """Where a function of a library, or a callback, begins."""
    return ctypes.cast(function, c_void_p).value  # type: ignore[arg-type]
