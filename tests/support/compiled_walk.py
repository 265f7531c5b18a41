"""The compiled page walk, called as Python's is: over RAM of its own, over entries in a dictionary, or beside it."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import byref
from typing import Any

import pytest
from parts import missing

from sevplug import native
from sevplug.core.engine import compiled
from sevplug.core.engine.compiled.fills import ranges_of
from sevplug.core.engine.compiled.structures import RARE, Controls, Walker
from sevplug.core.engine.pages import RamPages
from sevplug.core.paging import PageWalker

_ADDRESS = 0x000F_FFFF_FFFF_F000


def library() -> object:
    """The twin's library, or a skip that says how to get it."""
    found = compiled.load()
    if found is None:
        if native.wanted():
            missing("the compiled page walk is missing: install gcc and libc6-dev, and then sevplug again")
        pytest.skip(f"the compiled page walk is left out: {native.PURE_VARIABLE} is set")
    return found


class CompiledWalk:
    """The walk over ``ram`` from address 0 on; ``states``: one byte a page, or None where memory has one form."""

    def __init__(self, ram: bytearray, physical_bits: int, mask: int, states: bytearray | None = None) -> None:
        self._library = library()
        record = RamPages.of(0, memoryview(ram), None)
        (ram_range,), self._kept = ranges_of([record])
        if states is not None:
            ram_range.states, keep = native.address_of(states)
            self._kept.append(keep)
        self._walker = Walker(mask=mask, too_wide=~((1 << physical_bits) - 1) & _ADDRESS)
        self._walker.ranges[0] = ram_range

    def walk(self, address: int, access: int, cr0: int, cr3: int, cr4: int, efer: int, ac: bool = False) -> int:
        """As `PageWalker.walk`, or `RARE`."""
        controls = Controls(cr0, cr3, cr4, efer, ac)
        found: int = self._library.sevplug_translate(byref(self._walker), address, access, byref(controls))  # type: ignore[attr-defined]
        return found


class CompiledWalker:
    """A `PageWalker` whose walks are compiled; where the twin leaves one to Python, the answer is `RARE`.

    ``entries`` are ``width`` bytes wide; those below ``ram_size`` are in its RAM.
    """

    def __init__(self, entries: dict[int, int], width: int, ram_size: int, physical_bits: int, mask: int) -> None:
        self._entries, self._width = entries, width
        self._ram = bytearray(ram_size)
        self._walk = CompiledWalk(self._ram, physical_bits, mask)

    def walk(self, address: int, access: int, cr0: int, cr3: int, cr4: int, efer: int, ac: bool = False) -> int:
        """As `PageWalker.walk`."""
        width = self._width
        inside = [gpa for gpa in self._entries if gpa < len(self._ram)]
        for gpa in inside:
            self._ram[gpa : gpa + width] = self._entries[gpa].to_bytes(width, "little")
        found = self._walk.walk(address, access, cr0, cr3, cr4, efer, ac)
        for gpa in inside:
            self._entries[gpa] = int.from_bytes(self._ram[gpa : gpa + width], "little")
        return found


class BothWalkers:
    """A `PageWalker` that walks by the twin as well: the answer and the entries afterwards have to be the same."""

    def __init__(self, entries: dict[int, int], python: PageWalker, make: Callable[[dict[int, int]], Any]) -> None:
        """``make`` gives the twin over the entries that it is given."""
        self._entries, self._python = entries, python
        self._copy: dict[int, int] = {}
        self._twin = make(self._copy)

    def walk(self, address: int, access: int, cr0: int, cr3: int, cr4: int, efer: int, ac: bool = False) -> int:
        """As `PageWalker.walk`."""
        self._copy.clear()
        self._copy.update(self._entries)
        found = self._python.walk(address, access, cr0, cr3, cr4, efer, ac)
        other = self._twin.walk(address, access, cr0, cr3, cr4, efer, ac)
        if other != RARE:
            assert (other, self._copy) == (found, self._entries)
        return found
