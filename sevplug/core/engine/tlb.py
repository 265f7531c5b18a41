"""How large the engine's translation cache is.

The engine doubles and halves it at its flushes, by how many entries were in use (``tlb_mmu_resize_locked`` of QEMU's
accel/tcg/cputlb.c).  Here that goes wrong: there are few flushes, a page that is flushed on its own may be counted
twice, and a count below zero doubles the cache, to 4096 entries in the end.  All entries of all modes are looked at for
each block below a kernel's addresses that is translated (``tlb_reset_dirty_by_vaddr``, see callbacks.py); with too few
of them, pages are walked again and again.
"""

from __future__ import annotations

from ctypes import c_uint64
from typing import Final

from sevplug.core.engine import internals as at
from sevplug.core.engine import library
from sevplug.core.engine.internals import CpuState

# Supervisor's accesses with SMAP in force, and without; what user programs use stays the engine's to decide.
_SUPERVISOR: Final = (0, 2)
ENTRIES: Final = 2048
# The engine counts anew some time after this one of the host's clock, in ns.
_NEVER: Final = 1 << 62
# The engine takes maximum * 100 / entries for the share in use, in 64 bits, in which 2**63 * 100 is 0.  So half of the
# cache is in use and no count is above that, unless it fell below zero.
_HALF_IN_USE: Final = 1 << 63 | ENTRIES // 2
_WORD: Final = 8


class TranslationCache:
    """One CPU's, whose supervisor modes have `ENTRIES` entries."""

    def __init__(self, state: CpuState) -> None:
        self._cpu_address = state.cpu_address
        size = -at.TLB_DIRTY // _WORD
        words = (c_uint64 * size).from_address(state.env_address + at.TLB_DIRTY)
        self._words = memoryview(words).cast("B").cast("Q")
        self._keep_sizes()

    def entries(self, mode: int) -> int:
        """How many translations are cached at most in one of the engine's modes."""
        return (self._words[(at.TLB_MASKS + at.TLB_MASK_SIZE * mode - at.TLB_DIRTY) // _WORD] >> at.TLB_ENTRY_SHIFT) + 1

    def flush(self) -> None:
        """Forget all translations."""
        self._keep_sizes()
        library.load().tlb_flush_x86_64(self._cpu_address)

    def _keep_sizes(self) -> None:
        for mode in _SUPERVISOR:
            if self.entries(mode) != ENTRIES:
                self._resize(mode)

    def _resize(self, mode: int) -> None:
        words = self._words
        counts = (at.TLB_MODES + at.TLB_MODE_SIZE * mode - at.TLB_DIRTY) // _WORD
        begin, maximum, used = (
            counts + offset // _WORD for offset in (at.TLB_WINDOW_BEGIN, at.TLB_WINDOW_MAX, at.TLB_USED)
        )
        while (entries := self.entries(mode)) != ENTRIES:
            # A flush doubles a full cache, and makes one that was hardly used for long as small as that use wants it.
            words[begin], words[used] = 0, 0
            words[maximum] = entries if entries < ENTRIES else ENTRIES // 2 + 1
            words[0] |= 1 << mode  # what was not used since its last flush is left out
            library.load().tlb_flush_x86_64(self._cpu_address)
        words[begin], words[maximum] = _NEVER, _HALF_IN_USE
