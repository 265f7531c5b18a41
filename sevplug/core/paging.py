"""The page walk: a function of memory, control registers and an address.

AMD's APM, volume 2, chapter 5 is the specification: 32-bit, PAE and 4-level paging, pages of 4 KiB, 2/4 MiB and 1 GiB,
accessed and dirty bits, write protection, no-execute, supervisor-mode checks, reserved bits.  An address from CR3 or
from an entry may carry a bit that is none (a C-bit): `PageWalker` strips it by a mask, or asks a function, at each
step.  With a mask, what has no such bit is private: everything while paging is off or 32-bit, tables, and fetches
(section 15.34.5).

In long mode the way through the upper levels is remembered, and good for as long as memory holds the same entries:
comparing three numbers takes a third of the time of interpreting them, and needs no word from the guest, whose INVLPG
nobody sees.

The result is one int, because a walk happens a million times in a boot: the page's guest-physical address with bits of
`sevplug.core.vcpu.PRIVATE` and the permissions below; a negative number is the complement of a page fault's error code.
"""

from __future__ import annotations

from collections.abc import Callable

from sevplug.core.vcpu import PRIVATE, Access
from sevplug.core.views import PRIVATE_FORM, UNTOUCHED

# Permissions in the low bits of a result.
READABLE, WRITABLE, EXECUTABLE = 1, 2, 4
# The translation outlives a load of CR3 (the entry says global, and CR4.PGE honours it).
GLOBAL = 8
# A fetch, which is private, from a page that is shared for data.
UNLIKE_DATA = 16

# Control bits.
CR0_PE, CR0_WP, CR0_PG = 1 << 0, 1 << 16, 1 << 31
CR4_PSE, CR4_PAE, CR4_PGE, CR4_SMEP, CR4_SMAP = 1 << 4, 1 << 5, 1 << 7, 1 << 20, 1 << 21
EFER_LMA, EFER_NXE = 1 << 10, 1 << 11
RFLAGS_AC = 1 << 18

# Bits of an entry.
P, RW, US, A, D, PS, G, NX = 1, 2, 4, 1 << 5, 1 << 6, 1 << 7, 1 << 8, 1 << 63
_ADDRESS = 0x000F_FFFF_FFFF_F000
# Bits 62:52: free for software in long mode, reserved in PAE's.
_ABOVE_ADDRESS = 0x7FF0_0000_0000_0000

# Bits of a page fault's error code.
PF_P, PF_W, PF_U, PF_RSVD, PF_I = 1, 2, 4, 8, 16

_TABLE_READ = Access.TABLE | Access.READ
_WRITE, _FETCH, _USER = Access.WRITE, Access.FETCH, Access.USER
# The way to 2 MiB of linear addresses in long mode: place (in 64-bit words) and value of the entries of the upper three
# levels; the place of the page table; for a large page, which has none, the bits that linear and physical address have
# in common, else 0; the rights that the upper levels leave, as a key of `_permissions`.
_Way = tuple[int, int, int, int, int, int, int, int, int]
_WAY_SHIFT = 21
# How many ways are kept in an address space, and how many address spaces.
_WAYS, _SPACES = 4096, 64
ReadEntry = Callable[[int], int]
WriteEntry = Callable[[int, int], None]


class PageWalker:
    """A walk over one guest's memory.

    ``read64``/``write64`` and ``read32``/``write32`` access little-endian entries at a guest-physical address.
    ``physical_bits`` is the width of an address without a C-bit; bits above it are reserved.  ``mask`` is the bit that
    marks private addresses (0: none); ``translate`` replaces it where a plug-in wants to see each address:
    ``translate(address, access) -> gpa | PRIVATE``, where bits above the width are reserved.  ``ram``, memory from
    address 0 on as 64-bit numbers, spares the commonest reads their call; ``states`` are those of its pages
    (`sevplug.core.views`), empty where it has but one form.
    """

    def __init__(
        self,
        read64: ReadEntry,
        write64: WriteEntry,
        read32: ReadEntry,
        write32: WriteEntry,
        physical_bits: int,
        mask: int = 0,
        translate: Callable[[int, int], int] | None = None,
        ram: memoryview | None = None,
        states: bytearray | None = None,
    ) -> None:
        self._read64, self._write64 = read64, write64
        self._read32, self._write32 = read32, write32
        self._mask = mask
        self._translate = translate
        self._ram = memoryview(b"").cast("Q") if ram is None else ram
        self._ram_size = self._ram.nbytes
        self._too_wide = _ADDRESS & ~((1 << physical_bits) - 1)
        # With a function, only what it leaves of an address can be too wide.
        self._reserved = self._too_wide & ~mask if translate is None else 0
        self._keep = _ADDRESS & ~mask
        self._states = states
        # What all is that no C-bit can tell of.
        self._always = PRIVATE if mask else 0
        self._table_pages: set[int] = set()
        self._ways: dict[tuple[int, int], dict[int, _Way]] = {}
        self._enter(0, 0, 0, 0)

    def walk(self, address: int, access: int, cr0: int, cr3: int, cr4: int, efer: int, ac: bool = False) -> int:
        """Translate linear ``address`` for ``access`` (READ, WRITE or FETCH, with USER at CPL 3).

        ``ac`` is RFLAGS.AC.  Returns page address | permissions | PRIVATE, or ~error_code of the #PF to raise.
        """
        if cr3 != self._cr3 or cr4 != self._cr4 or cr0 != self._cr0 or efer != self._efer:
            self._enter(cr0, cr3, cr4, efer)
        way = self._known.get(address >> _WAY_SHIFT)
        if way is not None:
            ram = self._ram
            at_1, entry_1, at_2, entry_2, at_3, entry_3, table, low, rights = way
            if ram[at_1] == entry_1 and ram[at_2] == entry_2 and ram[at_3] == entry_3:
                entry = entry_3 if low else ram[table + (address >> 12 & 0x1FF)]
                rights = rights & (entry | ~(RW | US)) | (entry & NX) >> 59 | (access & _USER) >> 1
                permissions = (self._rules_ac if ac else self._rules)[rights]
                # Faults, and bits to be set, are for the whole walk.
                if (
                    entry & self._usable == P | A
                    and permissions & _NEEDED[access & 7]
                    and (entry & D or not access & _WRITE)
                ):
                    page = entry & self._keep & ~low | address & low | permissions
                    if not entry & D:
                        page &= ~WRITABLE
                    if entry & self._global:
                        page |= GLOBAL
                    if entry & self._mask or not self._mask:
                        return page | (entry & self._mask and PRIVATE)
                    return _of_shared(page, access)
        return self._walk(address, access, ac)

    def forget(self, page: int) -> None:
        """The page at guest-physical ``page`` of ``ram`` has another form now: tables are not to be read there."""
        if page in self._table_pages:
            self._ways.clear()
            self._table_pages.clear()
            self._enter(self._cr0, self._cr3, self._cr4, self._efer)

    def _enter(self, cr0: int, cr3: int, cr4: int, efer: int) -> None:
        """Other control registers than at the walk before: what follows from them."""
        self._cr0, self._cr3, self._cr4, self._efer = cr0, cr3, cr4, efer
        controls = (cr0 & CR0_WP) >> 11 | (cr4 & CR4_SMEP) >> 14
        self._rules_ac = _PERMISSIONS[controls : controls + 32]
        controls |= (cr4 & CR4_SMAP) >> 14
        self._rules = _PERMISSIONS[controls : controls + 32]
        self._global = G if cr4 & CR4_PGE else 0
        self._reserved_here = self._reserved if efer & EFER_NXE else self._reserved | NX
        self._usable = self._reserved_here | P | A
        if cr0 & CR0_PG and efer & EFER_LMA and self._translate is None:
            if len(self._ways) >= _SPACES:
                self._ways.clear()
            self._known = self._ways.setdefault((cr3, efer & EFER_NXE), {})
        else:
            self._known = {}

    def _walk(self, address: int, access: int, ac: bool) -> int:
        """The whole walk, in whichever mode."""
        cr0, cr3, cr4, efer = self._cr0, self._cr3, self._cr4, self._efer
        if not cr0 & CR0_PG:
            page = address & 0xFFFFF000 | self._always
            if self._translate is not None:
                page = self._translate(page, access)
            return page | READABLE | WRITABLE | EXECUTABLE
        if efer & EFER_LMA:
            return self._walk_long(address, access, ac)
        if cr4 & CR4_PAE:
            return self._walk_pae(address, access, cr0, cr3, cr4, efer, ac)
        return self._walk_legacy(address, access, cr0, cr3, cr4, ac)

    def _table(self, entry: int, access: int) -> int:
        """The guest-physical address of the table that ``entry`` names."""
        if self._translate is not None:
            return self._translate(entry & _ADDRESS, access) & ~PRIVATE
        return entry & _ADDRESS & ~self._mask

    def _walk_long(self, address: int, access: int, ac: bool) -> int:
        read, translate = self._read64, self._translate
        cr0, cr3, cr4, efer, reserved = self._cr0, self._cr3, self._cr4, self._efer, self._reserved_here
        rights, no_execute = RW | US, 0
        table = self._table(cr3, _TABLE_READ)
        path: list[tuple[int, int]] = []
        shift = 39
        while True:
            where = table | (address >> (shift - 3) & 0xFF8)
            entry = read(where)
            if not entry & P:
                return ~_error(access, cr4, efer, 0)
            if entry & reserved:
                return ~_error(access, cr4, efer, PF_P | PF_RSVD)
            above = rights, no_execute
            rights &= entry
            no_execute |= entry & NX
            if shift == 12:
                low = 0
                break
            if entry & PS:
                low = (1 << shift) - 0x1000
                if shift == 39 or entry & _ADDRESS & low & ~0x1000:
                    # PS in the top level, or address bits below the size of a large page (bit 12 there is PAT).
                    return ~_error(access, cr4, efer, PF_P | PF_RSVD)
                break
            table = self._table(entry, _TABLE_READ)
            if translate is not None and table & self._too_wide:
                return ~_error(access, cr4, efer, PF_P | PF_RSVD)
            if not entry & A:
                entry |= A
                self._write64(where, entry)
            path.append((where, entry))
            shift -= 9
        page = entry & _ADDRESS & ~low | address & low
        found = self._leaf(self._write64, where, entry, page, access, rights, no_execute, cr0, cr4, efer, ac)
        if found >= 0 and translate is None:
            if low:
                path.append((where, read(where)))
            self._remember(address, path, table, low, above)
            if self._mask and not found & PRIVATE:
                return _of_shared(found, access)
        return found

    def _remember(
        self, address: int, path: list[tuple[int, int]], table: int, low: int, above: tuple[int, int]
    ) -> None:
        """Keep the way of a walk that succeeded: ``path`` down to the last table or to a large page's own entry."""
        pages = {table & _ADDRESS, *(where & _ADDRESS for where, _entry in path)}
        if max(pages) + 0x1000 > self._ram_size:
            return
        if self._states is not None:
            # A page that nobody touched may turn without a word.
            if not all(self._states[page >> 12] & (UNTOUCHED | PRIVATE_FORM) == PRIVATE_FORM for page in pages):
                return
            self._table_pages |= pages
        if len(self._known) >= _WAYS:
            self._known.clear()
        path.append(path[-1])  # a page of 1 GiB has an entry less
        (at_1, entry_1), (at_2, entry_2), (at_3, entry_3) = path[:3]
        rights, no_execute = above
        self._known[address >> _WAY_SHIFT] = (
            at_1 >> 3, entry_1, at_2 >> 3, entry_2, at_3 >> 3, entry_3, table >> 3, low, rights | no_execute >> 59,
        )  # fmt: skip

    def _walk_pae(self, address: int, access: int, cr0: int, cr3: int, cr4: int, efer: int, ac: bool) -> int:
        read, write = self._read64, self._write64
        reserved = self._reserved | _ABOVE_ADDRESS
        if not efer & EFER_NXE:
            reserved |= NX
        address &= 0xFFFFFFFF
        # CR3 names a table of four entries, 32-byte aligned; it is 32 bits wide outside long mode.
        top = self._table(cr3 & 0xFFFFF000, _TABLE_READ) | (cr3 & 0xFE0)
        where = top | (address >> 27 & 0x18)
        entry = read(where)
        if not entry & P:
            return ~_error(access, cr4, efer, 0)
        if entry & (reserved | NX | 0x1E6):
            return ~_error(access, cr4, efer, PF_P | PF_RSVD)
        rights, no_execute = RW | US, 0
        for shift in (21, 12):
            table = self._table(entry, _TABLE_READ)
            if table & self._too_wide:
                return ~_error(access, cr4, efer, PF_P | PF_RSVD)
            if shift == 12 and not entry & A:
                write(where, entry | A)
            where = table | (address >> (shift - 3) & 0xFF8)
            entry = read(where)
            if not entry & P:
                return ~_error(access, cr4, efer, 0)
            if entry & reserved:
                return ~_error(access, cr4, efer, PF_P | PF_RSVD)
            rights &= entry
            no_execute |= entry & NX
            if shift == 12 or entry & PS:
                break
        if shift == 21 and entry & 0x1FE000:
            return ~_error(access, cr4, efer, PF_P | PF_RSVD)
        low = (1 << shift) - 1
        page = (entry & _ADDRESS & ~low) | (address & low & ~0xFFF)
        found = self._leaf(write, where, entry, page, access, rights, no_execute, cr0, cr4, efer, ac)
        return found if found < 0 or found & PRIVATE or not self._mask else _of_shared(found, access)

    def _walk_legacy(self, address: int, access: int, cr0: int, cr3: int, cr4: int, ac: bool) -> int:
        read, write = self._read32, self._write32
        address &= 0xFFFFFFFF
        where = self._table(cr3 & 0xFFFFF000, _TABLE_READ) | (address >> 20 & 0xFFC)
        entry = read(where)
        if not entry & P:
            return ~_error(access, cr4, 0, 0)
        rights = (RW | US) & entry
        if entry & PS and cr4 & CR4_PSE:
            if entry & 1 << 21:
                return ~_error(access, cr4, 0, PF_P | PF_RSVD)
            # PSE-36: bits 20:13 are bits 39:32 of the address.
            page = (entry & 0xFFC00000) | (entry >> 13 & 0xFF) << 32 | (address & 0x3FF000)
            found = self._leaf(write, where, entry, page, access, rights, 0, cr0, cr4, 0, ac)
            return found if found < 0 else found | self._always
        if not entry & A:
            write(where, entry | A)
        where = self._table(entry & 0xFFFFF000, _TABLE_READ) | (address >> 10 & 0xFFC)
        entry = read(where)
        if not entry & P:
            return ~_error(access, cr4, 0, 0)
        page = entry & 0xFFFFF000
        found = self._leaf(write, where, entry, page, access, rights & entry, 0, cr0, cr4, 0, ac)
        return found if found < 0 else found | self._always

    def _leaf(
        self,
        write: WriteEntry,
        where: int,
        entry: int,
        page: int,
        access: int,
        rights: int,
        no_execute: int,
        cr0: int,
        cr4: int,
        efer: int,
        ac: bool,
    ) -> int:
        """The end of a walk: the page's own translation, permissions, accessed and dirty bits."""
        unlike = False
        if self._translate is not None:
            given = page
            page = self._translate(given, access)
            if page & self._too_wide:
                return ~_error(access, cr4, efer, PF_P | PF_RSVD)
            if access & _FETCH or not page & PRIVATE:
                other = access & ~7 | (Access.READ if access & _FETCH else _FETCH)
                unlike = bool((page ^ self._translate(given, other)) & PRIVATE)
        elif page & self._mask:
            page = page ^ self._mask | PRIVATE
        permissions = _PERMISSIONS[
            rights | (access & 16) >> 1 | no_execute >> 59 | (cr0 & CR0_WP) >> 11 | (cr4 & CR4_SMEP) >> 14
            | (0 if ac else (cr4 & CR4_SMAP) >> 14)
        ]  # fmt: skip
        if not permissions & _NEEDED[access & 7]:
            return ~_error(access, cr4, efer, PF_P)
        wanted = entry | (A | D if access & _WRITE else A)
        if wanted != entry:
            write(where, wanted)
        if not wanted & D:
            # A later store has to come back here to set the dirty bit.
            permissions &= ~WRITABLE
        if entry & G and cr4 & CR4_PGE:
            permissions |= GLOBAL
        return _of_shared(page | permissions, access) if unlike else page | permissions


def _of_shared(found: int, access: int) -> int:
    """A walk's result for a page that is shared for data: private for a fetch, and good for that alone."""
    if access & _FETCH:
        return found & ~(READABLE | WRITABLE) | PRIVATE | UNLIKE_DATA
    return found & ~EXECUTABLE


# The permission that a kind of access needs, by Access & 7.
_NEEDED = (0, READABLE, WRITABLE, 0, EXECUTABLE, 0, 0, 0)


def _permissions(key: int) -> int:
    """What an access may do with a page, by the bits that decide it.

    ``key``: RW and US of all levels together, 8 user access, 16 no-execute, 32 CR0.WP, 64 SMEP, 128 SMAP in force.
    """
    if key & 8:
        if not key & US:
            return 0
        permissions = READABLE | WRITABLE | EXECUTABLE if key & RW else READABLE | EXECUTABLE
    else:
        permissions = READABLE | EXECUTABLE
        if key & RW or not key & 32:
            permissions |= WRITABLE
        if key & US:
            if key & 64:
                permissions &= ~EXECUTABLE
            if key & 128:
                permissions &= EXECUTABLE
    return permissions & ~EXECUTABLE if key & 16 else permissions


_PERMISSIONS = tuple(_permissions(key) for key in range(256))


def _error(access: int, cr4: int, efer: int, code: int) -> int:
    """A page fault's error code; the fetch bit is set only where fetches can differ from reads."""
    if access & _WRITE:
        code |= PF_W
    if access & _USER:
        code |= PF_U
    if access & _FETCH and ((efer & EFER_NXE and cr4 & CR4_PAE) or cr4 & CR4_SMEP):
        code |= PF_I
    return code
