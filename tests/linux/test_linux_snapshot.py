"""Real kernels that go back to a snapshot: in the same machine, in another, and in another process."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
from disks import root_image
from initrds import with_init
from parts import find_image, find_images
from snapshots import differences, raw_state

from sevplug.board.console import Console
from sevplug.board.virtio.block import BlockDevice
from sevplug.core.config import MIB, BootImages, Image, MachineConfig, ObjectSpec
from sevplug.core.machine import Machine
from sevplug.core.plugins import Selection, load_plugins
from sevplug.core.snapshot import Snapshot

pytestmark = pytest.mark.linux

COMMAND = [sys.executable, "-c", "from sevplug.cli import main; main()"]
KEY = bytes(range(32))
SEV = ObjectSpec("sev-emulated", "sev0", {"cbitpos": "51", "reduced-phys-bits": "1"})
INIT = """#!/bin/sh
B=/bin/busybox
$B mount -t proc proc /proc
$B mount -t devtmpfs dev /dev
for module in $($B cat /modules/order); do $B insmod /modules/$module; done
$B mkdir /new
$B mount /dev/vda /new
echo "before" >/new/etc/before
echo "BOOTED $($B cat /new/etc/motd)"
$B cat /proc/interrupts /proc/uptime
$B dd if=/dev/urandom of=/new/etc/much bs=64k count=8 2>/dev/null
$B cp /new/etc/before /new/etc/after
$B sync
$B md5sum /new/etc/much /new/etc/after
$B sleep 2
$B cat /proc/uptime
$B umount /new
$B poweroff -f
"""


@attrs.frozen
class Left:
    """What a run leaves: how it ended, all that was said, RAM, virtual time, and the disks' blocks."""

    result: str
    said: bytes = attrs.field(repr=lambda said: repr(said[-400:]))
    ram: str
    now: int
    disks: str


def machine_of(config: MachineConfig) -> Machine:
    return Machine(config, load_plugins(Selection.parse(["no:qmp", "no:logging"])))


def finish(machine: Machine) -> Left:
    run = machine.run(120)
    serial: Any = machine.private["serial"]
    disks = [device.disk.save()["blocks"] for device in machine.devices if isinstance(device, BlockDevice)]
    digest = hashlib.sha256(repr(disks).encode()).hexdigest()
    return Left(run.result, bytes(serial.output), machine.memory.ram_digest(), machine.clock.now, digest)


@pytest.fixture
def coco() -> MachineConfig:
    boot = BootImages(
        kernel=Image.load(find_image("bzImage-coco"), "kernel"),
        initrd=Image.load(find_image("initrd-coco.cpio.gz"), "initrd"),
        cmdline="console=ttyS0",
    )
    return MachineConfig(boot=boot, memory=256 * MIB, objects=(SEV,))


@pytest.fixture
def debian(tmp_path: Path) -> MachineConfig:
    kernel, modules = find_images("vmlinuz-6.1-cloud", "modules-6.1-cloud.cpio")
    disk = root_image(tmp_path, {}, {"etc/motd": "the disk\n"})
    boot = BootImages(
        kernel=Image.load(kernel, "kernel"),
        initrd=Image.load(with_init(INIT, tmp_path, modules=modules), "initrd"),
        cmdline="console=ttyS0",
    )
    return MachineConfig(boot=boot, memory=256 * MIB, objects=(SEV,), options={"disk": (str(disk),)})


@pytest.mark.parametrize(("which", "line"), [("coco", "Run /init"), ("coco", "Linux version"), ("debian", "BOOTED")])
def test_a_kernel_goes_on_byte_for_byte(which: str, line: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    config: MachineConfig = request.getfixturevalue(which)
    path = tmp_path / "guest.snapshot"
    with machine_of(config) as machine:
        Console(machine).expect(line, 120)
        snapshot = machine.snapshot()
        state = raw_state(machine)
        snapshot.save(str(path), KEY)
        expected = finish(machine)
        assert expected.result in ("shutdown", "reset"), expected
        for _ in range(2):
            machine.restore(snapshot)
            assert differences(state, raw_state(machine)) == []
            assert finish(machine) == expected
        assert not machine.summary(machine.run())["c_bit_checker"]["findings"]
    with machine_of(config) as other:
        other.restore(Snapshot.load(str(path), KEY))
        assert finish(other) == expected


def test_another_process_goes_on_with_nothing_but_the_file(tmp_path: Path) -> None:
    kernel, initrd = find_images("bzImage-coco", "initrd-coco.cpio.gz")
    (tmp_path / "key").write_bytes(KEY)

    def run(*arguments: str) -> bytes:
        done = subprocess.run([*COMMAND, *arguments], cwd=tmp_path, capture_output=True, timeout=120, check=False)
        # The CoCo guest asks for a reset.
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    guest = ("--kernel", str(kernel), "--initrd", str(initrd), "--append", "console=ttyS0")
    before = run("snapshot", "guest", "--at-line", "Run /init", "--snapshot-key", "key", *guest)
    first, second = (
        run("run", "--from", "guest", "--snapshot-key", "key", "--ram-digest", "--summary", name) for name in "ab"
    )
    digests = [json.loads((tmp_path / name).read_text())["ram_sha256"] for name in "ab"]
    assert b"Run /init" in before
    assert b"Linux version" not in first
    assert first == second
    assert digests[0] == digests[1]
    encrypted = (tmp_path / "guest").read_bytes()
    assert b"Linux version" not in encrypted
    assert len(encrypted) < 64 * MIB
