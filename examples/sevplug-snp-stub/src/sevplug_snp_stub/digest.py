"""The launch digest of SNP: a chain of SHA-384 over a description of each page.

Sources: AMD, SEV Secure Nested Paging Firmware ABI, section 8.17 (SNP_LAUNCH_UPDATE; table "PAGE_INFO"); public peer:
sev-snp-measure, ``gctx.py``.
"""

from __future__ import annotations

import enum
import hashlib
import struct
from collections.abc import Iterator

import attrs

PAGE_SIZE = 4096
DIGEST_SIZE = 48
ZEROS = bytes(DIGEST_SIZE)
# A VMSA has no guest-physical address; the firmware takes all ones, without the offset and the bits above 47.
VMSA_GPA = 0xFFFF_FFFF_F000


class PageType(enum.IntEnum):
    """The kinds of page that SNP_LAUNCH_UPDATE takes; sevplug hands them through as ``page_type``."""

    NORMAL = 1
    VMSA = 2
    ZERO = 3
    UNMEASURED = 4
    SECRETS = 5
    CPUID = 6

    @property
    def measured(self) -> bool:
        """Whether the page's contents enter the digest, beside its kind and its address."""
        return self in (PageType.NORMAL, PageType.VMSA)


def page_type_of(word: str | int) -> PageType:
    """What another plug-in's or the core's ``page_type`` is to SNP; ValueError for a kind that it has not."""
    return PageType.NORMAL if word == "normal" else PageType(int(word))


@attrs.frozen
class PageInfo:
    """PAGE_INFO of one page. ``digest``: over the pages before it; ``contents``: SHA-384 of the page, or zeros."""

    digest: bytes
    contents: bytes
    page_type: PageType
    gpa: int

    def to_bytes(self) -> bytes:
        """The 112 bytes, little-endian; no page is an IMI page, and no VMPL but 0 may touch one."""
        return self.digest + self.contents + struct.pack("<HB5xQ", 0x70, self.page_type, self.gpa)


def pages(gpa: int, data: bytes, page_type: PageType, digest: bytes) -> Iterator[tuple[int, bytes]]:
    """Continue the chain from ``digest`` (48 bytes, `ZEROS` at first) by the pages of ``data`` at ``gpa``.

    Yields each page's address with the digest that includes it. ValueError where ``data`` is not whole pages.
    """
    if gpa % PAGE_SIZE or len(data) % PAGE_SIZE:
        raise ValueError(f"{len(data)} bytes at {gpa:#x}: expected whole pages of {PAGE_SIZE} bytes")
    for offset in range(0, len(data), PAGE_SIZE):
        contents = hashlib.sha384(data[offset : offset + PAGE_SIZE]).digest() if page_type.measured else ZEROS
        digest = hashlib.sha384(PageInfo(digest, contents, page_type, gpa + offset).to_bytes()).digest()
        yield gpa + offset, digest
