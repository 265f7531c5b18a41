"""OVMF's SEV metadata: the pages beside the firmware that an SNP launch takes in.

The GUID table, which sevplug parses, says how far before the image's end the metadata starts: ``ASEV``, then size,
version and number of sections, then each section's address, size and type, all u32 little-endian. Source: edk2,
``OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm``.
"""

from __future__ import annotations

import enum
import struct

import attrs

from sevplug.sevapi.errors import FormatError
from sevplug.sevapi.guid_table import parse_guid_table

_HEADER = struct.Struct("<4sIII")
_SECTION = struct.Struct("<III")
_SIGNATURE, _VERSION = b"ASEV", 1


class SectionType(enum.IntEnum):
    """What a section is for."""

    SEC_MEM = 1
    SECRETS = 2
    CPUID = 3
    SVSM_CAA = 4
    KERNEL_HASHES = 0x10


@attrs.frozen
class Section:
    """``size`` bytes of guest memory from ``gpa`` on."""

    gpa: int
    size: int
    type: SectionType


def parse_sections(firmware: bytes) -> list[Section]:
    """The sections in the order in which they are launched; none for an image without metadata.

    `FormatError` says what does not fit.
    """
    distance = parse_guid_table(firmware).sev_metadata_offset
    if distance is None:
        return []
    start = len(firmware) - distance
    if not 0 <= start <= len(firmware) - _HEADER.size:
        raise FormatError(f"SEV metadata: {distance:#x} bytes before the end is outside the image")
    signature, size, version, count = _HEADER.unpack_from(firmware, start)
    if (signature, version) != (_SIGNATURE, _VERSION):
        raise FormatError(f"SEV metadata: expected ASEV and version 1, found {signature!r} and {version}")
    if size != _HEADER.size + count * _SECTION.size or start + size > len(firmware):
        raise FormatError(f"SEV metadata: {count} sections do not make {size} bytes, or are not inside the image")
    table = firmware[start + _HEADER.size : start + size]
    sections = []
    for number, (gpa, length, kind) in enumerate(_SECTION.iter_unpack(table)):
        try:
            sections.append(Section(gpa, length, SectionType(kind)))
        except ValueError:
            raise FormatError(f"SEV metadata: section {number}: type {kind:#x} is not known") from None
    return sections
