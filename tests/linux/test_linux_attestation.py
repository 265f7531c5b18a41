"""The whole conversation about a kernel: paused, validated with it by libvirt's tool, given a secret, read inside."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from parts import find_image
from paused_guest import SECRET, Kernel, paused

from sevplug.sevapi.secret_table import LUKS_KEY

pytestmark = pytest.mark.linux


@pytest.fixture
def kernel() -> Kernel:
    return Kernel(find_image("bzImage-coco"), find_image("initrd-coco.cpio.gz"), "console=ttyS0 sevplug.end=poweroff")


def test_a_secret_sealed_by_libvirt_for_this_kernel_is_read_inside_linux(
    tmp_path: Path, ovmf_amdsev: Path, kernel: Kernel
) -> None:
    with paused(tmp_path, ovmf_amdsev, kernel, timeout=120) as guest:
        done = guest.validate()
        assert done.returncode == 0, done.stderr
        assert "OK: Looks good to me" in done.stdout
        guest.inject(*guest.sealed_by_libvirt())
        guest.qmp.cmd("cont")
        seen = guest.wait_for(b"INIT: done", 100)
        assert f"SECRET {LUKS_KEY} ".encode() in seen
        assert b"text:" + SECRET in seen
        assert guest.process.wait(30) == 0


def test_libvirt_refuses_another_kernel_initrd_or_command_line(
    tmp_path: Path, ovmf_amdsev: Path, kernel: Kernel
) -> None:
    (tmp_path / "other").write_bytes(kernel.initrd.read_bytes() + b"\0")
    with paused(tmp_path, ovmf_amdsev, kernel) as guest:
        for field, value in attrs.asdict(
            Kernel(tmp_path / "other", tmp_path / "other", "console=ttyS0 init=/bin/sh")
        ).items():
            done = guest.validate(**{{"command_line": "cmdline"}.get(field, field): str(value)})
            assert done.returncode == 1, field
            assert "Looks good" not in done.stdout
