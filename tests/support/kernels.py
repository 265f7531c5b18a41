"""Kernel files made for a test: a set-up header with a body behind it."""

from __future__ import annotations

PREFERRED_ADDRESS = 0x200000


def bzimage(
    setup_sectors: int = 3,
    protocol: int = 0x20F,
    body: bytes = b"K" * 1600,
    loadflags: int = 1,
    xloadflags: int = 3,
    memory_needed: int = 0x10000,
) -> bytes:
    """A bzImage in the format of Documentation/arch/x86/boot.rst of Linux; command lines up to 2,047 bytes."""
    image = bytearray((setup_sectors + 1) * 512)
    image[0x1F1] = setup_sectors
    image[0x1F4:0x1F8] = (-(-len(body) // 16)).to_bytes(4, "little")
    image[0x201] = 0x6A  # the header ends at 0x26C
    image[0x202:0x206] = b"HdrS"
    image[0x206:0x208] = protocol.to_bytes(2, "little")
    image[0x211] = loadflags
    image[0x22C:0x230] = (0x7FFFFFFF).to_bytes(4, "little")
    image[0x236] = xloadflags
    image[0x238:0x23C] = (2047).to_bytes(4, "little")
    image[0x258:0x260] = PREFERRED_ADDRESS.to_bytes(8, "little")
    image[0x260:0x264] = memory_needed.to_bytes(4, "little")
    return bytes(image) + body
