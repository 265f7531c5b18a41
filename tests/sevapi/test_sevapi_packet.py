"""LAUNCH_SECRET packets."""

import base64
import hashlib
import hmac

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sevplug.sevapi.errors import FirmwareError, FormatError
from sevplug.sevapi.keys import TransportKeys
from sevplug.sevapi.measurement import LaunchMeasurement
from sevplug.sevapi.packet import (
    PacketHeader,
    SecretPacket,
    check_guest_address,
    open_packet,
    seal_packet,
)
from sevplug.sevapi.secret_table import LUKS_KEY, build_secret_table
from sevplug.sevapi.status import Status

KEYS = TransportKeys(
    tek=bytes.fromhex("52a869b79ab9c13bb6a92b0561619cb3"),
    tik=bytes.fromhex("c6d5a9956133050912b24bbe5c372686"),
)
MEASUREMENT = LaunchMeasurement.from_base64("TLeA7607lZQntLjRY1/i+sbtdSZ+75zxpz4Px9hzpBLwItF5Q2o4prA++3ZZv9ZS")
IV = base64.b64decode("rFR07U3TLH2YnsUj2SVZ7A==")
PLAINTEXT = build_secret_table({LUKS_KEY: b"MY-LUKS-PASSPHRASE"})
PACKET = seal_packet(PLAINTEXT, KEYS, MEASUREMENT, IV)

PLAINTEXTS = st.integers(1, 20).flatmap(lambda blocks: st.binary(min_size=16 * blocks, max_size=16 * blocks))
KEYS_16 = st.binary(min_size=16, max_size=16)


def with_flags(flags: int) -> SecretPacket:
    """A packet with `flags` and, as an owner could make it, the right MAC."""
    lengths = len(PACKET.payload).to_bytes(4, "little") * 2
    start = flags.to_bytes(4, "little") + IV
    mac = hmac.digest(KEYS.tik, b"\x01" + start + lengths + PACKET.payload + MEASUREMENT.mac, hashlib.sha256)
    return attrs.evolve(PACKET, header=start + mac)


def status_of_opening(packet: SecretPacket, guest_length: int | None = None) -> Status:
    with pytest.raises(FirmwareError) as refused:
        open_packet(packet, KEYS, MEASUREMENT, guest_length)
    return refused.value.status


def test_a_sealed_packet_has_the_header_of_the_known_vector() -> None:
    assert PACKET.header_base64 == "AAAAAKxUdO1N0yx9mJ7FI9klWey8FSzeYQ4X8K71VzNKLU/KQsIsQxLjtbhaPUewqshX5Q=="
    assert base64.b64decode(PACKET.payload_base64) == PACKET.payload


def test_a_sealed_packet_opens() -> None:
    assert open_packet(PACKET, KEYS, MEASUREMENT) == PLAINTEXT
    assert open_packet(PACKET, KEYS, MEASUREMENT, guest_length=len(PLAINTEXT)) == PLAINTEXT


def test_the_payload_is_aes_128_in_counter_mode() -> None:
    # NIST SP 800-38A, F.5.1, CTR-AES128.Encrypt, first two blocks.
    keys = TransportKeys(tek=bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c"), tik=bytes(16))
    iv = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    plaintext = bytes.fromhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51")
    payload = bytes.fromhex("874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff")
    assert seal_packet(plaintext, keys, MEASUREMENT, iv).payload == payload


def test_the_counter_goes_on_at_zero_after_its_last_value() -> None:
    plaintext = bytes(32)
    wrapped = seal_packet(plaintext, KEYS, MEASUREMENT, b"\xff" * 16).payload
    assert wrapped[16:] == seal_packet(bytes(16), KEYS, MEASUREMENT, bytes(16)).payload


@given(PLAINTEXTS, KEYS_16, KEYS_16, KEYS_16)
def test_any_packet_opens_with_its_keys(plaintext: bytes, tek: bytes, tik: bytes, iv: bytes) -> None:
    keys = TransportKeys(tek, tik)
    packet = seal_packet(plaintext, keys, MEASUREMENT, iv)
    assert open_packet(packet, keys, MEASUREMENT) == plaintext


@given(st.integers(0, 51), st.integers(1, 255))
def test_a_packet_with_any_byte_of_its_header_changed_is_refused(position: int, change: int) -> None:
    header = bytearray(PACKET.header)
    header[position] ^= change
    assert status_of_opening(attrs.evolve(PACKET, header=bytes(header))) == Status.BAD_MEASUREMENT


@given(st.integers(0, len(PLAINTEXT) - 1), st.integers(1, 255))
def test_a_packet_with_any_byte_of_its_payload_changed_is_refused(position: int, change: int) -> None:
    payload = bytearray(PACKET.payload)
    payload[position] ^= change
    assert status_of_opening(attrs.evolve(PACKET, payload=bytes(payload))) == Status.BAD_MEASUREMENT


def test_a_packet_for_another_guest_or_from_another_owner_is_refused() -> None:
    other_guest = attrs.evolve(MEASUREMENT, mac=bytes(32))
    with pytest.raises(FirmwareError, match="Bad measurement"):
        open_packet(PACKET, KEYS, other_guest)
    with pytest.raises(FirmwareError, match="Bad measurement"):
        open_packet(PACKET, attrs.evolve(KEYS, tik=bytes(16)), MEASUREMENT)


@pytest.mark.parametrize("size", [0, 51, 53])
def test_a_header_of_another_length_is_refused(size: int) -> None:
    assert status_of_opening(attrs.evolve(PACKET, header=bytes(size))) == Status.INVALID_LENGTH


@pytest.mark.parametrize("size", [0, 1, 15, 17, 16383, 16385, 16400])
def test_a_payload_of_an_impossible_length_is_refused(size: int) -> None:
    assert status_of_opening(attrs.evolve(PACKET, payload=bytes(size))) == Status.INVALID_LENGTH


@pytest.mark.parametrize("size", [0, len(PLAINTEXT) - 16, len(PLAINTEXT) + 16])
def test_a_payload_that_is_not_as_long_as_the_guest_memory_is_refused(size: int) -> None:
    assert status_of_opening(PACKET, guest_length=size) == Status.INVALID_LENGTH


def test_a_payload_may_have_16384_bytes() -> None:
    plaintext = bytes(16384)
    assert open_packet(seal_packet(plaintext, KEYS, MEASUREMENT, IV), KEYS, MEASUREMENT) == plaintext


def test_a_packet_with_no_flags_and_the_right_mac_opens() -> None:
    assert with_flags(0) == PACKET


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        (1, Status.UNSUPPORTED),
        (3, Status.UNSUPPORTED),
        (2, Status.INVALID_PARAM),
        (1 << 31, Status.INVALID_PARAM),
    ],
)
def test_a_packet_with_flags_is_refused_even_with_the_right_mac(flags: int, status: Status) -> None:
    assert status_of_opening(with_flags(flags)) == status


@given(st.binary(max_size=60), st.binary(max_size=80))
def test_random_bytes_give_nothing_but_a_firmware_status(header: bytes, payload: bytes) -> None:
    with pytest.raises(FirmwareError):
        open_packet(SecretPacket(header, payload), KEYS, MEASUREMENT)


@given(st.binary(min_size=52, max_size=52))
def test_a_header_gives_back_its_bytes(data: bytes) -> None:
    assert PacketHeader.from_bytes(data).to_bytes() == data


@given(st.binary(max_size=120).filter(lambda data: len(data) != 52))
def test_bytes_that_are_no_header_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match=f"packet header: expected 52 bytes, found {len(data)}"):
        PacketHeader.from_bytes(data)


@pytest.mark.parametrize("size", [0, 8, 24, 16400])
def test_a_plaintext_of_an_impossible_length_is_not_sealed(size: int) -> None:
    with pytest.raises(FormatError, match=f"packet plaintext: expected a multiple of 16 .* found {size}"):
        seal_packet(bytes(size), KEYS, MEASUREMENT, IV)


def test_an_iv_of_another_length_is_not_used() -> None:
    with pytest.raises(FormatError, match="iv: expected 16 bytes, found 12"):
        seal_packet(PLAINTEXT, KEYS, MEASUREMENT, IV[:12])


def test_a_refusal_shows_neither_key_nor_secret() -> None:
    with pytest.raises(FirmwareError) as refused:
        open_packet(PACKET, attrs.evolve(KEYS, tik=b"kkkkkkkkkkkkkkkk"), MEASUREMENT)
    assert str(refused.value) == (
        "LAUNCH_SECRET: packet MAC: not right for this packet, these keys and this measurement "
        "(firmware status 0xb: Bad measurement)"
    )
    assert repr(PACKET) == "SecretPacket()"


def test_a_guest_address_is_a_multiple_of_sixteen() -> None:
    check_guest_address(0x810000)
    with pytest.raises(FirmwareError, match="guest address 0x810008") as refused:
        check_guest_address(0x810008)
    assert refused.value.status == Status.INVALID_ADDRESS
