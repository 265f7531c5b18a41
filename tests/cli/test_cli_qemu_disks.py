"""Disks on QEMU's command line: which they are and in which order, and what cannot be honoured."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from sevplug.cli.app import run_app
from sevplug.cli.qemu_disks import QemuDisk
from sevplug.cli.qemu_options import parse_qemu
from sevplug.core.errors import ConfigError

DEVICE = "-device virtio-blk-pci"


def disks(line: str) -> tuple[QemuDisk, ...]:
    return parse_qemu(shlex.split(line))[0].disks


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-drive if=virtio,format=raw,file=d", QemuDisk("d", read_only=False, kept=True)),
        ("-drive if=virtio,file=d,readonly=on", QemuDisk("d", read_only=True, kept=False)),
        ("-drive if=virtio,file=d,snapshot=on", QemuDisk("d", read_only=False, kept=False)),
        ("-drive if=virtio,file=a,,b", QemuDisk("a,b", read_only=False, kept=True)),
        (f"-drive if=none,id=x,file=d {DEVICE},drive=x", QemuDisk("d", read_only=False, kept=True)),
        (
            f"{DEVICE},id=disk0,drive=x,disable-legacy=on,iommu_platform=true -drive id=x,if=none,file=d,readonly=on",
            QemuDisk("d", read_only=True, kept=False),
        ),
    ],
)
def test_a_disk_is_a_drive_perhaps_with_a_device(line: str, expected: QemuDisk) -> None:
    assert disks(line) == (expected,)


def test_devices_come_before_the_drives_that_make_their_own() -> None:
    line = (
        "-drive if=virtio,file=1 -drive if=none,id=a,file=2 -drive if=none,id=b,file=3 "
        f"{DEVICE},drive=b {DEVICE},drive=a -drive if=virtio,file=4"
    )
    assert [disk.path for disk in disks(line)] == ["3", "2", "1", "4"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-drive if=virtio", "-drive if=virtio: Parameter 'file' is missing"),
        (
            "-drive if=virtio,format=qcow2,file=d",
            "-drive if=virtio,format=qcow2,file=d: format=qcow2 is not supported, expected format=raw",
        ),
        (
            "-drive if=virtio,file=d,cache=none",
            "-drive if=virtio,file=d,cache=none: 'cache' is not supported, "
            "expected file, format, id, if, readonly, snapshot",
        ),
        (
            "-drive if=virtio,file=d,readonly=x",
            "-drive: Parameter 'readonly' expects 'on' or 'off', found 'x'",
        ),
        ("-drive if=none,file=d", "-drive if=none,file=d: Parameter 'id' is missing"),
        (
            "-drive if=none,id=a,file=d -drive if=virtio,id=a,file=e",
            "-drive if=virtio,id=a,file=e: Duplicate ID 'a' for drive",
        ),
        (
            "-drive if=none,id=a,file=d",
            "-drive if=none,id=a,file=d: nothing refers to this drive, expected -device virtio-blk-pci,drive=a",
        ),
        (f"{DEVICE},drive=a", f"{DEVICE},drive=a: Property 'virtio-blk-pci.drive' can't find value 'a'"),
        (DEVICE, f"{DEVICE}: Parameter 'drive' is missing"),
        (
            f"-drive if=none,id=a,file=d {DEVICE},drive=a {DEVICE},drive=a",
            f"{DEVICE},drive=a: Drive 'a' is already in use by another device",
        ),
        (
            f"-drive if=none,id=a,file=d {DEVICE},drive=a,iommu_platform=off",
            f"{DEVICE},drive=a,iommu_platform=off: iommu_platform=off is not supported, expected on",
        ),
        (
            f"-drive if=none,id=a,file=d {DEVICE},drive=a,disable-modern=on",
            f"{DEVICE},drive=a,disable-modern=on: disable-modern=on is not supported, expected off",
        ),
        (
            f"-drive if=none,id=a,file=d {DEVICE},drive=a,bootindex=1",
            f"{DEVICE},drive=a,bootindex=1: 'bootindex' is not supported, "
            "expected disable-legacy, disable-modern, drive, driver, id, iommu_platform",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(line: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        disks(line)
    assert str(caught.value) == expected


@pytest.mark.parametrize(("more", "told"), [("", 1), (",snapshot=on", 0), (",readonly=on", 0)])
def test_whoever_expects_writes_to_be_kept_is_told_that_they_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: str, told: int
) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(4096))
    run_app(["qemu", "-serial", "null", "-drive", f"if=virtio,file={image}{more}"])
    said = capsys.readouterr().err
    assert said.count(f"{image}: what the guest writes to this disk is not kept") == told
