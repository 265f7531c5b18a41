"""A 64-bit guest of SEV with a page table of its own, for tests that get the C-bit right or wrong.

Memory below 16 MiB is mapped at itself and private, by large pages but for [2 MiB, 4 MiB), whose pages are 4 KiB and
can be mapped otherwise: `table_entry` is where a linear page's entry lies.  The image is mapped too, below 4 GiB.
"""

from __future__ import annotations

from assembler import assemble

C_BIT = 47
TABLE = 0x16000
PAGES, PAGES_END = 0x200000, 0x400000

_SOURCE = """
    .set chigh, %d
    cli
    .byte 0x66
    lgdt cs:[gdt_pointer - _start]
    mov eax, 0x11
    mov cr0, eax
    .byte 0x66, 0xea
    .long in_protected
    .word 0x08
gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff
gdt_pointer: .word 31
    .long gdt
    .code32
in_protected:
    mov ax, 0x10; mov ds, ax; mov es, ax; mov ss, ax; mov esp, 0x20000
    cld
    mov edi, 0x13000; xor eax, eax; mov ecx, 4096; rep stosd
    mov dword ptr [0x13000], 0x14007; mov dword ptr [0x13004], chigh
    mov dword ptr [0x14000], 0x15007; mov dword ptr [0x14004], chigh
    mov dword ptr [0x14018], 0xc0000087; mov dword ptr [0x1401c], chigh
    mov edi, 0x15000; mov eax, 0x87; mov ecx, 8
1:  mov [edi], eax; mov dword ptr [edi+4], chigh; add edi, 8; add eax, 0x200000; loop 1b
    mov dword ptr [0x15008], 0x16007
    mov edi, 0x16000; mov eax, 0x200007; mov ecx, 512
1:  mov [edi], eax; mov dword ptr [edi+4], chigh; add edi, 8; add eax, 0x1000; loop 1b
    mov eax, 0x20; mov cr4, eax
    mov eax, 0x13000; mov cr3, eax
    mov ecx, 0xc0000080; rdmsr; or eax, 0x100; wrmsr
    mov eax, 0x80000011; mov cr0, eax
    .byte 0xea
    .long in_long
    .word 0x18
    .code64
in_long:
%s
    mov al, 1; out 0xf4, al
    hlt
"""


def table_entry(linear: int) -> int:
    """Where the page-table entry of a page in [2 MiB, 4 MiB) lies, guest-physical and linear."""
    return TABLE + 8 * ((linear - PAGES) >> 12)


def remap(linear: int, gpa: int, *, private: bool) -> str:
    """Code that maps the page at ``linear`` to ``gpa``."""
    high = 1 << (C_BIT - 32) if private else 0
    return f"""
    mov dword ptr [{table_entry(linear):#x}], {gpa | 7:#x}; mov dword ptr [{table_entry(linear) + 4:#x}], {high:#x}
    mov rax, cr3; mov cr3, rax
"""


def long_guest(code: str) -> bytes:
    """The image of a guest that runs ``code`` in 64-bit mode, then ends in order."""
    return assemble(_SOURCE % (1 << (C_BIT - 32), code))
