"""A Linux kernel as fw_cfg items: set-up, kernel, initrd and command line, and the addresses a boot loader would use.

After QEMU's x86_load_linux (hw/i386/x86.c).  Firmware fills in the set-up header's loader fields itself, so the set-up
is handed on as it is in the file, as QEMU does for guests whose kernel is measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sevplug.board import fw_cfg_keys as key
from sevplug.core.config import BootImages
from sevplug.core.errors import ConfigError
from sevplug.core.images import ImagePart

if TYPE_CHECKING:
    from sevplug.boot.bzimage import BzImage

# What QEMU keeps free below the top of low memory for ACPI tables (PCMachineClass.acpi_data_size).
_ACPI_RESERVE = 0x28000


def linux_items(boot: BootImages, low_ram: int) -> dict[int, bytes | ImagePart]:
    """fw_cfg items (by key) for ``boot``'s kernel, initrd and command line; empty without a kernel.

    What lies in an image is that part of it.  ``low_ram``: bytes of RAM from address 0 on.  Numbers are 32-bit
    little-endian.  `ConfigError` for an initrd or a command line without a kernel, for a kernel that is none, and for
    what does not fit.
    """
    if boot.kernel is None:
        for option, given in (("initrd", boot.initrd is not None), ("append", bool(boot.cmdline))):
            if given:
                raise ConfigError(f"--{option} is only allowed with --kernel")
        return {}
    from sevplug.boot.bzimage import parse_bzimage  # only where there is a kernel

    image = parse_bzimage(boot.kernel)
    setup, kernel = image.setup, image.kernel
    cmdline = image.check_command_line(boot.cmdline or "")
    setup_at, cmdline_at, kernel_at = _addresses(image, len(cmdline))
    if kernel_at + len(kernel) > low_ram:
        raise ConfigError(f"kernel {boot.kernel.path}: {len(kernel)} bytes do not fit into {low_ram} bytes of memory")
    items: dict[int, bytes | ImagePart] = {
        key.CMDLINE_ADDR: _u32(cmdline_at),
        key.CMDLINE_SIZE: _u32(len(cmdline)),
        key.CMDLINE_DATA: cmdline,
        key.KERNEL_ADDR: _u32(kernel_at),
        key.KERNEL_SIZE: _u32(len(kernel)),
        key.KERNEL_DATA: kernel,
        key.SETUP_ADDR: _u32(setup_at),
        key.SETUP_SIZE: _u32(len(setup)),
        key.SETUP_DATA: ImagePart(boot.kernel, 0, len(setup)),
    }
    if boot.initrd is not None:
        initrd = boot.initrd
        room = min(image.initrd_limit, low_ram - _ACPI_RESERVE - 1)
        if kernel_at + len(kernel) + initrd.size > room:
            raise ConfigError(
                f"initrd {initrd.path}: {initrd.size} bytes do not fit beside the kernel, "
                f"expected at most {max(room - kernel_at - len(kernel), 0)}"
            )
        items[key.INITRD_ADDR] = _u32((room - initrd.size) & ~0xFFF)
        items[key.INITRD_SIZE] = _u32(initrd.size)
        items[key.INITRD_DATA] = ImagePart(initrd, 0, initrd.size)
    return items


def _addresses(image: BzImage, cmdline_size: int) -> tuple[int, int, int]:
    """Where set-up, command line and kernel go."""
    if not image.loaded_high:
        return 0x90000, 0x9A000 - cmdline_size, 0x10000
    if image.protocol < 0x202:
        return 0x90000, 0x9A000 - cmdline_size, 0x100000
    return 0x10000, 0x20000, 0x100000


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "little")
