"""The board's ACPI tables: what they say, how firmware gets them, and how they are placed without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sevplug.board.acpi.linker import fw_cfg_files
from sevplug.board.acpi.tables import PM_BASE, Blob, describe_board
from sevplug.core.errors import ConfigError

if TYPE_CHECKING:
    from sevplug.board.fw_cfg import FwCfg
    from sevplug.board.pm import PowerManagement
    from sevplug.core.memory import GuestMemory

__all__ = ["PM_BASE", "build_tables", "place", "publish"]

# The RSDP comes first; the other tables follow at the next multiple of 64.
_TABLES_AT = 64


def build_tables(base: int, low_ram: int, pm_base: int = PM_BASE) -> bytes:
    """Complete tables for guest-physical address ``base``, with addresses and checksums; the RSDP is at their start.

    ``base``: a multiple of 64 below 4 GiB.  ``low_ram``: bytes of RAM from address 0 on.  ``pm_base``: the port of the
    power management registers.  ValueError for another base.
    """
    if base % 64 or not 0 <= base < 1 << 32:
        raise ValueError(f"ACPI tables at {base:#x}: expected a multiple of 64 below 4 GiB")
    board = describe_board(low_ram, pm_base)
    rsdp = _resolved(board.rsdp, base + _TABLES_AT)
    return rsdp.ljust(_TABLES_AT, b"\0") + _resolved(board.tables, base + _TABLES_AT)


def place(memory: GuestMemory, gpa: int) -> int:
    """Write complete tables into guest memory from ``gpa`` on, 64 KiB at most; the RSDP's guest-physical address.

    For guests that start without firmware.  A guest that looks for the RSDP itself scans 0xE0000 to 0xFFFFF.
    `ConfigError` when that is no RAM; ValueError as in `build_tables`.
    """
    tables = build_tables(gpa, memory.low_ram_size)
    if not memory.holds(gpa, len(tables)):
        raise ConfigError(f"ACPI tables at {gpa:#x}, {len(tables)} bytes: expected a place inside guest memory")
    memory.write(gpa, tables)
    return gpa


def publish(fw_cfg: FwCfg, memory: GuestMemory, power: PowerManagement) -> None:
    """Offer the tables to firmware, and keep them right when it moves the power management registers.

    QEMU does the same when its tables are read (hw/i386/acpi-build.c, acpi_build_update).
    """

    def renew(pm_base: int | None) -> None:
        tables = describe_board(memory.low_ram_size, PM_BASE if pm_base is None else pm_base)
        for name, data in fw_cfg_files(tables).items():
            fw_cfg.add_file(name, data)

    renew(None)
    power.on_move = renew


def _resolved(blob: Blob, tables_at: int) -> bytes:
    """``blob`` with its pointers and checksums filled in, for tables at ``tables_at``."""
    data = bytearray(blob.data)
    for pointer in blob.pointers:
        field = slice(pointer.at, pointer.at + pointer.size)
        data[field] = (int.from_bytes(data[field], "little") + tables_at).to_bytes(pointer.size, "little")
    for checksum in blob.checksums:
        data[checksum.at] = -sum(data[checksum.start : checksum.start + checksum.length]) & 0xFF
    return bytes(data)
