"""Small guests in each of the CPU's modes, with handlers that report every exception.

A guest is a list of probes.  A probe is a piece of code that is expected to end in an exception (or not to): the
handler reports the vector, the error code, the stack frame and the CPU's state as 32-bit words through port 0xE9,
restores a known state and goes on with the next probe.  The same 64 KiB image runs here and in QEMU, whose debug
console listens on that port too.

guests.S holds the assembly.  Memory of the guest: 0x500 where the next probe starts; 0x504 set to have the handler
return once (from vectors without an error code); 0x508 set to have it report RFLAGS.RF too (QEMU's interpreter does not
push it); 0x10000 IDT, 0x11000 GDT, 0x12000 task-state segment, 0x13000 page tables (PML4, page directory pointers, a
directory for the first 16 MiB, a table for [2 MiB, 4 MiB)), 0x20000 the stack's end, 0x28000 and 0x2C000 the inner
stacks, 0x30000 the outer stack, 0x40000 room for probes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

# Selectors of the guest's table.
CODE32, DATA32, CODE64, DATA64 = 0x08, 0x10, 0x18, 0x20
USER_CODE32, USER_DATA32, USER_CODE64, USER_DATA64 = 0x28 | 3, 0x30 | 3, 0x38 | 3, 0x40 | 3
CODE16, DATA16, USER_CODE16, USER_DATA16 = 0x48, 0x50, 0x58 | 3, 0x60 | 3
ABSENT_CODE, ABSENT_DATA, CONFORMING, TSS, TSS16 = 0x68, 0x70, 0x78, 0x80, 0x90
EXECUTE_ONLY, SHORT_DATA, READ_ONLY = 0x98, 0xA0, 0xA8

MARK = 0xB0B00000
_COMMON = (Path(__file__).parent / "guests.S").read_text()
_END = "\n    mov al, 0x55\n    out 0xf4, al\n    hlt\n"


def real16(*probes: str) -> str:
    """A guest that runs each probe in real mode (CS F000, other segments 0, SP 0)."""
    return _guest("real16", probes, "word ptr ds:[0x500], offset 77f - _start", 16)


def protected32(*probes: str, gates: int = 0x8E00) -> str:
    """A guest that runs each probe in 32-bit protected mode at CPL 0, through 386 gates of type ``gates``."""
    return _guest("protected32", probes, "dword ptr ds:[0x500], offset 77f", 32, gates)


def protected16(*probes: str, gates: int = 0x8600) -> str:
    """A guest that runs each probe in 16-bit protected mode at CPL 0, through 286 gates of type ``gates``."""
    return _guest("protected16", probes, "word ptr ds:[0x500], offset 77f - _start", 16, gates)


def long64(*probes: str, rights: int = 7) -> str:
    """A guest that runs each probe in 64-bit mode at CPL 0; each page has these ``rights`` (7: user, 3: supervisor)."""
    return _guest("long64", probes, "dword ptr ds:[0x500], offset 77f", 64, rights=rights)


def _guest(mode: str, probes: Iterable[str], resume: str, bits: int, gates: int = 0, rights: int = 0) -> str:
    """The guest's source; guests.S has the prelude of ``mode``, and MARK with its number announces each probe."""
    emit = {16: "emit16", 32: "emit32", 64: "emit"}[bits]
    body = "".join(
        f"""
    mov {resume}
    mov eax, {MARK + number:#x}
    call {emit}
{probe}
    call survived{bits}
77: .code{bits}
"""
        for number, probe in enumerate(probes)
    )
    return f".set {mode}, 1\n.set gates, {gates:#x}\n.set rights, {rights}\n{_COMMON}{body}{_END}"
