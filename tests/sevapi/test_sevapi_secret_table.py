"""The table of secrets."""

import contextlib
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sevplug.sevapi.errors import FormatError
from sevplug.sevapi.secret_table import (
    LUKS_KEY,
    OFFLINE_SEV_KBC,
    TABLE_GUID,
    build_secret_table,
    parse_guid,
    parse_secret_table,
)

NIL = UUID(int=0)
SECRETS = st.dictionaries(st.uuids(allow_nil=False), st.binary(max_size=80), max_size=6)


def entry(guid: UUID, length: int, data: bytes = b"") -> bytes:
    return guid.bytes_le + length.to_bytes(4, "little") + data


def test_the_bytes_of_a_table() -> None:
    expected = (
        "42f5741edd71664d963eef4287ff173b"
        "3a000000"
        "e5696873f084734992ec06879ce3da0b"
        "26000000" + b"MY-LUKS-PASSPHRASE".hex() + "000000000000"
    )
    assert build_secret_table({LUKS_KEY: b"MY-LUKS-PASSPHRASE"}).hex() == expected


@given(SECRETS)
def test_a_table_gives_back_what_was_put_in(secrets: dict[UUID, bytes]) -> None:
    table = build_secret_table(secrets)
    assert len(table) % 16 == 0
    assert list(parse_secret_table(table).items()) == list(secrets.items())


@given(SECRETS, st.integers(0, 100))
def test_zeros_after_the_table_are_padding(secrets: dict[UUID, bytes], zeros: int) -> None:
    assert parse_secret_table(build_secret_table(secrets) + bytes(zeros)) == secrets


def test_the_sixteen_zeros_that_libvirt_adds_to_an_aligned_table_are_padding() -> None:
    table = build_secret_table({LUKS_KEY: bytes(range(8))})
    assert table[-8:] == bytes(range(8))
    assert parse_secret_table(table + bytes(16)) == {LUKS_KEY: bytes(range(8))}


def test_a_table_need_not_be_padded() -> None:
    assert parse_secret_table(entry(TABLE_GUID, 41, entry(LUKS_KEY, 21, b"x"))) == {LUKS_KEY: b"x"}


def test_a_secret_that_the_guest_erased_is_left_out() -> None:
    entries = entry(NIL, 25, bytes(5)) + entry(LUKS_KEY, 21, b"x") + entry(NIL, 20)
    assert parse_secret_table(entry(TABLE_GUID, 86, entries)) == {LUKS_KEY: b"x"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "table at offset 0x0: expected a header of 20 bytes, found 0"),
        (entry(TABLE_GUID, 20)[:-1], "table at offset 0x0: expected a header of 20 bytes, found 19"),
        (entry(LUKS_KEY, 20), f"expected GUID {TABLE_GUID} at offset 0x0, found {LUKS_KEY}"),
        (entry(TABLE_GUID, 19), "table at offset 0x0: length 19 is not within 20 to 20"),
        (entry(TABLE_GUID, 21), "table at offset 0x0: length 21 is not within 20 to 20"),
        (entry(TABLE_GUID, 20, b"x"), "expected zeros after the table's end at offset 0x14"),
        (entry(TABLE_GUID, 30, bytes(10)), "entry at offset 0x14: expected a header of 20 bytes, found 10"),
        (entry(TABLE_GUID, 40, entry(LUKS_KEY, 0)), "entry at offset 0x14: length 0 is not within 20 to 20"),
        (
            entry(TABLE_GUID, 40, entry(LUKS_KEY, 21)),
            "entry at offset 0x14: length 21 is not within 20 to 20",
        ),
        (
            entry(TABLE_GUID, 60, entry(LUKS_KEY, 20) + entry(LUKS_KEY, 20)),
            f"a second entry for GUID {LUKS_KEY} at offset 0x28",
        ),
    ],
)
def test_a_table_that_lies_is_refused_with_the_offset(data: bytes, message: str) -> None:
    with pytest.raises(FormatError) as refused:
        parse_secret_table(data)
    assert message in str(refused.value)


@given(st.binary(max_size=200))
def test_random_bytes_give_nothing_but_a_clean_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_secret_table(data)


@given(SECRETS, st.data())
def test_a_damaged_table_gives_secrets_or_a_clean_error(secrets: dict[UUID, bytes], data: st.DataObject) -> None:
    table = bytearray(build_secret_table(secrets))
    table[data.draw(st.integers(0, len(table) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(FormatError):
        assert parse_secret_table(bytes(table)) != secrets


def test_the_nil_guid_names_no_secret() -> None:
    with pytest.raises(FormatError, match="the nil GUID"):
        build_secret_table({NIL: b"x"})
    with pytest.raises(FormatError, match="the nil GUID"):
        parse_guid(str(NIL))


def test_a_guid_is_read_in_either_case_and_by_libvirts_name() -> None:
    assert parse_guid("736869e5-84f0-4973-92ec-06879ce3da0b") == LUKS_KEY
    assert parse_guid("E6F5A162-D67F-4750-A67C-5D065F2A9910") == OFFLINE_SEV_KBC
    assert parse_guid("luks-key") == LUKS_KEY


@pytest.mark.parametrize(
    "text",
    [
        "",
        "luks",
        "736869e584f0497392ec06879ce3da0b",
        "{736869e5-84f0-4973-92ec-06879ce3da0b}",
        "736869e5-84f0-4973-92ec-06879ce3da0g",
        "736869e5-84f0-4973-92ec-06879ce3da0b\n",
    ],
)
def test_a_text_that_is_no_guid_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="expected a GUID or one of the names luks-key"):
        parse_guid(text)
