"""LAUNCH_START sessions: the owner's side and the firmware's."""

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sev_platforms import API, CHAIN, IDENTITY, changed

from sevplug.platform.randomness import SeededRandom
from sevplug.sevapi.algorithms import Algorithm, Usage
from sevplug.sevapi.certificates import CERTIFICATE_SIZE
from sevplug.sevapi.elliptic import EcPrivateKey
from sevplug.sevapi.errors import FirmwareError, FormatError
from sevplug.sevapi.keys import TransportKeys
from sevplug.sevapi.policy import Policy
from sevplug.sevapi.session import SESSION_SIZE, LaunchSession, make_session, open_session, wrap_keys
from sevplug.sevapi.status import Status

KEYS = TransportKeys(tek=b"encryption key!!", tik=b"integrity key!!!")
POLICY = Policy(0x37010001)
MADE = make_session(CHAIN.pdh, POLICY, KEYS, SeededRandom(b"session"))
CERTIFICATE, SESSION = MADE.certificate.to_bytes(), MADE.session.to_bytes()


def status_of(certificate: bytes = CERTIFICATE, session: bytes = SESSION, policy: Policy = POLICY) -> Status:
    with pytest.raises(FirmwareError) as refused:
        open_session(IDENTITY.pdh_key, certificate, session, policy, API)
    assert str(refused.value).startswith("LAUNCH_START: ")
    assert "key!!" not in str(refused.value)
    return refused.value.status


def test_the_known_vector() -> None:
    # virtee/sev, src/session/mod.rs, test "session".
    session = wrap_keys(bytes(16), TransportKeys(bytes(16), bytes(16)), Policy(0), bytes(16), bytes(16))
    assert session.wrapped_keys.hex() == "2137bc7f9bb8bd7c3e55a576a15d3454b3856b8ba27afadf46dcfee9f02c02c4"
    assert session.wrap_mac.hex() == "3176c0752738bd9d5e86689534020f528c088f16238826b000b327dee6aeed7d"
    assert session.policy_mac.hex() == "aa7855e13839dd767cd5da7c1ff5036540c9264b7a803029315e55375287b4af"


def test_a_session_opens_with_the_keys_that_were_sent() -> None:
    assert open_session(IDENTITY.pdh_key, CERTIFICATE, SESSION, POLICY, API) == KEYS


@settings(max_examples=25)
@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16), st.integers(0, 0x3F))
def test_any_session_opens(tek: bytes, tik: bytes, policy: int) -> None:
    made = make_session(CHAIN.pdh, Policy(policy), TransportKeys(tek, tik))
    opened = open_session(IDENTITY.pdh_key, made.certificate.to_bytes(), made.session.to_bytes(), Policy(policy), API)
    assert opened == TransportKeys(tek, tik)


def test_keys_are_random_unless_given() -> None:
    first, second = make_session(CHAIN.pdh, POLICY), make_session(CHAIN.pdh, POLICY)
    assert first.keys != second.keys
    assert first.certificate != second.certificate
    assert first.session.nonce != second.session.nonce
    assert first.session.wrap_iv != second.session.wrap_iv


def test_the_certificate_is_as_sevctl_makes_it() -> None:
    certificate = MADE.certificate
    assert (certificate.usage, certificate.algorithm) == (Usage.PDH, Algorithm.ECDH_SHA256)
    assert (certificate.api_major, certificate.api_minor) == (0, 0)
    assert certificate.unsigned == certificate


@settings(max_examples=200)
@given(st.integers(0, SESSION_SIZE - 1), st.integers(1, 255))
def test_any_byte_of_the_session_changed_is_a_bad_measurement(position: int, change: int) -> None:
    assert status_of(session=changed(SESSION, position, change)) == Status.BAD_MEASUREMENT


@settings(max_examples=60)
@given(st.integers(8, 16 + 1028 - 1), st.integers(1, 255))
def test_any_byte_of_usage_algorithm_or_key_changed_is_an_invalid_certificate(position: int, change: int) -> None:
    assert status_of(changed(CERTIFICATE, position, change)) == Status.INVALID_CERTIFICATE


@given(st.integers(0, 3), st.integers(1, 255))
def test_another_version_of_the_certificate_is_refused(position: int, change: int) -> None:
    assert status_of(changed(CERTIFICATE, position, change)) == Status.INVALID_CERTIFICATE


@pytest.mark.parametrize("position", [4, 5, 6, 7, 0x414, 0x500, CERTIFICATE_SIZE - 1])
def test_what_firmware_does_not_look_at_changes_nothing(position: int) -> None:
    assert open_session(IDENTITY.pdh_key, changed(CERTIFICATE, position, 1), SESSION, POLICY, API) == KEYS


def test_another_point_on_the_curve_agrees_on_another_secret() -> None:
    other = make_session(CHAIN.pdh, POLICY, KEYS, SeededRandom(b"other")).certificate
    assert status_of(other.to_bytes()) == Status.BAD_MEASUREMENT


def test_a_session_for_another_platform_is_refused() -> None:
    with pytest.raises(FirmwareError, match="the wrapped keys' MAC is wrong; for another PDH, or changed") as refused:
        open_session(EcPrivateKey(7), CERTIFICATE, SESSION, POLICY, API)
    assert refused.value.status == Status.BAD_MEASUREMENT


@pytest.mark.parametrize("bit", range(32))
def test_another_policy_is_refused(bit: int) -> None:
    assert status_of(policy=Policy(POLICY.value ^ 1 << bit)) == Status.BAD_MEASUREMENT


@pytest.mark.parametrize("policy", [0x40, 0x8000, 0x00020000, 0x38010000])
def test_a_policy_that_cannot_be_granted_is_refused_after_its_mac(policy: int) -> None:
    made = make_session(CHAIN.pdh, Policy(policy), KEYS)
    status = status_of(made.certificate.to_bytes(), made.session.to_bytes(), Policy(policy))
    assert status == Status.POLICY_FAILURE


@pytest.mark.parametrize("size", [0, SESSION_SIZE - 1, SESSION_SIZE + 1])
def test_another_length_is_refused(size: int) -> None:
    assert status_of(session=bytes(size)) == Status.INVALID_LENGTH
    assert status_of(certificate=bytes(size)) == Status.INVALID_LENGTH
    with pytest.raises(FormatError, match=f"launch session: expected 128 bytes, found {size}"):
        LaunchSession.from_bytes(bytes(size))


@given(st.binary(min_size=SESSION_SIZE, max_size=SESSION_SIZE))
def test_a_session_gives_back_its_bytes(data: bytes) -> None:
    assert LaunchSession.from_bytes(data).to_bytes() == data


@given(st.binary(max_size=300), st.binary(max_size=200))
def test_random_bytes_give_nothing_but_a_firmware_status(certificate: bytes, session: bytes) -> None:
    with pytest.raises(FirmwareError):
        open_session(IDENTITY.pdh_key, certificate, session, POLICY, API)


@pytest.mark.parametrize("certificate", [CHAIN.pek, attrs.evolve(CHAIN.pdh, algorithm=Algorithm.ECDSA_SHA256)])
def test_no_session_is_made_for_what_is_no_pdh(certificate: object) -> None:
    with pytest.raises(FirmwareError, match="expected a key for PDH"):
        make_session(certificate, POLICY)  # type: ignore[arg-type]


def test_keys_are_not_shown() -> None:
    assert "key!!" not in repr(MADE)
    assert KEYS.tek.hex() not in repr(MADE)
