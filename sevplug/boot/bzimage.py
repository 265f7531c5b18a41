"""A Linux kernel file: the bzImage and the fields of its set-up header.

After Documentation/arch/x86/boot.rst of Linux (sections "The Real-Mode Kernel Header" and "Details of Header Fields").
"""

from __future__ import annotations

import attrs

from sevplug.core.errors import ConfigError
from sevplug.core.images import Image, ImagePart

_SECTOR = 512
_MAGIC_AT = 0x202
_MAGIC = b"HdrS"
_LOADED_HIGH = 0x01
_HAS_64BIT_ENTRY, _ABOVE_4G = 0x01, 0x02
HEADER_AT = 0x1F1
# Where a header of the newest protocol that is looked at here ends (2.15 ends at 0x26C).
_LEAST_SIZE = 0x268


@attrs.frozen
class BzImage:
    """``setup``: boot sector and set-up sectors; ``kernel``: what runs in protected or long mode."""

    path: str
    setup: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")
    kernel: ImagePart

    def _field(self, offset: int, size: int) -> int:
        return int.from_bytes(self.setup[offset : offset + size], "little")

    @property
    def protocol(self) -> int:
        """The boot protocol's version, 0x020F for 2.15."""
        return self._field(0x206, 2)

    @property
    def header(self) -> bytes:
        """The set-up header as it is in the file; it belongs at the same offset, `HEADER_AT`, of boot_params."""
        return self.setup[HEADER_AT : _MAGIC_AT + self.setup[0x201]]

    @property
    def loaded_high(self) -> bool:
        """The kernel is loaded at 1 MiB or above."""
        return self.protocol >= 0x200 and bool(self.setup[0x211] & _LOADED_HIGH)

    @property
    def has_64bit_entry(self) -> bool:
        """There is an entry point for long mode, 0x200 bytes behind the start of ``kernel``."""
        return self.protocol >= 0x20C and bool(self._field(0x236, 2) & _HAS_64BIT_ENTRY)

    @property
    def preferred_address(self) -> int:
        """Where the kernel would be loaded best (protocol 2.10)."""
        return self._field(0x258, 8)

    @property
    def memory_needed(self) -> int:
        """Bytes that it needs from its start on until it has looked at the memory map (protocol 2.10)."""
        return self._field(0x260, 4)

    @property
    def command_line_limit(self) -> int:
        """The longest command line in bytes, without the zero at its end."""
        return self._field(0x238, 4) if self.protocol >= 0x206 else 255

    @property
    def initrd_limit(self) -> int:
        """The address below 4 GiB which the initrd has to stay below."""
        if self.protocol >= 0x20C and self._field(0x236, 2) & _ABOVE_4G:
            return 0xFFFF_FFFF
        return self._field(0x22C, 4) if self.protocol >= 0x203 else 0x37FF_FFFF

    def check_command_line(self, text: str) -> bytes:
        """``text`` as the kernel wants it, with a zero at its end; `ConfigError` when it is too long or has a zero."""
        data = text.encode(errors="surrogateescape")
        if len(data) > self.command_line_limit:
            raise ConfigError(
                f"command line (append): {len(data)} bytes, expected at most the {self.command_line_limit} that kernel "
                f"{self.path} takes"
            )
        if b"\0" in data:
            raise ConfigError("command line (append): expected text without zero bytes")
        return data + b"\0"


def parse_bzimage(kernel: Image) -> BzImage:
    """Cut ``kernel`` in two; `ConfigError` when it is no bzImage, or shorter than its header says."""
    data = kernel.data
    if data[_MAGIC_AT : _MAGIC_AT + 4] != _MAGIC or len(data) < _LEAST_SIZE:
        raise ConfigError(f"kernel {kernel.path}: not a bzImage, expected 'HdrS' at offset {_MAGIC_AT:#x}")
    setup_size = ((data[HEADER_AT] or 4) + 1) * _SECTOR
    # syssize counts 16-byte paragraphs of what follows the set-up; the last one may be cut short.
    expected = setup_size + 16 * int.from_bytes(data[0x1F4:0x1F8], "little") - 15
    if len(data) <= setup_size or len(data) < expected:
        raise ConfigError(
            f"kernel {kernel.path}: truncated, {len(data)} bytes, expected at least {max(expected, setup_size + 1)}"
        )
    return BzImage(kernel.path, data[:setup_size], ImagePart(kernel, setup_size, kernel.size - setup_size))
