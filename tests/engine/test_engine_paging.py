"""Paging by real execution: faults with their error codes and CR2, accessed and dirty bits, large pages, protection.

The tables of the small guests map the first 16 MiB onto themselves, [2 MiB, 4 MiB) by 4 KiB pages; the table for those
lies at 0x16000.
"""

from __future__ import annotations

import pytest
from guests import long64, protected32
from reference_cpu import compare, run_here


def entry(page: int, value: str) -> str:
    """Set the page-table entry of the 4 KiB page at linear ``page`` and forget the translation."""
    return f"mov rax, {value}; mov [0x16000+8*{(page - 0x200000) >> 12:#x}], rax; invlpg [{page:#x}];"


ABSENT = entry(0x300000, "0")
USER = "user64;"
NX_OFF = "mov ecx, 0xc0000080; rdmsr; btr eax, 11; wrmsr;"
NX_ON = "mov ecx, 0xc0000080; rdmsr; bts eax, 11; wrmsr;"


def cr4(bit: int, *, on: bool) -> str:
    return f"mov rax, cr4; {'bts' if on else 'btr'} rax, {bit}; mov cr4, rax;"


GROUPS = {
    "a page that is not there": (7, [
        ABSENT + "mov eax, [0x300000]", "mov eax, [0x300010]", "mov [0x300123], eax", "mov al, [0x300fff]",
        "lock inc dword ptr [0x300000]", "xadd [0x300004], eax", "movaps [0x300000], xmm0", "sgdt [0x300000]",
        "lgdt [0x300000]", "push qword ptr [0x300000]", "call [0x300000]", "cmpxchg16b [0x300000]",
        "mov eax, 0x300000; jmp rax", "mov eax, 0x300123; jmp rax", "mov al, [0x40000000]", "mov [0x40000000], al",
        "mov eax, 0x40000000; call rax", USER + "mov eax, [0x300000]", USER + "mov [0x300010], eax",
        USER + "mov eax, 0x300000; jmp rax", USER + "mov al, [0x1234567890]",
    ]),
    "accesses that cross into or out of a page that is not there": (7, [
        ABSENT + "mov rax, [0x300ffc]", "mov rax, [0x2ffffc]", "mov rax, [0x2ffffd]", "mov [0x2ffffc], rax",
        "mov [0x2fffff], ax", "mov [0x300ffc], rax", "mov [0x300fff], ax", "movups xmm0, [0x2ffff8]",
        "movups [0x2ffff8], xmm0", "fxsave [0x2fff00]", "fxrstor [0x2fff00]",
        "mov edi, 0x2ffffc; mov ecx, 8; rep stosb", "mov esi, 0x2ffffc; mov edi, 0x40000; mov ecx, 8; rep movsb",
        "mov word ptr [0x2ffffe], 0xb890; mov eax, 0x2fffff; jmp rax",
    ]),
    "rights of user and supervisor": (7, [
        entry(0x301000, "0x201003") + USER + "mov eax, [0x301004]", USER + "mov [0x301004], eax",
        USER + "mov eax, 0x301004; jmp rax", USER + "mov rax, [0x301ffc]", USER + "mov rax, [0x300ffc]",
        entry(0x302000, "0x202005") + "mov rax, [0x302000]; mov [0x302008], eax",
        USER + "mov rax, [0x302000]; mov [0x302008], eax", USER + "mov rax, [0x302000]; mov [0x301ffc], rax",
        "mov rax, cr0; btr eax, 16; mov cr0, rax; mov [0x302000], eax; mov rax, cr0; bts eax, 16; mov cr0, rax; "
        "mov [0x302000], eax",
    ]),
    "no-execute": (7, [
        entry(0x303000, "0x8000000000203007") + "mov eax, [0x303000]", NX_ON + "mov eax, 0x303000; jmp rax",
        USER + "mov eax, 0x303000; jmp rax", ABSENT + NX_OFF + "mov eax, 0x300000; jmp rax", NX_ON,
    ]),
    "supervisor-mode execution and access prevention": (3, [
        entry(0x305000, "0x205007") + "mov byte ptr [0x305000], 0xc3; mov eax, 0x305000; call rax",
        cr4(20, on=True) + "mov eax, 0x305000; call rax", "mov eax, [0x305000]; mov [0x305004], eax",
        cr4(20, on=False) + "mov eax, 0x305000; call rax", cr4(21, on=True) + "mov eax, [0x305000]",
        "mov [0x305000], eax", "mov eax, 0x305000; call rax",
        "stac; mov eax, [0x305000]; clac; mov eax, [0x306000]; mov eax, [0x305000]",
        "pushfq; bts qword ptr [rsp], 18; popfq; mov eax, [0x305000]; mov [0x305800], eax; pushfq; "
        "btr qword ptr [rsp], 18; popfq; mov [0x305900], eax", "cpuid; rdtsc; ud2",
    ]),
    "accessed and dirty bits, and changes of the tables": (7, [
        "mov rax, [0x15020]; call emit64; mov al, [0x800000]; mov rax, [0x15020]; call emit64; mov [0x800000], al; "
        "mov rax, [0x15020]; call emit64",
        "mov al, [0x310000]; mov rax, [0x16880]; call emit64; mov [0x310000], al; mov rax, [0x16880]; call emit64; "
        "mov rax, [0x14000]; call emit64", "mov rax, [0x14018]; call emit64",
        "mov al, [0x311000]; mov qword ptr [0x16888], 0x211007; mov [0x311000], al; mov rax, [0x16888]; call emit64",
        entry(0x312000, "0x213007") + "mov byte ptr [0x312000], 0x77; mov al, [0x212000]; mov ah, [0x213000]; "
        "movzx eax, ax; call emit",
        "mov qword ptr [0x16890], 0x214007; invlpg [0x312000]; mov byte ptr [0x312000], 0x78; mov ah, [0x214000]; "
        "mov al, [0x213000]; movzx eax, ax; call emit",
        "mov qword ptr [0x16890], 0x215007; mov rax, cr3; mov cr3, rax; mov byte ptr [0x312000], 0x79; "
        "mov al, [0x215000]; mov ah, [0x214000]; movzx eax, ax; call emit",
    ]),
    "large pages": (7, [
        "mov qword ptr [0x13008], 0x14007; mov rax, 0x8000000500; mov al, [rax]; movzx eax, al; call emit",
        "mov qword ptr [0x14020], 0x87; mov rax, 0x100000500; mov ax, [rax]; movzx eax, ax; call emit",
        "mov qword ptr [0x15028], 0x800087; mov dword ptr [0x800123], 0x5a5a; invlpg [0xa00000]; "
        "mov eax, [0xa00123]; call emit", "mov eax, [0x15028]; call emit",
    ]),
    "tables that only the supervisor may read serve the CPU at any privilege": (7, [
        "mov esi, 0x10000; mov edi, 0x208000; mov ecx, 0x600; rep movsq; mov word ptr [0x40000], 0x83f; "
        "mov qword ptr [0x40002], 0x308000; mov word ptr [0x40010], 0xaf; mov qword ptr [0x40012], 0x309000;"
        + "".join(entry(0x308000 + 0x1000 * n, f"{0x208007 + 0x1000 * n:#x}") for n in range(3))
        + "lidt [0x40000]; lgdt [0x40010]; mov dword ptr [0x309082], 0xa000; mov byte ptr [0x309084], 0x30; "
        "mov byte ptr [0x309085], 0x89; mov byte ptr [0x309087], 0; mov eax, 0x80; ltr ax; ud2",
        "".join(entry(0x308000 + 0x1000 * n, f"{0x208003 + 0x1000 * n:#x}") for n in range(3)) + "user64; ud2",
        USER + "int 0x80", USER + "mov eax, [0x308000]", USER + "mov eax, [0x309ffc]", USER + "mov eax, [0x30a000]",
        USER + "mov ax, 0x33; mov ds, ax; mov es, ax; verr ax; ud2", USER + "mov [0x308000], eax",
        USER + "mov eax, 0x308000; jmp rax", USER + "mov [0x309000], eax", USER + "in al, 0x80; ud2",
        USER + "mov ax, 0x10; lar eax, eax; lsl ecx, eax; ud2",
        "mov byte ptr [0x30902d], 0xfa; user64; push 0x2b; lea rax, [rip+3f]; push rax; retfq; .code32; 3: ud2; "
        ".code64",
        USER + "mov ax, 0x10; mov ds, ax",
    ]),
    "faults while an exception is delivered": (7, [
        "".join(f"mov byte ptr [0x10000+{vector}*16+4], 1;" for vector in (8, 12, 13, 14)) + ABSENT + "nop",
        "mov rsp, 0x301000; push rax", "mov rsp, 0x300004; push rax", "mov rsp, 0x300008; pop rax",
        "mov rsp, 0x300004; mov eax, [0x300000]", "mov rsp, 0x300000; ud2", "mov rsp, 0x301000; ud2",
        "mov rsp, 0x301010; ud2", "mov rsp, 0x300800; int 0x80",
        "and byte ptr [0x10000+14*16+5], 0x7f; mov eax, [0x300000]", "or byte ptr [0x10000+14*16+5], 0x80",
        "mov dword ptr [0x12004], 0x300800; user64; ud2", "mov dword ptr [0x12004], 0x28000; user64; ud2",
        "mov byte ptr [0x10000+14*16+4], 2; mov eax, [0x300000]",
    ]),
}  # fmt: skip


@pytest.mark.real
@pytest.mark.parametrize("name", GROUPS)
def test_every_probe_reports_what_it_reports_in_qemu(name: str) -> None:
    rights, probes = GROUPS[name]
    compare(long64, *probes, rights=rights)


# Tables at 0x50000: 4 MiB pages at both ends of the address space, and 4 KiB pages in [4 MiB, 8 MiB).
LEGACY = """mov edi, 0x50000; mov ecx, 0x800; xor eax, eax; rep stosd; mov dword ptr [0x50000], 0x87
    mov dword ptr [0x50ffc], 0xffc00087; mov dword ptr [0x50004], 0x51007; xor ecx, ecx; mov eax, 0x400007
    1: mov [0x51000+ecx*4], eax; add eax, 0x1000; inc ecx; cmp ecx, 1024; jb 1b; mov dword ptr [0x51010], 0
    mov dword ptr [0x51014], 0x405003; mov dword ptr [0x51018], 0x406005; mov dword ptr [0x50008], 0x800087
    mov eax, cr4; or eax, 0x10; mov cr4, eax; mov eax, 0x50000; mov cr3, eax; mov eax, 0x80010001; mov cr0, eax;"""
# The same with entries of 64 bits: page directory pointers at 0x50000, 2 MiB pages, no-execute on.
PAE = """mov edi, 0x50000; mov ecx, 0x1400; xor eax, eax; rep stosd; mov dword ptr [0x50000], 0x51001
    mov dword ptr [0x50018], 0x52001; mov dword ptr [0x51000], 0x87; mov dword ptr [0x51008], 0x200087
    mov dword ptr [0x52ff8], 0xffe00087; mov dword ptr [0x51010], 0x53007; xor ecx, ecx; mov eax, 0x400007
    1: mov [0x53000+ecx*8], eax; add eax, 0x1000; inc ecx; cmp ecx, 512; jb 1b; mov dword ptr [0x53020], 0
    mov dword ptr [0x53028], 0x405003; mov dword ptr [0x53030], 0x406005; mov dword ptr [0x5303c], 0x80000000
    mov dword ptr [0x51018], 0x800087; mov dword ptr [0x50008], 0x54001
    mov ecx, 0xc0000080; rdmsr; or eax, 0x800; wrmsr; mov eax, cr4; or eax, 0x20; mov cr4, eax
    mov eax, 0x50000; mov cr3, eax; mov eax, 0x80010001; mov cr0, eax;"""
PROBES32 = [
    "mov eax, [0x404000]", "mov [0x404ffe], eax", "mov eax, [0x403ffe]", "mov [0x403fff], eax",
    "user32; mov [0x404008], al",
    "mov eax, 0x404000; jmp eax", "user32; mov eax, 0x404000; jmp eax", "mov eax, [0x405000]; mov [0x405000], eax",
    "user32; mov eax, [0x405000]", "user32; mov [0x405000], eax", "user32; mov eax, 0x405000; jmp eax",
    "mov [0x406000], eax", "user32; mov eax, [0x406000]; mov [0x406000], eax", "user32; int 0x80",
    "mov eax, cr0; btr eax, 16; mov cr0, eax; mov [0x406000], eax; bts eax, 16; mov cr0, eax; mov [0x406000], eax",
    "mov dword ptr [0x800010], 0x77; mov eax, [0x800010]; call emit32", "mov eax, [0x40000000]",
]  # fmt: skip
STATE = {
    LEGACY: ["0x50000", "0x50004", "0x50008", "0x51014", "0x51018", "0x5101c"],
    PAE: ["0x51008", "0x51018", "0x53028", "0x53030", "0x53038"],
}


@pytest.mark.real
@pytest.mark.parametrize("tables", STATE, ids=["legacy", "pae"])
def test_paging_of_32_bit_guests_matches_qemu(tables: str) -> None:
    bits = "".join(f"mov eax, [{address}]; call emit32;" for address in STATE[tables])
    no_execute = ["mov eax, 0x407000; jmp eax"] if tables == PAE else []
    compare(protected32, tables, *PROBES32, *no_execute, bits, "mov esp, 0x404ffc; mov eax, [0x404000]")


@pytest.mark.parametrize(
    ("probe", "code"),
    [
        (entry(0x304000, "0x0000f00000204007") + "mov eax, [0x304000]", 0b01001),
        (entry(0x304000, "0x0000f00000204007") + "mov [0x304000], eax", 0b01011),
        (entry(0x304000, "0x0000f00000204007") + "user64; mov eax, [0x304000]", 0b01101),
        (entry(0x304000, "0x0000f00000204007") + "mov eax, 0x304000; jmp rax", 0b11001),
        ("or qword ptr [0x15028], 0x2000; mov al, [0xa00000]", 0b01001),
        ("mov rax, [0x13000]; or rax, 0x80; mov [0x13008], rax; mov rax, 0x8000000000; mov al, [rax]", 0b01001),
        (entry(0x304000, "0x8000000000204007") + NX_OFF + "mov eax, [0x304000]", 0b01001),
    ],
)
def test_a_reserved_bit_faults_as_present_and_reserved(probe: str, code: int) -> None:
    """QEMU's interpreter leaves the present bit out; APM 2, section 8.4.2: RSV is set only with P."""
    assert run_here(long64(probe)).reports[0].split()[:2] == ["0000000e", f"{code:08x}"]
