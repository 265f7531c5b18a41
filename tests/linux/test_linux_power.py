"""How a guest ends itself: what it says, and what becomes of the run."""

from __future__ import annotations

import pytest
from linux import boot

pytestmark = pytest.mark.linux

COCO = ("bzImage-coco", "initrd-coco.cpio.gz")


@pytest.mark.parametrize("firmware", ["OVMF.amdsev.fd", None], ids=["OVMF", "direct"])
@pytest.mark.parametrize(
    ("end", "said", "result", "detail"),
    [
        ("poweroff", b"reboot: Power down", "shutdown", "the guest switched itself off (ACPI S5)"),
        ("reboot", b"reboot: machine restart", "reset", "the guest asked for a reset (port 0xcf9)"),
        ("halt", b"reboot: System halted", "shutdown", "halted with interrupts off at rip "),
    ],
)
def test_a_guest_that_ends_itself_ends_the_run_in_order(
    end: str, said: bytes, result: str, detail: str, firmware: str | None
) -> None:
    found = boot(*COCO, firmware=firmware, append=f"sevplug.end={end}")
    assert found.run.result == result, found
    assert found.run.orderly
    assert found.run.detail.startswith(detail)
    assert said in found.said
