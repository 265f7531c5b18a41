"""The whole conversation with tools that are not ours: paused, validated by libvirt's tool, given a secret, resumed."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from paused_guest import SECRET, paused

pytestmark = pytest.mark.real


@pytest.fixture
def embedded(tmp_path: Path) -> Path:
    """The embedded guest as a firmware file."""
    from sevplug.boot import embedded as guest

    firmware = guest.load().firmware
    assert firmware is not None
    (tmp_path / "embedded.fd").write_bytes(firmware.data)
    return tmp_path / "embedded.fd"


def test_ovmf_is_validated_given_a_secret_resumed_and_boots(tmp_path: Path, ovmf_amdsev: Path) -> None:
    with paused(tmp_path, ovmf_amdsev) as guest:
        assert guest.qmp.cmd("query-status")["status"] == "prelaunch"
        done = guest.validate()
        assert done.returncode == 0, done.stderr
        assert "OK: Looks good to me" in done.stdout
        guest.inject(*guest.sealed_by_libvirt())
        assert guest.qmp.cmd("query-sev")["state"] == "launch-secret"
        guest.qmp.cmd("cont")
        assert guest.qmp.cmd("query-sev")["state"] == "running"
        guest.wait_for(b"No bootable option", 30)


def test_a_secret_sealed_by_libvirt_is_read_inside_the_guest(tmp_path: Path, embedded: Path) -> None:
    with paused(tmp_path, embedded) as guest:
        guest.inject(*guest.sealed_by_libvirt())
        guest.qmp.cmd("cont")
        seen = guest.wait_for(b"done", 10)
        assert b"secret 736869e5-84f0-4973-92ec-06879ce3da0b: " + SECRET in seen


@pytest.mark.parametrize(
    ("argument", "value"),
    [("policy", "3"), ("tik", "other.bin"), ("firmware", "other.fd"), ("build_id", "25")],
)
def test_the_validator_refuses_what_is_not_as_the_owner_expects(
    tmp_path: Path, embedded: Path, argument: str, value: str
) -> None:
    (tmp_path / "other.bin").write_bytes(bytes(16))
    (tmp_path / "other.fd").write_bytes(embedded.read_bytes()[:-1] + b"\xff")
    if value.startswith("other"):
        value = str(tmp_path / value)
    with paused(tmp_path, embedded) as guest:
        done = guest.validate(**{argument: value})
        assert done.returncode == 1
        assert "Looks good" not in done.stdout


def test_a_packet_that_was_tampered_with_is_refused_and_nothing_is_written(tmp_path: Path, embedded: Path) -> None:
    with paused(tmp_path, embedded) as guest:
        header, payload = guest.sealed_by_libvirt()
        broken = bytearray(base64.b64decode(payload.read_text()))
        broken[0] ^= 1
        payload.write_text(base64.b64encode(bytes(broken)).decode())
        reply: dict[str, Any] = guest.qmp.cmd_raw(
            "sev-inject-launch-secret",
            {"packet-header": header.read_text().strip(), "secret": payload.read_text().strip()},
        )
        assert reply["error"]["desc"].startswith("SEV: failed to inject secret ret=")
        guest.qmp.cmd("pmemsave", val=0x10000, size=256, filename=str(tmp_path / "dump"))
        assert (tmp_path / "dump").read_bytes() == bytes(256)


def test_sev_snp_measure_computes_the_launch_digest_that_the_summary_shows(tmp_path: Path, embedded: Path) -> None:
    import json

    from sevsnpmeasure import guest as oracle  # type: ignore[import-untyped]
    from sevsnpmeasure.sev_mode import SevMode  # type: ignore[import-untyped]
    from sevsnpmeasure.vcpu_types import CPU_SIGS  # type: ignore[import-untyped]
    from sevsnpmeasure.vmm_types import VMMType  # type: ignore[import-untyped]

    summary = tmp_path / "summary.json"
    command = [sys.executable, "-m", "sevplug", "run", "--bios", str(embedded), "--summary", str(summary)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    expected = oracle.calc_launch_digest(
        SevMode.SEV, 1, CPU_SIGS["EPYC-Milan"], str(embedded), "", "", "", 0x1, "", VMMType.QEMU, False, 0
    )
    assert json.loads(summary.read_text())["sev"]["launch_digest"] == expected.hex()
