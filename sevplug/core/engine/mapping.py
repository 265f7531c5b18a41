"""The engine's address space: the machine's memory and devices, a page that is nothing, and the intercept page.

RAM is mapped once and never twice: two mappings of one buffer would break the engine's detection of code that changes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_uint64, c_void_p
from typing import TYPE_CHECKING, Any

from sevplug.core.bus import MmioRange
from sevplug.core.engine import library
from sevplug.core.engine.fills import NOWHERE
from sevplug.core.memory import MemoryRange
from sevplug.core.msrs import permission_bitmap

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

# The page that plays the VMCB, and behind it the MSR permission bitmap, where no guest-physical address reaches.
INTERCEPT_PAGE = NOWHERE + 0x1_0000
_MSR_BITMAP_POINTER = 0x48
# Runs an access to a device, or gives the second argument when that failed.
Guarded = Callable[[Callable[[], Any], Any], Any]


class AddressSpace:
    """What is mapped into one engine; keep it as long as the engine lives."""

    def __init__(self, machine: Machine, handle: c_void_p, guarded: Guarded) -> None:
        self._lib = library.load()
        self._handle = handle
        self._guarded = guarded
        self._callbacks: list[object] = []
        everything = library.PROT_READ | library.PROT_WRITE | library.PROT_EXEC
        for entry in machine.memory.ranges:
            code = self._lib.uc_mem_map_ptr(handle, entry.gpa, entry.size, everything, _pointer(entry))
            library.check(code, f"mapping {entry.name}")
        self._map_intercept_page()
        for area in machine.bus.mmio_ranges:
            self._map_mmio(area)
        self._map_mmio(MmioRange(NOWHERE, 0x1000, lambda _gpa, size: (1 << 8 * size) - 1, _swallow, "nothing"))

    def _map_intercept_page(self) -> None:
        self._scratch = ctypes.create_string_buffer(0x4000)
        aligned = (ctypes.addressof(self._scratch) + 0xFFF) & ~0xFFF
        code = self._lib.uc_mem_map_ptr(self._handle, INTERCEPT_PAGE, 0x3000, library.PROT_READ, aligned)
        library.check(code, "mapping the intercept page")
        c_uint64.from_address(aligned + _MSR_BITMAP_POINTER).value = INTERCEPT_PAGE + 0x1000
        ctypes.memmove(aligned + 0x1000, permission_bitmap(), 0x2000)

    def _map_mmio(self, area: MmioRange) -> None:
        base, device_read, device_write = area.base, area.read, area.write

        def read(_handle: int, offset: int, size: int, _user: int) -> int:
            value: int = self._guarded(lambda: device_read(base + offset, size), 0)
            return value

        def write(_handle: int, offset: int, size: int, value: int, _user: int) -> None:
            self._guarded(lambda: device_write(base + offset, size, value), None)

        on_read = library.MMIO_READ_CALLBACK(read)
        on_write = library.MMIO_WRITE_CALLBACK(write)
        self._callbacks += [on_read, on_write]
        code = self._lib.uc_mmio_map(self._handle, area.base, area.size, on_read, None, on_write, None)
        library.check(code, f"mapping {area.owner}")


def _pointer(entry: MemoryRange) -> int:
    """The host address of a range's buffer."""
    return ctypes.addressof(ctypes.c_char.from_buffer(entry.buffer))


def _swallow(_address: int, _size: int, _value: int) -> None:
    """A store to nothing."""
