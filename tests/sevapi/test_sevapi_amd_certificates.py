"""AMD's certificates, by those of the emulated root."""

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sev_platforms import AMD, changed

from sevplug.platform.root import emulated_ark_key
from sevplug.sevapi.algorithms import Algorithm, Usage
from sevplug.sevapi.amd_certificates import (
    AMD_ROOTS,
    AmdCertificate,
    check_root,
    check_signing_key,
    root_name,
    sign_amd_certificate,
)
from sevplug.sevapi.errors import FirmwareError, FormatError
from sevplug.sevapi.rsa import RsaPrivateKey, RsaPublicKey
from sevplug.sevapi.status import Status

ARK, ASK = AMD.ark, AMD.ask
SIZES = (56, 57, 58, 59, 60, 61, 62, 63)


def resigned(certificate: AmdCertificate) -> AmdCertificate:
    return sign_amd_certificate(certificate, emulated_ark_key())


def test_the_layout_of_a_certificate() -> None:
    data = ASK.to_bytes()
    assert len(data) == 1600
    assert data[:4] == bytes((1, 0, 0, 0))
    assert data[4:36] == ASK.key_id + ARK.key_id
    assert data[36:40] == bytes((0x13, 0, 0, 0))
    assert data[56:64] == (4096).to_bytes(4, "little") * 2
    assert data[64:67] == bytes((1, 0, 1))
    assert data[576:1088] == ASK.key.modulus.to_bytes(512, "little")


def test_the_emulated_root_signs_itself_and_the_ask() -> None:
    check_root(ARK)
    check_signing_key(ASK, ARK)
    assert root_name(ARK) is None


@given(st.binary(min_size=1600, max_size=1600), st.sampled_from([2048, 4096]), st.booleans())
def test_any_bytes_with_right_sizes_come_back(data: bytes, bits: int, signed: bool) -> None:
    sized = data[:56] + bits.to_bytes(4, "little") * 2 + data[64 : 64 + (2 + signed) * bits // 8]
    assert AmdCertificate.from_bytes(sized).to_bytes() == sized


@settings(max_examples=50)
@given(st.integers(0, 1599).filter(lambda at: at not in SIZES), st.integers(1, 255))
def test_any_byte_changed_is_a_bad_signature(position: int, change: int) -> None:
    for check, certificate in ((check_root, ARK), (lambda ask: check_signing_key(ask, ARK), ASK)):
        altered = AmdCertificate.from_bytes(changed(certificate.to_bytes(), position, change))
        with pytest.raises(FirmwareError) as refused:
            check(altered)
        assert refused.value.status == Status.BAD_SIGNATURE


@given(st.sampled_from(SIZES), st.integers(1, 255))
def test_a_changed_size_is_no_certificate(position: int, change: int) -> None:
    with pytest.raises(FormatError, match="expected exponent and modulus of 2048 or 4096 bits"):
        AmdCertificate.from_bytes(changed(ARK.to_bytes(), position, change))


@pytest.mark.parametrize("size", [0, 63, 64, 1087, 1089, 1599, 1601])
def test_another_length_is_refused(size: int) -> None:
    with pytest.raises(FormatError, match=f"AMD certificate: expected .* found {size}"):
        AmdCertificate.from_bytes(ARK.to_bytes().ljust(1601, b"\0")[:size])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"version": 2}, "ASK certificate: expected version 1, found 0x2"),
        ({"usage": Usage.ARK}, "ARK certificate: expected usage ASK"),
        ({"usage": 0x77}, "0x77 certificate: expected usage ASK"),
        ({"certifying_id": bytes(16)}, "ASK certificate: certified by key 0{32}, expected 7365"),
    ],
)
def test_a_wrong_field_is_refused_under_a_right_signature(change: dict[str, object], text: str) -> None:
    with pytest.raises(FirmwareError, match=text) as refused:
        check_signing_key(resigned(attrs.evolve(ASK, **change)), ARK)
    assert refused.value.status == Status.INVALID_CERTIFICATE


def test_an_ask_is_no_root_and_a_root_no_ask() -> None:
    with pytest.raises(FirmwareError, match="ASK certificate: the signature is not that of this ASK"):
        check_root(ASK)
    with pytest.raises(FirmwareError, match="expected usage ASK"):
        check_signing_key(ARK, ARK)
    with pytest.raises(FirmwareError, match="expected usage ASK"):
        ARK.verifier()


def test_only_a_known_root_may_come_without_its_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = attrs.evolve(ARK, signature=b"")
    with pytest.raises(FirmwareError) as refused:
        check_root(bare)
    assert refused.value.status == Status.BAD_SIGNATURE
    monkeypatch.setitem(AMD_ROOTS, ARK.fingerprint, "known")
    check_root(bare)
    with pytest.raises(FirmwareError):
        check_root(attrs.evolve(ARK, signature=bytes(512)))


def test_a_signature_is_as_long_as_the_modulus() -> None:
    with pytest.raises(FormatError, match="expected a signature of 512 bytes or none"):
        attrs.evolve(ARK, signature=bytes(256))


def test_a_key_of_2048_bits_signs_with_sha_256() -> None:
    key = RsaPrivateKey.generate(2048)
    assert key.public_key().verify(b"message", key.sign(b"message", Algorithm.RSA_SHA256), Algorithm.RSA_SHA256)
    ark = AmdCertificate(b"k" * 16, b"k" * 16, Usage.ARK, key.public_key())
    signed = sign_amd_certificate(ark, key)
    assert len(signed.to_bytes()) == 832
    check_root(signed)


def test_other_key_lengths_are_refused() -> None:
    with pytest.raises(FormatError, match="RSA key: expected 2048 or 4096 bits, found 3072"):
        RsaPublicKey(3072, 1, 1)
    with pytest.raises(FormatError, match="expected 2048 or 4096 bits, found 1024"):
        RsaPrivateKey.generate(1024)


@pytest.mark.parametrize(
    "text", [b"", b"no key", b"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----"]
)
def test_what_is_no_private_key_is_refused_without_showing_it(text: bytes) -> None:
    with pytest.raises(FormatError) as refused:
        RsaPrivateKey.from_pem(text)
    assert str(refused.value) == "RSA key: expected a private key in PEM"
