"""A Linux kernel entered directly at its 64-bit entry: what has to lie in guest memory, and where.

After Documentation/arch/x86/boot.rst ("64-bit Boot Protocol") and zero-page.rst of Linux.  Everything here is a value;
the loader that goes from the reset vector to the kernel is direct.S beside this file.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from importlib import resources

import attrs

from sevplug.boot.bzimage import HEADER_AT, BzImage, parse_bzimage
from sevplug.core.config import BootImages
from sevplug.core.errors import ConfigError
from sevplug.core.images import Image, ImagePart
from sevplug.core.launch import LaunchRegion
from sevplug.core.memory import HIGH_RAM_BASE, PAGE_SIZE

LOADER_BASE = 0xFFFF_F000
BOOT_PARAMS, PAGE_TABLES, COMMAND_LINE = 0x7000, 0x9000, 0x2_0000
_ENTRY_64 = 0x200
# Below the top of low memory, as firmware does it; the tables are a few KiB.
_ACPI_SIZE = 0x1_0000
_LOW_END, _EXTENDED = 0xA_0000, 0x10_0000
# A launch takes whole blocks of 16 bytes (SEV API, LAUNCH_UPDATE_DATA).
_BLOCK = 16

_PRESENT_WRITABLE, _LARGE_PAGE = 0x03, 0x83
_GIB = 1 << 30
_USABLE, _ACPI_RECLAIMABLE = 1, 3
_OTHER_LOADER, _LOADED_HIGH = 0xFF, 0x01


def loader() -> bytes:
    """The loader's 4 KiB for guest-physical address `LOADER_BASE`, without its three words."""
    return resources.files(__package__).joinpath("direct.bin").read_bytes()


def direct_regions(
    boot: BootImages,
    low_ram: int,
    high_ram: int = 0,
    encryption_mask: int = 0,
    acpi_tables: Callable[[int], bytes] | None = None,
) -> tuple[LaunchRegion, ...]:
    """Initial guest memory for a kernel without firmware, in the order in which it is launched.

    ``low_ram``: bytes of RAM from address 0 on; ``high_ram``: from 4 GiB on.  ``encryption_mask``: the C-bit as a mask,
    for the page tables and CR3; 0: a plain guest.  ``acpi_tables``: makes the tables, RSDP first, for the address it is
    given; None: there are none.  `ConfigError` when ``boot.kernel`` is no bzImage, has no 64-bit entry, or when
    something does not fit.
    """
    assert boot.kernel is not None
    kernel = parse_bzimage(boot.kernel)
    if not kernel.has_64bit_entry:
        raise ConfigError(f"kernel {kernel.path}: no 64-bit entry point, expected bit 0 of xloadflags to be set")
    command_line = kernel.check_command_line(boot.cmdline or "")
    if COMMAND_LINE + len(command_line) > _LOW_END:
        raise ConfigError(
            f"command line (append): {len(command_line)} bytes, expected at most {_LOW_END - COMMAND_LINE}"
        )
    acpi_at = (low_ram - _ACPI_SIZE) & ~(_ACPI_SIZE - 1)
    kernel_at = kernel.preferred_address
    needed = max(kernel.memory_needed, len(kernel.kernel))
    if kernel_at + needed > acpi_at:
        raise ConfigError(
            f"kernel {kernel.path}: needs {needed} bytes from {kernel_at:#x} on, expected more than {low_ram} bytes of "
            f"memory"
        )
    initrd_at = 0 if boot.initrd is None else _place_initrd(boot.initrd, kernel, kernel_at + needed, acpi_at)
    map_entries = [(0, _LOW_END, _USABLE), (_EXTENDED, acpi_at - _EXTENDED, _USABLE)]
    map_entries.append((acpi_at, low_ram - acpi_at, _USABLE if acpi_tables is None else _ACPI_RECLAIMABLE))
    if high_ram:
        map_entries.append((HIGH_RAM_BASE, high_ram, _USABLE))
    parameters = _boot_params(kernel, map_entries, kernel_at)
    struct.pack_into("<I", parameters, 0x228, COMMAND_LINE)
    if acpi_tables is not None:
        struct.pack_into("<Q", parameters, 0x70, acpi_at)
    if boot.initrd is not None:
        struct.pack_into("<II", parameters, 0x218, initrd_at, boot.initrd.size)
    words = struct.pack("<QQQ", PAGE_TABLES | encryption_mask, BOOT_PARAMS, kernel_at + _ENTRY_64)
    regions = [
        _region("loader", LOADER_BASE, words + loader()[len(words) :]),
        _region("boot parameters", BOOT_PARAMS, parameters),
        _region("page tables", PAGE_TABLES, _identity_map(encryption_mask)),
        _region("command line", COMMAND_LINE, command_line),
        _region("kernel", kernel_at, kernel.kernel),
    ]
    if boot.initrd is not None:
        regions.append(_region("initrd", initrd_at, ImagePart(boot.initrd, 0, boot.initrd.size)))
    if acpi_tables is not None:
        regions.append(_region("ACPI tables", acpi_at, acpi_tables(acpi_at)))
    return tuple(regions)


def _place_initrd(initrd: Image, kernel: BzImage, start: int, end: int) -> int:
    """As high as it goes below ``end``, page-aligned; the kernel has everything below ``start``."""
    end = min(end, kernel.initrd_limit + 1)
    place = end - initrd.size & ~(PAGE_SIZE - 1)
    if place < start:
        raise ConfigError(
            f"initrd {initrd.path}: {initrd.size} bytes do not fit beside the kernel, "
            f"expected at most {max(end - start, 0) & ~(PAGE_SIZE - 1)}"
        )
    return place


def _boot_params(kernel: BzImage, memory_map: list[tuple[int, int, int]], kernel_at: int) -> bytearray:
    """The zero page: the kernel's own header, who loaded it and where, and the memory map (address, size, type)."""
    page = bytearray(PAGE_SIZE)
    page[HEADER_AT : HEADER_AT + len(kernel.header)] = kernel.header
    page[0x210] = _OTHER_LOADER
    page[0x211] |= _LOADED_HIGH
    struct.pack_into("<I", page, 0x214, kernel_at)
    page[0x1E8] = len(memory_map)
    for number, (address, size, kind) in enumerate(memory_map):
        struct.pack_into("<QQI", page, 0x2D0 + 20 * number, address, size, kind)
    return page


def _identity_map(encryption_mask: int) -> bytes:
    """A PML4 and a table of 1 GiB pages: the first 512 GiB, each address at itself and private."""
    top = struct.pack("<Q", PAGE_TABLES + PAGE_SIZE | _PRESENT_WRITABLE | encryption_mask)
    pages = struct.pack("<512Q", *(number * _GIB | _LARGE_PAGE | encryption_mask for number in range(512)))
    return top.ljust(PAGE_SIZE, b"\0") + pages


def _region(name: str, gpa: int, data: bytes | bytearray | ImagePart) -> LaunchRegion:
    padding = -len(data) % _BLOCK
    if isinstance(data, ImagePart):
        return LaunchRegion(name, gpa, attrs.evolve(data, padding=padding), reload=True)
    return LaunchRegion(name, gpa, bytes(data) + bytes(padding), reload=True)
