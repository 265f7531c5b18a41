"""Linux guests that come to a bad end, which is named."""

from __future__ import annotations

from typing import Any

import pytest
from linux import boot

from sevplug.board import fw_cfg_keys as key
from sevplug.core import result
from sevplug.core.engine import watch
from sevplug.core.hookspecs import hookimpl
from sevplug.core.machine import Machine
from sevplug.core.vcpu import VCpu

pytestmark = pytest.mark.linux

COCO = ("bzImage-coco", "initrd-coco.cpio.gz")
IMAGES = {"kernel": key.KERNEL_DATA, "initrd": key.INITRD_DATA, "command line": key.CMDLINE_DATA}


class Swapped:
    """Puts another image behind fw_cfg than the one whose hash was measured."""

    name = "swapped"

    def __init__(self, image: str) -> None:
        self.number = IMAGES[image]

    @hookimpl(trylast=True)
    def add_launch_regions(self, machine: Machine) -> None:
        fw_cfg: Any = machine.private["fw_cfg"]
        measured = fw_cfg.item(self.number)
        fw_cfg.add_item(self.number, measured[:100] + bytes([measured[100] ^ 1]) + measured[101:])


@pytest.mark.parametrize("image", IMAGES)
def test_what_was_not_measured_is_never_started(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.1)
    found = boot(*COCO, append="quiet " * 20, extra=[Swapped(image)])
    assert found.run.result == result.REFUSED, found
    assert found.run.detail.startswith(f"the {image} that fw_cfg offers is not what was measured")
    assert b"Linux version" not in found.said
    hashes = found.launch["kernel_hashes"]
    assert {name for name, state in hashes.items() if state != "as measured"} == {image.replace(" ", "_")}


@pytest.mark.parametrize("append", ["", "panic=1"], ids=["it waits", "it restarts"])
def test_a_kernel_without_a_first_program_panics(append: str) -> None:
    found = boot(COCO[0], None, append=append, firmware=None)
    assert found.run.result == result.PANIC, found
    assert found.run.detail.startswith("Kernel panic - not syncing: No working init found.")


class ClaimsEncryptedState:
    """Says that SEV-ES is active, and speaks a version of the GHCB protocol that no kernel knows."""

    name = "claims-es"

    def __init__(self) -> None:
        self.answer = 0

    @hookimpl(tryfirst=True)
    def rdmsr(self, index: int) -> int | None:
        return {0xC0010131: 3, 0xC0010130: self.answer}.get(index)

    @hookimpl(tryfirst=True)
    def wrmsr(self, index: int, value: int) -> bool | None:
        if index == 0xC0010130 and value == 2:  # SEV information request
            self.answer = 99 << 48 | 98 << 32 | 1
            return True
        return None

    @hookimpl
    def unknown_opcode(self, cpu: VCpu, code: bytes) -> int | None:
        return 4 if code.startswith(b"\xf3\x0f\x01\xd9") else None  # VMGEXIT


def test_a_kernel_that_does_not_trust_what_it_found_asks_for_its_termination() -> None:
    found = boot("vmlinuz-6.1-cloud", "initrd-busybox.cpio", firmware=None, extra=[ClaimsEncryptedState()])
    assert found.run.result == result.TERMINATED, found
    assert found.run.detail == "GHCB termination request, reason 0:0x1 (the GHCB protocol versions do not meet)"
    assert found.said == b""
