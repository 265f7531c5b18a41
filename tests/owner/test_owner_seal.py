"""Reading the owner's secrets and sealing them."""

from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sevplug.owner.errors import OwnerError
from sevplug.owner.seal import MAX_SECRET_SIZE, parse_secret_spec, read_secrets, seal_secrets
from sevplug.sevapi.keys import TransportKeys
from sevplug.sevapi.measurement import LaunchMeasurement
from sevplug.sevapi.packet import PacketHeader, open_packet
from sevplug.sevapi.secret_table import LUKS_KEY, OFFLINE_SEV_KBC, parse_secret_table

KEYS = TransportKeys(tek=b"encryption key!!", tik=b"integrity key!!!")
MEASUREMENT = LaunchMeasurement(mac=bytes(range(32)), mnonce=bytes(16))


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret.bin"
    file.write_bytes(b"open sesame")
    return file


def test_a_secret_is_read_by_guid_and_by_libvirts_name(secret: Path) -> None:
    assert parse_secret_spec(f"{LUKS_KEY}={secret}") == (LUKS_KEY, b"open sesame")
    assert parse_secret_spec(f"luks-key={secret}") == (LUKS_KEY, b"open sesame")


def test_a_file_name_may_hold_an_equals_sign(tmp_path: Path) -> None:
    file = tmp_path / "a=b"
    file.write_bytes(b"x")
    assert parse_secret_spec(f"luks-key={file}") == (LUKS_KEY, b"x")


@pytest.mark.parametrize("spec", ["", "=", "luks-key", "luks-key=", "=file"])
def test_a_text_of_another_form_is_refused_without_repeating_it(spec: str) -> None:
    with pytest.raises(OwnerError) as refused:
        parse_secret_spec(spec)
    assert str(refused.value) == "secret: expected GUID=FILE"


def test_an_unknown_guid_is_refused_in_one_line(secret: Path) -> None:
    with pytest.raises(OwnerError) as refused:
        parse_secret_spec(f"disk-key={secret}")
    assert str(refused.value) == "secret: 'disk-key': expected a GUID or one of the names luks-key"


def test_a_missing_file_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(OwnerError) as refused:
        parse_secret_spec(f"luks-key={tmp_path}/none")
    assert str(refused.value) == f"secret: {tmp_path}/none: No such file or directory"


def test_an_empty_file_is_refused_in_one_line(secret: Path) -> None:
    secret.write_bytes(b"")
    with pytest.raises(OwnerError) as refused:
        parse_secret_spec(f"luks-key={secret}")
    assert str(refused.value) == f"secret: {secret}: the file is empty"


def test_a_file_that_is_too_long_is_refused_in_one_line(secret: Path) -> None:
    secret.write_bytes(bytes(MAX_SECRET_SIZE + 1))
    with pytest.raises(OwnerError) as refused:
        parse_secret_spec(f"luks-key={secret}")
    assert str(refused.value) == f"secret: {secret}: expected at most 16344 bytes, found more"


def test_the_longest_secret_fits_a_packet(secret: Path) -> None:
    secret.write_bytes(b"s" * MAX_SECRET_SIZE)
    packet = seal_secrets(read_secrets([f"luks-key={secret}"]), KEYS, MEASUREMENT)
    assert len(packet.payload) == 16384
    assert parse_secret_table(open_packet(packet, KEYS, MEASUREMENT)) == {LUKS_KEY: b"s" * MAX_SECRET_SIZE}


def test_several_secrets_are_read_in_their_order(tmp_path: Path, secret: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"other")
    secrets = read_secrets([f"{OFFLINE_SEV_KBC}={other}", f"luks-key={secret}"])
    assert list(secrets.items()) == [(OFFLINE_SEV_KBC, b"other"), (LUKS_KEY, b"open sesame")]


def test_two_secrets_of_one_guid_are_refused(secret: Path) -> None:
    with pytest.raises(OwnerError, match=f"secret: two secrets have the GUID {LUKS_KEY}"):
        read_secrets([f"luks-key={secret}", f"{LUKS_KEY}={secret}"])


@given(st.dictionaries(st.uuids(allow_nil=False), st.binary(max_size=60), min_size=1, max_size=5))
def test_sealed_secrets_open_for_the_guest_they_are_meant_for(secrets: dict[UUID, bytes]) -> None:
    packet = seal_secrets(secrets, KEYS, MEASUREMENT)
    assert parse_secret_table(open_packet(packet, KEYS, MEASUREMENT)) == secrets


def test_the_iv_is_fresh_unless_it_is_given() -> None:
    secrets = {LUKS_KEY: b"open sesame"}
    first, second = (seal_secrets(secrets, KEYS, MEASUREMENT) for _ in range(2))
    assert PacketHeader.from_bytes(first.header).iv != PacketHeader.from_bytes(second.header).iv
    assert first.payload != second.payload
    fixed = seal_secrets(secrets, KEYS, MEASUREMENT, iv=b"i" * 16)
    assert PacketHeader.from_bytes(fixed.header).iv == b"i" * 16
    assert seal_secrets(secrets, KEYS, MEASUREMENT, iv=b"i" * 16) == fixed


def test_nothing_to_seal_is_refused() -> None:
    with pytest.raises(OwnerError, match="secrets: expected at least one"):
        seal_secrets({}, KEYS, MEASUREMENT)


def test_secrets_that_do_not_fit_a_packet_are_refused() -> None:
    secrets = {LUKS_KEY: bytes(10000), OFFLINE_SEV_KBC: bytes(10000)}
    with pytest.raises(OwnerError, match="their table has 20064 bytes, a packet carries at most 16384"):
        seal_secrets(secrets, KEYS, MEASUREMENT)


def test_an_iv_of_another_length_and_the_nil_guid_are_refused() -> None:
    with pytest.raises(OwnerError, match="secrets: iv: expected 16 bytes, found 3"):
        seal_secrets({LUKS_KEY: b"x"}, KEYS, MEASUREMENT, iv=b"iii")
    with pytest.raises(OwnerError, match=r"secrets: .*nil GUID"):
        seal_secrets({UUID(int=0): b"x"}, KEYS, MEASUREMENT)
