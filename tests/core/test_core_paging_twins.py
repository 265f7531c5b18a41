"""The compiled page walk against Python's, over memory, control registers and page states that mean nothing."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from compiled_walk import CompiledWalk

from sevplug.core.engine.compiled.structures import RARE
from sevplug.core.paging import PageWalker
from sevplug.core.views import PRIVATE_FORM, SHARED, STALE, UNTOUCHED, UNWRITTEN

PAGES, PHYSICAL_BITS = 16, 40
CR0, CR4, EFER = (1 << 16, 1 << 31), (1 << 4, 1 << 5, 1 << 7, 1 << 20, 1 << 21), (1 << 10, 1 << 11)
ACCESSES = [kind | user for kind in (1, 2, 4) for user in (0, 16)]


class Memory:
    """RAM of a few pages; ``away`` counts the entries that are not there to be read as they are."""

    def __init__(self, ram: bytearray, states: bytearray | None) -> None:
        self.ram, self.states, self.away = ram, states, 0

    def _at_hand(self, gpa: int) -> bool:
        if gpa < len(self.ram) and (self.states is None or self.states[gpa >> 12] == PRIVATE_FORM):
            return True
        self.away += 1
        return False

    def read(self, gpa: int, width: int) -> int:
        return int.from_bytes(self.ram[gpa : gpa + width], "little") if self._at_hand(gpa) else 0

    def write(self, gpa: int, entry: int, width: int) -> None:
        if self._at_hand(gpa):
            self.ram[gpa : gpa + width] = entry.to_bytes(width, "little")

    def walker(self, mask: int) -> PageWalker:
        return PageWalker(
            lambda gpa: self.read(gpa, 8),
            lambda gpa, entry: self.write(gpa, entry, 8),
            lambda gpa: self.read(gpa, 4),
            lambda gpa, entry: self.write(gpa, entry, 4),
            PHYSICAL_BITS,
            mask,
        )


def tables(dice: Random, mask: int, wide: bool) -> bytearray:
    """Pages full of entries, most of which lead to one of these pages."""
    ram = bytearray()
    for _ in range(PAGES << 12 >> (3 if wide else 2)):
        entry = dice.randrange(PAGES) << 12 | dice.getrandbits(12) | (1 if dice.random() < 0.9 else 0)
        if dice.random() < 0.6:
            entry &= ~0x80  # no large page
        if dice.random() < 0.1:
            entry = entry & 0xFFF | dice.randrange(1 << 20) << 12
        if wide and dice.random() < 0.6:
            entry |= mask
        if wide and dice.random() < 0.1:
            entry |= 1 << dice.randrange(32, 64)
        ram += entry.to_bytes(8 if wide else 4, "little")
    return ram


def walks(dice: Random, mask: int) -> Iterator[tuple[int, int, int, int, int, int, bool]]:
    for _ in range(400):
        yield (
            dice.getrandbits(48),
            dice.choice(ACCESSES),
            sum(bit for bit in CR0 if dice.random() < 0.8),
            dice.randrange(PAGES) << 12 | dice.choice([0, 0x18, 0xFE0, mask]),
            sum(bit for bit in CR4 if dice.random() < 0.5),
            sum(bit for bit in EFER if dice.random() < 0.5),
            dice.random() < 0.5,
        )


@pytest.mark.parametrize("wide", [True, False], ids=["64-bit entries", "32-bit entries"])
@pytest.mark.parametrize("forms", [1, 2], ids=["one form", "two forms"])
@pytest.mark.parametrize("mask", [0, 1 << 40, 1 << 47, 1 << 51], ids=["no C-bit", "bit 40", "bit 47", "bit 51"])
def test_two_walks_of_one_memory_are_the_same_walk(mask: int, forms: int, wide: bool) -> None:
    dice = Random(f"{mask} {forms} {wide}")
    ram = tables(dice, mask, wide)
    states = None
    if forms == 2:
        kinds = [PRIVATE_FORM] * 12 + [SHARED, PRIVATE_FORM | STALE, UNTOUCHED | PRIVATE_FORM, PRIVATE_FORM | UNWRITTEN]
        states = bytearray(dice.choices(kinds, k=PAGES))
    memory, twin_ram = Memory(bytearray(ram), states), bytearray(ram)
    python, twin = memory.walker(mask), CompiledWalk(twin_ram, PHYSICAL_BITS, mask, states)
    outcomes = {"rare": 0, "fault": 0, "page": 0}
    for arguments in walks(dice, mask):
        memory.away = 0
        expected, found = python.walk(*arguments), twin.walk(*arguments)
        if found == RARE:
            assert memory.away
            outcomes["rare"] += 1
        else:
            assert not memory.away
            assert found == expected
            outcomes["page" if found >= 0 else "fault"] += 1
        assert memory.ram == twin_ram
    assert min(outcomes["page"], outcomes["fault"]) > 20
