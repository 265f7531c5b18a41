"""Initial RAM disks made for a test: an image that exists, with an /init of the test's own."""

from __future__ import annotations

from pathlib import Path

from newc import archive, program
from parts import find_image


def with_init(script: str, folder: Path, image: str = "initrd-busybox.cpio", modules: Path | None = None) -> str:
    """A copy of ``image`` in ``folder`` whose /init runs ``script`` (busybox is /bin/busybox); the copy's path.

    ``modules``: an archive of kernel modules, see recipes/modules.py.  Linux unpacks archives that follow one another,
    and a later file takes the place of an earlier one.
    """
    base = find_image(image).read_bytes()
    path = folder / "initrd.cpio"
    path.write_bytes(
        base
        + bytes(-len(base) % 4)
        + archive([program("init", script.encode())])
        + (b"" if modules is None else modules.read_bytes())
    )
    return str(path)


def busybox() -> bytes:
    """The program that initrd-busybox.cpio holds."""
    data = find_image("initrd-busybox.cpio").read_bytes()
    at = 0
    while data[at : at + 6] == b"070701":
        size, name_size = (int(data[at + field : at + field + 8], 16) for field in (6 + 8 * 6, 6 + 8 * 11))
        name = data[at + 110 : at + 110 + name_size - 1]
        content = (at + 110 + name_size + 3) & ~3
        if name == b"bin/busybox":
            return data[content : content + size]
        at = (content + size + 3) & ~3
    raise AssertionError("initrd-busybox.cpio: no bin/busybox in it")
