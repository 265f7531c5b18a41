"""Chains of certificates and the files they come in."""

import base64

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sev_platforms import AMD, API, CHAIN

from sevplug.platform.identity import make_chip, make_identity
from sevplug.platform.randomness import SeededRandom
from sevplug.sevapi.algorithms import Usage
from sevplug.sevapi.certificate_files import collect_certificates, split_certificates
from sevplug.sevapi.certificates import CERTIFICATE_SIZE, SevCertificate
from sevplug.sevapi.chain import AmdChain, PlatformChain, check_chain, check_platform_chain
from sevplug.sevapi.errors import FirmwareError, FormatError
from sevplug.sevapi.status import Status

_OTHER_CHIP = make_chip(API, SeededRandom(b"other"))
OTHER = make_identity(_OTHER_CHIP, API, SeededRandom(b"another")).chain(_OTHER_CHIP.cek)
FULL = CHAIN.to_bytes() + AMD.to_bytes()


def test_the_chain_of_a_platform_verifies() -> None:
    check_chain(CHAIN, AMD)
    check_chain(OTHER, AMD)


@pytest.mark.parametrize(
    ("link", "text"),
    [
        ("pdh", "PDH certificate: the signature is not that of this PEK"),
        ("pek", "PEK certificate: the signature is not that of this OCA"),
        ("oca", "PEK certificate: the signature is not that of this OCA"),
        ("cek", "PEK certificate: the signature is not that of this CEK"),
    ],
)
def test_a_link_of_another_platform_is_refused(link: str, text: str) -> None:
    with pytest.raises(FirmwareError, match=text) as refused:
        check_chain(attrs.evolve(CHAIN, **{link: getattr(OTHER, link)}), AMD)
    assert refused.value.status == Status.BAD_SIGNATURE


@pytest.mark.parametrize("place", ["pdh", "pek", "oca", "cek"])
@pytest.mark.parametrize("taken", ["pdh", "pek", "oca", "cek"])
def test_a_certificate_in_the_place_of_another_is_refused(place: str, taken: str) -> None:
    if place != taken:
        with pytest.raises(FirmwareError) as refused:
            check_platform_chain(attrs.evolve(CHAIN, **{place: getattr(CHAIN, taken)}))
        assert refused.value.status == Status.INVALID_CERTIFICATE


def test_the_unsigned_cek_that_firmware_exports_is_named() -> None:
    with pytest.raises(FirmwareError, match="CEK certificate: it has no signature; firmware exports it so"):
        check_chain(attrs.evolve(CHAIN, cek=CHAIN.cek.unsigned), AMD)


def test_amd_certificates_in_each_others_place_are_refused() -> None:
    with pytest.raises(FirmwareError):
        check_chain(CHAIN, AmdChain(ask=AMD.ark, ark=AMD.ask))


def test_the_order_in_files() -> None:
    assert CHAIN.cert_chain == CHAIN.pek.to_bytes() + CHAIN.oca.to_bytes() + CHAIN.cek.to_bytes()
    assert CHAIN.to_bytes() == CHAIN.pdh.to_bytes() + CHAIN.cert_chain
    assert AMD.to_bytes() == AMD.ask.to_bytes() + AMD.ark.to_bytes()
    assert PlatformChain.from_export(CHAIN.pdh.to_bytes(), CHAIN.cert_chain) == CHAIN


@pytest.mark.parametrize("size", [0, CERTIFICATE_SIZE, 3 * CERTIFICATE_SIZE + 1])
def test_an_export_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(FormatError, match=f"certificate chain: expected 6252 bytes, found {size}"):
        PlatformChain.from_export(CHAIN.pdh.to_bytes(), bytes(size))


@pytest.mark.parametrize(
    "data", [FULL, base64.b64encode(FULL), base64.encodebytes(FULL)], ids=["raw", "base64", "lines"]
)
def test_a_file_is_split_into_its_certificates(data: bytes) -> None:
    found = collect_certificates(split_certificates(data))
    assert found.platform_chain() == CHAIN
    assert found.amd_chain() == AMD


@given(st.permutations([CHAIN.pdh, CHAIN.pek, CHAIN.oca, CHAIN.cek, AMD.ask, AMD.ark]))
def test_any_order_will_do(certificates: list[SevCertificate]) -> None:
    found = split_certificates(b"".join(certificate.to_bytes() for certificate in certificates))
    assert found == certificates
    assert collect_certificates(found).platform_chain() == CHAIN


def test_one_chain_may_be_there_without_the_other() -> None:
    assert collect_certificates(split_certificates(AMD.to_bytes())).platform_chain() is None
    assert collect_certificates(split_certificates(CHAIN.to_bytes())).amd_chain() is None
    with pytest.raises(FormatError, match="certificates: the PDH is missing"):
        collect_certificates(split_certificates(CHAIN.cert_chain)).platform_chain()
    with pytest.raises(FormatError, match="certificates: the ASK is missing"):
        collect_certificates(split_certificates(AMD.ark.to_bytes())).amd_chain()


def test_the_same_certificate_twice_is_one_and_another_is_too_much() -> None:
    assert Usage.PEK in collect_certificates([CHAIN.pek, CHAIN.pek]).certificates
    with pytest.raises(FormatError, match="certificates: two different ones for the PEK"):
        collect_certificates([CHAIN.pek, OTHER.pek])


@given(st.integers(1, 1599).filter(lambda missing: missing != 512))
def test_a_cut_file_is_refused_with_the_offset(missing: int) -> None:
    with pytest.raises(FormatError, match="certificates: at offset 0x26d0: "):
        split_certificates(FULL[:-missing])


def test_a_root_without_its_signature_is_read_and_not_trusted() -> None:
    amd = collect_certificates(split_certificates(FULL[:-512])).amd_chain()
    assert amd is not None
    with pytest.raises(FirmwareError, match="ARK certificate: the signature is not that of this ARK"):
        check_chain(CHAIN, amd)


@given(st.binary(max_size=3000))
def test_random_bytes_give_a_clean_error(data: bytes) -> None:
    with pytest.raises(FormatError, match="certificates: "):
        split_certificates(data)
