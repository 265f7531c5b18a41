"""A SEV guest attested and given its secret over QMP, from the client's side."""

from __future__ import annotations

import base64
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from qmp_support import MIB, Client, real_machine, spinning_guest

from sevplug.core.config import BootImages, Image
from sevplug.core.machine import Machine
from sevplug.plugins import secret_injection
from sevplug.plugins.measurement import MeasurementPlugin
from sevplug.plugins.sev import SevPlugin
from sevplug.sevapi.keys import TransportKeys
from sevplug.sevapi.measurement import LaunchMeasurement
from sevplug.sevapi.packet import seal_packet

GPA = 0x4000


def sev_machine(path: Path, boot: BootImages, memory: int = MIB) -> AbstractContextManager[Machine]:
    others = (SevPlugin(), MeasurementPlugin(), secret_injection)
    return real_machine(f"unix:{path}", *others, boot=boot, memory=memory)


def sealed(client: Client, secret: bytes) -> dict[str, str]:
    """The packet an owner with the default keys sends for the measurement that the client was given."""
    blob = base64.b64decode(client.execute("query-sev-launch-measure")["data"])
    keys = TransportKeys(tek=bytes(16), tik=bytes(16))
    packet = seal_packet(secret, keys, LaunchMeasurement.from_blob(blob), iv=bytes(range(16)))
    return {
        "packet_header": base64.b64encode(packet.header).decode(),
        "secret": base64.b64encode(packet.payload).decode(),
    }


def test_a_secret_is_injected_before_the_guest_runs_and_not_after(tmp_path: Path) -> None:
    secret = b"sixteen bytes!!!" * 4
    with sev_machine(tmp_path / "q", spinning_guest()) as machine, Client(tmp_path / "q").negotiate() as client:
        assert client.execute("query-sev")["state"] == "launch-secret"
        packet = sealed(client, secret)
        assert client.refusal("sev-inject-launch-secret", **packet) == (
            "SEV: no secret area found in OVMF, gpa must be specified."
        )
        assert client.execute("sev-inject-launch-secret", **packet, gpa=GPA) == {}
        client.execute("pmemsave", val=GPA, size=64, filename=str(tmp_path / "memory"))
        # A dump is the host's view, and the secret is the guest's.
        assert (tmp_path / "memory").read_bytes() != secret
        assert machine.memory.read(GPA, 64, private=True) == secret
        client.execute("cont")
        assert client.execute("query-sev")["state"] == "running"
        assert client.execute("query-sev-launch-measure")["data"]
        assert client.refusal("sev-inject-launch-secret", **packet, gpa=GPA) == (
            "SEV: Not in correct state. (LSECRET) 3"
        )
        assert machine.launch.state.value == "running"


def test_a_packet_for_another_measurement_changes_nothing(tmp_path: Path) -> None:
    with sev_machine(tmp_path / "q", spinning_guest()), Client(tmp_path / "q").negotiate() as client:
        packet = sealed(client, bytes(range(32)))
        header = bytearray(base64.b64decode(packet["packet_header"]))
        header[-1] ^= 1
        packet["packet_header"] = base64.b64encode(header).decode()
        assert client.refusal("sev-inject-launch-secret", **packet, gpa=GPA) == (
            "SEV: failed to inject secret ret=-5 fw_error=11 'Bad measurement'"
        )
        client.execute("pmemsave", val=GPA, size=32, filename=str(tmp_path / "memory"))
        assert (tmp_path / "memory").read_bytes() == bytes(32)
        assert client.execute("query-sev")["state"] == "launch-secret"


@pytest.mark.real
def test_real_firmware_says_where_the_secret_goes(tmp_path: Path, ovmf_amdsev: Path) -> None:
    boot = BootImages(firmware=Image.load(ovmf_amdsev, "firmware"))
    with (
        sev_machine(tmp_path / "q", boot, 16 * MIB) as machine,
        Client(tmp_path / "q").negotiate() as client,
    ):
        assert client.execute("sev-inject-launch-secret", **sealed(client, b"x" * 16)) == {}
        assert machine.memory.read(0x810000, 16, private=True) == b"x" * 16
