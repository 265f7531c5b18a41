"""At which linear addresses a page may be cached, so that one translation is forgotten and not all of them.

It has to be known for code that is executed at one linear address and stored to at another, where it may not be
executed.  The engine sees a store to code by the translation that the store goes through: one that is executable stays
slow for stores for good, any other becomes fast with its first store.  So no page is in the cache both ways.  A store
through a translation that is not executable ends those that are, and the next use of one of those ends the other.
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
    """Of one CPU.

    ``drop_all`` forgets translations and translated code once the present block has ended; ``running_page`` says in
    which page the instruction lies, None where that is not known.
    """

    def __init__(
        self, cpu: EngineCpu, pages: Pages, drop_all: Callable[[], None], running_page: Callable[[], int | None]
    ) -> None:
        self._cpu, self._pages = cpu, pages
        self._drop_all, self._running_page = drop_all, running_page

    def hand_out(self, page: int, linear: int, *, code: bool, executable: bool, stores: bool) -> None:
        """A translation of ``page`` at ``linear`` is handed out.

        ``code``: the page holds some; ``executable``: the translation is; ``stores``: a store has asked for it, and
        where neither that nor ``executable`` holds, it lets none to code through.
        """
        ram = self._pages.find(page)
        stores_to_code = code and stores and not executable
        if stores_to_code and (ram is None or self._running_page() in (None, page)):
            self._drop_all()
        if ram is None:
            return
        number = self._fresh(ram, page)
        if executable:
            self._end(ram.stored, number)
            _add(ram.executed, number, linear)
        elif stores_to_code:
            self._end(ram.executed, number)
            _add(ram.stored, number, linear)
        elif not code:
            _add(ram.stored, number, linear)
        ram.handed_out[number] = self._cpu.flushes[0]

    def forget(self, page: int) -> None:
        """No translation of ``page``, which held no code, is right any more."""
        ram = self._pages.find(page)
        if ram is None:
            self._cpu.flush_translations()
        else:
            self._end(ram.stored, self._fresh(ram, page))

    def _fresh(self, ram: RamPages, page: int) -> int:
        """The page's number; what a flush has ended is not kept of it any more."""
        number = page - ram.gpa >> _SHIFT
        if ram.handed_out[number] != self._cpu.flushes[0]:
            ram.executed[number] = ram.stored[number] = 0
        return number

    def _end(self, linears: array[int], number: int) -> None:
        linear = linears[number]
        if linear == _MANY:
            self._cpu.flush_translations()
        elif linear:
            self._cpu.flush_page(linear & ~1)
        linears[number] = 0


def _add(linears: array[int], number: int, linear: int) -> None:
    linears[number] = linear | 1 if linears[number] in (0, linear | 1) else _MANY
