"""Initial RAM disks made for a test: an image that exists, with an /init of the test's own."""

from __future__ import annotations

import stat
from pathlib import Path

from parts import find_image


def with_init(script: str, folder: Path, image: str = "initrd-busybox.cpio") -> str:
    """A copy of ``image`` in ``folder`` whose /init runs ``script`` (busybox is /bin/busybox); the copy's path.

    Linux unpacks archives that follow one another, and a later file takes the place of an earlier one.
    """
    base = find_image(image).read_bytes()
    archive = _entry("init", stat.S_IFREG | 0o755, script.encode()) + _entry("TRAILER!!!", 0, b"")
    path = folder / "initrd.cpio"
    path.write_bytes(base + bytes(-len(base) % 4) + archive)
    return str(path)


def _entry(name: str, mode: int, data: bytes) -> bytes:
    """One file in the "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst of Linux)."""
    encoded = name.encode() + b"\0"
    numbers = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % number for number in numbers) + encoded
    return header + bytes(-len(header) % 4) + data + bytes(-len(data) % 4)
