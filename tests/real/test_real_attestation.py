"""The whole conversation with tools that are not ours: paused, validated by libvirt's tool, given a secret, resumed."""

from __future__ import annotations

import base64
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from parts import find_tool
from qemu.qmp.legacy import QEMUMonitorProtocol

pytestmark = pytest.mark.real

SECRET = b"MY-LUKS-PASSPHRASE"
TIK, TEK = bytes(range(16)), bytes(range(16, 32))


class Guest:
    """A `sevplug run` process that waits at -S, with a QMP client on its socket."""

    def __init__(self, folder: Path, firmware: Path, *extra: str) -> None:
        self.folder, self.firmware = folder, firmware
        (folder / "tik.bin").write_bytes(TIK)
        (folder / "tek.bin").write_bytes(TEK)
        self.serial = folder / "serial.txt"
        keys = f"tik={folder / 'tik.bin'},tek={folder / 'tek.bin'}"
        command = [
            sys.executable, "-m", "sevplug", "run", "--bios", str(firmware), "-m", "256M", "-S",
            "--object", f"sev-emulated,id=sev0,cbitpos=47,reduced-phys-bits=1,policy=0x1,{keys}",
            "--machine", "memory-encryption=sev0", "--qmp", f"unix:{folder / 'qmp'}",
            "--serial", f"file:{self.serial}", "--timeout", "60", *extra,
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.qmp = QEMUMonitorProtocol(str(folder / "qmp"))
        deadline = time.monotonic() + 15
        while True:
            try:
                self.qmp.connect()
                return
            except Exception:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.process.kill()
                    raise AssertionError(self.process.communicate()[1]) from None
                time.sleep(0.05)

    def measurement(self) -> str:
        return str(self.qmp.cmd("query-sev-launch-measure")["data"])

    def validate(self, *changes: str, **replaced: str) -> subprocess.CompletedProcess[str]:
        """libvirt's validator on this guest's measurement; ``replaced`` swaps an argument's value."""
        find_tool("virt-qemu-sev-validate", "libvirt-clients-qemu")
        told = self.qmp.cmd("query-sev")
        values = {
            "firmware": str(self.firmware), "tik": str(self.folder / "tik.bin"), "tek": str(self.folder / "tek.bin"),
            "api-major": str(told["api-major"]), "api-minor": str(told["api-minor"]),
            "build-id": str(told["build-id"]), "policy": str(told["policy"]), "measurement": self.measurement(),
        } | {name.replace("_", "-"): value for name, value in replaced.items()}  # fmt: skip
        words = [word for name, value in values.items() for word in (f"--{name}", value)]
        # The tool's modules are Debian's, so it runs under Debian's Python and not under this one.
        command = ["/usr/bin/python3", "/usr/bin/virt-qemu-sev-validate", *words, *changes]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def inject(self, header: Path, payload: Path) -> None:
        packet = {"packet-header": header.read_text().strip(), "secret": payload.read_text().strip()}
        self.qmp.cmd("sev-inject-launch-secret", **packet)

    def wait_for(self, text: bytes, seconds: float) -> bytes:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            seen = self.serial.read_bytes() if self.serial.exists() else b""
            if text in seen:
                return seen
            time.sleep(0.05)
        raise AssertionError(f"{text!r} did not come; the last of the serial port: {seen[-500:]!r}")

    def close(self) -> None:
        self.qmp.close()
        if self.process.poll() is None:
            self.process.terminate()
        self.process.communicate(timeout=10)


@contextmanager
def paused(folder: Path, firmware: Path, *extra: str) -> Iterator[Guest]:
    guest = Guest(folder, firmware, *extra)
    try:
        yield guest
    finally:
        guest.close()


@pytest.fixture
def embedded(tmp_path: Path) -> Path:
    """The embedded guest as a firmware file."""
    from sevplug.boot import embedded as guest

    firmware = guest.load().firmware
    assert firmware is not None
    (tmp_path / "embedded.fd").write_bytes(firmware.data)
    return tmp_path / "embedded.fd"


def sealed_by_libvirt(guest: Guest) -> tuple[Path, Path]:
    (guest.folder / "secret.txt").write_bytes(SECRET)
    header, payload = guest.folder / "header.b64", guest.folder / "payload.b64"
    done = guest.validate(
        "--inject-secret", f"luks-key:{guest.folder / 'secret.txt'}",
        "--secret-header", str(header), "--secret-payload", str(payload),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return header, payload


def test_ovmf_is_validated_given_a_secret_resumed_and_boots(tmp_path: Path, ovmf_amdsev: Path) -> None:
    with paused(tmp_path, ovmf_amdsev) as guest:
        assert guest.qmp.cmd("query-status")["status"] == "prelaunch"
        done = guest.validate()
        assert done.returncode == 0, done.stderr
        assert "OK: Looks good to me" in done.stdout
        guest.inject(*sealed_by_libvirt(guest))
        assert guest.qmp.cmd("query-sev")["state"] == "launch-secret"
        guest.qmp.cmd("cont")
        assert guest.qmp.cmd("query-sev")["state"] == "running"
        guest.wait_for(b"No bootable option", 30)


def test_a_secret_sealed_by_libvirt_is_read_inside_the_guest(tmp_path: Path, embedded: Path) -> None:
    with paused(tmp_path, embedded) as guest:
        guest.inject(*sealed_by_libvirt(guest))
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
        header, payload = sealed_by_libvirt(guest)
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
