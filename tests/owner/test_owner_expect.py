"""What the owner expects of a launch."""

import attrs
import pytest

from sevplug.owner.errors import OwnerError
from sevplug.owner.expect import (
    Expectation,
    check_reported,
    expect_images,
    expected_digest,
    verify_measurement,
)
from sevplug.sevapi.digest import launch_digest
from sevplug.sevapi.errors import FormatError
from sevplug.sevapi.guid_table import FOOTER, HASH_TABLE_AREA
from sevplug.sevapi.hash_table import hash_images
from sevplug.sevapi.measurement import measure
from sevplug.sevapi.policy import Policy
from sevplug.sevapi.version import ApiVersion

TIK = b"the owner's key!"
API = ApiVersion(1, 55, 24)
POLICY = Policy(1)
PLAIN_FIRMWARE = b"firmware" * 16


def firmware_with_area(base: int, size: int) -> bytes:
    entry = base.to_bytes(4, "little") + size.to_bytes(4, "little") + b"\x1a\0" + HASH_TABLE_AREA.bytes_le
    return bytes(64) + entry + b"\x2c\0" + FOOTER.bytes_le + bytes(32)


FIRMWARE = firmware_with_area(0x810C00, 0x400)
EXPECTATION = expect_images(POLICY, API, FIRMWARE)


def test_firmware_alone_is_expected_with_its_own_digest() -> None:
    assert expected_digest(PLAIN_FIRMWARE) == launch_digest(PLAIN_FIRMWARE)
    assert Expectation(POLICY, API, launch_digest(FIRMWARE)) == EXPECTATION


def test_a_kernel_is_expected_with_its_hash_table() -> None:
    table = hash_images(b"kernel", b"initrd", "quiet").to_bytes()
    assert expected_digest(FIRMWARE, b"kernel", b"initrd", "quiet") == launch_digest(FIRMWARE, table)
    table = hash_images(b"kernel").to_bytes()
    assert expect_images(POLICY, API, FIRMWARE, b"kernel").digest == launch_digest(FIRMWARE, table)


def test_an_initrd_or_command_line_without_a_kernel_is_refused() -> None:
    with pytest.raises(OwnerError, match="an initrd or a kernel command line needs a kernel"):
        expected_digest(FIRMWARE, initrd=b"initrd")
    with pytest.raises(OwnerError, match="an initrd or a kernel command line needs a kernel"):
        expected_digest(FIRMWARE, cmdline="quiet")


@pytest.mark.parametrize(
    ("firmware", "message"),
    [
        (PLAIN_FIRMWARE, "guest firmware has no hashes table GUID"),
        (firmware_with_area(0, 0), "hashes table area is invalid .base=0x0 size=0x0."),
        (FIRMWARE[:-50] + b"\xff\xff" + FIRMWARE[-48:], "firmware GUID table: length 65535"),
    ],
)
def test_a_kernel_for_which_the_firmware_has_no_room_is_refused(firmware: bytes, message: str) -> None:
    with pytest.raises(OwnerError, match=message):
        expected_digest(firmware, b"kernel")


def test_an_sev_es_policy_is_not_expected_from_images_alone() -> None:
    with pytest.raises(OwnerError, match="asks for SEV-ES"):
        expect_images(Policy(5), API, FIRMWARE)


def test_a_digest_of_another_length_is_refused() -> None:
    with pytest.raises(FormatError, match="digest: expected 32 bytes, found 31"):
        Expectation(POLICY, API, bytes(31))


def test_the_measurement_of_the_expected_launch_is_accepted_as_value_or_blob() -> None:
    measurement = measure(TIK, API, POLICY, EXPECTATION.digest, bytes(16))
    assert verify_measurement(EXPECTATION, TIK, measurement) == measurement
    assert verify_measurement(EXPECTATION, TIK, measurement.blob) == measurement


@pytest.mark.parametrize(
    ("tik", "api", "policy", "digest"),
    [
        (bytes(16), API, POLICY, EXPECTATION.digest),
        (TIK, ApiVersion(1, 55, 25), POLICY, EXPECTATION.digest),
        (TIK, API, Policy(0), EXPECTATION.digest),
        (TIK, API, POLICY, bytes(32)),
    ],
    ids=["tik", "api", "policy", "digest"],
)
def test_the_measurement_of_any_other_launch_is_refused(
    tik: bytes, api: ApiVersion, policy: Policy, digest: bytes
) -> None:
    measurement = measure(tik, api, policy, digest, bytes(16))
    with pytest.raises(OwnerError, match="launch measurement: does not match"):
        verify_measurement(EXPECTATION, TIK, measurement)


def test_a_refusal_says_what_was_expected_and_shows_no_key() -> None:
    with pytest.raises(OwnerError) as refused:
        verify_measurement(EXPECTATION, TIK, bytes(48))
    text = str(refused.value)
    assert f"policy 0x1 (nodbg), API 1.55 build 24, launch digest {EXPECTATION.digest.hex()}" in text
    assert "\n" not in text
    assert TIK.decode() not in text
    assert TIK.hex() not in text


def test_a_blob_or_key_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(OwnerError, match="launch measurement: expected 48 bytes, found 47"):
        verify_measurement(EXPECTATION, TIK, bytes(47))
    with pytest.raises(OwnerError, match="launch measurement: tik: expected 16 bytes, found 15"):
        verify_measurement(EXPECTATION, TIK[1:], bytes(48))


def test_a_report_of_the_expected_policy_and_api_is_accepted() -> None:
    check_reported(EXPECTATION, Policy(1), ApiVersion(1, 55, 24))


def test_a_report_of_another_policy_or_api_says_which() -> None:
    with pytest.raises(OwnerError, match=r"expected policy 0x1 \(nodbg\), the host reports 0x0"):
        check_reported(EXPECTATION, Policy(0), API)
    with pytest.raises(OwnerError, match=r"expected API 1\.55 build 24, the host reports 1\.54 build 24"):
        check_reported(EXPECTATION, POLICY, attrs.evolve(API, minor=54))
