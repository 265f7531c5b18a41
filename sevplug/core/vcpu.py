"""What plug-ins and devices may know of a virtual CPU; the engine behind it stays in `sevplug.core.engine`."""

from __future__ import annotations

from typing import Protocol

import attrs


@attrs.frozen
class CpuidRegisters:
    """The four 32-bit results of CPUID."""

    eax: int
    ebx: int
    ecx: int
    edx: int


class Access:
    """Why an address is translated (argument of the ``translate`` hook); kinds may be combined with USER.

    Plain ints: each operation on a member of an enum takes a microsecond, as long as a quarter of a page walk.
    """

    READ = 1
    WRITE = 2
    FETCH = 4
    TABLE = 8
    """The address of a page table, from CR3 or from an entry above it."""
    USER = 16
    """The access is made at CPL 3."""


PRIVATE = 1 << 62
"""Set by `translate` on its result: the access is to the private view of the page."""


class VCpu(Protocol):
    """One virtual CPU as hooks see it.  Registers and MSRs are unsigned ints.

    Attributes: ``index`` is 0 for the boot CPU; ``private`` is a place where plug-ins hang objects of their own, by
    plug-in name.
    """

    index: int
    private: dict[str, object]

    @property
    def rip(self) -> int:
        """The offset of the next instruction in its code segment."""

    @property
    def cpl(self) -> int:
        """The current privilege level, 0..3."""

    def get(self, register: str) -> int:
        """A register by its name in the APM, lower case: ``rax`` … ``r15``, ``rip``, ``rflags``, ``cr0`` … ``cr4``,
        ``efer``; ``st0`` … ``st7`` (80 bits), ``fcw``, ``fsw``, ``ftw``, ``xmm0`` … ``xmm15`` (128 bits), ``mxcsr``.
        KeyError for any other name."""

    def set(self, register: str, value: int) -> None:
        """Write a register named as in `get`."""

    def cpuid(self, leaf: int, subleaf: int) -> CpuidRegisters:
        """CPUID without an instruction: plug-ins first, then the CPU model."""

    def msr_read(self, index: int) -> int:
        """RDMSR without an instruction; raises `GuestFault` where the guest would take #GP."""

    def msr_write(self, index: int, value: int) -> None:
        """WRMSR without an instruction; raises `GuestFault` where the guest would take #GP."""

    def raise_exception(self, vector: int, error_code: int | None = None) -> None:
        """Deliver an exception now, in whatever mode the CPU is in; RIP must be at the faulting instruction."""

    def set_interrupt_line(self, level: bool) -> None:
        """The INTR pin: while it is high, the CPU asks the machine's interrupt source for a vector when it may."""

    def flush_translations(self) -> None:
        """Forget every cached translation; for whoever changes what `translate` would answer."""
