"""Disk images made for a test: an ordinary root file system, and nothing of it needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from initrds import busybox
from parts import missing

_SIZE = 8 << 20


def root_image(folder: Path, programs: Mapping[str, str], files: Mapping[str, str]) -> Path:
    """An ext4 image in ``folder`` with a busybox as /bin/busybox, /bin/sh and /sbin/init, and these scripts and files.

    The keys are paths in the image.
    """
    # Debian keeps it where only root looks.
    make = shutil.which("mkfs.ext4", path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin")))
    if make is None:
        missing("mkfs.ext4 is missing: install the Debian package e2fsprogs (scripts/install-real-parts does)")
    tree, image = folder / "tree", folder / "root.img"
    for name in ("bin", "dev", "etc", "proc", "sbin", "sys"):
        (tree / name).mkdir(parents=True)
    (tree / "bin/busybox").write_bytes(busybox())
    (tree / "bin/busybox").chmod(0o755)
    (tree / "bin/sh").symlink_to("busybox")
    (tree / "sbin/init").symlink_to("/bin/busybox")
    for path, text in {**programs, **files}.items():
        (tree / path).write_text(text)
    for path in programs:
        (tree / path).chmod(0o755)
    image.touch()
    os.truncate(image, _SIZE)
    subprocess.run([make, "-q", "-d", str(tree), str(image)], check=True, capture_output=True)
    return image
