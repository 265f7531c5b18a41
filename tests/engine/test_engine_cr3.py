"""Loads of CR3: which cached translations they end.

APM 2, section 5.5.2: those of global pages stay while CR4.PGE is set, all others go.  The guests' page tables are those
of test_engine_paging.py; what a translation was before and is now shows in the byte read through it.
"""

from __future__ import annotations

import pytest
from guests import long64
from reference_cpu import compare, run_here

GLOBAL, LOCAL = 0x107, 0x007
PGE_ON = "mov rax, cr4; bts eax, 7; mov cr4, rax;"
PGE_OFF = "mov rax, cr4; btr eax, 7; mov cr4, rax;"
RELOAD = "mov rax, cr3; mov cr3, rax;"
# Two pages with different contents, and the table entry of linear 0x300000 that names one of them.
CONTENTS = "mov byte ptr [0x201000], 0x11; mov byte ptr [0x202000], 0x22;"


def maps(page: int, flags: int) -> str:
    return f"mov qword ptr [0x16000+8*0x100], {page | flags:#x};"


def probe(flags: int, before: str, reload: str) -> str:
    """Map 0x300000 to the first page, read it, map it to the second without INVLPG, reload, and read again."""
    return (
        f"{CONTENTS} {maps(0x201000, flags)} {before} invlpg [0x300000]; mov bl, [0x300000];"
        f"{maps(0x202000, flags)} {reload} mov bh, [0x300000]; movzx eax, bx; call emit"
    )


@pytest.mark.real
@pytest.mark.parametrize(
    "reload",
    [
        RELOAD,
        "mov r9, cr3; mov cr3, r9;",
        "mov rbp, cr3; mov cr3, rbp;",
        "mov rcx, cr3; .byte 0x48; mov cr3, rcx;",
        "mov rcx, cr3; .byte 0x66; mov cr3, rcx;",
        "mov r12, cr3; .byte 0x2e; mov cr3, r12;",
    ],
)
def test_a_reload_ends_local_translations_as_in_qemu(reload: str) -> None:
    compare(long64, probe(LOCAL, PGE_ON, reload), probe(LOCAL, PGE_OFF, reload), probe(GLOBAL, PGE_OFF, reload))


@pytest.mark.parametrize(
    ("flags", "before", "reload", "seen"),
    [
        (LOCAL, PGE_ON, RELOAD, "00002211"),
        (LOCAL, PGE_OFF, RELOAD, "00002211"),
        (GLOBAL, PGE_OFF, RELOAD, "00002211"),
        (GLOBAL, PGE_ON, RELOAD, "00001111"),
        (GLOBAL, PGE_ON, PGE_OFF + PGE_ON, "00002211"),
        (GLOBAL, PGE_ON, "invlpg [0x300000];", "00002211"),
    ],
)
def test_only_a_global_translation_outlives_a_reload(flags: int, before: str, reload: str, seen: str) -> None:
    report = run_here(long64(probe(flags, before, reload))).reports[0]
    assert seen in report or bytes.fromhex(seen)[::-1].hex() in report, report


def test_a_program_without_privilege_cannot_load_cr3() -> None:
    assert (
        run_here(long64("user64; mov rax, 0x1000; mov cr3, rax")).reports
        == run_here(long64("user64; mov rax, 0x1000; mov cr4, rax")).reports
    )
