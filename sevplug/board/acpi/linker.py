"""The tables as fw_cfg files with the script by which guest firmware places them.

The script is QEMU's linker/loader (hw/acpi/bios-linker-loader.c; OVMF's OvmfPkg/AcpiPlatformDxe/QemuLoader.h): commands
of 128 bytes, little-endian, file names padded to 56 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from sevplug.board.acpi.tables import Blob, Tables

RSDP_FILE, TABLES_FILE, SCRIPT_FILE = "etc/acpi/rsdp", "etc/acpi/tables", "etc/table-loader"
_ALLOCATE, _ADD_POINTER, _ADD_CHECKSUM = 1, 2, 3
_ANYWHERE, _BIOS_AREA = 1, 2  # allocation zones: any memory; below 1 MiB, where a BIOS's tables are looked for
_COMMAND_SIZE = 128


def fw_cfg_files(tables: Tables) -> dict[str, bytes]:
    """File name -> contents."""
    script = [
        struct.pack("<I56sIB", _ALLOCATE, TABLES_FILE.encode(), 64, _ANYWHERE),
        struct.pack("<I56sIB", _ALLOCATE, RSDP_FILE.encode(), 16, _BIOS_AREA),
        *_commands(TABLES_FILE, tables.tables),
        *_commands(RSDP_FILE, tables.rsdp),
    ]
    return {
        RSDP_FILE: tables.rsdp.data,
        TABLES_FILE: tables.tables.data,
        SCRIPT_FILE: b"".join(command.ljust(_COMMAND_SIZE, b"\0") for command in script),
    }


def _commands(file: str, blob: Blob) -> Iterator[bytes]:
    for pointer in blob.pointers:
        yield struct.pack("<I56s56sIB", _ADD_POINTER, file.encode(), TABLES_FILE.encode(), pointer.at, pointer.size)
    for checksum in blob.checksums:
        yield struct.pack("<I56sIII", _ADD_CHECKSUM, file.encode(), checksum.at, checksum.start, checksum.length)
