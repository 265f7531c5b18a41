"""Real firmware comes as far as it does on QEMU without a disk: to its boot manager, or to its shell."""

from __future__ import annotations

from pathlib import Path

import pytest
from firmware import run_until, sev_object
from parts import missing

pytestmark = pytest.mark.real


def debian(name: str) -> Path:
    """A firmware file of Debian's package ovmf."""
    for folder in ("OVMF", "ovmf"):
        path = Path("/usr/share") / folder / name
        if path.exists():
            return path
    return missing(f"{name} is missing: install the Debian package ovmf (scripts/install-real-parts does)")


@pytest.mark.parametrize("c_bit", [47, 51])
def test_ovmf_for_sev_comes_to_its_boot_manager_with_sev_active(ovmf_amdsev: Path, c_bit: int) -> None:
    result, said = run_until(b"No bootable option was found", ovmf_amdsev, objects=[sev_object(c_bit)])
    assert result == "quit", said[-300:]


def test_ovmf_for_sev_comes_there_as_a_plain_guest_too(ovmf_amdsev: Path) -> None:
    result, said = run_until(b"No bootable option was found", ovmf_amdsev, plugins=["no:sev"])
    assert result == "quit", said[-300:]


def test_generic_ovmf_comes_to_its_shell() -> None:
    result, said = run_until(b"Shell>", debian("OVMF.fd"), plugins=["no:sev"])
    assert result == "quit", said[-300:]


@pytest.mark.parametrize("encrypt", ["off", "on"])
def test_generic_ovmf_without_a_flash_for_variables_trusts_memory_that_nobody_wrote(encrypt: str) -> None:
    """It keeps variables in RAM then, and takes what is behind them (for its fault-tolerant writes) as it finds it.

    Zeros suit it; what encrypted memory holds that was never written does not, and it stops with a #GP.
    """
    objects = [sev_object(51, encrypt_memory=encrypt)]
    result, said = run_until(b"Shell>" if encrypt == "off" else b"#GP", debian("OVMF.fd"), objects=objects)
    assert result == "quit", said[-300:]


def test_a_pair_of_code_and_variables_comes_to_its_shell() -> None:
    result, said = run_until(b"Shell>", debian("OVMF_CODE_4M.fd"), debian("OVMF_VARS_4M.fd"), objects=[sev_object(47)])
    assert result == "quit", said[-300:]
