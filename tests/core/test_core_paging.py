"""The page walk, rule by rule, in every paging mode (APM 2, chapter 5)."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from sevplug.core.paging import PageWalker
from sevplug.core.vcpu import PRIVATE, Access

P, RW, US, A, D, PS, NX = 1, 2, 4, 0x20, 0x40, 0x80, 1 << 63
READ, WRITE, FETCH, USER = Access.READ, Access.WRITE, Access.FETCH, Access.USER
R, W, X = 1, 2, 4
WP, PG = 1 << 16, 1 << 31
PSE, PAE, SMEP, SMAP = 1 << 4, 1 << 5, 1 << 20, 1 << 21
LMA, NXE = 1 << 10, 1 << 11
# Error codes.
E_P, E_W, E_U, E_RSVD, E_I = 1, 2, 4, 8, 16
PHYSICAL_BITS = 40
C_BIT = 1 << 47
TABLES = (0x10000, 0x11000, 0x12000, 0x13000)


@attrs.frozen
class Kind:
    """A mode and a page size: the levels' shifts down to the leaf, and the control bits that select them."""

    name: str
    shifts: tuple[int, ...]
    cr4: int
    efer: int
    linear: int
    page: int

    @property
    def wide(self) -> bool:
        return self.efer != 0 or bool(self.cr4 & PAE)

    @property
    def leaf(self) -> int:
        return len(self.shifts) - 1

    def has_rights(self, level: int) -> bool:
        """Whether the entry of ``level`` holds R/W, U/S and accessed bits; PAE's top level does not."""
        return not (self.name.startswith("PAE") and level == 0)


LONG_LINEAR, SHORT_LINEAR = 0x0000_7ABC_DEF1_2000, 0x7ABD_E000
KINDS = (
    Kind("32-bit 4K", (22, 12), 0, 0, SHORT_LINEAR, 0x1234_5000),
    Kind("32-bit 4M", (22,), PSE, 0, SHORT_LINEAR, 0x1240_0000),
    Kind("PAE 4K", (30, 21, 12), PAE, 0, SHORT_LINEAR, 0x12_3456_7000),
    Kind("PAE 2M", (30, 21), PAE, 0, SHORT_LINEAR, 0x12_3460_0000),
    Kind("4-level 4K", (39, 30, 21, 12), PAE, LMA, LONG_LINEAR, 0x12_3456_7000),
    Kind("4-level 2M", (39, 30, 21), PAE, LMA, LONG_LINEAR, 0x12_3460_0000),
    Kind("4-level 1G", (39, 30), PAE, LMA, LONG_LINEAR, 0x12_4000_0000),
)
WIDE = tuple(kind for kind in KINDS if kind.wide)
by_name = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
by_wide_name = pytest.mark.parametrize("kind", WIDE, ids=lambda kind: kind.name)


class Space:
    """Page tables that map one page, each level with all rights unless a test takes them away."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.memory: dict[int, int] = {}
        self.cr3 = TABLES[0]
        self.where: list[int] = []
        size, bits = (8, 9) if kind.wide else (4, 10)
        for level, shift in enumerate(kind.shifts):
            index_bits = 2 if kind.wide and shift == 30 and not kind.efer else bits
            index = kind.linear >> shift & (1 << index_bits) - 1
            self.where.append(TABLES[level] + index * size)
            if level < kind.leaf:
                rights = RW | US if kind.has_rights(level) else 0
                self[level] = TABLES[level + 1] | P | rights
            else:
                self[level] = kind.page | P | RW | US | (PS if shift > 12 else 0)

    def __getitem__(self, level: int) -> int:
        return self.memory[self.where[level]]

    def __setitem__(self, level: int, entry: int) -> None:
        self.memory[self.where[level]] = entry

    def walker(self, **more: object) -> PageWalker:
        get, put = (lambda gpa: self.memory.get(gpa, 0)), self.memory.__setitem__
        return PageWalker(get, put, get, put, PHYSICAL_BITS, **more)  # type: ignore[arg-type]

    def walk(self, access: int, *, cr0: int = WP, cr4: int = 0, efer: int = 0, ac: bool = False, mask: int = 0) -> int:
        return self.walker(mask=mask).walk(
            self.kind.linear, access, cr0 | PG | 1, self.cr3, self.kind.cr4 | cr4, self.kind.efer | efer, ac
        )

    @property
    def expected_page(self) -> int:
        """Where the linear address lies in the page, to 4 KiB."""
        return self.kind.page | self.kind.linear & (1 << self.kind.shifts[-1]) - 1 & ~0xFFF

    def allows(self, access: int, **control: int) -> bool:
        """Whether the walk succeeds; when it does, it has to end at the page."""
        found = self.walk(access, **control)  # type: ignore[arg-type]
        if found >= 0:
            assert found & 0x000F_FFFF_FFFF_F000 == self.expected_page
            return True
        return False


def levels_with_rights(kind: Kind) -> list[int]:
    return [level for level in range(len(kind.shifts)) if kind.has_rights(level)]


# -- the way to the page ---------------------------------------------------------------------------------------------


def test_without_paging_linear_is_physical_and_everything_is_allowed() -> None:
    walker = Space(KINDS[0]).walker()
    for access in (READ, WRITE, FETCH, READ | USER, WRITE | USER):
        assert walker.walk(0xFFFF_F123, access, 1, 0, 0, 0) == 0xFFFF_F000 | R | W | X


@by_name
@pytest.mark.parametrize("access", [READ, WRITE, FETCH, READ | USER, WRITE | USER, FETCH | USER])
def test_a_page_with_all_rights_is_found(kind: Kind, access: Access) -> None:
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


def levels_of_kinds(kinds: tuple[Kind, ...] = KINDS) -> list[Any]:
    return [
        pytest.param(kind, level, id=f"{kind.name} level {level}")
        for kind in kinds
        for level in range(len(kind.shifts))
    ]


by_level = pytest.mark.parametrize(("kind", "level"), levels_of_kinds())


@by_level
@pytest.mark.parametrize(
    ("access", "code"), [(READ, 0), (WRITE, E_W), (READ | USER, E_U), (WRITE | USER, E_W | E_U), (FETCH | USER, E_U)]
)
def test_an_entry_that_is_not_present_faults_with_p_clear(kind: Kind, level: int, access: Access, code: int) -> None:
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
    for user in (Access(0), USER):
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
        for user, code in ((Access(0), E_P | E_I), (USER, E_P | E_I | E_U)):
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
def test_a_walk_sets_accessed_on_each_level_and_dirty_where_it_writes(kind: Kind, access: Access) -> None:
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


# -- the bit that marks private addresses ------------------------------------------------------------------------------


def strip(address: int, _access: int) -> int:
    return address & ~C_BIT | PRIVATE if address & C_BIT else address


@pytest.mark.parametrize(("kind", "level"), levels_of_kinds(WIDE))
@pytest.mark.parametrize("access", [READ, WRITE, FETCH])
def test_a_c_bit_is_stripped_at_each_level_by_mask_and_by_function_alike(
    kind: Kind, level: int, access: Access
) -> None:
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
