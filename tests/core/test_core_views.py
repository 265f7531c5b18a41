"""Memory in two forms, held against a model that keeps ciphertext only and deciphers at each access."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from sevplug.core.memory import HIGH_RAM_BASE, LOW_RAM_LIMIT, GuestMemory, MemoryRange, RangeKind
from sevplug.core.views import PAGE, PRIVATE_FORM, SHARED, STALE, UNTOUCHED, UNWRITTEN, PageCipher, PageEvent, PageForms
from sevplug.sevapi.memory_cipher import MemoryCipher

ROM_AT, FLASH_AT = 0xFFFF_0000, 0xFFFF_2000
ROM, FLASH, EARLY = b"a ROM " * 1000, b"flash!" * 1000, b"before the cipher"


class ToyCipher:
    """A permutation of byte values and a value of the block's address: encrypt and decrypt are not the same."""

    def __init__(self) -> None:
        self._there = bytes((value * 7 + 3) % 256 for value in range(256))
        self._back = bytes(self._there.index(value) for value in range(256))

    def _tweak(self, gpa: int, size: int) -> int:
        assert gpa % 16 == size % 16 == 0
        blocks = (hashlib.md5((gpa + at).to_bytes(8, "little")).digest() for at in range(0, size, 16))
        return int.from_bytes(b"".join(blocks), "little")

    def encrypt(self, gpa: int, buffer: memoryview) -> None:
        size = len(buffer)
        number = int.from_bytes(bytes(buffer).translate(self._there), "little") ^ self._tweak(gpa, size)
        buffer[:] = number.to_bytes(size, "little")

    def decrypt(self, gpa: int, buffer: memoryview) -> None:
        size = len(buffer)
        number = int.from_bytes(buffer, "little") ^ self._tweak(gpa, size)
        buffer[:] = number.to_bytes(size, "little").translate(self._back)

    def decrypt_zeros(self, gpa: int, buffer: memoryview) -> None:
        buffer[:] = bytes(len(buffer))
        self.decrypt(gpa, buffer)


@attrs.define
class ModelPage:
    """What the chips hold of a page, the view of the last access and of the last store (None: none yet)."""

    data: bytearray
    form: int | None = None
    written: int | None = None
    by_device: bool = False
    rom: bool = False
    linear: int | None = None

    @property
    def states(self) -> set[int]:
        if self.form is None:
            return {UNTOUCHED | SHARED, UNTOUCHED | PRIVATE_FORM}
        if self.written is None:
            return {self.form | UNWRITTEN}
        return {self.form if self.written == self.form else self.form | STALE}

    @property
    def written_private(self) -> bool | None:
        return None if self.written is None else self.written == PRIVATE_FORM


class Model:
    """Ciphertext, by page; each access goes through the cipher as its view wants it."""

    def __init__(self, cipher: PageCipher, pages: dict[int, ModelPage]) -> None:
        self.cipher = cipher
        self.pages = pages
        self.events: list[PageEvent] = []

    def view(self, gpa: int, private: bool) -> bytearray:
        """A page's bytes as a view has them; ones where nothing is."""
        page = self.pages.get(gpa)
        if page is None:
            return bytearray(b"\xff" * PAGE)
        data = bytearray(page.data)
        if private:
            self.cipher.decrypt(gpa, memoryview(data))
        return data

    def read(self, gpa: int, size: int, private: bool, dma: bool = False) -> bytes:
        found = b""
        for at, inside, count in pieces(gpa, size):
            page = self.pages.get(at)
            if dma and not private and page is not None and page.written == PRIVATE_FORM:
                self.events.append(PageEvent("dma-read", at, None, False, True, page.by_device))
            found += self.view(at, private)[inside : inside + count]
        return found

    def store(self, at: int, inside: int, data: bytes, private: bool) -> None:
        plain = self.view(at, private)
        plain[inside : inside + len(data)] = data
        if private:
            self.cipher.encrypt(at, memoryview(plain))
        self.pages[at].data[:] = plain

    def write(self, gpa: int, data: bytes, private: bool, device: bool, rom: bool = False) -> None:
        """A store from outside, or by the CPU itself."""
        want, done = int(private), 0
        for at, inside, count in pieces(gpa, len(data)):
            piece, page = data[done : done + count], self.pages.get(at)
            done += count
            if page is None or (page.rom and not rom):
                continue
            self.store(at, inside, piece, private)
            other = page.form not in (None, want)
            if other and device and count < PAGE:
                self.events.append(PageEvent("dma-write", at, None, private, page.written_private, page.by_device))
            if not other or device or count == PAGE:
                page.form = want
            page.written, page.by_device = want, device

    def enter(self, gpa: int, want: int, linear: int, kind: str) -> bool:
        """The CPU comes for a page; true: it was last written through the view that it wants."""
        page = self.pages[gpa]
        # A page that is as the CPU wants it is no occasion to see what it does.
        seen = page.form != want or page.written != want
        if page.form is None:
            page.linear = linear
        elif page.form != want:
            event = PageEvent(kind, gpa, linear, bool(want), page.written_private, page.by_device, before=page.linear)
            self.events.append(event)
            page.linear = linear
        page.form = want
        if kind == "write" and seen:
            page.written, page.by_device = want, False
        return page.written == want


def pieces(gpa: int, size: int) -> Iterator[tuple[int, int, int]]:
    """(page's address, offset in it, length) of each page of a range."""
    while size:
        inside = gpa % PAGE
        count = min(PAGE - inside, size)
        yield gpa - inside, inside, count
        gpa, size = gpa + count, size - count


class Cpu:
    """Accesses as the engine makes them: raw, once `PageForms.enter` let it, until something is converted."""

    def __init__(self, memory: GuestMemory, model: Model) -> None:
        self.memory, self.model = memory, model
        # Page -> (view, may store), as in the engine's cache of translations.
        self.cached: dict[int, tuple[int, bool]] = {}
        for entry in memory.ranges:
            assert entry.forms is not None
            entry.forms.converted = lambda _page: self.cached.clear()

    def access(self, gpa: int, data: bytes, kind: str, private: bool) -> None:
        done = 0
        for at, inside, count in pieces(gpa, len(data)):
            piece = data[done : done + count]
            done += count
            entry = self.memory.find(at)
            if entry is None or (kind == "write" and entry.kind is RangeKind.ROM):
                continue
            start = at - entry.gpa + inside
            self._come(entry, at, int(private), kind)
            if kind == "write":
                entry.buffer[start : start + count] = piece
                self.model.store(at, inside, piece, private)
            else:
                assert entry.buffer[start : start + count] == self.model.view(at, private)[inside : inside + count]

    def _come(self, entry: MemoryRange, at: int, want: int, kind: str) -> None:
        view, may_store = self.cached.get(at, (-1, False))
        if view == want and (may_store or kind != "write"):
            return
        forms, number = entry.forms, (at - entry.gpa) // PAGE
        assert forms is not None
        linear = at | 0x7F00_0000_0000
        expected = self.model.enter(at, want, linear, kind)
        may_store = forms.states[number] == want or forms.enter(number, want, linear, kind)
        assert may_store == expected
        assert forms.states[number] & PRIVATE_FORM == want
        self.cached[at] = want, may_store


@attrs.frozen
class Access:
    """One access, by whom and how; ``data`` says how long a load is too."""

    who: str
    gpa: int
    data: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")
    kind: str
    private: bool


def accesses(*places: int) -> st.SearchStrategy[list[Access]]:
    sizes = st.sampled_from([1, 3, 8, 16, 40, PAGE - 8, PAGE, PAGE + 24, 2 * PAGE])
    return st.lists(
        st.builds(
            lambda who, base, offset, size, fill, kind, private: Access(
                who, base + offset, bytes((fill + at) % 256 for at in range(size)), kind, private
            ),
            st.sampled_from(["cpu", "cpu", "cpu itself", "device"]),
            st.sampled_from(places),
            st.sampled_from([0, 0, 5, 16, PAGE - 4, PAGE - 16]),
            sizes,
            st.integers(0, 255),
            st.sampled_from(["read", "write", "fetch"]),
            st.booleans(),
        ),
        max_size=14,
    )


def compare(cipher: PageCipher, ram: int, checked: list[int], steps: list[Access]) -> None:
    """Take ``steps`` in memory and in the model; ``checked``: the RAM pages that they can reach."""
    memory = GuestMemory(ram)
    memory.add_rom(ROM_AT, ROM, "a ROM")
    memory.add_rom(FLASH_AT, FLASH, "flash", writable=True)
    memory.write(checked[0] + 8, EARLY)
    memory.use_cipher(cipher)
    early = [*range(ROM_AT, ROM_AT + 2 * PAGE, PAGE), *range(FLASH_AT, FLASH_AT + 2 * PAGE, PAGE), checked[0]]
    model = Model(
        cipher,
        {
            at: ModelPage(
                bytearray(memory.read(at, PAGE, dma=False)),
                SHARED if at in early else None,
                SHARED if at in early else None,
                rom=ROM_AT <= at < FLASH_AT,
            )
            for at in [*checked, *early]
        },
    )
    told: list[PageEvent] = []
    for entry in memory.ranges:
        assert entry.forms is not None
        entry.forms.tell = told.append
    cpu = Cpu(memory, model)
    for step in steps:
        gpa, data, private = step.gpa, step.data, step.private
        if step.who == "cpu":
            cpu.access(gpa, data, step.kind, private or step.kind == "fetch")
        elif step.kind == "write" and step.who == "device":
            (memory.load if step.private else memory.write)(gpa, data)
            model.write(gpa, data, False, device=True, rom=step.private)
        elif step.kind == "write":
            memory.write_as_cpu(gpa, data, private=private)
            model.write(gpa, data, private, device=False)
        elif step.kind == "fetch":  # a launch
            memory.load(gpa, data, private=True)
            model.write(gpa, data, True, device=False, rom=True)
        else:
            dma = step.who == "device"
            assert memory.read(gpa, len(data), private=private, dma=dma) == model.read(gpa, len(data), private, dma)
        assert told == model.events
    for at, page in model.pages.items():
        entry = memory.find(at)
        assert entry is not None
        assert entry.forms is not None
        assert entry.forms.states[(at - entry.gpa) // PAGE] in page.states
        for private in (False, True):
            assert memory.read(at, PAGE, private=private, dma=False) == model.view(at, private)
    assert told == model.events
    memory.close()


SMALL = 5 * PAGE
SMALL_PAGES = list(range(0, SMALL, PAGE))


@settings(max_examples=80)
@given(accesses(*SMALL_PAGES, SMALL, ROM_AT - PAGE, ROM_AT, FLASH_AT, FLASH_AT + PAGE))
def test_any_accesses_are_those_of_ciphertext_deciphered_each_time(steps: list[Access]) -> None:
    compare(ToyCipher(), SMALL, SMALL_PAGES, steps)


@settings(max_examples=50)
@given(accesses(*SMALL_PAGES, ROM_AT, FLASH_AT))
def test_with_the_real_cipher_too(steps: list[Access]) -> None:
    compare(MemoryCipher(bytes(16)), SMALL, SMALL_PAGES, steps)


@settings(max_examples=20)
@given(accesses(LOW_RAM_LIMIT - PAGE, LOW_RAM_LIMIT, HIGH_RAM_BASE - PAGE, HIGH_RAM_BASE, HIGH_RAM_BASE + PAGE))
def test_high_memory_has_forms_of_its_own_behind_the_hole(steps: list[Access]) -> None:
    high = [HIGH_RAM_BASE + at for at in range(0, 4 * PAGE, PAGE)]
    checked = [LOW_RAM_LIMIT - PAGE, *high]
    compare(MemoryCipher(bytes(range(16))), LOW_RAM_LIMIT + 4 * PAGE, checked, steps)


def forms_of(pages: int, *loaded: int) -> tuple[PageForms, bytearray]:
    buffer = bytearray(pages * PAGE)
    return PageForms(0, memoryview(buffer), ToyCipher(), loaded), buffer


def test_pages_that_nobody_touched_are_deciphered_many_at_a_time_and_enciphered_back_to_zeros() -> None:
    forms, _buffer = forms_of(1030, 3)
    forms.enter(1, PRIVATE_FORM, 0, "write")
    ahead = [UNTOUCHED | PRIVATE_FORM] * 509
    assert list(forms.states[:513]) == [ahead[0], PRIVATE_FORM, ahead[0], SHARED, *ahead[:508], UNTOUCHED]
    assert forms.read(5 * PAGE, PAGE, private=False) == bytes(PAGE)
    assert forms.read(5 * PAGE, PAGE, private=True) != bytes(PAGE)
    assert not forms.enter(5, SHARED, 0, "read")
    assert forms.read(5 * PAGE, PAGE, private=False) == bytes(PAGE)
    forms.write(1029 * PAGE, b"end", private=True, device=False)
    assert forms.read(1029 * PAGE, 3, private=True) == b"end"


def test_pages_are_counted_by_what_they_are_now() -> None:
    forms, _buffer = forms_of(6, 0)
    for page, want in ((0, SHARED), (1, SHARED), (2, PRIVATE_FORM), (3, PRIVATE_FORM), (2, SHARED), (2, PRIVATE_FORM)):
        forms.enter(page, want, 0, "read")
    counts = forms.counts()
    assert (counts.private, counts.shared, counts.untouched, counts.conversions) == (2, 2, 2, 2)
    assert forms.conversions == {2: 2}


def test_a_device_that_reads_what_was_written_private_is_told_of_though_the_cpu_looked_in_between() -> None:
    forms, _buffer = forms_of(2)
    told: list[PageEvent] = []
    forms.tell = told.append
    forms.enter(0, PRIVATE_FORM, 0, "write")
    forms.enter(0, SHARED, 0, "read")
    forms.read(8, 8, private=False, dma=True)
    forms.read(8, 8, private=False, dma=False)
    assert [event.kind for event in told] == ["read", "dma-read"]
    assert not forms.enter(0, SHARED, 0, "read")
    assert forms.enter(0, SHARED, 0, "write")


def test_a_page_that_was_only_read_is_nobodys_until_the_first_store() -> None:
    forms, _buffer = forms_of(2)
    told: list[PageEvent] = []
    forms.tell = told.append
    assert not forms.enter(0, PRIVATE_FORM, 0, "read")
    forms.read(8, 8, private=False, dma=True)
    assert not forms.enter(0, SHARED, 0, "read")
    assert forms.table_read(0) is None
    assert [(event.kind, event.written_private) for event in told] == [("read", None)]
    assert forms.enter(0, SHARED, 0, "write")
    assert not forms.enter(0, PRIVATE_FORM, 0, "read")
    assert [event.written_private for event in told] == [None, False]


def test_a_store_by_the_cpu_itself_through_the_other_view_ends_the_right_to_store_unseen() -> None:
    forms, _buffer = forms_of(1)
    dropped: list[int] = []
    forms.converted = dropped.append
    assert forms.enter(0, SHARED, 0, "write")
    forms.write(24, b"frame", private=True, device=False)
    assert dropped == [0]
    assert not forms.enter(0, SHARED, 0, "read")


def test_what_memory_held_before_the_cipher_is_the_shared_form() -> None:
    memory = GuestMemory(16 * PAGE)
    memory.add_rom(ROM_AT, ROM, "a ROM")
    memory.write(5 * PAGE - 2, b"table")
    memory.use_cipher(ToyCipher())
    assert memory.read(ROM_AT, len(ROM)) == ROM
    assert memory.read(5 * PAGE - 2, 5) == b"table"
    rom = memory.find(ROM_AT)
    assert rom is not None
    assert rom.forms is not None
    rom.forms.enter(0, PRIVATE_FORM, 0, "read")
    assert memory.read(ROM_AT, len(ROM)) == ROM
    low = memory.ranges[0].forms
    assert low is not None
    assert low.counts().untouched == 14
    memory.close()


def test_the_counts_of_pieces_add_up_to_those_of_the_range() -> None:
    forms = PageForms(0, memoryview(bytearray(10 * PAGE)), ToyCipher())
    forms.enter(0, PRIVATE_FORM, 0x5000, "write")
    forms.enter(3, PRIVATE_FORM, 0x6000, "write")
    forms.enter(3, SHARED, 0x7000, "read")
    forms.enter(9, SHARED, 0x8000, "read")
    pieces = forms.pieces(4)
    assert [attrs.astuple(piece) for piece in pieces] == [(1, 1, 2, 1), (0, 0, 4, 0), (0, 1, 1, 0)]
    assert [sum(column) for column in zip(*map(attrs.astuple, pieces), strict=True)] == [*attrs.astuple(forms.counts())]
