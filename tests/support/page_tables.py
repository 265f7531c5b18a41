"""Page tables of every mode that map one page, for tests of the walk."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from compiled_walk import BothWalkers, CompiledWalker

from sevplug.core.engine import compiled
from sevplug.core.paging import PageWalker
from sevplug.core.vcpu import Access

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

    def walker(self, **more: Any) -> PageWalker | BothWalkers:
        get, put = (lambda gpa: self.memory.get(gpa, 0)), self.memory.__setitem__
        python = PageWalker(get, put, get, put, PHYSICAL_BITS, **more)
        if compiled.load() is None or "translate" in more:  # a function is Python's to call
            return python
        width, mask = 8 if self.kind.wide else 4, more.get("mask", 0)
        ram_size = TABLES[-1] + 0x1000
        return BothWalkers(
            self.memory, python, lambda entries: CompiledWalker(entries, width, ram_size, PHYSICAL_BITS, mask)
        )

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


def levels_of_kinds(kinds: tuple[Kind, ...] = KINDS) -> list[Any]:
    """Test parameters: each kind with the number of each of its levels."""
    return [
        pytest.param(kind, level, id=f"{kind.name} level {level}")
        for kind in kinds
        for level in range(len(kind.shifts))
    ]
