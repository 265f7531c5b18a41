"""OVMF's table of GUIDs: what a firmware image says about itself.

The table ends 32 bytes before the image's end and is read backwards. Each entry is

    data || u16 length || guid

GUIDs in their little-endian layout, lengths little-endian and counting their own 18 bytes. The last entry, the
footer, counts the whole table. Sources: edk2, `OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm`;
QEMU, `docs/specs/sev-guest-firmware.rst`.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

import attrs

from sevplug.sevapi.errors import FormatError

FOOTER = UUID("96b582de-1fb2-45f7-baea-a366c55a082d")
ES_RESET_VECTOR = UUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e")
SECRET_AREA = UUID("4c2eb361-7d9b-4cc3-8081-127c90d3d294")
HASH_TABLE_AREA = UUID("7255371f-3a3b-4b04-927b-1da6efa8d454")
SEV_METADATA = UUID("dc886566-984a-4798-a75e-5585a7bf67cc")

_DISTANCE_FROM_END = 32
_TRAILER_SIZE = 18


@attrs.frozen
class GuestArea:
    """A range of guest-physical memory: its first address and its size in bytes."""

    base: int
    size: int

    @property
    def end(self) -> int:
        """The first address after the area."""
        return self.base + self.size


@attrs.frozen
class GuidTable:
    """The entries of a table, each GUID with its data; empty for an image that has no table."""

    entries: Mapping[UUID, bytes]

    @property
    def secret_area(self) -> GuestArea | None:
        """Where injected secrets go by default; None without an entry, or with the (0, 0) of generic builds.

        Raises FormatError when the entry is not 8 bytes long.
        """
        return self._area(SECRET_AREA, "SEV secret area")

    @property
    def hash_table_area(self) -> GuestArea | None:
        """Where the kernel hash table goes; None and FormatError as in `secret_area`."""
        return self._area(HASH_TABLE_AREA, "SEV hash table area")

    @property
    def es_reset_vector(self) -> int | None:
        """The address at which an SEV-ES guest's other processors start; None without an entry.

        Raises FormatError when the entry is not 4 bytes long.
        """
        return self._word(ES_RESET_VECTOR, "SEV-ES reset vector")

    @property
    def sev_metadata_offset(self) -> int | None:
        """The SEV metadata's distance in bytes from the image's end; None and FormatError as above."""
        return self._word(SEV_METADATA, "SEV metadata offset")

    def _data(self, guid: UUID, name: str, size: int) -> bytes | None:
        data = self.entries.get(guid)
        if data is not None and len(data) != size:
            raise FormatError(f"firmware GUID table: {name} ({guid}): expected {size} bytes, found {len(data)}")
        return data

    def _word(self, guid: UUID, name: str) -> int | None:
        data = self._data(guid, name, 4)
        return None if data is None else int.from_bytes(data, "little")

    def _area(self, guid: UUID, name: str) -> GuestArea | None:
        data = self._data(guid, name, 8)
        if data is None or not any(data):
            return None
        return GuestArea(int.from_bytes(data[:4], "little"), int.from_bytes(data[4:], "little"))


def parse_guid_table(image: bytes) -> GuidTable:
    """The table in a firmware image, empty when the image does not end in one.

    Raises FormatError, with the offset in the image, when a length is shorter than its own entry, reaches
    beyond the table or the image, or when two entries have one GUID.
    """
    end = len(image) - _DISTANCE_FROM_END
    if end < _TRAILER_SIZE or _guid_before(image, end) != FOOTER:
        return GuidTable({})
    start = end - _length_before(image, end, end)
    position = end - _TRAILER_SIZE
    entries: dict[UUID, bytes] = {}
    while position > start:
        if position - start < _TRAILER_SIZE:
            raise FormatError(
                f"firmware GUID table: {position - start} bytes at offset {start:#x} are too few for an entry"
            )
        length = _length_before(image, position, position - start)
        guid = _guid_before(image, position)
        if guid in entries or guid == FOOTER:
            raise FormatError(f"firmware GUID table: a second entry for {guid} at offset {position - length:#x}")
        entries[guid] = image[position - length : position - _TRAILER_SIZE]
        position -= length
    return GuidTable(entries)


def _guid_before(image: bytes, end: int) -> UUID:
    return UUID(bytes_le=image[end - 16 : end])


def _length_before(image: bytes, end: int, room: int) -> int:
    """The length of the entry that ends at `end`, which must hold its own trailer and fit in `room` bytes."""
    offset = end - _TRAILER_SIZE
    length = int.from_bytes(image[offset : offset + 2], "little")
    if not _TRAILER_SIZE <= length <= room:
        raise FormatError(
            f"firmware GUID table: length {length} at offset {offset:#x} of entry {_guid_before(image, end)} "
            f"is not within {_TRAILER_SIZE} to {room} bytes"
        )
    return length
