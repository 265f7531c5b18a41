"""The plug-in ``measurement``: the digest of what was launched, and the word on it that an owner can check."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path

import pytest
from assembler import assemble
from machines import machine_with
from sev_guests import TEK, TIK, SevGuest, sev_guest, sev_object

from sevplug.boot import embedded
from sevplug.core.hookspecs import hookimpl
from sevplug.core.launch import LaunchRegion
from sevplug.core.machine import Machine
from sevplug.plugins.measurement import MeasurementPlugin
from sevplug.sevapi.measurement import LaunchMeasurement, verify
from sevplug.sevapi.policy import Policy
from sevplug.sevapi.version import EMULATED_API as API


class MoreRegions:
    """Two regions beyond the firmware, of different page types."""

    name = "more-regions"

    @hookimpl
    def add_launch_regions(self, machine: Machine) -> None:
        machine.add_launch_region(LaunchRegion("first", 0x8000, b"first region"))
        machine.add_launch_region(LaunchRegion("second", 0x4000, b"second region", page_type=7))


@pytest.fixture
def key_properties(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "tik.bin").write_bytes(TIK)
    (tmp_path / "tek.bin").write_bytes(TEK)
    return {"tik": str(tmp_path / "tik.bin"), "tek": str(tmp_path / "tek.bin")}


def launched(guest: SevGuest) -> tuple[bytes, LaunchMeasurement]:
    guest.machine.start_launch()
    assert guest.machine.launch.measurement is not None
    return guest.machine.launch.measurement.digest, guest.measurement


def test_the_digest_is_sha256_over_the_firmware() -> None:
    firmware = embedded.load().firmware
    assert firmware is not None
    with sev_guest() as guest:
        assert launched(guest)[0] == hashlib.sha256(firmware.data).digest()


def test_the_digest_is_over_all_regions_in_the_order_of_adding() -> None:
    image = assemble("out 0xf4, al; hlt")
    with sev_guest(firmware=image, plugins=(MoreRegions(),)) as guest:
        digest, _measurement = launched(guest)
        assert digest == hashlib.sha256(image + b"first region" + b"second region").digest()
        assert [fields["page_type"] for fields in guest.events.of("launch.update")] == ["normal", "normal", 7]
        assert [fields["size"] for fields in guest.events.of("launch.update")] == [len(image), 12, 13]


def test_the_measurement_is_the_apis_hmac(key_properties: dict[str, str]) -> None:
    with sev_guest(sev_object(policy="0x3", **key_properties)) as guest:
        digest, measured = launched(guest)
    message = b"\x04" + bytes([API.major, API.minor, API.build]) + (3).to_bytes(4, "little") + digest + measured.mnonce
    assert measured.mac == hmac.digest(TIK, message, "sha256")


def test_the_measurement_verifies_and_with_nothing_else_than_the_truth(key_properties: dict[str, str]) -> None:
    with sev_guest(sev_object(policy="0x1", **key_properties)) as guest:
        digest, measured = launched(guest)
    assert verify(measured, TIK, API, Policy(1), digest)
    assert not verify(measured, TEK, API, Policy(1), digest)
    assert not verify(measured, TIK, API, Policy(0), digest)
    assert not verify(measured, TIK, API, Policy(1), hashlib.sha256(b"another firmware").digest())


def test_each_launch_has_a_fresh_nonce_and_the_same_digest() -> None:
    with sev_guest() as first, sev_guest() as second:
        (first_digest, first_measured), (second_digest, second_measured) = launched(first), launched(second)
    assert first_digest == second_digest
    assert first_measured.mnonce != second_measured.mnonce
    assert first_measured.mac != second_measured.mac


def test_the_launch_tells_digest_and_measurement() -> None:
    with sev_guest() as guest:
        digest, measured = launched(guest)
        (told,) = guest.events.of("launch.measure")
    assert told == {"digest": digest.hex(), "measurement": measured.to_base64()}


def test_starting_the_launch_twice_measures_once() -> None:
    with sev_guest() as guest:
        first = launched(guest)
        assert launched(guest) == first
        assert len(guest.events.of("launch.measure")) == 1


def test_the_summary_holds_the_digest_and_the_measurement() -> None:
    with sev_guest() as guest:
        digest, measured = launched(guest)
        document = guest.machine.summary(guest.machine.run(timeout=10))
    assert document["sev"]["launch_digest"] == digest.hex()
    assert base64.b64decode(document["sev"]["measurement"]) == measured.blob


def test_a_plain_guest_is_not_measured() -> None:
    with machine_with(assemble("out 0xf4, al"), MeasurementPlugin()) as (machine, _board):
        run = machine.run(timeout=5)
        assert machine.launch.measurement is None
        assert "sev" not in machine.summary(run)


def test_the_guest_cannot_change_what_was_measured() -> None:
    image = assemble("mov ax, 0xf000; mov ds, ax; mov byte ptr [0x8000], 0x55; mov al, [0x8000]; out 0x80, al; hlt")
    with sev_guest(firmware=image) as guest:
        digest, _measured = launched(guest)
        guest.machine.run(timeout=5)
        assert guest.machine.launch.measurement is not None
        assert guest.machine.launch.measurement.digest == digest
        assert guest.machine.launch.regions[0].data == image
