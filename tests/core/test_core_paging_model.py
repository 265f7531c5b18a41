"""The page walk against a model of APM 2, chapter 5 that was written to be read, not to be fast.

The model knows nothing of the walker: it looks up one entry after the other, applies each rule of the manual by its
name, and only then says what the access may do.
"""

from __future__ import annotations

from array import array
from typing import Any

import attrs
from compiled_walk import CompiledWalker
from hypothesis import given, settings
from hypothesis import strategies as st

from sevplug.core.engine import compiled
from sevplug.core.engine.compiled.structures import RARE as UNDONE
from sevplug.core.paging import EXECUTABLE, READABLE, UNLIKE_DATA, WRITABLE, PageWalker
from sevplug.core.vcpu import PRIVATE

PHYSICAL_BITS = 40
FRAMES = (0x1000, 0x2000, 0x3000)
RAM_SIZE = 0x4000
READ, WRITE, FETCH, USER = 1, 2, 4, 16


@attrs.frozen
class Control:
    """The control bits a walk depends on."""

    wp: bool
    pse: bool
    smep: bool
    smap: bool
    nxe: bool
    ac: bool


@attrs.frozen
class Case:
    """One walk: mode, linear address, table entries from the top down, and the access."""

    mode: str
    linear: int
    cr3: int
    entries: tuple[int, ...]
    control: Control
    access: int
    c_bit: int | None


class PageFault(Exception):
    def __init__(self, *, present: bool, reserved: bool = False) -> None:
        super().__init__()
        self.code = (1 if present else 0) | (8 if reserved else 0)


class Model:
    """The manual's walk over a dictionary of entries."""

    def __init__(self, case: Case, memory: dict[int, int]) -> None:
        self.case, self.memory, self.control = case, memory, case.control
        self.user = bool(case.access & USER)
        self.kind = case.access & 7

    def answer(self) -> int:
        try:
            page, rights, private = self.translate()
        except PageFault as fault:
            code = fault.code
            if self.kind == WRITE:
                code |= 2
            if self.user:
                code |= 4
            no_execute_enabled = self.control.nxe and self.case.mode != "32-bit"
            if self.kind == FETCH and (no_execute_enabled or self.control.smep):
                code |= 16
            return ~code
        return page | self.by_view(rights, private)

    def by_view(self, rights: int, private: bool) -> int:
        """What a C-bit, or its absence, makes of a page (APM 2, section 15.34.5)."""
        if self.case.c_bit is None:
            return rights
        if private or self.case.mode == "32-bit":
            return rights | PRIVATE
        if self.kind == FETCH:
            # Fetches are private in any case, and the way they found is none for data.
            return rights & ~(READABLE | WRITABLE) | PRIVATE | UNLIKE_DATA
        return rights & ~EXECUTABLE

    def split(self, value: int) -> tuple[int, bool]:
        """An address without the C-bit, and whether it had one."""
        c_bit = self.case.c_bit
        if c_bit is None:
            return value, False
        return value & ~(1 << c_bit), bool(value >> c_bit & 1)

    def translate(self) -> tuple[int, int, bool]:
        mode, linear = self.case.mode, self.case.linear
        if mode == "4-level":
            table = self.split(self.case.cr3 & 0x000F_FFFF_FFFF_F000)[0]
            plan = [("PML4E", 39, 9), ("PDPE", 30, 9), ("PDE", 21, 9), ("PTE", 12, 9)]
        elif mode == "PAE":
            table = self.case.cr3 & 0xFFFF_FFE0
            plan = [("PAE PDPE", 30, 2), ("PDE", 21, 9), ("PTE", 12, 9)]
        else:
            table = self.case.cr3 & 0xFFFF_F000
            plan = [("PDE", 22, 10), ("PTE", 12, 10)]
        width = 4 if mode == "32-bit" else 8
        user_allowed, write_allowed, execute_allowed = True, True, True
        for name, shift, bits in plan:
            where = table + width * (linear >> shift & (1 << bits) - 1)
            entry = self.memory.get(where, 0)
            if not entry & 1:
                raise PageFault(present=False)
            large = self.is_large(name, entry)
            self.check_reserved(name, entry, shift, large)
            if name != "PAE PDPE":
                user_allowed &= bool(entry & 4)
                write_allowed &= bool(entry & 2)
                execute_allowed &= not entry >> 63
            if name == "PTE" or large:
                break
            if name != "PAE PDPE":
                self.memory[where] = entry | 0x20
            table = self.split(entry & (0xFFFF_F000 if width == 4 else 0x000F_FFFF_FFFF_F000))[0]
        rights = self.rights(user_allowed, write_allowed, execute_allowed)
        if not self.kind & rights:
            raise PageFault(present=True)
        entry |= 0x60 if self.kind == WRITE else 0x20
        self.memory[where] = entry
        if not entry & 0x40:
            rights &= ~WRITE
        base, private = self.split(self.base_of(entry, shift, large))
        inside = linear & (1 << shift) - 1 & ~0xFFF
        return base | inside, rights, private

    def is_large(self, name: str, entry: int) -> bool:
        if name == "PDE" and self.case.mode == "32-bit":
            return bool(entry & 0x80) and self.control.pse
        return name in ("PDPE", "PDE") and bool(entry & 0x80)

    def check_reserved(self, name: str, entry: int, shift: int, large: bool) -> None:
        bad = set()
        if self.case.mode == "32-bit":
            if large:
                bad |= {21}
        else:
            bad |= set(range(PHYSICAL_BITS, 52)) - {self.case.c_bit}
            if not self.control.nxe:
                bad |= {63}
            if self.case.mode == "PAE":
                bad |= set(range(52, 63))
            if name == "PAE PDPE":
                bad |= {1, 2, 5, 6, 7, 8, 63}
            if name == "PML4E":
                bad |= {7}
            if large:
                bad |= set(range(13, shift))
        if any(entry >> bit & 1 for bit in bad):
            raise PageFault(present=True, reserved=True)

    def base_of(self, entry: int, shift: int, large: bool) -> int:
        if self.case.mode == "32-bit":
            if large:
                return entry & 0xFFC0_0000 | (entry >> 13 & 0xFF) << 32
            return entry & 0xFFFF_F000
        return entry & 0x000F_FFFF_FFFF_FFFF & ~((1 << shift) - 1)

    def rights(self, user_page: bool, writable: bool, executable: bool) -> int:
        """What this privilege may do: READ, WRITE and FETCH or-ed."""
        if self.user:
            may_read = user_page
            may_write = user_page and writable
            may_fetch = user_page and executable
        else:
            data_barred = user_page and self.control.smap and not self.control.ac
            may_read = not data_barred
            may_write = not data_barred and (writable or not self.control.wp)
            may_fetch = executable and not (user_page and self.control.smep)
        return (READ if may_read else 0) | (WRITE if may_write else 0) | (FETCH if may_fetch else 0)


def place(case: Case) -> dict[int, int]:
    """The entries at the places the walk will look at, the top first; tables may be one and the same page."""
    memory: dict[int, int] = {}
    width, bits = (4, 10) if case.mode == "32-bit" else (8, 9)
    shifts = {"4-level": (39, 30, 21, 12), "PAE": (30, 21, 12), "32-bit": (22, 12)}[case.mode]
    table = case.cr3 & (0xFFFF_FFE0 if case.mode == "PAE" else 0xFFFF_F000)
    for number, (shift, entry) in enumerate(zip(shifts, case.entries, strict=True)):
        index = case.linear >> shift & ((1 << (2 if case.mode == "PAE" and number == 0 else bits)) - 1)
        memory[table + index * width] = entry
        table = entry & 0xF000
    return memory


# A bit high up that an entry has besides, by the dice; in PAE's entries nearly all of them are reserved.
RARE = (0, 0, 0, 0, 0, 0, 0, 0, 0, 40, 47, 51, 52, 58, 62, 63)
RARE_IN_PAE = (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 47, 58, 63, 63)


def entry_of(dice: int, mode: str, top: bool, c_bit: int | None) -> int:
    """An entry out of 40 random bits: mostly present, seldom with a bit high up, in one of a few frames."""
    flags = dice & 0xFFF
    if dice >> 12 & 15:
        flags |= 1
    if dice >> 16 & 3:
        flags |= 6
    if dice >> 18 & 3:
        flags &= ~0x80
    frame = FRAMES[(dice >> 20 & 0xF) % len(FRAMES)]
    if flags & 0x80 and dice >> 24 & 7:
        # A large page, mostly aligned as it has to be.
        frame = (dice >> 27 & 7) << 30 if mode == "4-level" else (dice >> 27 & 7) << 22
        frame |= (dice >> 30 & 1) << 12
    entry = frame | flags
    if mode == "PAE" and top and dice >> 31 & 7 != 7:
        return entry & ~0x1E6
    if mode == "32-bit":
        return entry | (dice >> 34 & 3) << 13 if flags & 0x80 else entry
    rare = (RARE_IN_PAE if mode == "PAE" else RARE)[dice >> 34 & 15]
    if rare:
        entry |= 1 << rare
    if c_bit is not None and dice >> 38 & 1:
        entry |= 1 << c_bit
    return entry


@st.composite
def cases(draw: st.DrawFn, mode: str) -> Case:
    levels = {"4-level": 4, "PAE": 3, "32-bit": 2}[mode]
    c_bit = None if mode == "32-bit" else draw(st.sampled_from([None, 40, 47, 51]))
    dice = draw(st.lists(st.integers(0, (1 << 40) - 1), min_size=levels, max_size=levels))
    switches = draw(st.integers(0, 63))
    linear = draw(st.integers(0, (1 << (48 if mode == "4-level" else 32)) - 1))
    cr3 = FRAMES[0] | draw(st.sampled_from([0, 0x18, 0xFE0] if mode == "PAE" else [0, 0x18]))
    if mode == "4-level" and c_bit is not None and switches & 1:
        cr3 |= 1 << c_bit
    return Case(
        mode,
        linear,
        cr3,
        tuple(entry_of(number, mode, at == 0, c_bit) for at, number in enumerate(dice)),
        Control(*(bool(switches >> at & 1) for at in range(6))),
        draw(st.sampled_from([READ, WRITE, FETCH])) | draw(st.sampled_from([0, USER])),
        c_bit,
    )


class Entries:
    """The entries a walk meets; ``ram`` holds the same ones for the walker to read by itself."""

    def __init__(self, ram: memoryview | None) -> None:
        self.entries: dict[int, int] = {}
        self.ram = ram

    def read(self, gpa: int) -> int:
        return self.entries.get(gpa, 0)

    def write(self, gpa: int, entry: int) -> None:
        self.entries[gpa] = entry
        if self.ram is not None:
            self.ram[gpa // 8] = entry


def walk(walker: PageWalker | CompiledWalker, case: Case) -> int:
    control = case.control
    cr0 = 1 << 31 | 1 | control.wp << 16
    cr4 = control.pse << 4 | (case.mode != "32-bit") << 5 | control.smep << 20 | control.smap << 21
    efer = (case.mode == "4-level") << 10 | control.nxe << 11
    return walker.walk(case.linear, case.access, cr0, case.cr3, cr4, efer, control.ac)


def check(case: Case) -> None:
    """Model, walker by mask, by function, and compiled: one answer, and the same memory afterwards."""
    expected_memory = place(case)
    expected = Model(case, expected_memory).answer()
    mask = 0 if case.c_bit is None else 1 << case.c_bit

    def strip(address: int, access: int) -> int:
        return address & ~mask | PRIVATE if address & mask or (mask and access & FETCH) else address

    ways: list[dict[str, Any]] = [{"mask": mask}, {"translate": strip}]
    if case.mode == "4-level":
        ways.append({"mask": mask, "ram": memoryview(array("Q", bytes(RAM_SIZE)))})
    for more in ways:
        memory = Entries(more.get("ram"))
        for gpa, entry in place(case).items():
            memory.write(gpa, entry)
        walker = PageWalker(memory.read, memory.write, memory.read, memory.write, PHYSICAL_BITS, **more)
        assert walk(walker, case) == expected
        assert memory.entries == expected_memory
    if compiled.load() is not None:
        entries = place(case)
        width = 4 if case.mode == "32-bit" else 8
        found = walk(CompiledWalker(entries, width, RAM_SIZE, PHYSICAL_BITS, mask), case)
        if found == UNDONE:  # a table lies outside its RAM, and only then
            assert any(entry & 0x000F_FFFF_FFFF_F000 & ~mask >= RAM_SIZE for entry in case.entries)
        else:
            assert found == expected
            assert entries == expected_memory


@settings(max_examples=250)
@given(cases("4-level"))
def test_four_level_walks_do_what_the_manual_says(case: Case) -> None:
    check(case)


@settings(max_examples=150)
@given(cases("PAE"))
def test_pae_walks_do_what_the_manual_says(case: Case) -> None:
    check(case)


@settings(max_examples=120)
@given(cases("32-bit"))
def test_32_bit_walks_do_what_the_manual_says(case: Case) -> None:
    check(case)


def changed(case: Case, level: int, bit: int) -> Case:
    """The same with one bit of one entry turned over, or, for level 4, one of the control bits."""
    if level < 4:
        entries = list(case.entries)
        entries[level] ^= 1 << bit
        return attrs.evolve(case, entries=tuple(entries))
    name = ("wp", "smep", "smap", "nxe", "ac")[bit % 5]
    return attrs.evolve(case, control=attrs.evolve(case.control, **{name: not getattr(case.control, name)}))


TURNED = (0, 1, 2, 5, 6, 7, 8, 12, 13, 40, 47, 63)
CHANGES = st.lists(st.tuples(st.integers(0, 4), st.sampled_from(TURNED)), max_size=4)


@settings(max_examples=150)
@given(cases("4-level"), CHANGES, st.booleans())
def test_what_a_walker_remembers_changes_no_answer(case: Case, changes: list[tuple[int, int]], plain: bool) -> None:
    """One walker, while entries and control bits change between its walks."""
    mask = 0 if case.c_bit is None else 1 << case.c_bit
    if plain:  # a way that exists
        entries = tuple(frame | mask | 0x27 for frame in (0x2000, 0x3000, 0x1000, 0x2000))
        case = attrs.evolve(case, cr3=FRAMES[0], entries=entries)
    memory = Entries(memoryview(array("Q", bytes(RAM_SIZE))))
    walker = PageWalker(memory.read, memory.write, memory.read, memory.write, PHYSICAL_BITS, mask, None, memory.ram)
    expected_memory: dict[int, int] = {}
    for step in (None, *changes):
        if step is not None:
            case = changed(case, *step)
        for gpa, entry in place(case).items():
            memory.write(gpa, entry)
            expected_memory[gpa] = entry
        for access in (case.access, READ, WRITE, FETCH, READ | USER, WRITE | USER, FETCH | USER):
            again = attrs.evolve(case, access=access)
            assert walk(walker, again) == Model(again, expected_memory).answer()
            assert memory.entries == expected_memory
