"""The page walk and the bit that marks private addresses: stripped by a mask, or seen by a function at each step."""

from __future__ import annotations

import pytest
from page_tables import (
    C_BIT,
    E_P,
    E_RSVD,
    E_U,
    E_W,
    FETCH,
    KINDS,
    PG,
    READ,
    TABLES,
    USER,
    WIDE,
    WRITE,
    Kind,
    R,
    Space,
    W,
    X,
    levels_of_kinds,
)

from sevplug.core.paging import UNLIKE_DATA, PageWalker
from sevplug.core.vcpu import PRIVATE, Access
from sevplug.core.views import PRIVATE_FORM, SHARED, UNTOUCHED

by_name = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
by_wide_name = pytest.mark.parametrize("kind", WIDE, ids=lambda kind: kind.name)


def strip(address: int, access: int) -> int:
    return address & ~C_BIT | PRIVATE if address & C_BIT or access & (Access.TABLE | FETCH) else address


@pytest.mark.parametrize(("kind", "level"), levels_of_kinds(WIDE))
@pytest.mark.parametrize("access", [READ, WRITE, FETCH])
def test_a_c_bit_is_stripped_at_each_level_by_mask_and_by_function_alike(kind: Kind, level: int, access: int) -> None:
    results = []
    for more in ({"mask": C_BIT}, {"translate": strip}):
        space = Space(kind)
        space[level] |= C_BIT
        results.append(space.walker(**more).walk(kind.linear, access, PG | 1, space.cr3, kind.cr4, kind.efer))
        assert space[level] & C_BIT
    by_mask, by_function = results
    assert by_mask == by_function
    assert by_mask & 0x000F_FFFF_FFFF_F000 == Space(kind).expected_page
    assert bool(by_mask & PRIVATE) == (level == kind.leaf or access == FETCH)


@pytest.mark.parametrize("kind", KINDS[4:], ids=lambda kind: kind.name)
def test_a_c_bit_in_cr3_is_stripped_and_does_not_make_the_page_private(kind: Kind) -> None:
    for more in ({"mask": C_BIT}, {"translate": strip}):
        space = Space(kind)
        found = space.walker(**more).walk(kind.linear, READ, PG | 1, space.cr3 | C_BIT, kind.cr4, kind.efer)
        assert found & 0x000F_FFFF_FFFF_F000 == space.expected_page
        assert not found & PRIVATE


@by_wide_name
@pytest.mark.parametrize("more", [{"mask": C_BIT}, {"translate": strip}], ids=["mask", "function"])
def test_a_fetch_is_private_whatever_the_c_bit_says_and_its_way_is_none_for_data(
    kind: Kind, more: dict[str, object]
) -> None:
    walker = Space(kind).walker(**more)
    fetched, read = (
        walker.walk(kind.linear, access, PG | 1, TABLES[0], kind.cr4, kind.efer) for access in (FETCH, READ)
    )
    assert fetched & (PRIVATE | UNLIKE_DATA | R | W | X) == PRIVATE | UNLIKE_DATA | X
    assert read & (PRIVATE | UNLIKE_DATA | R | W | X) == R


def test_what_has_no_place_for_a_c_bit_is_private() -> None:
    kind = KINDS[0]
    walker = Space(kind).walker(mask=C_BIT)
    assert walker.walk(0x12345, READ, 1, 0, 0, 0) == 0x12000 | PRIVATE | R | W | X
    assert walker.walk(kind.linear, READ, PG | 1, TABLES[0], kind.cr4, kind.efer) & PRIVATE


class Remembering:
    """A walk through four tables in RAM whose pages have states; ``asked``: what it did not read in RAM at once."""

    tables = (0x1000, 0x2000, 0x3000, 0x4000)

    def __init__(self) -> None:
        self.states = bytearray([PRIVATE_FORM]) * 64
        self.asked: list[int] = []
        ram = memoryview(bytearray(64 << 12)).cast("Q")
        self._kind = kind = KINDS[4]

        def read(gpa: int) -> int:
            self.asked.append(gpa)
            return ram[gpa >> 3]

        def write(gpa: int, value: int) -> None:
            ram[gpa >> 3] = value

        for number, table in enumerate(self.tables):
            index = kind.linear >> (39 - 9 * number) & 0x1FF
            write(table + 8 * index, (*self.tables, 0x9000)[number + 1] | C_BIT | 0x67)
        self.walker = PageWalker(read, write, read, write, 40, C_BIT, None, ram, self.states)

    def walk(self) -> int:
        """Walk, and say how many entries were asked for."""
        before = len(self.asked)
        found = self.walker.walk(self._kind.linear, READ, PG | 1, self.tables[0], self._kind.cr4, self._kind.efer)
        assert found == 0x9000 | PRIVATE | R | W | X
        return len(self.asked) - before


def test_a_table_that_has_another_form_now_is_not_read_where_it_was() -> None:
    space = Remembering()
    assert [space.walk(), space.walk()] == [4, 0]  # the second walk knew its way
    space.states[4] = SHARED
    space.walker.forget(0x4000)
    assert [space.walk(), space.walk()] == [4, 4]


@pytest.mark.parametrize("table", range(1, 5))
def test_a_table_in_memory_that_nobody_touched_is_not_remembered_since_it_turns_without_a_word(table: int) -> None:
    space = Remembering()
    space.states[table] = UNTOUCHED | PRIVATE_FORM
    assert [space.walk(), space.walk()] == [4, 4]
    space.states[table] = PRIVATE_FORM
    assert [space.walk(), space.walk()] == [4, 0]


@pytest.mark.parametrize("position", [40, 47, 51])
def test_the_c_bit_may_be_any_bit_above_the_address(position: int) -> None:
    space = Space(KINDS[4])
    for level in range(4):
        space[level] |= 1 << position
    space.cr3 |= 1 << position
    found = space.walk(WRITE, mask=1 << position)
    assert found == space.expected_page | PRIVATE | R | W | X
    for other in {40, 47, 51} - {position}:
        space[3] |= 1 << other
        assert space.walk(READ, mask=1 << position) == ~(E_P | E_RSVD)
        space[3] &= ~(1 << other)


@by_wide_name
def test_without_a_c_bit_its_place_is_reserved(kind: Kind) -> None:
    space = Space(kind)
    space[kind.leaf] |= C_BIT
    assert space.walk(READ) == ~(E_P | E_RSVD)


@by_name
def test_the_function_sees_cr3_each_table_and_the_page_with_the_kind_of_access(kind: Kind) -> None:
    space = Space(kind)
    seen: list[tuple[int, int]] = []

    def translate(address: int, access: int) -> int:
        seen.append((address, access))
        return address

    space.walker(translate=translate).walk(kind.linear, WRITE | USER, PG | 1, space.cr3, kind.cr4, kind.efer)
    tables = [(table, Access.TABLE | Access.READ) for table in TABLES[: len(kind.shifts)]]
    # Where data is not private, a fetch might be.
    assert seen == [*tables, (space.expected_page, WRITE | USER), (space.expected_page, FETCH | USER)]


def test_the_function_sees_addresses_without_paging_too() -> None:
    seen: list[tuple[int, int]] = []

    def translate(address: int, access: int) -> int:
        seen.append((address, access))
        return address | PRIVATE

    found = Space(KINDS[0]).walker(translate=translate).walk(0x12345, FETCH, 1, 0, 0, 0)
    assert seen == [(0x12000, FETCH)]
    assert found == 0x12000 | R | W | X | PRIVATE


@pytest.mark.parametrize(("kind", "level"), levels_of_kinds(WIDE))
def test_what_the_function_leaves_above_the_width_is_reserved(kind: Kind, level: int) -> None:
    for access, code in ((READ, 0), (WRITE | USER, E_W | E_U)):
        space = Space(kind)
        space[level] |= C_BIT | 1 << 46
        before = space[level]
        found = space.walker(translate=strip).walk(kind.linear, access, PG | 1, space.cr3, kind.cr4, kind.efer)
        assert found == ~(E_P | E_RSVD | code)
        assert space[level] == before


@by_name
def test_the_function_may_send_a_page_elsewhere(kind: Kind) -> None:
    space = Space(kind)
    walker = space.walker(translate=lambda address, access: address if access & Access.TABLE else 0x5000)
    found = walker.walk(kind.linear, READ, PG | 1, space.cr3, kind.cr4, kind.efer)
    assert found & 0x000F_FFFF_FFFF_F000 == 0x5000
