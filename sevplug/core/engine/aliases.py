"""At which linear addresses a page may be cached, so that one translation is forgotten and not all of them.

Code that is executed at one linear address and stored to at another, where it may not be executed, is why it has to be
known.
The engine sees a store to code by the translation that the store goes through: one that is executable stays slow for
stores for good, any other becomes fast with its first store.  So no page is in the cache both ways.  A store through a
translation that is not executable ends those that are, and the next fetch or load through one of them ends the other.
(Unicorn's ``notdirty_write`` in accel/tcg/cputlb.c; the same rule is in compiled/fill.c.)

Code that is running is not looked for again where its blocks follow each other within a page.  A page that stores to
itself in this way loses all translated code instead, at the end of the block; a program that stores to code through
another address has to wait for a serializing instruction anyway (APM 2, section 7.6.1).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable

from sevplug.core.engine.pages import Pages, RamPages
from sevplug.core.engine.vcpu import EngineCpu

_SHIFT = 12
# A linear page is kept with its lowest bit set; 0 is none, and this stands for several.
_MANY = 2


class Aliases:
    """Of one CPU; ``drop_all`` forgets translations and translated code once the present block has ended."""

    def __init__(self, cpu: EngineCpu, pages: Pages, drop_all: Callable[[], None]) -> None:
        self._cpu, self._pages, self._drop_all = cpu, pages, drop_all

    def execute(self, page: int, linear: int) -> None:
        """A translation of ``page`` at ``linear`` is handed out that is executable."""
        ram = self._fresh(page)
        if ram is not None:
            number = page - ram.gpa >> _SHIFT
            self._end(ram.stored, number)
            _add(ram.executed, number, linear)

    def store(self, page: int, linear: int, runs_in: int | None) -> None:
        """A store to ``page``, which holds code, comes through a translation at ``linear`` that is not executable.

        ``runs_in``: the page of the instruction, None where that is not known.
        """
        ram = self._fresh(page)
        if ram is None or runs_in is None or runs_in == page:
            self._drop_all()
        if ram is not None:
            number = page - ram.gpa >> _SHIFT
            self._end(ram.executed, number)
            _add(ram.stored, number, linear)

    def hold(self, page: int, linear: int) -> None:
        """A translation of ``page``, which holds no code, is handed out."""
        ram = self._fresh(page)
        if ram is not None:
            _add(ram.stored, page - ram.gpa >> _SHIFT, linear)

    def forget(self, page: int) -> None:
        """No translation of ``page``, which held no code, is right any more."""
        ram = self._fresh(page)
        if ram is None:
            self._cpu.flush_translations()
        else:
            self._end(ram.stored, page - ram.gpa >> _SHIFT)

    def _fresh(self, page: int) -> RamPages | None:
        """What is kept of the page, without what a flush has ended."""
        ram = self._pages.find(page)
        if ram is not None:
            number = page - ram.gpa >> _SHIFT
            if ram.handed_out[number] != self._cpu.flushes[0]:
                ram.executed[number] = ram.stored[number] = 0
        return ram

    def _end(self, linears: array[int], number: int) -> None:
        linear = linears[number]
        if linear == _MANY:
            self._cpu.flush_translations()
        elif linear:
            self._cpu.flush_page(linear & ~1)
        linears[number] = 0


def _add(linears: array[int], number: int, linear: int) -> None:
    linears[number] = linear | 1 if linears[number] in (0, linear | 1) else _MANY
