"""Launch digest and launch measurement."""

import base64
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sevplug.sevapi.digest import LaunchDigest, launch_digest
from sevplug.sevapi.errors import FormatError, SevApiError
from sevplug.sevapi.measurement import LaunchMeasurement, measure, verify
from sevplug.sevapi.policy import Policy
from sevplug.sevapi.version import ApiVersion

TIK = bytes(range(16))
API = ApiVersion(1, 55, 24)
POLICY = Policy(1)
DIGEST = hashlib.sha256(b"firmware").digest()
MNONCE = bytes(range(100, 116))


def test_the_digest_of_nothing_is_that_of_the_empty_string() -> None:
    assert launch_digest().hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@given(st.lists(st.binary(max_size=64)))
def test_the_digest_is_sha256_over_the_regions_in_order(regions: list[bytes]) -> None:
    digest = LaunchDigest()
    for region in regions:
        digest.update(region)
    assert digest.digest() == launch_digest(*regions) == hashlib.sha256(b"".join(regions)).digest()


def test_a_digest_can_be_read_and_then_go_on() -> None:
    digest = LaunchDigest()
    digest.update(b"firm")
    assert digest.digest() == hashlib.sha256(b"firm").digest()
    digest.update(b"ware")
    assert digest.digest() == DIGEST


@pytest.mark.real
def test_the_digest_of_debians_firmware(ovmf_amdsev: Path) -> None:
    digest = launch_digest(ovmf_amdsev.read_bytes()).hex()
    assert digest == "3e4fd0b3fe3b2dbe481c3d9e99418a034174f26cbe1f55aa212b0f18c12d2d6f"


def test_the_measurement_of_an_empty_launch() -> None:
    measurement = measure(
        tik=bytes.fromhex("66320db73158a35a255d051758e95ed4"),
        api=ApiVersion(0x00, 0x12, 0x0F),
        policy=Policy(0),
        digest=launch_digest(),
        mnonce=bytes.fromhex("4fbe0bedbad6c86ae8f68971d103e554"),
    )
    assert measurement.mac.hex() == "6faab2daae389bcd3405a05d6cafe33c0414f7bedd0bae19ba5f38b7fd1664ea"


def test_the_measurement_in_base64() -> None:
    measurement = measure(
        tik=bytes.fromhex("3569cf61a32a602b87185ac6e0f55913"),
        api=ApiVersion(1, 40, 40),
        policy=Policy(3),
        digest=base64.b64decode("xkvRAfyaSizgonxAjZIAkR8TmolUabBKQKb6KJCDDSM="),
        mnonce=base64.b64decode("wxP6tRHCFrFQWxsuqZA8QA=="),
    )
    text = "lswbxWxI9gckya16JQvdFtpYmNO4b+3inAPpqsgoBI7DE/q1EcIWsVBbGy6pkDxA"
    assert measurement.to_base64() == text
    assert LaunchMeasurement.from_base64(text) == measurement


def test_a_measurement_verifies_with_what_it_was_made_of() -> None:
    assert verify(measure(TIK, API, POLICY, DIGEST, MNONCE), TIK, API, POLICY, DIGEST)


@pytest.mark.parametrize(
    ("tik", "api", "policy", "digest"),
    [
        (bytes(16), API, POLICY, DIGEST),
        (TIK, ApiVersion(2, 55, 24), POLICY, DIGEST),
        (TIK, ApiVersion(1, 54, 24), POLICY, DIGEST),
        (TIK, ApiVersion(1, 55, 25), POLICY, DIGEST),
        (TIK, API, Policy(3), DIGEST),
        (TIK, API, POLICY, bytes(32)),
    ],
    ids=["tik", "api major", "api minor", "build", "policy", "digest"],
)
def test_a_measurement_verifies_with_nothing_else(tik: bytes, api: ApiVersion, policy: Policy, digest: bytes) -> None:
    assert not verify(measure(TIK, API, POLICY, DIGEST, MNONCE), tik, api, policy, digest)


@given(st.integers(0, 47), st.integers(1, 255))
def test_a_measurement_with_any_byte_changed_does_not_verify(position: int, change: int) -> None:
    blob = bytearray(measure(TIK, API, POLICY, DIGEST, MNONCE).blob)
    blob[position] ^= change
    assert not verify(LaunchMeasurement.from_blob(bytes(blob)), TIK, API, POLICY, DIGEST)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=16, max_size=16))
def test_a_measurement_survives_blob_and_base64(mac: bytes, mnonce: bytes) -> None:
    measurement = LaunchMeasurement(mac, mnonce)
    assert measurement.blob == mac + mnonce
    assert LaunchMeasurement.from_blob(measurement.blob) == measurement
    assert LaunchMeasurement.from_base64(measurement.to_base64()) == measurement


@pytest.mark.parametrize("size", [0, 47, 49])
def test_a_blob_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(FormatError, match=f"launch measurement: expected 48 bytes, found {size}"):
        LaunchMeasurement.from_blob(bytes(size))


@pytest.mark.parametrize("text", ["", "AAAA", "not base64!", "ü" * 64, "A" * 63])
def test_a_text_that_is_no_blob_in_base64_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="launch measurement: expected 48 bytes"):
        LaunchMeasurement.from_base64(text)


@pytest.mark.parametrize("junk", ["!", "\n", " "])
def test_a_text_with_anything_but_base64_in_it_is_refused(junk: str) -> None:
    text = measure(TIK, API, POLICY, DIGEST, MNONCE).to_base64()
    with pytest.raises(FormatError, match="launch measurement: expected 48 bytes in base64"):
        LaunchMeasurement.from_base64(text + junk)


@given(st.text())
def test_any_other_text_gives_nothing_but_a_clean_error(text: str) -> None:
    with pytest.raises(SevApiError):
        LaunchMeasurement.from_base64(text)


@pytest.mark.parametrize(
    ("tik", "digest", "mnonce", "message"),
    [
        (bytes(15), DIGEST, MNONCE, "tik: expected 16 bytes, found 15"),
        (TIK, bytes(31), MNONCE, "launch digest: expected 32 bytes, found 31"),
        (TIK, DIGEST, bytes(17), "mnonce: expected 16 bytes, found 17"),
    ],
)
def test_measuring_with_a_part_of_the_wrong_length_is_refused(
    tik: bytes, digest: bytes, mnonce: bytes, message: str
) -> None:
    with pytest.raises(FormatError, match=message):
        measure(tik, API, POLICY, digest, mnonce)
