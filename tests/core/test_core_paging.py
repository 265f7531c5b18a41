"""The page walk, rule by rule, in every paging mode (APM 2, chapter 5)."""

from __future__ import annotations

from typing import Any

import pytest
from page_tables import (
    E_I,
    E_P,
    E_RSVD,
    E_U,
    E_W,
    FETCH,
    KINDS,
    NX,
    NXE,
    PG,
    PHYSICAL_BITS,
    PS,
    READ,
    RW,
    SMAP,
    SMEP,
    US,
    USER,
    WIDE,
    WP,
    WRITE,
    A,
    D,
    Kind,
    P,
    R,
    Space,
    W,
    X,
    levels_of_kinds,
)

by_name = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
by_wide_name = pytest.mark.parametrize("kind", WIDE, ids=lambda kind: kind.name)


def levels_with_rights(kind: Kind) -> list[int]:
    return [level for level in range(len(kind.shifts)) if kind.has_rights(level)]


# -- the way to the page ---------------------------------------------------------------------------------------------


def test_without_paging_linear_is_physical_and_everything_is_allowed() -> None:
    walker = Space(KINDS[0]).walker()
    for access in (READ, WRITE, FETCH, READ | USER, WRITE | USER):
        assert walker.walk(0xFFFF_F123, access, 1, 0, 0, 0) == 0xFFFF_F000 | R | W | X


@by_name
@pytest.mark.parametrize("access", [READ, WRITE, FETCH, READ | USER, WRITE | USER, FETCH | USER])
def test_a_page_with_all_rights_is_found(kind: Kind, access: int) -> None:
    assert Space(kind).allows(access)


@by_name
def test_a_large_page_is_handed_out_in_steps_of_4k(kind: Kind) -> None:
    space = Space(kind)
    walker = space.walker()
    size = 1 << kind.shifts[-1]
    base = kind.linear & ~(size - 1)
    for offset in {0, 0x123, size // 2, size - 0x1000, size - 1}:
        found = walker.walk(base + offset, READ, PG | 1, space.cr3, kind.cr4, kind.efer)
        assert found & 0x000F_FFFF_FFFF_F000 == kind.page | offset & ~0xFFF


def test_pse_36_puts_address_bits_39_32_into_bits_20_13() -> None:
    space = Space(KINDS[1])
    space[0] = 0x1240_0000 | 0xA5 << 13 | 1 << 12 | P | RW | US | PS
    found = space.walk(READ)
    assert found & 0x000F_FFFF_FFFF_F000 == 0xA5_1240_0000 | kind_offset(KINDS[1])


def kind_offset(kind: Kind) -> int:
    return kind.linear & (1 << kind.shifts[-1]) - 1 & ~0xFFF


def test_without_cr4_pse_the_size_bit_means_nothing() -> None:
    space = Space(KINDS[0])
    space[0] |= PS
    assert space.allows(READ)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.efer], ids=lambda kind: kind.name)
def test_outside_long_mode_addresses_and_cr3_are_32_bits_wide(kind: Kind) -> None:
    space = Space(kind)
    found = space.walker().walk(kind.linear | 0xABCD << 32, READ, PG | 1, space.cr3 | 0x77 << 32, kind.cr4, kind.efer)
    assert found & 0x000F_FFFF_FFFF_F000 == space.expected_page


@pytest.mark.parametrize("kind", [KINDS[2], KINDS[3]], ids=lambda kind: kind.name)
def test_paes_top_table_is_aligned_to_32_bytes_only(kind: Kind) -> None:
    space = Space(kind)
    space.memory[space.where[0] + 0xFE0] = space.memory.pop(space.where[0])
    space.cr3 |= 0xFE0
    assert space.allows(READ)


@pytest.mark.parametrize("kind", KINDS[4:], ids=lambda kind: kind.name)
def test_the_low_bits_of_cr3_are_no_part_of_an_address(kind: Kind) -> None:
    space = Space(kind)
    space.cr3 |= 0xFFF
    assert space.allows(READ)


# -- present ---------------------------------------------------------------------------------------------------------


by_level = pytest.mark.parametrize(("kind", "level"), levels_of_kinds())


@by_level
@pytest.mark.parametrize(
    ("access", "code"), [(READ, 0), (WRITE, E_W), (READ | USER, E_U), (WRITE | USER, E_W | E_U), (FETCH | USER, E_U)]
)
def test_an_entry_that_is_not_present_faults_with_p_clear(kind: Kind, level: int, access: int, code: int) -> None:
    space = Space(kind)
    space[level] = ~P & (NX - 1 if kind.wide else 0xFFFF_FFFF)  # nothing else in it counts
    assert space.walk(access) == ~code


# -- user, write ------------------------------------------------------------------------------------------------------


@by_name
def test_one_level_without_u_keeps_the_user_out(kind: Kind) -> None:
    for level in levels_with_rights(kind):
        for access, code in ((READ, E_P | E_U), (WRITE, E_P | E_W | E_U), (FETCH, E_P | E_U)):
            space = Space(kind)
            space[level] &= ~US
            assert space.walk(access | USER) == ~code
            assert space.allows(access)


@by_name
def test_one_level_without_w_makes_the_page_read_only_to_the_user_whatever_wp_is(kind: Kind) -> None:
    for level in levels_with_rights(kind):
        for cr0 in (0, WP):
            space = Space(kind)
            space[level] &= ~RW
            assert space.walk(WRITE | USER, cr0=cr0) == ~(E_P | E_W | E_U)
            assert space.allows(READ | USER, cr0=cr0)
            assert space.allows(FETCH | USER, cr0=cr0)


@by_name
def test_the_supervisor_may_write_a_read_only_page_unless_wp_is_set(kind: Kind) -> None:
    for level in levels_with_rights(kind):
        space = Space(kind)
        space[level] &= ~RW
        assert space.walk(WRITE, cr0=WP) == ~(E_P | E_W)
        assert space.allows(WRITE, cr0=0)


@by_name
def test_a_read_only_page_is_not_handed_out_as_writable(kind: Kind) -> None:
    for user in (0, USER):
        space = Space(kind)
        space[kind.leaf] &= ~RW
        space[kind.leaf] |= D
        assert space.walk(READ | user) & (R | W | X) == R | X


@pytest.mark.parametrize("kind", [KINDS[2], KINDS[3]], ids=lambda kind: kind.name)
def test_paes_top_level_takes_no_rights_away(kind: Kind) -> None:
    space = Space(kind)
    assert not space[0] & (RW | US)
    assert space.allows(WRITE | USER)


# -- no-execute, SMEP, SMAP --------------------------------------------------------------------------------------------


@by_wide_name
def test_nx_on_one_level_forbids_fetches_only(kind: Kind) -> None:
    for level in levels_with_rights(kind):
        space = Space(kind)
        space[level] |= NX
        for user, code in ((0, E_P | E_I), (USER, E_P | E_I | E_U)):
            assert space.walk(FETCH | user, efer=NXE) == ~code
            assert space.walk(READ | user, efer=NXE) & X == 0
            assert space.allows(WRITE | user, efer=NXE)


@by_wide_name
def test_without_efer_nxe_the_nx_bit_is_reserved(kind: Kind) -> None:
    for level in range(len(kind.shifts)):
        space = Space(kind)
        space[level] |= NX
        assert space.walk(READ) == ~(E_P | E_RSVD)


@by_name
def test_smep_keeps_the_supervisor_from_executing_user_pages(kind: Kind) -> None:
    space = Space(kind)
    assert space.walk(FETCH, cr4=SMEP) == ~(E_P | E_I)
    assert space.allows(READ, cr4=SMEP)
    assert space.allows(FETCH | USER, cr4=SMEP)
    assert not space.walk(READ, cr4=SMEP) & X
    space[kind.leaf] &= ~US
    assert space.allows(FETCH, cr4=SMEP)


@by_name
def test_smap_keeps_the_supervisor_from_user_data_unless_ac_is_set(kind: Kind) -> None:
    space = Space(kind)
    assert space.walk(READ, cr4=SMAP) == ~E_P
    assert space.walk(WRITE, cr4=SMAP) == ~(E_P | E_W)
    assert space.walk(WRITE, cr4=SMAP, cr0=0) == ~(E_P | E_W)
    for access in (READ, WRITE):
        assert space.allows(access, cr4=SMAP, ac=True)
        assert space.allows(access | USER, cr4=SMAP)
    assert space.walk(FETCH, cr4=SMAP) & (R | W | X) == X
    space[kind.leaf] &= ~US
    assert space.allows(WRITE, cr4=SMAP)


# -- accessed and dirty ------------------------------------------------------------------------------------------------


@by_name
@pytest.mark.parametrize("access", [READ, WRITE, FETCH])
def test_a_walk_sets_accessed_on_each_level_and_dirty_where_it_writes(kind: Kind, access: int) -> None:
    space = Space(kind)
    before = [space[level] for level in range(len(kind.shifts))]
    assert space.allows(access)
    for level, old in enumerate(before):
        accessed = A if kind.has_rights(level) else 0
        dirty = D if level == kind.leaf and access == WRITE else 0
        assert space[level] == old | accessed | dirty


@by_name
def test_a_second_walk_writes_nothing(kind: Kind) -> None:
    space = Space(kind)
    space.allows(WRITE)
    before = dict(space.memory)
    assert space.allows(WRITE)
    assert space.allows(READ)
    assert space.memory == before


@by_name
def test_a_refused_access_leaves_the_page_itself_untouched(kind: Kind) -> None:
    space = Space(kind)
    space[kind.leaf] &= ~RW
    before = space[kind.leaf]
    assert not space.allows(WRITE)
    assert space[kind.leaf] == before


@by_name
def test_a_clean_page_is_writable_only_once_it_was_written(kind: Kind) -> None:
    space = Space(kind)
    assert not space.walk(READ) & W
    assert space.walk(WRITE) & W
    assert space.walk(READ) & W


# -- reserved bits -----------------------------------------------------------------------------------------------------


def reserved_bits() -> list[Any]:
    """(kind, level, bit) of every bit that has to be zero in a present entry."""
    found: list[Any] = []
    for kind in KINDS:
        for level, shift in enumerate(kind.shifts):
            bits: set[int] = set()
            if kind.wide:
                bits |= set(range(PHYSICAL_BITS, 52))
                if not kind.efer:
                    bits |= set(range(52, 63))
            if level == kind.leaf and shift > 12:
                bits |= set(range(13, shift)) if kind.wide else {21}
            if kind.name.startswith("PAE") and level == 0:
                bits |= {1, 2, 5, 6, 7, 8, 63}
            if shift == 39:
                bits |= {7}
            found += [pytest.param(kind, level, bit, id=f"{kind.name} level {level} bit {bit}") for bit in sorted(bits)]
    return found


@pytest.mark.parametrize(("kind", "level", "bit"), reserved_bits())
def test_a_reserved_bit_faults_with_rsvd(kind: Kind, level: int, bit: int) -> None:
    for access, code in ((READ, 0), (WRITE | USER, E_W | E_U)):
        space = Space(kind)
        space[level] |= 1 << bit
        assert space.walk(access, efer=NXE) == ~(E_P | E_RSVD | code)


@by_level
def test_bits_that_belong_to_software_change_nothing(kind: Kind, level: int) -> None:
    space = Space(kind)
    space[level] |= 0xE00 | (0x7FF << 52 if kind.efer else 0)
    assert space.allows(WRITE)


def test_the_pat_bit_of_a_large_page_is_no_address_bit() -> None:
    for kind in (KINDS[1], KINDS[3], KINDS[5], KINDS[6]):
        space = Space(kind)
        space[kind.leaf] |= 1 << 12
        assert space.allows(READ)


def test_the_top_level_has_no_large_pages_even_where_the_address_would_fit_one() -> None:
    space = Space(KINDS[4])
    space[0] = P | RW | US | PS
    assert space.walk(READ) == ~(E_P | E_RSVD)


def test_a_reserved_bit_above_comes_before_a_missing_entry_below() -> None:
    space = Space(KINDS[4])
    space[1] |= 1 << 45
    space[3] = 0
    assert space.walk(READ) == ~(E_P | E_RSVD)


# -- the fetch bit of an error code ------------------------------------------------------------------------------------


@by_name
@pytest.mark.parametrize(("cr4", "efer"), [(0, 0), (0, NXE), (SMEP, 0), (SMEP, NXE)])
def test_the_fetch_bit_is_reported_only_where_fetches_can_differ(kind: Kind, cr4: int, efer: int) -> None:
    space = Space(kind)
    space[kind.leaf] = 0
    told = bool(cr4) or (bool(efer) and kind.wide)
    assert space.walk(FETCH, cr4=cr4, efer=efer) == ~(E_I if told else 0)
    assert space.walk(READ, cr4=cr4, efer=efer) == ~0
