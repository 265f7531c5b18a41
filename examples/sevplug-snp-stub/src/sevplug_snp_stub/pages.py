"""Everything that an SNP launch takes in, in order: the firmware, its metadata's pages, and the processor's VMSA.

Source: QEMU, ``target/i386/sev.c`` (``snp_populate_metadata_pages``); public peer: sev-snp-measure, ``guest.py``.
"""

from __future__ import annotations

from sevplug.core.config import BootImages
from sevplug.core.launch import LaunchRegion
from sevplug.sevapi.errors import FormatError
from sevplug.sevapi.guid_table import parse_guid_table
from sevplug.sevapi.hash_table import hash_images, required_area
from sevplug.sevapi.vmsa import BSP_RESET, VmsaVariant, build_vmsa
from sevplug_snp_stub.digest import PAGE_SIZE, VMSA_GPA, ZEROS, PageType, page_type_of, pages
from sevplug_snp_stub.metadata import Section, SectionType, parse_sections

FOUR_GIB = 1 << 32
# SEV_FEATURES of a VMSA: that SNP is active (APM 2, table B-4).
SNP_ACTIVE = 1 << 0
_TYPES = {
    SectionType.SEC_MEM: PageType.ZERO,
    SectionType.SECRETS: PageType.SECRETS,
    SectionType.CPUID: PageType.CPUID,
    SectionType.SVSM_CAA: PageType.ZERO,
    SectionType.KERNEL_HASHES: PageType.ZERO,
}


def metadata_regions(boot: BootImages) -> list[LaunchRegion]:
    """The regions of the firmware's metadata; with a kernel, the page of its hashes is one of them.

    `FormatError` when the metadata does not fit, or has no place for the hashes.
    """
    if boot.firmware is None:
        return []
    sections = parse_sections(boot.firmware.data)
    if boot.kernel is not None and not any(section.type is SectionType.KERNEL_HASHES for section in sections):
        raise FormatError("SEV metadata: expected a section for kernel hashes, since a kernel is given")
    return [_region(section, boot) for section in sections]


def _region(section: Section, boot: BootImages) -> LaunchRegion:
    name = section.type.name.lower().replace("_", " ")
    if section.type is not SectionType.KERNEL_HASHES or boot.kernel is None or boot.firmware is None:
        return LaunchRegion(name, section.gpa, bytes(section.size), _TYPES[section.type])
    area = required_area(parse_guid_table(boot.firmware.data))
    hashes = hash_images(boot.kernel.data, boot.initrd.data if boot.initrd else b"", boot.cmdline or "")
    page = bytes(area.base % PAGE_SIZE) + hashes.to_bytes()
    return LaunchRegion(name, section.gpa, page.ljust(section.size, b"\0"), PageType.NORMAL)


def vmsa_region(cpu_signature: int, sev_features: int) -> LaunchRegion:
    """The state in which the boot processor starts; the firmware measures it last, and it is in no guest memory."""
    page = build_vmsa(BSP_RESET, cpu_signature, VmsaVariant.INIT2, sev_features)
    return LaunchRegion("vmsa", VMSA_GPA, page, PageType.VMSA)


def launch_digest(boot: BootImages, cpu_signature: int, sev_features: int = SNP_ACTIVE) -> bytes:
    """The digest (48 bytes) of a guest with one processor that starts from ``boot``, without starting it.

    ``cpu_signature``: EAX of CPUID 1.  `FormatError` as in `metadata_regions`, and without firmware.
    """
    if boot.firmware is None:
        raise FormatError("an SNP launch needs firmware")
    data = boot.firmware.data
    if len(data) % PAGE_SIZE:
        raise FormatError(f"firmware: {len(data)} bytes, expected a multiple of {PAGE_SIZE}")
    first = LaunchRegion("firmware", FOUR_GIB - len(data), data)
    digest = ZEROS
    for region in (first, *metadata_regions(boot), vmsa_region(cpu_signature, sev_features)):
        for _gpa, after in pages(region.gpa, region.data, page_type_of(region.page_type), digest):
            digest = after
    return digest
