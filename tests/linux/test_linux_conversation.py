"""Owner and platform from the first certificate to the last report, each step by the command that people use."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import pytest
from parts import find_image
from paused_guest import SECRET, Kernel, paused

from sevplug.sevapi.certificates import SevCertificate
from sevplug.sevapi.report import AttestationReport, check_report

pytestmark = pytest.mark.linux

COMMAND_LINE = "console=ttyS0"
MNONCE = bytes(range(16))


def sevplug(*words: str | Path, folder: Path) -> str:
    """One command line, which has to succeed; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "sevplug", *map(str, words)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_whole_conversation(tmp_path: Path) -> None:
    firmware = find_image("OVMF.amdsev.fd")
    kernel = Kernel(find_image("bzImage-coco"), find_image("initrd-coco.cpio.gz"), COMMAND_LINE)
    # The platform, its chain, and the owner's look at it.
    sevplug("platform", "new", "platform", folder=tmp_path)
    sevplug("platform", "export", "platform", "certificates", folder=tmp_path)
    certificates = tmp_path / "certificates"
    verified = sevplug("platform", "verify", certificates / "full_chain.cert", folder=tmp_path)
    assert "test root of sevplug's emulation: it protects nothing" in verified
    assert verified.endswith("verified\n")
    # A session for this platform's PDH, and a guest that is launched with it.
    sevplug("owner", "session", "--name", "vm", certificates / "pdh.cert", "0x1", folder=tmp_path)
    launch = (
        "--platform", str(tmp_path / "platform"), "--object",
        "sev-guest,id=sev0,cbitpos=47,reduced-phys-bits=1,policy=0x1,"
        f"dh-cert-file={tmp_path / 'vm_godh.b64'},session-file={tmp_path / 'vm_session.b64'}",
    )  # fmt: skip
    keys = {"tik": str(tmp_path / "vm_tik.bin"), "tek": str(tmp_path / "vm_tek.bin")}
    with paused(tmp_path, firmware, kernel, timeout=240, launch=launch) as guest:
        # libvirt's validator and ours agree on the measurement; the owner seals and injects.
        assert "OK: Looks good to me" in guest.validate(**keys).stdout
        expected = ("--firmware", firmware, "--kernel", kernel.kernel, "--initrd", kernel.initrd)
        expected += ("--cmdline", COMMAND_LINE, "--policy", "1", "--tik", keys["tik"], "--tek", keys["tek"])
        socket = f"unix:{tmp_path / 'qmp'}"
        measurement = guest.measurement()
        (tmp_path / "secret.txt").write_bytes(SECRET)
        told = guest.qmp.cmd("query-sev")
        version = ("--api-major", str(told["api-major"]), "--api-minor", str(told["api-minor"]))
        version += ("--build-id", str(told["build-id"]))
        sevplug("owner", "verify", *expected, *version, "--measurement", measurement, folder=tmp_path)
        packet = ("--secret-header", "header.b64", "--secret-payload", "payload.b64")
        secret = ("--secret", f"luks-key={tmp_path / 'secret.txt'}")
        keys_of = ("--tik", keys["tik"], "--tek", keys["tek"])
        sevplug("owner", "seal", *secret, *keys_of, "--measurement", measurement, *packet, folder=tmp_path)
        guest.qmp.close()  # one client at a time
        sevplug("owner", "inject", "--qmp", socket, *packet, "--cont", folder=tmp_path)
        # The guest reads the secret, and the platform vouches for it while it runs.
        guest.qmp.connect()
        answer = guest.qmp.cmd("query-sev-attestation-report", mnonce=base64.b64encode(MNONCE).decode())
        report = AttestationReport.from_bytes(base64.b64decode(answer["data"]))
        capabilities = guest.qmp.cmd("query-sev-capabilities")
        pek = SevCertificate.from_bytes(base64.b64decode(capabilities["cert-chain"])[:0x824])
        check_report(report, pek)
        assert report.mnonce == MNONCE
        guest.wait_for(b"text:" + SECRET, 200)
