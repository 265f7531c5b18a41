"""The compiled twin of the page walk and of the TLB-miss callback, where it was built.

See `sevplug.native` for what such a part is.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Iterable
from ctypes import POINTER, c_bool, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache
from pathlib import Path
from typing import Final

from sevplug import native
from sevplug.core.engine import internals as at
from sevplug.core.engine.pages import CodePlaces, RamPages
from sevplug.core.errors import EngineError

# As in walk.h and fill.c.
_RANGES: Final = 2
RARE: Final = -(1 << 63)


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
    )


class Walker(ctypes.Structure):
    """``struct walker`` of walk.h."""

    _fields_ = (("ranges", Range * _RANGES), ("mask", c_uint64), ("too_wide", c_uint64))


class Controls(ctypes.Structure):
    """``struct controls`` of walk.h."""

    _fields_ = (("cr0", c_uint64), ("cr3", c_uint64), ("cr4", c_uint64), ("efer", c_uint64), ("ac", c_bool))


class _Fills(ctypes.Structure):
    """``struct fills`` of fill.c."""

    _fields_ = (
        ("walker", Walker),
        ("state", c_void_p),
        *((name, c_uint32) for name in ("hflags", "eflags", "cr0", "cr3", "cr4", "efer")),
        ("python", c_void_p),
        ("enabled", c_uint32),
        ("local_count", c_uint32),
        ("local_size", c_uint32),
        ("local", c_void_p),
        ("code_linear", c_void_p),
        ("code_gpa", c_void_p),
        ("count", c_uint64),
        ("flushes", c_void_p),
    )


def load() -> ctypes.CDLL | None:
    """The twin's library; None where it was not built or is not wanted.

    `EngineError` when it does not belong to these sources.
    """
    return _load() if native.wanted() else None


@cache
def _load() -> ctypes.CDLL | None:
    found = native.find(Path(__file__).parent, "_fill")
    if found is None:
        return None
    try:
        library = ctypes.CDLL(str(found))
        library.sevplug_size_of_fills.restype = c_size_t
        library.sevplug_size_of_fills.argtypes = []
        library.sevplug_translate.restype = c_int64
        library.sevplug_translate.argtypes = [POINTER(Walker), c_uint64, c_uint32, POINTER(Controls)]
        size = library.sevplug_size_of_fills()
    except (OSError, AttributeError) as error:
        raise EngineError(f"the compiled page walk in {found} cannot be used: {error}; {native.WAY_OUT}") from None
    if size != ctypes.sizeof(_Fills):
        raise EngineError(f"the compiled page walk in {found} was built from other sources; {native.WAY_OUT}")
    return library


def describe() -> str:
    """Which page walk a machine that is built now would have, and why."""
    return native.describe(load() is not None)


def ranges_of(pages: Iterable[RamPages]) -> tuple[list[Range], list[object]]:
    """The ranges of RAM as C sees them, and what has to be kept as long as they are used."""
    ranges, kept = [], []
    for ram in pages:
        buffers: dict[str, memoryview | bytearray | array[int]] = {
            "bytes": ram.buffer,
            "code": ram.code,
            "handed_out": ram.handed_out,
        }
        if ram.forms is not None:
            buffers |= {"states": ram.forms.states, "linear": ram.forms.linear}
        found = Range(gpa=ram.gpa, size=len(ram.buffer))
        for name, buffer in buffers.items():
            address, keep = native.address_of(buffer)
            setattr(found, name, address)
            kept.append(keep)
        ranges.append(found)
    return ranges, kept


class CompiledFills:
    """The compiled callback over one machine's RAM; ``python`` is the callback for all that is rare."""

    def __init__(
        self,
        library: ctypes.CDLL,
        state_address: int,
        pages: list[RamPages],
        places: CodePlaces,
        flushes: array[int],
        few: int,
        python: object,
    ) -> None:
        ranges, self._kept = ranges_of(pages)
        self._local = array("Q", bytes(8 * few))
        self._shared = shared = _Fills(
            state=state_address,
            hflags=at.HFLAGS,
            eflags=at.EFLAGS,
            cr0=at.CR0,
            cr3=at.CR3,
            cr4=at.CR4,
            efer=at.EFER,
            python=ctypes.cast(python, c_void_p).value,  # type: ignore[arg-type]
            local_size=few,
        )
        for number, ram in enumerate(ranges):
            shared.walker.ranges[number] = ram
        for name, buffer in (
            ("local", self._local),
            ("code_linear", places.linear),
            ("code_gpa", places.gpa),
            ("flushes", flushes),
        ):
            address, keep = native.address_of(buffer)
            setattr(shared, name, address)
            self._kept.append(keep)
        function = ctypes.cast(library.sevplug_fill, c_void_p)
        # What the engine has to call, and with which argument.
        self.callback = function, c_void_p(ctypes.addressof(shared))

    def bind(self, mask: int, too_wide: int) -> None:
        """Take fills from now on; the arguments as in walk.h."""
        self._shared.walker.mask, self._shared.walker.too_wide = mask, too_wide
        self._shared.enabled = 1

    def unbind(self) -> None:
        """Leave all to Python."""
        self._shared.enabled = 0

    @property
    def bound(self) -> bool:
        """Whether it takes fills."""
        return bool(self._shared.enabled)

    def close(self) -> None:
        """Let go of the memory's buffers."""
        self.unbind()
        self._kept.clear()

    @property
    def count(self) -> int:
        """Fills that Python saw nothing of."""
        found: int = self._shared.count
        return found

    def drain(self, pages: set[int]) -> bool:
        """Move the linear pages of translations that are not global into ``pages``; False when they were too many."""
        count: int = self._shared.local_count
        self._shared.local_count = 0
        pages.update(self._local[:count])
        return count <= len(self._local)
