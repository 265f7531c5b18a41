"""A Linux kernel as fw_cfg items: the bzImage cut into set-up and kernel, and the addresses a boot loader would use.

After QEMU's x86_load_linux (hw/i386/x86.c) and Documentation/arch/x86/boot.rst of Linux.  Firmware fills in the
set-up header's loader fields itself, so the set-up is handed on as it is in the file, as QEMU does for guests whose
kernel is measured.
"""

from __future__ import annotations

from sevplug.board import fw_cfg_keys as key
from sevplug.core.config import BootImages, Image
from sevplug.core.errors import ConfigError

_SECTOR = 512
_MAGIC_AT = 0x202
_MAGIC = b"HdrS"
_LOADED_HIGH = 0x01
_ABOVE_4G = 0x02
# What QEMU keeps free below the top of low memory for ACPI tables (PCMachineClass.acpi_data_size).
_ACPI_RESERVE = 0x28000


def split_kernel(kernel: Image) -> tuple[bytes, bytes]:
    """The set-up part (boot sector and set-up sectors) and the rest of a bzImage.

    `ConfigError` when it is none, or shorter than its header says.
    """
    data = kernel.data
    if data[_MAGIC_AT : _MAGIC_AT + 4] != _MAGIC or len(data) < 0x268:
        raise ConfigError(f"kernel {kernel.path}: not a bzImage, expected 'HdrS' at offset {_MAGIC_AT:#x}")
    setup_size = ((data[0x1F1] or 4) + 1) * _SECTOR
    # syssize counts 16-byte paragraphs of what follows the set-up; the last one may be cut short.
    expected = setup_size + 16 * int.from_bytes(data[0x1F4:0x1F8], "little") - 15
    if len(data) <= setup_size or len(data) < expected:
        raise ConfigError(
            f"kernel {kernel.path}: truncated, {len(data)} bytes, expected at least {max(expected, setup_size + 1)}"
        )
    return data[:setup_size], data[setup_size:]


def linux_items(boot: BootImages, low_ram: int) -> dict[int, bytes]:
    """fw_cfg items (key -> bytes) for ``boot``'s kernel, initrd and command line; empty without a kernel.

    ``low_ram``: bytes of RAM from address 0 on.  Numbers are 32-bit little-endian.  `ConfigError` for an initrd or a
    command line without a kernel, for a kernel that is none, and for what does not fit.
    """
    if boot.kernel is None:
        for option, given in (("initrd", boot.initrd is not None), ("append", bool(boot.cmdline))):
            if given:
                raise ConfigError(f"--{option} is only allowed with --kernel")
        return {}
    setup, kernel = split_kernel(boot.kernel)
    cmdline = (boot.cmdline or "").encode() + b"\0"
    protocol = int.from_bytes(setup[0x206:0x208], "little")
    limit = int.from_bytes(setup[0x238:0x23C], "little") if protocol >= 0x206 else 255
    if len(cmdline) - 1 > limit:
        raise ConfigError(f"command line: {len(cmdline) - 1} bytes, the kernel takes at most {limit}")
    setup_at, cmdline_at, kernel_at = _addresses(setup, protocol, len(cmdline))
    if kernel_at + len(kernel) > low_ram:
        raise ConfigError(f"kernel {boot.kernel.path}: {len(kernel)} bytes do not fit into {low_ram} bytes of memory")
    items = {
        key.CMDLINE_ADDR: _u32(cmdline_at),
        key.CMDLINE_SIZE: _u32(len(cmdline)),
        key.CMDLINE_DATA: cmdline,
        key.KERNEL_ADDR: _u32(kernel_at),
        key.KERNEL_SIZE: _u32(len(kernel)),
        key.KERNEL_DATA: kernel,
        key.SETUP_ADDR: _u32(setup_at),
        key.SETUP_SIZE: _u32(len(setup)),
        key.SETUP_DATA: setup,
    }
    if boot.initrd is not None:
        initrd = boot.initrd
        room = _initrd_limit(setup, protocol, low_ram)
        if kernel_at + len(kernel) + len(initrd.data) > room:
            raise ConfigError(
                f"initrd {initrd.path}: {len(initrd.data)} bytes do not fit beside the kernel, "
                f"expected at most {max(room - kernel_at - len(kernel), 0)}"
            )
        items[key.INITRD_ADDR] = _u32((room - len(initrd.data)) & ~0xFFF)
        items[key.INITRD_SIZE] = _u32(len(initrd.data))
        items[key.INITRD_DATA] = initrd.data
    return items


def _addresses(setup: bytes, protocol: int, cmdline_size: int) -> tuple[int, int, int]:
    """Where set-up, command line and kernel go."""
    if protocol < 0x200 or not setup[0x211] & _LOADED_HIGH:
        return 0x90000, 0x9A000 - cmdline_size, 0x10000
    if protocol < 0x202:
        return 0x90000, 0x9A000 - cmdline_size, 0x100000
    return 0x10000, 0x20000, 0x100000


def _initrd_limit(setup: bytes, protocol: int, low_ram: int) -> int:
    """The address the initrd has to stay below."""
    if protocol >= 0x20C and int.from_bytes(setup[0x236:0x238], "little") & _ABOVE_4G:
        limit = 0xFFFF_FFFF
    elif protocol >= 0x203:
        limit = int.from_bytes(setup[0x22C:0x230], "little")
    else:
        limit = 0x37FF_FFFF
    return min(limit, low_ram - _ACPI_RESERVE - 1)


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "little")
