"""Where the firmware's bytes go, and in which order they are launched."""

from __future__ import annotations

from sevplug.core.config import BootImages
from sevplug.core.errors import ConfigError
from sevplug.core.images import ImagePart
from sevplug.core.launch import LaunchRegion
from sevplug.core.memory import PAGE_SIZE, GuestMemory

FOUR_GIB = 1 << 32
# QEMU's limit for the flash of a PC (hw/i386/pc_sysfw.c, FLASH_SIZE_LIMIT).
FLASH_LIMIT = 8 << 20


def place_firmware(memory: GuestMemory, boot: BootImages) -> list[LaunchRegion]:
    """Map the firmware so that it ends at 4 GiB, and the variable store right below it.

    Returns the regions to launch: the firmware alone, since a variable store is never measured.  Both are writable to
    the guest: a flash whose command interface nobody uses is memory.  `ConfigError` when a size does not fit.
    """
    firmware = boot.firmware
    if firmware is None:
        return []
    total = firmware.size + (boot.variables.size if boot.variables else 0)
    for what, image in (("firmware", firmware), ("variable store", boot.variables)):
        if image is None:
            continue
        if image.size % PAGE_SIZE:
            raise ConfigError(f"{what} {image.path}: {image.size} bytes, expected a multiple of {PAGE_SIZE}")
        if total > FLASH_LIMIT:
            raise ConfigError(f"{what} {image.path}: {total} bytes of flash, expected at most {FLASH_LIMIT}")
    base = FOUR_GIB - firmware.size
    memory.add_rom(base, firmware.data, "firmware", writable=True)
    if boot.variables is not None:
        variables = boot.variables
        memory.add_rom(base - variables.size, variables.data, "variable store", writable=True)
    return [LaunchRegion("firmware", base, ImagePart(firmware, 0, firmware.size), reload=True)]
