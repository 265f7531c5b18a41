"""The page walk: a function of memory, control registers and an address.

AMD's APM, volume 2, chapter 5 is the specification: 32-bit, PAE and 4-level paging, pages of 4 KiB, 2/4 MiB and 1 GiB,
accessed and dirty bits, write protection, no-execute, supervisor-mode checks, reserved bits.  An address from CR3 or
from an entry may carry a bit that is none (a C-bit): `PageWalker` strips it by a mask, or asks a function, at each
step.

The result is one int, because a walk happens a million times in a boot: the page's guest-physical address with bits of
`sevplug.core.vcpu.PRIVATE` and the permissions below; a negative number is the complement of a page fault's error code.
"""

from __future__ import annotations

from collections.abc import Callable

from sevplug.core.vcpu import PRIVATE, Access

# Permissions in the low bits of a result.
READABLE, WRITABLE, EXECUTABLE = 1, 2, 4
# The translation outlives a load of CR3 (the entry says global, and CR4.PGE honours it).
GLOBAL = 8

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
ReadEntry = Callable[[int], int]
WriteEntry = Callable[[int, int], None]


class PageWalker:
    """A walk over one guest's memory.

    ``read64``/``write64`` and ``read32``/``write32`` access little-endian entries at a guest-physical address.
    ``physical_bits`` is the width of an address without a C-bit; bits above it are reserved.  ``mask`` is the bit that
    marks private addresses (0: none); ``translate`` replaces it where a plug-in wants to see each address:
    ``translate(address, access) -> gpa | PRIVATE``, where bits above the width are reserved.  ``ram``, memory from
    address 0 on as 64-bit numbers, spares the commonest reads their call.
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

    def walk(self, address: int, access: int, cr0: int, cr3: int, cr4: int, efer: int, ac: bool = False) -> int:
        """Translate linear ``address`` for ``access`` (READ, WRITE or FETCH, with USER at CPL 3).

        ``ac`` is RFLAGS.AC.  Returns page address | permissions | PRIVATE, or ~error_code of the #PF to raise.
        """
        if not cr0 & CR0_PG:
            page = address & 0xFFFFF000
            if self._translate is not None:
                page = self._translate(page, access)
            return page | READABLE | WRITABLE | EXECUTABLE
        if efer & EFER_LMA:
            return self._walk_long(address, access, cr0, cr3, cr4, efer, ac)
        if cr4 & CR4_PAE:
            return self._walk_pae(address, access, cr0, cr3, cr4, efer, ac)
        return self._walk_legacy(address, access, cr0, cr3, cr4, ac)

    def _table(self, entry: int, access: int) -> int:
        """The guest-physical address of the table that ``entry`` names."""
        if self._translate is not None:
            return self._translate(entry & _ADDRESS, access) & ~PRIVATE
        return entry & _ADDRESS & ~self._mask

    def _walk_long(self, address: int, access: int, cr0: int, cr3: int, cr4: int, efer: int, ac: bool) -> int:
        ram, ram_size, mask, translate = self._ram, self._ram_size, self._mask, self._translate
        reserved = self._reserved if efer & EFER_NXE else self._reserved | NX
        keep = _ADDRESS & ~mask
        rights = RW | US
        no_execute = 0
        table = cr3 & keep if translate is None else self._table(cr3, _TABLE_READ)
        shift = 39
        while True:
            where = table | (address >> (shift - 3) & 0xFF8)
            entry = ram[where >> 3] if where < ram_size else self._read64(where)
            if not entry & P:
                return ~_error(access, cr4, efer, 0)
            if entry & reserved:
                return ~_error(access, cr4, efer, PF_P | PF_RSVD)
            rights &= entry
            no_execute |= entry & NX
            if shift == 12:
                page = entry & _ADDRESS
                break
            if entry & PS:
                low = (1 << shift) - 1
                if shift == 39 or entry & _ADDRESS & low & ~0x1000:
                    # PS in the top level, or address bits below the size of a large page (bit 12 there is PAT).
                    return ~_error(access, cr4, efer, PF_P | PF_RSVD)
                page = (entry & _ADDRESS & ~low) | (address & low & ~0xFFF)
                break
            if translate is None:
                table = entry & keep
            else:
                table = self._table(entry, _TABLE_READ)
                if table & self._too_wide:
                    return ~_error(access, cr4, efer, PF_P | PF_RSVD)
            if not entry & A:
                self._write64(where, entry | A)
            shift -= 9
        return self._leaf(self._write64, where, entry, page, access, rights, no_execute, cr0, cr4, efer, ac)

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
        return self._leaf(write, where, entry, page, access, rights, no_execute, cr0, cr4, efer, ac)

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
            return self._leaf(write, where, entry, page, access, rights, 0, cr0, cr4, 0, ac)
        if not entry & A:
            write(where, entry | A)
        where = self._table(entry & 0xFFFFF000, _TABLE_READ) | (address >> 10 & 0xFFC)
        entry = read(where)
        if not entry & P:
            return ~_error(access, cr4, 0, 0)
        return self._leaf(write, where, entry, entry & 0xFFFFF000, access, rights & entry, 0, cr0, cr4, 0, ac)

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
        if self._translate is not None:
            page = self._translate(page, access)
            if page & self._too_wide:
                return ~_error(access, cr4, efer, PF_P | PF_RSVD)
        elif page & self._mask:
            page = page ^ self._mask | PRIVATE
        permissions = _PERMISSIONS[
            rights | (access & 16) >> 1 | no_execute >> 59 | (cr0 & CR0_WP) >> 11 | (cr4 & CR4_SMEP) >> 14
            | (0 if ac else (cr4 & CR4_SMAP) >> 14)
        ]  # fmt: skip
        if not permissions & _NEEDED[access & 7]:
            return ~_error(access, cr4, efer, PF_P)
        wanted = entry | (A | D if access & Access.WRITE else A)
        if wanted != entry:
            write(where, wanted)
        if not wanted & D:
            # A later store has to come back here to set the dirty bit.
            permissions &= ~WRITABLE
        if entry & G and cr4 & CR4_PGE:
            permissions |= GLOBAL
        return page | permissions


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
    if access & Access.WRITE:
        code |= PF_W
    if access & Access.USER:
        code |= PF_U
    if access & Access.FETCH and ((efer & EFER_NXE and cr4 & CR4_PAE) or cr4 & CR4_SMEP):
        code |= PF_I
    return code
