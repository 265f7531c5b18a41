"""A buffer for translated code that fills up again and again: all code is dropped, and the guest notices nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import compiled_walk
import pytest
from long_guest import long_guest, remap, table_entry
from machines import machine_with

from sevplug import native
from sevplug.core import result
from sevplug.core.config import MIB, ObjectSpec
from sevplug.core.engine import library
from sevplug.plugins.sev import SevPlugin

SEV = ObjectSpec("sev-emulated", "sev0", {"cbitpos": "47", "reduced-phys-bits": "1"})
CODE, FUNCTIONS, ALIAS = 0x210000, 2048, 0x200000
SMALL = MIB

# Functions, each of which adds a number of its own and one that it counts up just before, in its own block: there the
# engine has to leave the block at once.  Two rounds call each of them twice, and behind a round each page of them is
# stored to through the shared view and brought back.
GUEST = f"""
    mov edi, {CODE:#x}; mov ecx, {FUNCTIONS}
1:  mov word ptr [rdi], 0xc081; mov [rdi + 2], ecx                                  # add eax, number
    mov word ptr [rdi + 6], 0x05fe; mov dword ptr [rdi + 8], 2                      # inc byte ptr [rip + 2]
    mov dword ptr [rdi + 12], 0xc300c083                                            # add eax, 0; ret
    add edi, 16; loop 1b
    mov ebp, 2
2:  xor eax, eax; mov edx, 2
3:  mov edi, {CODE:#x}; mov ecx, {FUNCTIONS}
4:  call rdi; add edi, 16; loop 4b
    dec edx; jnz 3b
    out 0x80, eax
    mov esi, {CODE:#x}
5:  mov eax, esi; or eax, 7
    mov [{table_entry(ALIAS):#x}], eax; mov dword ptr [{table_entry(ALIAS) + 4:#x}], 0
    mov rax, cr3; mov cr3, rax
    mov eax, [{ALIAS:#x}]; mov [{ALIAS:#x}], eax
    mov eax, [rsi]; mov [rsi], eax
    add esi, 0x1000; cmp esi, {CODE + 16 * FUNCTIONS:#x}; jb 5b
    {remap(ALIAS, ALIAS, private=True)}
    dec ebp; jnz 2b
"""
# What they add up to: their numbers, and what they have counted so far.
SUMS = [2 * sum(range(FUNCTIONS + 1)) + FUNCTIONS * counted for counted in (1 + 2, 3 + 4)]


def size_of_buffers(what: str) -> int:
    """Bytes of this process that can be both written and executed: all (``Size``), or what is resident (``Rss``)."""
    found, counts = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, *rest = line.split()
        if not name.endswith(":"):
            counts = rest[0].startswith("rwx")
        elif counts and name == f"{what}:":
            found += int(rest[0]) << 10
    return found


def live(size: int, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], int, int]:
    """What the guest leaves behind with a buffer of ``size``, and the buffer's bytes: mapped, and used."""
    monkeypatch.setattr(library, "CODE_BUFFER", size)
    before = size_of_buffers("Size"), size_of_buffers("Rss")
    with machine_with(long_guest(GUEST), SevPlugin(), objects=(SEV,), machine_options={}) as (machine, board):
        run = machine.run(timeout=60)
        assert run.result == result.SHUTDOWN
        left = {
            "reports": [value for _port, _size, value in board.board.written],
            "ram": machine.memory.ram_digest(),
            # How often a page is asked for depends on the host's clock too.
            "counters": {name: count for name, count in machine.engine.count().items() if name != "fills"},
        }
        return left, size_of_buffers("Size") - before[0], size_of_buffers("Rss") - before[1]


@pytest.mark.parametrize("pure", ["0", "1"], ids=["compiled", "python"])
def test_a_guest_whose_code_does_not_fit_runs_as_one_whose_code_does(
    pure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if pure == "0":
        compiled_walk.library()
    monkeypatch.setenv(native.PURE_VARIABLE, pure)
    left, _mapped, used = live(64 * MIB, monkeypatch)
    assert used > 3 * SMALL
    assert left["reports"] == SUMS
    again, mapped, _used = live(SMALL, monkeypatch)
    assert mapped <= SMALL
    assert again == left
