"""OVMF's table of GUIDs."""

import contextlib
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sevplug.sevapi.errors import FormatError
from sevplug.sevapi.guid_table import (
    ES_RESET_VECTOR,
    FOOTER,
    HASH_TABLE_AREA,
    SECRET_AREA,
    SEV_METADATA,
    GuestArea,
    GuidTable,
    parse_guid_table,
)

OTHER = UUID("11111111-2222-3333-4444-555555555555")


def entry(guid: UUID, data: bytes = b"", length: int | None = None) -> bytes:
    length = len(data) + 18 if length is None else length
    return data + length.to_bytes(2, "little") + guid.bytes_le


def image(*entries: bytes, length: int | None = None, before: int = 64) -> bytes:
    """An image whose table holds `entries` and whose footer claims `length` bytes."""
    table = b"".join(entries)
    footer = entry(FOOTER, length=len(table) + 18 if length is None else length)
    return b"\xaa" * before + table + footer + b"\xbb" * 32


def area(base: int, size: int) -> bytes:
    return base.to_bytes(4, "little") + size.to_bytes(4, "little")


@pytest.mark.real
def test_the_table_of_debians_firmware(ovmf_amdsev: Path) -> None:
    table = parse_guid_table(ovmf_amdsev.read_bytes())
    assert table.es_reset_vector == 0x0080B004
    assert table.secret_area == GuestArea(0x810000, 0xC00)
    assert table.hash_table_area == GuestArea(0x810C00, 0x400)
    assert table.sev_metadata_offset is not None


def test_entries_are_found_with_their_data() -> None:
    table = parse_guid_table(
        image(
            entry(OTHER),
            entry(HASH_TABLE_AREA, area(0x810C00, 0x400)),
            entry(SECRET_AREA, area(0x810000, 0xC00)),
            entry(SEV_METADATA, bytes.fromhex("34120000")),
            entry(ES_RESET_VECTOR, bytes.fromhex("04b08000")),
        )
    )
    assert table.secret_area == GuestArea(0x810000, 0xC00)
    assert table.hash_table_area == GuestArea(0x810C00, 0x400)
    assert table.hash_table_area.end == 0x811000
    assert table.es_reset_vector == 0x80B004
    assert table.sev_metadata_offset == 0x1234
    assert table.entries[OTHER] == b""


def test_a_table_may_fill_the_image() -> None:
    assert parse_guid_table(image(entry(OTHER, b"data"), before=0)).entries == {OTHER: b"data"}


def test_the_areas_of_a_generic_build_are_no_areas() -> None:
    table = parse_guid_table(image(entry(HASH_TABLE_AREA, bytes(8)), entry(SECRET_AREA, bytes(8))))
    assert table.secret_area is None
    assert table.hash_table_area is None


def test_what_has_no_entry_is_none() -> None:
    table = parse_guid_table(image())
    assert table == GuidTable({})
    assert (table.secret_area, table.hash_table_area) == (None, None)
    assert (table.es_reset_vector, table.sev_metadata_offset) == (None, None)


@pytest.mark.parametrize("size", [0, 16, 49, 50, 4096])
def test_an_image_without_a_footer_has_no_table(size: int) -> None:
    assert parse_guid_table(bytes(size)) == GuidTable({})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (image(length=0), f"length 0 at offset 0x40 of entry {FOOTER} is not within 18 to 82 bytes"),
        (image(length=17), f"length 17 at offset 0x40 of entry {FOOTER} is not within 18 to 82 bytes"),
        (image(length=83), f"length 83 at offset 0x40 of entry {FOOTER} is not within 18 to 82 bytes"),
        (image(length=20), "2 bytes at offset 0x3e are too few for an entry"),
        (
            image(entry(OTHER, length=17)),
            f"length 17 at offset 0x40 of entry {OTHER} is not within 18 to 18 bytes",
        ),
        (
            image(entry(OTHER, length=19)),
            f"length 19 at offset 0x40 of entry {OTHER} is not within 18 to 18 bytes",
        ),
        (image(entry(OTHER, b"1"), entry(OTHER, b"2")), f"a second entry for {OTHER} at offset 0x40"),
        (image(entry(FOOTER)), f"a second entry for {FOOTER} at offset 0x40"),
    ],
)
def test_a_table_that_lies_is_refused_with_the_offset(data: bytes, message: str) -> None:
    with pytest.raises(FormatError) as refused:
        parse_guid_table(data)
    assert str(refused.value) == f"firmware GUID table: {message}"


@pytest.mark.parametrize(
    ("guid", "accessor", "size"),
    [
        (SECRET_AREA, "secret_area", 8),
        (HASH_TABLE_AREA, "hash_table_area", 8),
        (ES_RESET_VECTOR, "es_reset_vector", 4),
        (SEV_METADATA, "sev_metadata_offset", 4),
    ],
)
@pytest.mark.parametrize("difference", [-1, 1])
def test_an_entry_of_the_wrong_size_is_refused(guid: UUID, accessor: str, size: int, difference: int) -> None:
    table = parse_guid_table(image(entry(guid, bytes(size + difference))))
    with pytest.raises(FormatError, match=f"{guid}.: expected {size} bytes, found {size + difference}"):
        getattr(table, accessor)


@given(st.dictionaries(st.uuids().filter(lambda guid: guid != FOOTER), st.binary(max_size=40), max_size=5))
def test_a_table_gives_back_what_was_put_in(entries: dict[UUID, bytes]) -> None:
    data = image(*(entry(guid, value) for guid, value in entries.items()))
    assert parse_guid_table(data).entries == entries


@given(st.binary(max_size=200), st.integers(0, 0xFFFF))
def test_random_bytes_before_a_footer_give_a_table_or_a_clean_error(data: bytes, length: int) -> None:
    with contextlib.suppress(FormatError):
        entries = parse_guid_table(image(data, length=length)).entries
        assert sum(18 + len(value) for value in entries.values()) == length - 18
