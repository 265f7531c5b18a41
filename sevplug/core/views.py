"""Memory that is held in two forms: private, as its guest reads it, and shared, as everybody else does.

What the memory chips hold is the shared form; a private load is deciphered on its way to the CPU, a private store
enciphered.  To do so at each access would cost far too much, so a page's bytes lie in the buffer in the form in which
they were accessed last, and an access through the other view converts the page.  Nothing that can be seen differs.

A page that nobody has accessed holds zeros in its shared form.  Such pages are converted many at a time, and their
first access needs no word to the engine.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from typing import Any, Final, Protocol

import attrs

PAGE: Final = 4096
# The state of a page is its form, and whether nobody has accessed it, or it was last written through the other view, or
# it was accessed and nobody has written it.
SHARED, PRIVATE_FORM, UNTOUCHED, STALE, UNWRITTEN = 0, 1, 2, 4, 8
_HIGHEST_STATE = 15
# How many pages are deciphered at once when the first of them is touched, and the unit of a cipher call that has one.
_AHEAD = 512
# No linear page begins there.
_NOWHERE = 0xFFFF_FFFF_FFFF_FFFF
# A cipher works on blocks of 16 bytes.
_BLOCK = 16


class PageCipher(Protocol):
    """What turns one form into the other, in place; ``gpa`` and the buffer's length are multiples of 16."""

    def encrypt(self, gpa: int, buffer: memoryview) -> None:
        """Private form to shared form."""

    def decrypt(self, gpa: int, buffer: memoryview) -> None:
        """Shared form to private form."""

    def decrypt_zeros(self, gpa: int, buffer: memoryview) -> None:
        """The private form of zeros, whatever the buffer holds."""


@attrs.frozen
class PageEvent:
    """An access to a page through another view than the one before, or one that hardware would not take as meant.

    ``kind``: ``read``, ``write``, ``fetch``, ``table`` (by the CPU, the last for a walk), ``dma-read``, ``dma-write``
    (from outside), ``reserved`` (a page-table entry has a reserved bit set; ``gpa`` says nothing then). ``gpa``: of
    the page. ``linear``: the address that the CPU used, its low 12 bits zero, None for a device. ``private``: the
    view of this access. ``written_private``: the view it was last written in, None where nobody has. ``by_device``:
    the last store that was seen came from outside the CPU, whose own are not seen while it keeps the page in one
    view. ``unlike_data``: a fetch from a page whose mapping makes data shared. ``before``: the linear page at which
    the CPU used it when it changed its view last, or first; None where it has not.

    A device that stores a whole page is not told of, since nothing is left of what was there: who reads it is.
    """

    kind: str
    gpa: int
    linear: int | None
    private: bool
    written_private: bool | None = True
    by_device: bool = False
    unlike_data: bool = False
    before: int | None = None


@attrs.frozen
class PageRun:
    """``pages`` pages from guest-physical ``gpa`` on that have one form, ``private``, ``shared`` or ``untouched``.

    ``conversions``: how often one of them was converted since power-on, all together.
    """

    gpa: int
    pages: int
    form: str
    conversions: int


@attrs.frozen
class PageCounts:
    """Pages by their form, and how often a page was converted since power-on."""

    private: int
    shared: int
    untouched: int
    conversions: int


class PageForms:
    """The forms of one range: ``buffer`` lies at guest-physical address ``base``.

    ``states`` has one byte a page.  ``converted(page number in the range)`` is told after a page that the CPU may have
    cached was converted, or stored to through the other view; ``tell`` gets a `PageEvent`.  ``loaded``: the numbers of
    the pages that hold something already.
    """

    def __init__(self, base: int, buffer: memoryview, cipher: PageCipher, loaded: Iterable[int] = ()) -> None:
        self.base = base
        self._buffer = buffer
        self._cipher = cipher
        count = len(buffer) // PAGE
        self.states = bytearray([UNTOUCHED]) * count
        for page in loaded:
            self.states[page] = SHARED
        # Page number -> how often it was converted.
        self.conversions: Counter[int] = Counter()
        # Where the CPU used a page when it last came here with it, by page number; the engine keeps it too.
        self.linear = array("Q", [_NOWHERE]) * count
        # Pages whose last store came from outside the CPU.
        self._by_device: set[int] = set()
        self.converted: Callable[[int], None] = lambda _page: None
        self.tell: Callable[[PageEvent], None] = lambda _event: None

    # -- the CPU ------------------------------------------------------------------------------------------------------

    def touch(self, page: int, want: int, linear: int, *, write: bool) -> bool:
        """The first access to ``page``, by the CPU; see `enter`, which does this too."""
        if self.states[page] & PRIVATE_FORM != want:
            self._first(page, want)
        self.states[page] = want if write else want | UNWRITTEN
        self.linear[page] = linear
        return write

    def enter(self, page: int, want: int, linear: int, kind: str) -> bool:
        """The CPU accesses ``page`` (its number in the range) through view ``want`` (`SHARED` or `PRIVATE_FORM`).

        Afterwards the page is in that form.  True: the CPU may store through this view without coming back here.
        """
        state = self.states[page]
        write = kind == "write"
        if state & UNTOUCHED:
            return self.touch(page, want, linear, write=write)
        if state & PRIVATE_FORM != want:
            written = _written_private(state)
            event = PageEvent(
                kind,
                self.base + page * PAGE,
                linear,
                bool(want),
                written,
                page in self._by_device,
                before=None if self.linear[page] == _NOWHERE else self.linear[page],
            )
            self.linear[page] = linear
            self._convert(page, want)
            if write or written is bool(want):
                self.states[page] = want
            else:
                self.states[page] = want | (UNWRITTEN if written is None else STALE)
            self.tell(event)
        elif write:
            self.states[page] = want
        if write:
            self._by_device.discard(page)
        return self.states[page] == want

    def fetched_from_shared(self, page: int, linear: int) -> None:
        """The CPU fetches instructions from ``page``, in private form now, by a mapping that makes data shared."""
        gpa = self.base + page * PAGE
        written = _written_private(self.states[page])
        self.tell(PageEvent("fetch", gpa, linear, True, written, page in self._by_device, unlike_data=True))

    def table_read(self, page: int) -> PageEvent | None:
        """The CPU reads ``page`` as a page table; the event, where it was last written through the shared view."""
        state = self.states[page]
        if _written_private(state) is not False:
            return None
        return PageEvent("table", self.base + page * PAGE, None, True, False, page in self._by_device)

    # -- everybody, by view -------------------------------------------------------------------------------------------

    def read(self, start: int, size: int, *, private: bool, dma: bool = False) -> bytes:
        """``size`` bytes at ``start`` of the range as the view has them; no page changes its form.

        ``dma``: it is a device that asks, which is told of where it would be a surprise.
        """
        want = PRIVATE_FORM if private else SHARED
        first, last = start // PAGE, (start + size - 1) // PAGE
        if first == last and self.states[first] & ~UNTOUCHED == want:
            return bytes(self._buffer[start : start + size])
        states = self.states[first : last + 1]
        if dma:
            for page in range(first, last + 1):
                self._surprised(page)
        if all(state & PRIVATE_FORM == want for state in set(states)):
            return bytes(self._buffer[start : start + size])
        pieces = []
        page = first
        for form, run in groupby(states, lambda state: state & PRIVATE_FORM):
            count = len(list(run))
            begin, end = max(start, page * PAGE), min(start + size, (page + count) * PAGE)
            if form == want:
                pieces.append(bytes(self._buffer[begin:end]))
            else:
                wide, skip = begin & -_BLOCK, begin & (_BLOCK - 1)
                copy = bytearray(self._buffer[wide : -(-end // _BLOCK) * _BLOCK])
                self._cipher_in_place(self.base + wide, memoryview(copy), want)
                pieces.append(bytes(copy[skip : skip + end - begin]))
            page += count
        return b"".join(pieces)

    def write(self, start: int, data: bytes | memoryview, *, private: bool, device: bool) -> None:
        """Store ``data`` at ``start`` of the range through a view.

        A page in the other form is converted where a ``device`` writes, since the CPU has to come back to see it;
        a store by the CPU itself leaves its form.
        """
        want = PRIVATE_FORM if private else SHARED
        done = 0
        if len(data) > PAGE:
            data = memoryview(data)  # whose pieces are no copies
        while done < len(data):
            page, inside = divmod(start + done, PAGE)
            if inside or len(data) - done < PAGE:
                count = min(PAGE - inside, len(data) - done)
                self._write_page(page, inside, data[done : done + count], want, device=device)
            else:
                pages = (len(data) - done) // PAGE
                count = pages * PAGE
                self._write_pages(page, pages, data[done : done + count], want, device=device)
            done += count

    def save(self) -> dict[str, Any]:
        """What is known of each page, as plain data; its bytes are saved by others."""
        return {
            "states": bytes(self.states),
            "linear": self.linear.tobytes(),
            "conversions": [[page, count] for page, count in sorted(self.conversions.items())],
            "by_device": sorted(self._by_device),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Put back what `save` gave; KeyError, TypeError or ValueError for what cannot have come from there."""
        pages = len(self.states)
        states, linear = state["states"], state["linear"]
        if len(states) != pages or len(linear) != 8 * pages or max(states) > _HIGHEST_STATE:
            raise ValueError("states of other pages")
        conversions = {int(page): int(count) for page, count in state["conversions"]}
        by_device = {int(page) for page in state["by_device"]}
        if not all(0 <= page < pages for page in (*conversions, *by_device)):
            raise ValueError("pages that are not there")
        # In place, since the compiled callback knows where they lie.
        self.states[:] = states
        memoryview(self.linear).cast("B")[:] = linear
        self.conversions = Counter(conversions)
        self._by_device = by_device

    def counts(self) -> PageCounts:
        """The pages of this range."""
        return _count(self.states, self.conversions.total())

    def pieces(self, pages: int) -> list[PageCounts]:
        """The counts of each piece of ``pages`` pages, from the lowest address up; the last may be a smaller one.

        Three milliseconds for 2 GiB at most, so that it may be asked for while the guest runs.
        """
        conversions: Counter[int] = Counter()
        for page, times in self.conversions.items():
            conversions[page // pages] += times
        starts = range(0, len(self.states), pages)
        return [_count(self.states[at : at + pages], conversions[number]) for number, at in enumerate(starts)]

    def runs(self) -> list[PageRun]:
        """The pages of this range, in runs."""
        found = []
        page = 0
        for form, run in groupby(self.states, _form_name):
            count = len(list(run))
            conversions = sum(self.conversions[number] for number in range(page, page + count))
            found.append(PageRun(self.base + page * PAGE, count, form, conversions))
            page += count
        return found

    # -- inside -------------------------------------------------------------------------------------------------------

    def _write_pages(self, page: int, pages: int, data: bytes | memoryview, want: int, *, device: bool) -> None:
        """Store whole pages, of which nothing is left of what was there."""
        states = self.states[page : page + pages]
        self.states[page : page + pages] = bytes([want]) * pages
        self._buffer[page * PAGE : (page + pages) * PAGE] = data
        numbers = range(page, page + pages)
        if device:
            self._by_device.update(numbers)
        else:
            self._by_device.difference_update(numbers)
        # Nearly always memory that nobody has touched, as where images are placed.
        if states.count(UNTOUCHED) + states.count(UNTOUCHED | PRIVATE_FORM) < pages:
            for number, state in zip(numbers, states, strict=True):
                if not state & UNTOUCHED and state & PRIVATE_FORM != want:
                    self.converted(number)

    def _write_page(self, page: int, inside: int, data: bytes | memoryview, want: int, *, device: bool) -> None:
        state = self.states[page]
        at = page * PAGE + inside
        if state & UNTOUCHED:
            if state & PRIVATE_FORM != want:
                self._first(page, want)
            self.states[page] = want
        elif state & PRIVATE_FORM != want:
            if not device:
                wide, end = at & -_BLOCK, -(-(at + len(data)) // _BLOCK) * _BLOCK
                copy = memoryview(bytearray(self._buffer[wide:end]))
                self._cipher_in_place(self.base + wide, copy, want)
                copy[at - wide : at - wide + len(data)] = data
                self._cipher_in_place(self.base + wide, copy, want ^ PRIVATE_FORM)
                self._buffer[wide:end] = copy
                self.states[page] = (want ^ PRIVATE_FORM) | STALE
                self._by_device.discard(page)
                # Whoever may store without coming here has to come again.
                self.converted(page)
                return
            written = _written_private(state)
            event = PageEvent("dma-write", self.base + page * PAGE, None, bool(want), written, page in self._by_device)
            self._convert(page, want)
            self.states[page] = want
            self.tell(event)
        else:
            self.states[page] = want
        if device:
            self._by_device.add(page)
        else:
            self._by_device.discard(page)
        self._buffer[at : at + len(data)] = data

    def _surprised(self, page: int) -> None:
        """A device reads a page: told of when the CPU wrote it last through the private view."""
        if _written_private(self.states[page]):
            gpa = self.base + page * PAGE
            self.tell(PageEvent("dma-read", gpa, None, False, True, page in self._by_device))

    def _first(self, page: int, want: int) -> None:
        """The first access to ``page``, which lies in the other form."""
        if want == SHARED:
            self._buffer[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)
            return
        # Its neighbours will be wanted soon, and so they cost a fiftieth.
        begin = page - page % _AHEAD
        states = self.states[begin : begin + _AHEAD]
        at = begin
        for state, run in groupby(states):
            count = len(list(run))
            if state == UNTOUCHED:
                piece = self._buffer[at * PAGE : (at + count) * PAGE]
                self._cipher.decrypt_zeros(self.base + at * PAGE, piece)
                self.states[at : at + count] = bytes([UNTOUCHED | PRIVATE_FORM]) * count
            at += count

    def _convert(self, page: int, want: int) -> None:
        piece = self._buffer[page * PAGE : (page + 1) * PAGE]
        self._cipher_in_place(self.base + page * PAGE, piece, want)
        self.conversions[page] += 1
        self.converted(page)

    def _cipher_in_place(self, gpa: int, buffer: memoryview, want: int) -> None:
        if want == PRIVATE_FORM:
            self._cipher.decrypt(gpa, buffer)
        else:
            self._cipher.encrypt(gpa, buffer)


def _count(states: bytearray, conversions: int) -> PageCounts:
    private, shared = (
        sum(states.count(form | more) for more in (0, STALE, UNWRITTEN)) for form in (PRIVATE_FORM, SHARED)
    )
    return PageCounts(private, shared, len(states) - private - shared, conversions)


def _form_name(state: int) -> str:
    if state & UNTOUCHED:
        return "untouched"
    return "private" if state & PRIVATE_FORM else "shared"


def _written_private(state: int) -> bool | None:
    """Whether a page in ``state`` was last written through the private view; None where nobody has written it."""
    if state & (UNTOUCHED | UNWRITTEN):
        return None
    return bool(state & PRIVATE_FORM) != bool(state & STALE)
