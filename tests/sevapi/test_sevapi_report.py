"""Attestation reports."""

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sev_platforms import CHAIN, IDENTITY, changed

from sevplug.sevapi.algorithms import Algorithm, Usage
from sevplug.sevapi.errors import FirmwareError, FormatError
from sevplug.sevapi.policy import Policy
from sevplug.sevapi.report import REPORT_SIZE, AttestationReport, check_report, make_report
from sevplug.sevapi.status import Status

MNONCE, DIGEST = bytes(range(16)), bytes(range(32, 64))
REPORT = make_report(IDENTITY.pek_signer, MNONCE, DIGEST, Policy(0x12340001))


def status_of(report: AttestationReport) -> Status:
    with pytest.raises(FirmwareError) as refused:
        check_report(report, CHAIN.pek)
    assert str(refused.value).startswith("attestation report: ")
    return refused.value.status


def test_a_report_verifies_with_the_pek() -> None:
    check_report(REPORT, CHAIN.pek)


def test_the_layout_of_a_report() -> None:
    data = REPORT.to_bytes()
    assert len(data) == REPORT_SIZE == 0xD0
    assert data[:0x34] == MNONCE + DIGEST + bytes.fromhex("01003412")
    assert data[0x34:0x40] == bytes.fromhex("02100000 02000000 00000000")


@given(st.binary(min_size=REPORT_SIZE, max_size=REPORT_SIZE))
def test_any_bytes_of_the_right_length_come_back(data: bytes) -> None:
    assert AttestationReport.from_bytes(data).to_bytes() == data


@pytest.mark.parametrize("size", [0, REPORT_SIZE - 1, REPORT_SIZE + 1])
def test_another_length_is_refused(size: int) -> None:
    with pytest.raises(FormatError, match=f"attestation report: expected 208 bytes, found {size}"):
        AttestationReport.from_bytes(bytes(size))


@settings(max_examples=200)
@given(st.integers(0, REPORT_SIZE - 1), st.integers(1, 255))
def test_any_byte_changed_is_refused_by_its_check(position: int, change: int) -> None:
    status = status_of(AttestationReport.from_bytes(changed(REPORT.to_bytes(), position, change)))
    if 0x34 <= position < 0x3C:
        assert status == Status.INVALID_CERTIFICATE
    elif 0x3C <= position < 0x40:
        assert status == Status.INVALID_PARAM
    else:
        assert status == Status.BAD_SIGNATURE


def test_only_a_pek_verifies_a_report() -> None:
    with pytest.raises(FirmwareError, match="expected a PEK to verify it with, found OCA"):
        check_report(REPORT, CHAIN.oca)
    assert status_of(attrs.evolve(REPORT, usage=Usage.OCA)) == Status.INVALID_CERTIFICATE
    assert status_of(attrs.evolve(REPORT, algorithm=Algorithm.ECDSA_SHA384)) == Status.INVALID_CERTIFICATE
