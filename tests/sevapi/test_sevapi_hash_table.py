"""The kernel hash table."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sevplug.sevapi.errors import FormatError
from sevplug.sevapi.guid_table import HASH_TABLE_AREA, GuestArea, GuidTable
from sevplug.sevapi.hash_table import HashTable, hash_images, parse_hash_table, required_area

DIGEST = st.binary(min_size=32, max_size=32)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def table_with(base: int, size: int) -> GuidTable:
    return GuidTable({HASH_TABLE_AREA: base.to_bytes(4, "little") + size.to_bytes(4, "little")})


def test_the_bytes_of_a_table() -> None:
    expected = bytes.fromhex(
        "06d63894224fc94cb479a793d411fd21a800"
        + ("d82dd09720bd944caa78e7714d36ab2a3200" + "01" * 32)
        + ("31f7ba442f3ad74b9af141e29169781d3200" + "02" * 32)
        + ("3794e74dd2ab7f42b835d5b172d2045b3200" + "03" * 32)
        + "00" * 8
    )
    assert len(expected) == 176
    assert HashTable(cmdline=b"\1" * 32, initrd=b"\2" * 32, kernel=b"\3" * 32).to_bytes() == expected


def test_the_command_line_is_hashed_with_its_zero_byte() -> None:
    table = hash_images(b"kernel", b"initrd", "console=ttyS0 ü")
    assert table == HashTable(sha256("console=ttyS0 ü\0".encode()), sha256(b"initrd"), sha256(b"kernel"))


def test_no_command_line_is_one_zero_byte_and_no_initrd_is_nothing() -> None:
    assert hash_images(b"kernel") == HashTable(sha256(b"\0"), sha256(b""), sha256(b"kernel"))


def test_a_command_line_with_a_zero_byte_is_refused() -> None:
    with pytest.raises(FormatError, match="kernel command line: expected a text without zero bytes"):
        hash_images(b"kernel", cmdline="a\0b")


@given(DIGEST, DIGEST, DIGEST)
def test_a_table_gives_back_its_hashes(cmdline: bytes, initrd: bytes, kernel: bytes) -> None:
    table = HashTable(cmdline, initrd, kernel)
    assert parse_hash_table(table.to_bytes()) == table


@given(st.integers(0, 175), st.integers(1, 255))
def test_a_change_outside_the_hashes_is_refused_and_one_inside_is_seen(position: int, change: int) -> None:
    table = hash_images(b"kernel")
    data = bytearray(table.to_bytes())
    data[position] ^= change
    inside = 18 <= position < 168 and (position - 18) % 50 >= 18
    if inside:
        assert parse_hash_table(bytes(data)) != table
    else:
        with pytest.raises(FormatError, match=r"kernel hash table: expected .* at offset"):
            parse_hash_table(bytes(data))


@given(st.binary(max_size=175) | st.binary(min_size=176, max_size=200))
def test_random_bytes_give_nothing_but_a_clean_error(data: bytes) -> None:
    with pytest.raises(FormatError, match="kernel hash table: expected"):
        parse_hash_table(data)


@pytest.mark.parametrize("size", [31, 33])
def test_a_hash_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(FormatError, match=f"initrd: expected 32 bytes, found {size}"):
        HashTable(bytes(32), bytes(size), bytes(32))


def test_the_area_of_a_firmware_that_takes_hashes() -> None:
    assert required_area(table_with(0x810C00, 0x400)) == GuestArea(0x810C00, 0x400)
    assert required_area(table_with(0x810C00, 176)) == GuestArea(0x810C00, 176)


def test_a_firmware_without_the_entry_is_refused_in_qemus_words() -> None:
    with pytest.raises(FormatError) as refused:
        required_area(GuidTable({}))
    assert str(refused.value) == "SEV: kernel specified but guest firmware has no hashes table GUID"


@pytest.mark.parametrize(("base", "size"), [(0, 0), (0, 0x400), (0x810C00, 0), (0x810C00, 175)])
def test_an_area_that_can_not_hold_the_table_is_refused_in_qemus_words(base: int, size: int) -> None:
    with pytest.raises(FormatError) as refused:
        required_area(table_with(base, size))
    message = f"SEV: guest firmware hashes table area is invalid (base={base:#x} size={size:#x})"
    assert str(refused.value) == message
