"""The embedded guest: built from its source, shaped like firmware, and what it reports."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from images import ROOT
from parts import missing

from sevplug.boot import direct, embedded
from sevplug.sevapi.guid_table import GuestArea, parse_guid_table


def test_the_binaries_are_what_their_sources_assemble_to(tmp_path: Path) -> None:
    if not (shutil.which("as") and shutil.which("ld")):
        missing("GNU as and ld are missing: install the Debian package binutils")
    subprocess.run([str(ROOT / "scripts" / "build-boot-images"), str(tmp_path)], check=True)
    firmware = embedded.load().firmware
    assert firmware is not None
    built = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert built == {"embedded.bin": firmware.data, "direct.bin": direct.loader()}


def test_its_guid_table_says_where_the_secret_goes() -> None:
    firmware = embedded.load().firmware
    assert firmware is not None
    table = parse_guid_table(firmware.data)
    assert table.secret_area == GuestArea(0x10000, 0xC00)
    assert table.hash_table_area is None
