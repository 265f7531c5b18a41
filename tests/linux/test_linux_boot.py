"""Unmodified Linux kernels as SEV guests: measured by OVMF, to userspace, with the secret read inside."""

from __future__ import annotations

import pytest
from linux import boot

from sevplug.sevapi.secret_table import LUKS_KEY

pytestmark = pytest.mark.linux

USERSPACE = b"INIT: userspace reached"
ACTIVE = b"Memory Encryption Features active: AMD SEV"
COCO = ("bzImage-coco", "initrd-coco.cpio.gz")
SECRET = b"MY-LUKS-PASSPHRASE"


@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        ("vmlinuz-6.1-cloud", {"c_bit": 47}),
        ("vmlinuz-6.1-cloud", {"c_bit": 51, "memory": 2048, "append": "nolapic_timer"}),
    ],
    ids=["6.1, C-bit 47", "6.1, 2 GiB, no APIC timer"],
)
def test_debians_kernel_comes_to_userspace_with_sev_active(kernel: str, options: dict[str, object]) -> None:
    found = boot(kernel, "initrd-busybox.cpio", until=USERSPACE, **options)  # type: ignore[arg-type]
    assert USERSPACE in found.said, found
    assert ACTIVE in found.said


def test_the_secret_is_read_inside_linux_and_the_guest_reboots() -> None:
    found = boot(*COCO, secrets={LUKS_KEY: SECRET})
    assert found.run.result == "reset", found
    assert ACTIVE in found.said
    assert f"SECRET {LUKS_KEY} ".encode() in found.said
    assert b"text:" + SECRET in found.said


def test_a_secret_that_was_unlinked_is_erased_in_guest_memory() -> None:
    found = boot(*COCO, secrets={LUKS_KEY: SECRET}, append="sevplug.erase")
    assert f"ERASED {LUKS_KEY}".encode() in found.said, found
    assert SECRET not in found.area
    assert LUKS_KEY.bytes_le not in found.area


def test_two_boots_of_the_same_files_say_the_same_and_leave_the_same_memory() -> None:
    first, second = boot(*COCO), boot(*COCO)
    assert first.said == second.said
    assert first.memory == second.memory
    assert first.launch["launch_digest"] == second.launch["launch_digest"]


def test_a_plain_guest_of_generic_firmware_comes_to_userspace() -> None:
    from pathlib import Path

    found = boot(*COCO, plugins=["no:sev"], firmware=Path("/usr/share/ovmf/OVMF.fd"), until=USERSPACE)
    assert USERSPACE in found.said, found
    assert ACTIVE not in found.said
