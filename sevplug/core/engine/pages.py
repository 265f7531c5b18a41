"""What the engine keeps of pages: which held code, and which may be cached still.

Of RAM it is kept in plain arrays, an item a page, because the compiled callback reads and writes them too.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from sevplug.core.memory import GuestMemory
from sevplug.core.views import PageForms

_SHIFT = 12
# How many pages of code are remembered by their linear address, as in compiled/fill.h.
CODE_SLOTS = 4096
# No linear page begins there.
_NO_PAGE = 1


@attrs.frozen(eq=False)
class RamPages:
    """One range of RAM.

    ``code``: 1 for a page that was ever fetched from.  ``handed_out``: which of the CPU's flushes came last before a
    translation of the page was handed out last.  ``executed``, ``stored``: see aliases.py.
    """

    gpa: int
    buffer: memoryview = attrs.field(repr=False)
    forms: PageForms | None = attrs.field(repr=False)
    code: bytearray = attrs.field(repr=False)
    handed_out: array[int] = attrs.field(repr=False)
    executed: array[int] = attrs.field(repr=False)
    stored: array[int] = attrs.field(repr=False)

    @classmethod
    def of(cls, gpa: int, buffer: memoryview, forms: PageForms | None) -> RamPages:
        """Nothing is known of the pages of ``buffer`` yet."""
        count = len(buffer) >> _SHIFT
        handed_out, executed, stored = (array("Q", bytes(8 * count)) for _ in range(3))
        return cls(gpa, buffer, forms, bytearray(count), handed_out, executed, stored)


class Pages:
    """All pages of one machine; a page is named by its guest-physical address."""

    def __init__(self, memory: GuestMemory) -> None:
        self.ram = [RamPages.of(entry.gpa, entry.buffer, entry.forms) for entry in memory.ram]
        self._code_elsewhere: set[int] = set()

    def is_code(self, page: int) -> bool:
        """Whether the page was ever fetched from."""
        ram = self.find(page)
        return page in self._code_elsewhere if ram is None else bool(ram.code[page - ram.gpa >> _SHIFT])

    def mark_code(self, page: int) -> None:
        """The page is fetched from."""
        ram = self.find(page)
        if ram is None:
            self._code_elsewhere.add(page)
        else:
            ram.code[page - ram.gpa >> _SHIFT] = 1

    def forget_code(self, page: int) -> None:
        """The page holds no code any more."""
        ram = self.find(page)
        if ram is None:
            self._code_elsewhere.discard(page)
        else:
            ram.code[page - ram.gpa >> _SHIFT] = 0

    def any_code(self, pages: Iterable[int]) -> bool:
        """Whether one of the pages was ever fetched from."""
        return any(map(self.is_code, pages))

    def save(self) -> dict[str, Any]:
        """Where code is, as plain data."""
        return {"code": [bytes(ram.code) for ram in self.ram], "elsewhere": sorted(self._code_elsewhere)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Put back what `save` gave; no translation of a page may be left."""
        if [len(code) for code in state["code"]] != [len(ram.code) for ram in self.ram]:
            raise ValueError("code in other pages")
        for ram, code in zip(self.ram, state["code"], strict=True):
            ram.code[:] = code
        self._code_elsewhere = {int(page) for page in state["elsewhere"]}

    def find(self, page: int) -> RamPages | None:
        """The range of RAM that holds the page, None for one that is elsewhere."""
        for ram in self.ram:
            if 0 <= page - ram.gpa < len(ram.buffer):
                return ram
        return None


class LocalPages:
    """The linear pages whose cached translation a load of CR3 ends, since the last one; no more than ``most``.

    ``count`` is an array of one.
    """

    def __init__(self, most: int) -> None:
        self.linear = array("Q", bytes(8 * most))
        # One more than there is room for says that they were too many.
        self.count = array("I", [0])

    def add(self, linear: int) -> None:
        """A translation of the linear page, which is not global, is handed out."""
        count = self.count[0]
        if count < len(self.linear):
            self.linear[count] = linear
        if count <= len(self.linear):
            self.count[0] = count + 1

    def drain(self) -> array[int] | None:
        """The pages, which are known no more; None when they were too many."""
        count, self.count[0] = self.count[0], 0
        return self.linear[:count] if count <= len(self.linear) else None


class CodePlaces:
    """Where the code at a linear page was found last, as far as it is known.

    The engine cannot execute at an address without having asked, since its last flush, where the code is; so what it
    got last is what it executes.
    """

    def __init__(self) -> None:
        self.linear = array("Q", [_NO_PAGE]) * CODE_SLOTS
        self.gpa = array("Q", bytes(8 * CODE_SLOTS))

    def remember(self, linear: int, page: int) -> None:
        """Code at the linear page was found in ``page``."""
        slot = linear >> _SHIFT & CODE_SLOTS - 1
        self.linear[slot] = linear
        self.gpa[slot] = page

    def find(self, linear: int) -> int | None:
        """The page that holds the code at a linear page, or None."""
        slot = linear >> _SHIFT & CODE_SLOTS - 1
        return self.gpa[slot] if self.linear[slot] == linear else None

    def forget(self) -> None:
        """Nothing is known any more."""
        self.linear[:] = array("Q", [_NO_PAGE]) * CODE_SLOTS
