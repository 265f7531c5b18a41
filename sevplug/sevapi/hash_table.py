"""The table of hashes with which a directly booted kernel becomes part of the launch digest.

    header: 9438d606-4f22-4cc9-b479-a793d411fd21 || u16 168
    entries, 50 bytes each, in this order: command line, initrd, kernel: guid || u16 50 || sha256

Padded with zeros to 176 bytes; GUIDs in their little-endian layout, lengths little-endian. The host writes it
to the area that the firmware's GUID table names, and the firmware compares it with what it loads. Sources:
QEMU, `target/i386/sev.c` (`sev_add_kernel_loader_hashes`); edk2, `OvmfPkg/AmdSev/BlobVerifierLibSevHashes`.
"""

from __future__ import annotations

import hashlib
from uuid import UUID

import attrs

from sevplug.sevapi.checks import bytes_of_length
from sevplug.sevapi.errors import FormatError
from sevplug.sevapi.guid_table import HASH_TABLE_AREA, GuestArea, GuidTable

TABLE_GUID = UUID("9438d606-4f22-4cc9-b479-a793d411fd21")
CMDLINE_GUID = UUID("97d02dd8-bd20-4c94-aa78-e7714d36ab2a")
INITRD_GUID = UUID("44baf731-3a2f-4bd7-9af1-41e29169781d")
KERNEL_GUID = UUID("4de79437-abd2-427f-b835-d5b172d2045b")

PADDED_SIZE = 176
_HASH_SIZE = 32
NO_IMAGE_HASH = hashlib.sha256(b"").digest()
_HEADER_SIZE = 18
_ENTRY_SIZE = _HEADER_SIZE + _HASH_SIZE
_SIZE = _HEADER_SIZE + 3 * _ENTRY_SIZE


@attrs.frozen
class HashTable:
    """The three SHA-256 hashes, 32 bytes each. Raises FormatError for another length."""

    cmdline: bytes = attrs.field(validator=bytes_of_length(_HASH_SIZE), repr=bytes.hex)
    initrd: bytes = attrs.field(validator=bytes_of_length(_HASH_SIZE), repr=bytes.hex)
    kernel: bytes = attrs.field(validator=bytes_of_length(_HASH_SIZE), repr=bytes.hex)

    def to_bytes(self) -> bytes:
        """The 176 bytes, padding included, that the host measures and writes into the guest."""
        entries = ((CMDLINE_GUID, self.cmdline), (INITRD_GUID, self.initrd), (KERNEL_GUID, self.kernel))
        table = _header(TABLE_GUID, _SIZE)
        table += b"".join(_header(guid, _ENTRY_SIZE) + digest for guid, digest in entries)
        return table + bytes(PADDED_SIZE - _SIZE)


def hash_images(kernel: bytes, initrd: bytes = b"", cmdline: str = "") -> HashTable:
    """The table for a kernel image (all of it), an initrd (empty for none) and a command line.

    The command line is hashed in UTF-8 with the zero byte that ends it. Raises FormatError when it holds a
    zero byte.
    """
    return table_of_hashes(hashlib.sha256(kernel).digest(), hashlib.sha256(initrd).digest(), cmdline)


def table_of_hashes(kernel: bytes, initrd: bytes, cmdline: str = "") -> HashTable:
    """The same for images whose SHA-256 hashes, 32 bytes each, are known; without an initrd, `NO_IMAGE_HASH`."""
    if "\0" in cmdline:
        raise FormatError("kernel command line: expected a text without zero bytes")
    command_line = hashlib.sha256(cmdline.encode("utf-8", "surrogateescape") + b"\0").digest()
    return HashTable(cmdline=command_line, initrd=initrd, kernel=kernel)


def parse_hash_table(data: bytes) -> HashTable:
    """The hashes in a table as `HashTable.to_bytes` builds it; raises FormatError for any other bytes."""
    if len(data) != PADDED_SIZE:
        raise FormatError(f"kernel hash table: expected {PADDED_SIZE} bytes, found {len(data)}")
    _expect(data, 0, _header(TABLE_GUID, _SIZE))
    digests = []
    for index, guid in enumerate((CMDLINE_GUID, INITRD_GUID, KERNEL_GUID)):
        offset = _HEADER_SIZE + index * _ENTRY_SIZE
        _expect(data, offset, _header(guid, _ENTRY_SIZE))
        digests.append(data[offset + _HEADER_SIZE : offset + _ENTRY_SIZE])
    _expect(data, _SIZE, bytes(PADDED_SIZE - _SIZE))
    return HashTable(*digests)


def required_area(table: GuidTable) -> GuestArea:
    """The area of a firmware's GUID table in which the kernel hash table fits.

    Raises FormatError, in QEMU's words, when the firmware names none or one that can't hold the table.
    """
    if HASH_TABLE_AREA not in table.entries:
        raise FormatError("SEV: kernel specified but guest firmware has no hashes table GUID")
    area = table.hash_table_area or GuestArea(0, 0)
    if area.base == 0 or area.size < PADDED_SIZE:
        raise FormatError(f"SEV: guest firmware hashes table area is invalid (base={area.base:#x} size={area.size:#x})")
    return area


def _header(guid: UUID, length: int) -> bytes:
    return guid.bytes_le + length.to_bytes(2, "little")


def _expect(data: bytes, offset: int, expected: bytes) -> None:
    found = data[offset : offset + len(expected)]
    if found != expected:
        raise FormatError(f"kernel hash table: expected {expected.hex()} at offset {offset:#x}, found {found.hex()}")
