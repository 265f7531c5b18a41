"""The embedded guest: built from its source, shaped like firmware, and what it reports."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from parts import ROOT, missing

from sevplug.boot import embedded
from sevplug.sevapi.guid_table import GuestArea, parse_guid_table


def test_the_binary_is_what_its_source_assembles_to(tmp_path: Path) -> None:
    if not (shutil.which("as") and shutil.which("ld")):
        missing("GNU as and ld are missing: install the Debian package binutils")
    built = tmp_path / "embedded.bin"
    subprocess.run([str(ROOT / "scripts" / "build-embedded-guest"), str(built)], check=True)
    firmware = embedded.load().firmware
    assert firmware is not None
    assert built.read_bytes() == firmware.data


def test_its_guid_table_says_where_the_secret_goes() -> None:
    firmware = embedded.load().firmware
    assert firmware is not None
    table = parse_guid_table(firmware.data)
    assert table.secret_area == GuestArea(0x10000, 0xC00)
    assert table.hash_table_area is None
