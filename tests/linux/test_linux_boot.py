"""Unmodified Linux kernels as SEV guests: measured by OVMF, to userspace, with the secret read inside."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from initrds import with_init
from linux import boot
from parts import find_image

from sevplug.core.config import MIB
from sevplug.core.engine import library
from sevplug.core.hookspecs import hookimpl
from sevplug.core.machine import Machine
from sevplug.native import PURE_VARIABLE
from sevplug.sevapi.secret_table import LUKS_KEY

pytestmark = pytest.mark.linux

USERSPACE = b"INIT: userspace reached"
ACTIVE = b"Memory Encryption Features active: AMD SEV"
COCO = ("bzImage-coco", "initrd-coco.cpio.gz")
SECRET = b"MY-LUKS-PASSPHRASE"
GENERIC = Path("/usr/share/ovmf/OVMF.fd")
# Shows what the options of a case change: where the kernel is, how much it has, and who sends its interrupts.
INIT = """#!/bin/sh
B=/bin/busybox
$B mount -t proc proc /proc
echo "TEXT $($B grep -m1 ' _text$' /proc/kallsyms)"
$B cat /proc/meminfo /proc/interrupts
echo "INIT: userspace reached"
$B reboot -f
"""
# Where Linux runs when nobody moves it (Documentation/arch/x86/x86_64/mm.rst of Linux).
UNMOVED = 0xFFFF_FFFF_8100_0000


def kernel_text(said: bytes) -> int:
    """The address of the kernel's first byte, as `INIT` shows it."""
    found = re.search(rb"TEXT ([0-9a-f]{16}) ", said)
    assert found is not None
    return int(found[1], 16)


# A choice of the product: each release is entered both ways, with both C-bits and at both ends of memory, and every
# option about interrupts occurs; test_linux_disk.py has the rest at 256 MiB.  Debian's kernels take 160 MiB through
# OVMF (with less, OVMF cannot hold them, on QEMU either).  Entered directly, 6.12 takes 128; so does 6.1 with a smaller
# bounce buffer than the 64 MiB that SEV gets.
@pytest.mark.parametrize(
    ("release", "settings"),
    [
        ("6.1", {"c_bit": 47, "memory": 160, "append": "noapic"}),
        ("6.12", {"c_bit": 51, "memory": 2048, "append": "nolapic"}),
        ("6.12", {"c_bit": 47, "memory": 128, "append": "nolapic_timer", "firmware": None}),
        ("6.1", {"c_bit": 51, "memory": 128, "append": "nolapic swiotlb=512", "firmware": None}),
        (
            "6.1",
            {"c_bit": 47, "memory": 2048, "append": "nolapic_timer nokaslr", "firmware": None, "plugins": ["no:sev"]},
        ),
    ],
    ids=["6.1 noapic", "6.12 2 GiB nolapic", "6.12 direct 128 MiB", "6.1 direct 128 MiB nolapic", "6.1 direct plain"],
)
def test_debians_kernel_comes_to_userspace(release: str, settings: dict[str, Any], tmp_path: Path) -> None:
    found = boot(f"vmlinuz-{release}-cloud", with_init(INIT, tmp_path), **settings)
    assert found.run.result == "reset", found
    assert USERSPACE in found.said
    assert not found.findings  # firmware and kernels that are right are left alone
    assert (ACTIVE in found.said) is ("plugins" not in settings)
    assert (kernel_text(found.said) == UNMOVED) is ("nokaslr" in settings["append"])
    total = re.search(rb"MemTotal: +(\d+) kB", found.said)
    assert total is not None
    assert settings["memory"] / 8 < int(total[1]) / 1024 < settings["memory"]
    # The controllers of /proc/interrupts; without an APIC it is the one of 1981.
    old_only = {"nolapic", "noapic"} & set(settings["append"].split())
    assert (b"IO-APIC" in found.said.split(b"TEXT")[1]) is not bool(old_only)
    assert (b"XT-PIC" in found.said.split(b"TEXT")[1]) is bool(old_only)


def test_the_kernel_is_where_its_random_numbers_put_it(tmp_path: Path) -> None:
    initrd = with_init(INIT, tmp_path)

    def text(seed: int) -> int:
        return kernel_text(boot("vmlinuz-6.1-cloud", initrd, firmware=None, until=USERSPACE, seed=seed).said)

    assert text(seed=1) != text(seed=2)


def test_the_secret_is_read_inside_linux_and_the_guest_reboots() -> None:
    found = boot(*COCO, secrets={LUKS_KEY: SECRET}, memory=128, c_bit=47)
    assert found.run.result == "reset", found
    assert ACTIVE in found.said
    assert f"SECRET {LUKS_KEY} ".encode() in found.said
    assert b"text:" + SECRET in found.said
    assert found.findings == []


def test_a_secret_that_was_unlinked_is_erased_in_guest_memory() -> None:
    found = boot(*COCO, secrets={LUKS_KEY: SECRET}, append="sevplug.erase")
    assert f"ERASED {LUKS_KEY}".encode() in found.said, found
    assert SECRET not in found.area
    assert LUKS_KEY.bytes_le not in found.area


@pytest.mark.parametrize("firmware", ["OVMF.amdsev.fd", None], ids=["OVMF", "direct"])
def test_two_runs_of_the_same_files_say_the_same_and_leave_the_same_memory(
    firmware: str | None, tmp_path: Path
) -> None:
    kernel, initrd = COCO
    words = ["--kernel", str(find_image(kernel)), "--initrd", str(find_image(initrd)), "--append", "console=ttyS0"]
    if firmware is not None:
        words += ["--bios", str(find_image(firmware))]

    def run(pure: str) -> tuple[bytes, str, str, str]:
        arguments = ["run", *words, "--summary", f"{tmp_path}/s.json", "--ram-digest", "--timeout", "120"]
        environment = {**os.environ, PURE_VARIABLE: pure}
        command = [sys.executable, "-m", "sevplug", *arguments]
        done = subprocess.run(command, capture_output=True, check=True, env=environment)
        summary = json.loads((tmp_path / "s.json").read_text())
        # The measurement itself is made with a random number of the launch.
        return done.stdout, summary["result"], summary["ram_sha256"], summary["sev"]["launch_digest"]

    first = run(pure="0")
    assert USERSPACE in first[0]
    assert first[1] == "reset"
    # Whichever of the two page walks it is.
    assert run(pure="1") == first


class Digest:
    """Takes the digest of RAM at the end."""

    name = "digest"

    @hookimpl
    def machine_close(self, machine: Machine) -> None:
        self.found = machine.memory.ram_digest()


def test_a_boot_whose_translated_code_does_not_fit_leaves_the_same_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def left(size: int) -> tuple[bytes, str]:
        monkeypatch.setattr(library, "CODE_BUFFER", size)
        digest = Digest()
        found = boot(*COCO, firmware=None, append="sevplug.end=poweroff", extra=[digest])
        assert found.run.result == "shutdown", found
        return found.said, digest.found

    assert left(2 * MIB) == left(64 * MIB)


def test_a_guest_on_the_hosts_clock_comes_to_its_end() -> None:
    found = boot(*COCO, firmware=None, clock="host", append="sevplug.end=poweroff")
    assert found.run.result == "shutdown", found
    assert USERSPACE in found.said


def test_a_plain_guest_of_generic_firmware_comes_to_userspace_in_128_mib() -> None:
    found = boot(*COCO, plugins=["no:sev"], firmware=GENERIC, memory=128, until=USERSPACE)
    assert USERSPACE in found.said, found
    assert ACTIVE not in found.said
