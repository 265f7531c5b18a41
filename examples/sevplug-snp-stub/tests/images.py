"""Firmware made by the tests: a guest of a few instructions, and the tables that OVMF ends in."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from uuid import UUID

from sevplug.sevapi.guid_table import ES_RESET_VECTOR, FOOTER, HASH_TABLE_AREA, SEV_METADATA

SIZE = 0x2000
METADATA_AT, TABLE_END, RESET_VECTOR = 0x1000, SIZE - 32, SIZE - 16
Sections = Iterable[tuple[int, int, int]]

_PRINT_EAX = bytes.fromhex("ba f8 03  ee  66 c1 e8 08") * 4  # 4 x { mov dx, 0x3f8; out dx, al; shr eax, 8 }
# Real mode: the leaf's EAX and EBX, then the MSR's low half go to the serial port; then a reset ends the run.
GUEST = (
    bytes.fromhex("66 b8 1f 00 00 80  0f a2")  # mov eax, 0x8000001f; cpuid
    + _PRINT_EAX
    + bytes.fromhex("66 89 d8")  # mov eax, ebx
    + _PRINT_EAX
    + bytes.fromhex("66 b9 31 01 01 c0  0f 32")  # mov ecx, 0xc0010131; rdmsr
    + _PRINT_EAX
    + bytes.fromhex("b0 fe  e6 64  f4  eb fd")  # mov al, 0xfe; out 0x64, al; 1: hlt; jmp 1b
)


def firmware(
    sections: Sections | None = None, *, hashes_at: int = 0, version: int = 1, count: int | None = None
) -> bytes:
    """An image of 8 KiB: `GUEST`, and tables with a reset vector and, where given, ``sections`` (gpa, size, type).

    ``hashes_at``: the area for kernel hashes.  ``version`` and ``count``: what the metadata says of itself.
    """
    image = bytearray(SIZE)
    image[: len(GUEST)] = GUEST
    image[RESET_VECTOR : RESET_VECTOR + 3] = b"\xe9" + struct.pack("<h", -(RESET_VECTOR + 3))  # jmp to the start
    entries = _entry(ES_RESET_VECTOR, struct.pack("<I", 0x80B004))
    if hashes_at:
        entries += _entry(HASH_TABLE_AREA, struct.pack("<II", hashes_at, 0x400))
    if sections is not None:
        table = b"".join(struct.pack("<III", *section) for section in sections)
        stated = len(table) // 12 if count is None else count
        metadata = struct.pack("<4sIII", b"ASEV", 16 + len(table), version, stated) + table
        image[METADATA_AT : METADATA_AT + len(metadata)] = metadata
        entries += _entry(SEV_METADATA, struct.pack("<I", SIZE - METADATA_AT))
    footer = struct.pack("<H", len(entries) + 18) + FOOTER.bytes_le
    image[TABLE_END - len(entries) - 18 : TABLE_END] = entries + footer
    return bytes(image)


def _entry(guid: UUID, data: bytes) -> bytes:
    return data + struct.pack("<H", len(data) + 18) + guid.bytes_le
