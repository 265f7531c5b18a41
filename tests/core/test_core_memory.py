"""The guest-physical space: what is where, and what a store there does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sevplug.core.errors import ConfigError
from sevplug.core.memory import HIGH_RAM_BASE, LOW_RAM_LIMIT, GuestMemory, RangeKind

MIB = 1 << 20
ROM_AT = 0xFFFF_0000


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    space = GuestMemory(MIB)
    yield space
    space.close()


@pytest.mark.parametrize("size", [0, -4096, 1, 4095, 4097, MIB + 512])
def test_a_size_that_is_not_whole_pages_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=rf"^memory size {size}: expected a positive multiple of 4096 bytes$"):
        GuestMemory(size)


def test_ram_starts_at_address_zero_and_holds_zeros(memory: GuestMemory) -> None:
    assert memory.read(0, MIB) == bytes(MIB)
    assert (memory.low_ram_size, memory.high_ram_size) == (MIB, 0)


def test_ram_beyond_three_gib_continues_at_four_gib() -> None:
    memory = GuestMemory(LOW_RAM_LIMIT + 2 * MIB)
    assert [(entry.gpa, entry.size) for entry in memory.ranges] == [(0, LOW_RAM_LIMIT), (HIGH_RAM_BASE, 2 * MIB)]
    assert (memory.low_ram_size, memory.high_ram_size) == (LOW_RAM_LIMIT, 2 * MIB)
    memory.write(HIGH_RAM_BASE + 8, b"high")
    assert memory.read(HIGH_RAM_BASE + 8, 4) == b"high"
    assert memory.read(LOW_RAM_LIMIT, 4) == b"\xff" * 4
    memory.close()


def test_a_store_that_ends_outside_ram_keeps_the_part_inside(memory: GuestMemory) -> None:
    memory.write(MIB - 2, b"abcd")
    assert memory.read(MIB - 3, 6) == b"\0ab\xff\xff\xff"


def test_where_nothing_is_reads_give_ones_and_writes_vanish(memory: GuestMemory) -> None:
    memory.write(0x8000_0000, b"lost")
    assert memory.read(0x8000_0000, 4) == b"\xff" * 4
    assert memory.find(0x8000_0000) is None


def test_rom_is_padded_to_pages_and_keeps_its_contents_against_stores(memory: GuestMemory) -> None:
    entry = memory.add_rom(ROM_AT, b"rom", "bios")
    assert (entry.kind, entry.size) == (RangeKind.ROM, 4096)
    memory.write(ROM_AT, b"new")
    assert memory.read(ROM_AT, 5) == b"rom\0\0"


def test_an_access_that_begins_in_nothing_reaches_what_comes_after(memory: GuestMemory) -> None:
    memory.add_rom(ROM_AT, b"rom", "bios", writable=True)
    assert memory.read(ROM_AT - 2, 5) == b"\xff\xffrom"
    memory.write(ROM_AT - 2, b"abcd")
    assert memory.read(ROM_AT - 2, 5) == b"\xff\xffcdm"
    memory.load(ROM_AT - 2, b"efgh")
    assert memory.read(ROM_AT - 2, 5) == b"\xff\xffghm"


def test_a_power_on_load_reaches_into_rom(memory: GuestMemory) -> None:
    memory.add_rom(ROM_AT, b"rom", "bios")
    memory.load(ROM_AT, b"new")
    assert memory.read(ROM_AT, 3) == b"new"


def test_writable_rom_is_ram_to_the_guest(memory: GuestMemory) -> None:
    assert memory.add_rom(ROM_AT, b"flash", "flash", writable=True).kind is RangeKind.RAM
    memory.write(ROM_AT, b"F")
    assert memory.read(ROM_AT, 5) == b"Flash"


@pytest.mark.parametrize(("gpa", "data"), [(ROM_AT + 1, b"x"), (ROM_AT, b"")])
def test_rom_needs_a_page_and_some_data(memory: GuestMemory, gpa: int, data: bytes) -> None:
    with pytest.raises(ConfigError, match=rf"^bios at {gpa:#x}, {len(data)} bytes: expected a page-aligned address"):
        memory.add_rom(gpa, data, "bios")


def test_an_overlap_names_both_ranges(memory: GuestMemory) -> None:
    with pytest.raises(ConfigError, match=r"^bios \[0xff000, 0x100000\) overlaps ram \[0x0, 0x100000\)$"):
        memory.add_rom(MIB - 4096, b"x", "bios")
    assert memory.read(MIB - 4096, 1) == b"\0"


@pytest.mark.parametrize(
    ("gpa", "size", "held"),
    [
        (0, MIB, True),
        (MIB - 1, 1, True),
        (MIB - 1, 2, False),
        (MIB, 1, False),
        (ROM_AT, 4096, True),
        (ROM_AT - 1, 2, False),
        (ROM_AT + 4095, 4098, False),
        (ROM_AT + 4095, 2, True),
    ],
)
def test_holds_asks_for_every_byte(memory: GuestMemory, gpa: int, size: int, held: bool) -> None:
    memory.add_rom(ROM_AT, bytes(4096), "bios")
    memory.add_rom(ROM_AT + 4096, bytes(4096), "second")
    assert memory.holds(gpa, size) is held


def test_whoever_listens_hears_of_each_store_from_outside(memory: GuestMemory) -> None:
    heard: list[tuple[int, int]] = []
    memory.on_write = lambda gpa, size: heard.append((gpa, size))
    memory.write(0x1000, b"four")
    memory.load(0x2000, b"12")
    memory.read(0x1000, 4)
    assert heard == [(0x1000, 4), (0x2000, 2)]


def test_the_repr_of_a_range_does_not_show_its_bytes(memory: GuestMemory) -> None:
    memory.write(0, b"secret")
    assert "buffer" not in repr(memory.ranges[0])


EDGES = (0, 0x3000, MIB - 3, MIB, MIB + 0x1000, ROM_AT - 2, ROM_AT, ROM_AT + 0x0FFE, ROM_AT + 0x1000)


@given(
    st.lists(
        st.tuples(st.sampled_from(EDGES), st.integers(0, 7), st.binary(max_size=12)),
        max_size=12,
    )
)
def test_any_stores_leave_what_a_byte_by_byte_model_says(stores: list[tuple[int, int, bytes]]) -> None:
    memory = GuestMemory(MIB)
    memory.add_rom(ROM_AT, b"\xaa" * 4096, "bios")
    model: dict[int, int] = {}
    for base, offset, data in stores:
        memory.write(base + offset, data)
        for at, byte in enumerate(data, base + offset):
            if at < MIB:
                model[at] = byte
    for base in EDGES:
        for at in range(max(0, base - 4), base + 24):
            background = 0 if at < MIB else 0xAA if ROM_AT <= at < ROM_AT + 4096 else 0xFF
            assert memory.read(at, 1)[0] == model.get(at, background)
    memory.close()
