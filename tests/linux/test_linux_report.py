"""The report of a real boot: its phases, its memory, its secret hidden, and the run itself as without one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from parts import find_image

pytestmark = pytest.mark.linux

COCO = ("bzImage-coco", "initrd-coco.cpio.gz")
SECRET = b"MY-LUKS-PASSPHRASE"


def run(folder: Path, *more: str) -> tuple[bytes, str]:
    """The serial output of the CoCo guest, and the digest of RAM at the end."""
    kernel, initrd = map(find_image, COCO)
    words = ["--kernel", str(kernel), "--initrd", str(initrd), "--append", "console=ttyS0", "--timeout", "120"]
    summary = folder / "s.json"
    command = [sys.executable, "-m", "sevplug", "run", *words, "--summary", str(summary), "--ram-digest", *more]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return done.stdout, json.loads(summary.read_text())["ram_sha256"]


def test_a_boot_with_a_report_is_the_same_boot(tmp_path: Path) -> None:
    assert run(tmp_path) == run(tmp_path, "--report", str(tmp_path / "r.html"))


def test_the_report_of_a_boot_through_firmware(tmp_path: Path) -> None:
    secret = tmp_path / "passphrase"
    secret.write_bytes(SECRET)
    page = tmp_path / "r.html"
    firmware = str(find_image("OVMF.amdsev.fd"))
    said, digest = run(tmp_path, "--bios", firmware, "--secret", f"luks-key={secret}", "--report", str(page))
    text = page.read_text()
    assert b"text:" + SECRET in said
    assert SECRET.decode() not in text
    assert SECRET.hex() not in text
    assert "text:&lt;hidden&gt;" in text
    assert digest in text
    assert "Linux version 6.12" in text
    phases = re.findall(r'<li class="phase">.*?<strong>(.*?)</strong>', text, re.DOTALL)
    assert phases == [
        "The launch is measured",
        "Firmware runs",
        "The kernel is unpacked",
        "The kernel boots",
        "Userspace runs",
    ]
    columns = re.search(r'<svg class="map" viewBox="0 0 (\d+) 256"', text)
    assert columns is not None
    assert int(columns[1]) > 20
    assert re.search(r'<path class="shared" d="M', text)
