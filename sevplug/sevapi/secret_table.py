"""The table of secrets that a LAUNCH_SECRET packet carries into the guest.

    1e74f542-71dd-4d66-963e-ef4287ff173b || u32 length of the table || entries
    entry: guid || u32 length of the entry || data

GUIDs are in their little-endian layout, integers little-endian; lengths include their own GUID and length
field. Sources: the readers in Linux (`drivers/virt/coco/efi_secret/efi_secret.c`) and in GRUB; the writers in
libvirt (`virt-qemu-sev-validate`) and sevctl.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from uuid import UUID

from sevplug.sevapi.errors import FormatError

TABLE_GUID = UUID("1e74f542-71dd-4d66-963e-ef4287ff173b")
LUKS_KEY = UUID("736869e5-84f0-4973-92ec-06879ce3da0b")
OFFLINE_SEV_KBC = UUID("e6f5a162-d67f-4750-a67c-5d065f2a9910")
ONLINE_SEV_KBC = UUID("1ee27366-0c87-43a6-af48-28543eaf7cb0")

ALIASES: Mapping[str, UUID] = {"luks-key": LUKS_KEY}
"""libvirt's short names for GUIDs."""

HEADER_SIZE = 20
ALIGNMENT = 16
_ERASED = UUID(int=0)
_GUID_TEXT = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def parse_guid(text: str) -> UUID:
    """The GUID that `text` names: its usual 36 characters, or one of libvirt's aliases (`luks-key`).

    Raises FormatError for anything else, the nil GUID included: readers take that for an erased entry.
    """
    if text in ALIASES:
        return ALIASES[text]
    if not _GUID_TEXT.fullmatch(text):
        raise FormatError(f"{text!r}: expected a GUID or one of the names {', '.join(ALIASES)}")
    guid = UUID(text)
    if guid == _ERASED:
        raise FormatError(f"{text!r}: the nil GUID marks an erased secret and can't name one")
    return guid


def build_secret_table(secrets: Mapping[UUID, bytes]) -> bytes:
    """The table of `secrets`, in their order, padded with zeros to a multiple of 16 bytes (as sevctl pads).

    Raises FormatError for the nil GUID, which readers take for an erased entry.
    """
    if _ERASED in secrets:
        raise FormatError("secret table: the nil GUID marks an erased secret and can't name one")
    entries = b"".join(_entry(guid, data) for guid, data in secrets.items())
    table = _entry(TABLE_GUID, entries)
    return table + bytes(-len(table) % ALIGNMENT)


def parse_secret_table(data: bytes) -> dict[UUID, bytes]:
    """The secrets in a table, in their order; entries that the guest erased (nil GUID) are left out.

    `data` may end in any number of zeros after the table: libvirt pads a table that is already aligned with
    16 more, and a guest's secret area is longer than the table in it. Raises FormatError, with the offset,
    for a wrong GUID, a length that does not fit, two entries of one GUID, or anything but zeros after the
    table.
    """
    end = _length(data, 0, len(data), "secret table")
    if (guid := _guid(data, 0)) != TABLE_GUID:
        raise FormatError(f"secret table: expected GUID {TABLE_GUID} at offset 0x0, found {guid}")
    if any(data[end:]):
        raise FormatError(f"secret table: expected zeros after the table's end at offset {end:#x}")
    secrets: dict[UUID, bytes] = {}
    offset = HEADER_SIZE
    while offset < end:
        size = _length(data, offset, end, "secret table entry")
        guid = _guid(data, offset)
        if guid in secrets:
            raise FormatError(f"secret table: a second entry for GUID {guid} at offset {offset:#x}")
        if guid != _ERASED:
            secrets[guid] = data[offset + HEADER_SIZE : offset + size]
        offset += size
    return secrets


def _entry(guid: UUID, data: bytes) -> bytes:
    return guid.bytes_le + (HEADER_SIZE + len(data)).to_bytes(4, "little") + data


def _guid(data: bytes, offset: int) -> UUID:
    return UUID(bytes_le=data[offset : offset + 16])


def _length(data: bytes, offset: int, end: int, what: str) -> int:
    """The length field of the table or entry at `offset`, which must hold its own header and end by `end`."""
    room = end - offset
    if room < HEADER_SIZE:
        raise FormatError(f"{what} at offset {offset:#x}: expected a header of {HEADER_SIZE} bytes, found {room}")
    size = int.from_bytes(data[offset + 16 : offset + HEADER_SIZE], "little")
    if not HEADER_SIZE <= size <= room:
        raise FormatError(f"{what} at offset {offset:#x}: length {size} is not within {HEADER_SIZE} to {room} bytes")
    return size
