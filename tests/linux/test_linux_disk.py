"""An ordinary root file system on a disk, mounted by Debian's kernels with the modules that their package brings."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from disks import root_image
from initrds import with_init
from linux import boot
from parts import find_images

from sevplug.board.virtio.block import BlockDevice
from sevplug.core.machine import Machine

pytestmark = pytest.mark.linux

INIT = """#!/bin/sh
B=/bin/busybox
$B mount -t proc proc /proc
$B mount -t sysfs sys /sys
$B mount -t devtmpfs dev /dev
for module in $($B cat /modules/order); do $B insmod /modules/$module; done
echo "SERIAL $($B cat /sys/block/vda/serial) READ-ONLY $($B cat /sys/block/vda/ro)"
$B mkdir /new
$B mount -o ro /dev/vda /new
$B mount --move /dev /new/dev
$B mount --move /proc /new/proc
$B umount /sys
exec $B switch_root /new /sbin/init
"""
# busybox' init runs these; init.end is no parameter of the kernel's, which keeps it for the first program.
INITTAB = "::sysinit:/etc/start\n::shutdown:/etc/stop\n"
START = """#!/bin/sh
B=/bin/busybox
echo "ROOT $($B cat /etc/motd)"
if $B mount -o remount,rw /; then
    echo "written in the guest" >/etc/note
    $B dd if=/dev/urandom of=/etc/much bs=64k count=16 2>/dev/null
    before=$($B md5sum </etc/much)
    $B sync
    echo 3 >/proc/sys/vm/drop_caches
    echo "NOTE $($B cat /etc/note)"
    [ "$before" = "$($B md5sum </etc/much)" ] && echo "SAME"
fi
for word in $($B cat /proc/cmdline); do
    case $word in init.end=*) $B ${word#*=} ;; esac
done
"""
STOP = "#!/bin/sh\necho STOPPING\n/bin/busybox mount -o remount,ro /\n"
MOTD = "an ordinary root file system"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return root_image(
        tmp_path_factory.mktemp("disk"),
        {"etc/start": START, "etc/stop": STOP},
        {"etc/inittab": INITTAB, "etc/motd": MOTD + "\n"},
    )


class Watch:
    """Notes which memory of Linux' the disk reads and writes; firmware looks at the disk too."""

    def __init__(self) -> None:
        self.buffers: list[Any] = []

    def prepare(self, machine: Machine) -> None:
        (disk,) = (device for device in machine.devices if isinstance(device, BlockDevice))
        serve, serial = disk.backend.serve, machine.private["serial"]

        def noted(memory: Any, chain: Any) -> int:
            if b"Linux version" in serial.output:  # type: ignore[attr-defined]
                self.buffers += [*chain.readable, *chain.writable]
            return serve(memory, chain)

        disk.backend.serve = noted  # type: ignore[method-assign]

    def outside(self, first: int, last: int) -> int:
        """How many of the buffers are not in [first, last]."""
        return sum(not first <= buffer.gpa <= buffer.gpa + buffer.size - 1 <= last for buffer in self.buffers)


@pytest.mark.parametrize(
    ("release", "read_only", "end", "result", "settings"),
    [
        ("6.1", False, "poweroff", "shutdown", {}),
        ("6.1", True, "reboot", "reset", {"firmware": None}),
        ("6.12", False, "halt", "shutdown", {"firmware": None}),
        ("6.12", True, "reboot", "reset", {}),
        ("6.1", False, "reboot", "reset", {"firmware": None, "plugins": ["no:sev"], "append": "acpi=off"}),
        ("6.12", False, "poweroff", "shutdown", {"firmware": Path("/usr/share/ovmf/OVMF.fd"), "plugins": ["no:sev"]}),
    ],
    ids=["6.1", "6.1 direct", "6.12 direct", "6.12", "6.1 direct, plain, no ACPI", "6.12 plain"],
)
def test_debians_kernel_lives_on_the_disk_and_ends_in_order(
    image: Path, tmp_path: Path, release: str, read_only: bool, end: str, result: str, settings: dict[str, Any]
) -> None:
    kernel, modules = find_images(f"vmlinuz-{release}-cloud", f"modules-{release}-cloud.cpio")
    before = hashlib.sha256(image.read_bytes()).digest()
    watch = Watch()
    found = boot(
        str(kernel),
        with_init(INIT, tmp_path, modules=modules),
        disks=[f"{image},readonly=on" if read_only else str(image)],
        prepare=watch.prepare,
        **{**settings, "append": f"{settings.get('append', '')} init.end={end}"},
    )
    assert found.run.result == result, found
    said = found.said.decode(errors="replace")
    assert f"SERIAL sevplug-disk READ-ONLY {read_only:d}" in said
    assert f"ROOT {MOTD}" in said
    assert ("NOTE written in the guest" in said) is not read_only
    assert ("SAME" in said) is not read_only
    assert "STOPPING" in said
    assert hashlib.sha256(image.read_bytes()).digest() == before
    assert watch.buffers
    assert not found.findings
    if "plugins" in settings:
        assert "DMA bounce buffers" not in said
    else:
        # A page of the guest's own would be ciphertext to the device.
        bounce = re.search(r"software IO TLB: mapped \[mem 0x([0-9a-f]+)-0x([0-9a-f]+)\]", said)
        assert bounce is not None
        assert watch.outside(*(int(text, 16) for text in bounce.groups())) == 0
