"""The numbers of fw_cfg items (QEMU's include/standard-headers/linux/qemu_fw_cfg.h and hw/nvram/fw_cfg.h)."""

from __future__ import annotations

from typing import Final

SIGNATURE: Final = 0x00
ID: Final = 0x01
UUID: Final = 0x02
RAM_SIZE: Final = 0x03
NOGRAPHIC: Final = 0x04
NB_CPUS: Final = 0x05
MACHINE_ID: Final = 0x06
KERNEL_ADDR: Final = 0x07
KERNEL_SIZE: Final = 0x08
INITRD_ADDR: Final = 0x0A
INITRD_SIZE: Final = 0x0B
BOOT_MENU: Final = 0x0E
MAX_CPUS: Final = 0x0F
KERNEL_DATA: Final = 0x11
INITRD_DATA: Final = 0x12
CMDLINE_ADDR: Final = 0x13
CMDLINE_SIZE: Final = 0x14
CMDLINE_DATA: Final = 0x15
SETUP_ADDR: Final = 0x16
SETUP_SIZE: Final = 0x17
SETUP_DATA: Final = 0x18
FILE_DIR: Final = 0x19
FILE_FIRST: Final = 0x20
WRITE_CHANNEL: Final = 0x4000
ARCH_LOCAL: Final = 0x8000
IRQ0_OVERRIDE: Final = ARCH_LOCAL + 2
