"""A matrix of real guests: OVMF and two kernels, with SEV and without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from parts import find_image, missing

from sevplug.cli.app import run_app

pytestmark = pytest.mark.linux

GENERIC = Path("/usr/share/ovmf/OVMF.fd")
# OVMF.amdsev.fd takes a kernel from SEV guests only, and Debian's OVMF.fd stops in an encrypted guest.
MATRIX = """
[axes]
firmware = {{ amdsev = "{amdsev}", generic = "{generic}" }}
options = {{ sev = [], plain = ["-P", "no:sev"] }}
[axes.kernel]
debian = {{ file = "{debian}", initrd = "{busybox}", append = "console=ttyS0" }}
coco = {{ file = "{coco}", initrd = "{coco_initrd}", append = "console=ttyS0" }}

[[exclude]]
firmware = "amdsev"
options = "plain"
[[exclude]]
firmware = "generic"
options = "sev"

[defaults]
timeout = 120
expect.result = "reset"
expect.serial = "INIT: userspace reached"
[[include]]
options = "sev"
expect.serial = ["INIT: userspace reached", "Memory Encryption Features active: AMD SEV"]
[[include]]
options = "plain"
expect.not-serial = "AMD SEV"
"""


def test_ovmf_and_kernels_with_sev_and_without(tmp_path: Path) -> None:
    if not GENERIC.is_file():
        missing(f"{GENERIC} is missing: install the Debian package ovmf (scripts/install-real-parts does)")
    images = {
        "amdsev": "OVMF.amdsev.fd",
        "debian": "vmlinuz-6.1-cloud",
        "busybox": "initrd-busybox.cpio",
        "coco": "bzImage-coco",
        "coco_initrd": "initrd-coco.cpio.gz",
    }
    paths = {name: find_image(image).resolve() for name, image in images.items()}
    (tmp_path / "m.toml").write_text(MATRIX.format(generic=GENERIC, **paths))
    status = run_app(["matrix", str(tmp_path / "m.toml"), "-j", "1", "--json", str(tmp_path / "m.json")])
    cells = {cell["name"]: cell for cell in json.loads((tmp_path / "m.json").read_text())["cells"]}
    assert status == 0, {name: cell["reason"] for name, cell in cells.items()}
    assert set(cells) == {
        "amdsev/sev/debian",
        "amdsev/sev/coco",
        "generic/plain/debian",
        "generic/plain/coco",
    }
    digests = {cell["summary"]["sev"]["launch_digest"] for name, cell in cells.items() if "/sev/" in name}
    assert len(digests) == 2  # kernels are measured
