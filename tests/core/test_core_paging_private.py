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

from sevplug.core.vcpu import PRIVATE, Access

by_name = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
by_wide_name = pytest.mark.parametrize("kind", WIDE, ids=lambda kind: kind.name)


def strip(address: int, _access: int) -> int:
    return address & ~C_BIT | PRIVATE if address & C_BIT else address


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
    assert bool(by_mask & PRIVATE) == (level == kind.leaf)


@pytest.mark.parametrize("kind", KINDS[4:], ids=lambda kind: kind.name)
def test_a_c_bit_in_cr3_is_stripped_and_does_not_make_the_page_private(kind: Kind) -> None:
    for more in ({"mask": C_BIT}, {"translate": strip}):
        space = Space(kind)
        found = space.walker(**more).walk(kind.linear, READ, PG | 1, space.cr3 | C_BIT, kind.cr4, kind.efer)
        assert found & 0x000F_FFFF_FFFF_F000 == space.expected_page
        assert not found & PRIVATE


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
    assert seen == [*tables, (space.expected_page, WRITE | USER)]


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
