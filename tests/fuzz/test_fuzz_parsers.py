"""Each parser, fed with changed and with random bytes for a while (`tox -e fuzz`): it answers or refuses, no more.

SEVPLUG_FUZZ_SECONDS is the time for each parser; the examples are the same each time, as many of them as fit.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from sev_platforms import AMD, API, CHAIN, CHIP, IDENTITY

from sevplug.owner.errors import OwnerError
from sevplug.owner.session import read_pdh
from sevplug.platform.errors import PlatformError
from sevplug.platform.root import emulated_ask_key
from sevplug.platform.store import PlatformRecord, PlatformStore
from sevplug.sevapi.amd_certificates import AmdCertificate, check_root, check_signing_key
from sevplug.sevapi.certificate_files import collect_certificates, split_certificates
from sevplug.sevapi.certificates import SevCertificate, check_signed
from sevplug.sevapi.chain import check_chain
from sevplug.sevapi.encodings import raw_or_base64
from sevplug.sevapi.errors import SevApiError
from sevplug.sevapi.guid_table import FOOTER, HASH_TABLE_AREA, SECRET_AREA, parse_guid_table
from sevplug.sevapi.hash_table import hash_images, parse_hash_table, required_area
from sevplug.sevapi.keys import TransportKeys
from sevplug.sevapi.measurement import LaunchMeasurement
from sevplug.sevapi.packet import SecretPacket, open_packet, seal_packet
from sevplug.sevapi.policy import Policy
from sevplug.sevapi.report import AttestationReport, check_report, make_report
from sevplug.sevapi.rsa import RsaPrivateKey
from sevplug.sevapi.secret_table import LUKS_KEY, build_secret_table, parse_guid, parse_secret_table
from sevplug.sevapi.session import make_session, open_session

pytestmark = pytest.mark.fuzz

SECONDS = float(os.environ.get("SEVPLUG_FUZZ_SECONDS", "4"))
CLEAN = (SevApiError, OwnerError, PlatformError)
KEYS = TransportKeys(tek=b"encryption key!!", tik=b"integrity key!!!")
MEASUREMENT = LaunchMeasurement(bytes(32), bytes(16))
TABLE = build_secret_table({LUKS_KEY: b"passphrase"})
SESSION = make_session(CHAIN.pdh, Policy(1), KEYS)
PACKET = seal_packet(TABLE, KEYS, MEASUREMENT, bytes(16))
REPORT = make_report(IDENTITY.pek_signer, bytes(16), bytes(32), Policy(1))
GUID_TABLE = (
    bytes(64)
    + bytes.fromhex("00008100 000c0000 1a00")
    + SECRET_AREA.bytes_le
    + bytes.fromhex("000c8100 00040000 1a00")
    + HASH_TABLE_AREA.bytes_le
    + (18 + 2 * 26).to_bytes(2, "little")
    + FOOTER.bytes_le
    + bytes(32)
)


def certificate(data: bytes) -> None:
    found = SevCertificate.from_bytes(data)
    assert found.to_bytes() == data
    assert repr(found)
    check_signed(found, CHAIN.pek.verifier())


def amd_certificate(data: bytes) -> None:
    found = AmdCertificate.from_bytes(data)
    assert found.to_bytes() == data
    assert repr(found)
    check_signing_key(found, AMD.ark)
    check_root(found)


def certificates(data: bytes) -> None:
    found = collect_certificates(split_certificates(data))
    platform, amd = found.platform_chain(), found.amd_chain()
    if platform is not None and amd is not None:
        check_chain(platform, amd)


def session(data: bytes) -> None:
    open_session(IDENTITY.pdh_key, data[128:], data[:128], Policy(1), API)


def packet(data: bytes) -> None:
    open_packet(SecretPacket(data[:52], data[52:]), KEYS, MEASUREMENT)


def report(data: bytes) -> None:
    check_report(AttestationReport.from_bytes(data), CHAIN.pek)


def guid_table(data: bytes) -> None:
    table = parse_guid_table(data)
    for name in ("secret_area", "es_reset_vector", "sev_metadata_offset"):
        getattr(table, name)
    required_area(table)


def texts(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for parse in (parse_guid, LaunchMeasurement.from_base64):
        try:
            parse(text)
        except SevApiError:
            continue
    raw_or_base64(data, 48, "measurement")


PARSERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "certificate": (certificate, CHAIN.pdh.to_bytes()),
    "AMD certificate": (amd_certificate, AMD.ask.to_bytes()),
    "certificates": (certificates, CHAIN.to_bytes() + AMD.to_bytes()),
    "PDH": (read_pdh, CHAIN.to_bytes()),
    "session": (session, SESSION.session.to_bytes() + SESSION.certificate.to_bytes()),
    "packet": (packet, PACKET.header + PACKET.payload),
    "report": (report, REPORT.to_bytes()),
    "secret table": (parse_secret_table, TABLE),
    "hash table": (parse_hash_table, hash_images(b"kernel").to_bytes()),
    "GUID table": (guid_table, GUID_TABLE),
    "private key": (RsaPrivateKey.from_pem, emulated_ask_key().der),
    "texts": (texts, MEASUREMENT.to_base64().encode()),
}


@st.composite
def changed_bytes(draw: st.DrawFn, valid: bytes) -> bytes:
    """`valid` with some bytes changed, cut out, doubled or put in; now and then bytes of any kind."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=len(valid) + 64))
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.sampled_from([0, 1, 2, 4, 16, 100]))
        piece = draw(
            st.one_of(st.binary(max_size=8), st.sampled_from([b"\0" * 4, b"\xff" * 4, bytes(data[at : at + size])]))
        )
        data[at : at + size] = piece if draw(st.booleans()) else piece.ljust(size, b"\0")[:size]
    return bytes(data)


def for_a_while(strategy: st.SearchStrategy[bytes], feed: Callable[[bytes], object]) -> int:
    """Feed examples until the time is over, and say how many; hypothesis shortens one that fails."""
    count = 0

    def tried(data: bytes) -> None:
        nonlocal count
        count += 1
        try:
            feed(data)
        except CLEAN as error:
            text = str(error)
            assert text
            assert "\n" not in text
            assert "key!!" not in text

    end, rounds = time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        run = settings(
            max_examples=50,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )(given(strategy)(tried))
        seed(rounds)(run)()
        rounds += 1
    return count


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_refuses_in_one_clean_line(name: str) -> None:
    parse, valid = PARSERS[name]
    if name not in ("AMD certificate", "texts"):
        parse(valid)  # what the changes start from is right; an ASK is no root, and a text is not each of them
    assert for_a_while(changed_bytes(valid), parse)


def test_a_platforms_file_is_refused_in_one_clean_line(tmp_path: Path) -> None:
    store = PlatformStore(tmp_path)
    store.create(PlatformRecord(API, CHIP, IDENTITY))
    valid = store.path.read_bytes()

    def load(data: bytes) -> None:
        store.path.write_bytes(data)
        record = store.load()
        assert attrs.asdict(record)

    assert for_a_while(changed_bytes(valid), load)
    assert json.loads(valid)
