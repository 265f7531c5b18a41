"""SEV certificates: layout, signatures, and the firmware's checks."""

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sev_platforms import AMD, API, CHAIN, CHIP, IDENTITY, changed

from sevplug.platform.root import emulated_ask_key
from sevplug.sevapi.algorithms import Algorithm, Usage
from sevplug.sevapi.amd_certificates import ask_signer
from sevplug.sevapi.certificates import (
    BODY_SIZE,
    CERTIFICATE_SIZE,
    SevCertificate,
    Signature,
    Signer,
    check_body,
    check_purpose,
    check_signed,
    make_certificate,
    sign_certificate,
)
from sevplug.sevapi.elliptic import EcPrivateKey
from sevplug.sevapi.errors import FirmwareError, FormatError
from sevplug.sevapi.rsa import RsaPublicKey
from sevplug.sevapi.status import Status

PEK = CHAIN.pek
OCA_SIGNER = Signer(Usage.OCA, Algorithm.ECDSA_SHA256, EcPrivateKey(5))


def status_of(certificate: SevCertificate, signer: SevCertificate) -> Status:
    with pytest.raises(FirmwareError) as refused:
        check_signed(certificate, signer.verifier())
    assert str(refused.value).startswith(f"{certificate.name} certificate: ")
    return refused.value.status


def resigned(certificate: SevCertificate) -> SevCertificate:
    """The certificate as an OCA of ours could have signed it, whatever is in it."""
    return sign_certificate(certificate.unsigned, OCA_SIGNER)


def oca_of(signer: Signer) -> SevCertificate:
    assert isinstance(signer.key, EcPrivateKey)
    return make_certificate(signer.usage, signer.algorithm, signer.key.public_key(), API)


def test_the_layout_of_a_certificate() -> None:
    data = PEK.to_bytes()
    assert len(data) == CERTIFICATE_SIZE == 0x824
    assert data[:8] == bytes((1, 0, 0, 0, 1, 55, 0, 0))
    assert data[8:16] == bytes.fromhex("0210000002000000")
    assert data[16:20] == bytes.fromhex("02000000")
    point = IDENTITY.pek_key.public_key()
    assert data[20:92] == point.x.to_bytes(72, "little")
    assert data[92:164] == point.y.to_bytes(72, "little")
    assert not any(data[164:0x414])
    assert data[0x414:0x41C] == bytes.fromhex("0110000002000000")
    assert data[0x61C:0x624] == bytes.fromhex("0410000002000000")


@given(st.binary(min_size=CERTIFICATE_SIZE, max_size=CERTIFICATE_SIZE))
def test_any_bytes_of_the_right_length_come_back(data: bytes) -> None:
    assert SevCertificate.from_bytes(data).to_bytes() == data


@pytest.mark.parametrize("size", [0, CERTIFICATE_SIZE - 1, CERTIFICATE_SIZE + 1])
def test_another_length_is_refused(size: int) -> None:
    with pytest.raises(FormatError, match=f"SEV certificate: expected 2084 bytes, found {size}"):
        SevCertificate.from_bytes(bytes(size))


def test_the_right_signers_are_accepted() -> None:
    check_signed(CHAIN.pdh, PEK.verifier())
    check_signed(PEK, CHAIN.oca.verifier())
    check_signed(PEK, CHAIN.cek.verifier())
    check_signed(CHAIN.oca, CHAIN.oca.verifier())
    check_signed(CHAIN.cek, AMD.ask.verifier())


@settings(max_examples=60)
@given(st.integers(0, BODY_SIZE - 1), st.integers(1, 255))
def test_any_byte_of_the_body_changed_is_a_bad_signature(position: int, change: int) -> None:
    for certificate, signer in ((CHAIN.pdh, PEK), (PEK, CHAIN.oca), (PEK, CHAIN.cek)):
        altered = SevCertificate.from_bytes(changed(certificate.to_bytes(), position, change))
        assert status_of(altered, signer) == Status.BAD_SIGNATURE


@settings(max_examples=60)
@given(st.integers(BODY_SIZE + 8, BODY_SIZE + 519), st.integers(1, 255))
def test_any_byte_of_a_signature_changed_is_a_bad_signature(position: int, change: int) -> None:
    altered = SevCertificate.from_bytes(changed(CHAIN.pdh.to_bytes(), position, change))
    assert status_of(altered, PEK) == Status.BAD_SIGNATURE


@settings(max_examples=20)
@given(st.integers(BODY_SIZE + 8, BODY_SIZE + 519), st.integers(1, 255))
def test_any_byte_of_an_rsa_signature_changed_is_a_bad_signature(position: int, change: int) -> None:
    altered = SevCertificate.from_bytes(changed(CHAIN.cek.to_bytes(), position, change))
    with pytest.raises(FirmwareError, match="CEK certificate: the signature is not that of this ASK"):
        check_signed(altered, AMD.ask.verifier())


@given(st.integers(BODY_SIZE, BODY_SIZE + 7), st.integers(1, 255))
def test_a_signature_of_another_usage_or_algorithm_is_none(position: int, change: int) -> None:
    altered = SevCertificate.from_bytes(changed(CHAIN.pdh.to_bytes(), position, change))
    expected = {Status.INVALID_CERTIFICATE}
    first = altered.signatures[0]
    if (first.usage == Usage.INVALID) != (first.algorithm == Algorithm.INVALID):
        expected = {Status.BAD_SIGNATURE}
    assert status_of(altered, PEK) in expected


@pytest.mark.parametrize("signature", [Signature(usage=Usage.PEK), Signature(algorithm=Algorithm.ECDSA_SHA256)])
def test_a_malformed_second_signature_spoils_the_first(signature: Signature) -> None:
    altered = attrs.evolve(CHAIN.pdh, signatures=(CHAIN.pdh.signatures[0], signature))
    assert status_of(altered, PEK) == Status.BAD_SIGNATURE


def test_a_signature_counts_in_either_place() -> None:
    check_signed(attrs.evolve(PEK, signatures=PEK.signatures[::-1]), CHAIN.oca.verifier())


def test_another_key_of_the_same_kind_did_not_sign() -> None:
    assert status_of(PEK, oca_of(OCA_SIGNER)) == Status.BAD_SIGNATURE


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"version": 2}, "expected version 1, found 0x2"),
        ({"usage": Usage.INVALID}, "unknown usage 0x1000"),
        ({"usage": 0x1005}, "unknown usage 0x1005"),
        ({"algorithm": 0}, "unknown algorithm 0x0"),
        ({"algorithm": 0x104}, "unknown algorithm 0x104"),
        ({"key": b"\1" + PEK.key[1:]}, "expected curve 2 .P-384., found 0x1"),
        ({"key": changed(PEK.key, 4, 1)}, "the point is not on the curve P-384"),
        ({"key": PEK.key[:-1] + b"\1"}, "expected zeros after the key"),
        ({"algorithm": Algorithm.RSA_SHA384}, "expected 2048 or 4096 bits, found 2"),
        ({"usage": Usage.CEK}, "a key for OCA may not sign it"),
        ({"usage": Usage.PDH}, "a key for OCA may not sign it"),
        ({"usage": Usage.ARK}, "a key for OCA may not sign it"),
    ],
)
def test_a_wrong_body_is_refused_under_a_right_signature(change: dict[str, object], text: str) -> None:
    with pytest.raises(FirmwareError, match=text) as refused:
        check_signed(resigned(attrs.evolve(PEK, **change)), oca_of(OCA_SIGNER).verifier())
    assert refused.value.status == Status.INVALID_CERTIFICATE


def test_a_purpose_is_checked_without_signatures() -> None:
    check_purpose(PEK.unsigned, Usage.PEK, Algorithm.ECDSA_SHA256)
    for usage, algorithm in ((Usage.PDH, Algorithm.ECDSA_SHA256), (Usage.PEK, Algorithm.ECDH_SHA256)):
        with pytest.raises(FirmwareError, match="PEK certificate: expected a key for"):
            check_purpose(PEK, usage, algorithm)


def test_two_signatures_fit_and_no_third() -> None:
    with pytest.raises(FirmwareError, match="both places for signatures are taken"):
        sign_certificate(PEK, OCA_SIGNER)


def test_a_key_for_key_agreement_signs_nothing() -> None:
    with pytest.raises(FirmwareError, match="signs nothing") as refused:
        sign_certificate(PEK.unsigned, Signer(Usage.PDH, Algorithm.ECDH_SHA256, EcPrivateKey(5)))
    assert refused.value.status == Status.UNSUPPORTED


def test_a_certificate_may_hold_an_rsa_key() -> None:
    key = AMD.ask.key
    numbers = (
        key.bits.to_bytes(4, "little"),
        key.exponent.to_bytes(512, "little"),
        key.modulus.to_bytes(512, "little"),
    )
    certificate = SevCertificate(Usage.ASK, Algorithm.RSA_SHA384, b"".join(numbers))
    assert certificate.public_key() == key
    check_body(certificate)
    check_signed(CHAIN.cek, certificate.verifier())


@pytest.mark.parametrize(("modulus", "exponent"), [(0, 65537), (AMD.ask.key.modulus, 0), (AMD.ask.key.modulus, 2)])
def test_numbers_that_are_no_rsa_key_verify_nothing(modulus: int, exponent: int) -> None:
    signature = CHAIN.cek.signatures[0].data
    assert not RsaPublicKey(4096, modulus, exponent).verify(CHAIN.cek.body, signature, Algorithm.RSA_SHA384)


def test_private_keys_are_not_shown() -> None:
    text = repr((OCA_SIGNER, ask_signer(emulated_ask_key()), emulated_ask_key(), CHIP, IDENTITY))
    for key in (CHIP.cek_key, IDENTITY.pek_key, IDENTITY.pdh_key):
        assert f"{key.scalar}" not in text
        assert f"{key.scalar:x}" not in text
    assert "der" not in text
    assert "scalar" not in text
