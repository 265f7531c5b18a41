"""Code that is stored to through another linear address, where it may not be executed: what runs is what was stored."""

from __future__ import annotations

import compiled_walk
import pytest
from long_guest import long_guest, remap, table_entry
from machines import machine_with

from sevplug import native
from sevplug.core import result
from sevplug.core.config import ObjectSpec
from sevplug.plugins.sev import SevPlugin

PAGE = 0x208000
# Linear pages of the one page: code is called at the first two, stored to through the last two.
CODE, CODE_TOO, DATA, DATA_TOO = 0x200000, 0x201000, 0x202000, 0x203000
NO_EXECUTE = "mov ecx, 0xc0000080; rdmsr; or eax, 0x800; wrmsr"
MAPPED = "; ".join(remap(linear, PAGE, private=True) for linear in (CODE, CODE_TOO, DATA, DATA_TOO))
FOR_DATA = "; ".join(f"or dword ptr [{table_entry(linear) + 4:#x}], 0x80000000" for linear in (DATA, DATA_TOO))
RELOAD = "mov rax, cr3; mov cr3, rax"
# mov eax, number; ret
FUNCTION = f"mov byte ptr [{DATA:#x}], 0xb8; mov byte ptr [{DATA + 5:#x}], 0xc3"


def put(number: int, linear: int = DATA) -> str:
    """Code that has the function return ``number``."""
    return f"mov dword ptr [{linear + 1:#x}], {number}"


def call(linear: int = CODE) -> str:
    """Code that calls the function and reports what it returned."""
    return f"mov ebx, {linear:#x}; call rbx; out 0x80, eax"


@pytest.fixture(params=["compiled", "python"], autouse=True)
def walk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test is run with both callbacks."""
    if request.param == "compiled":
        compiled_walk.library()
    monkeypatch.setenv(native.PURE_VARIABLE, "1" if request.param == "python" else "0")


def reports(*code: str, encrypted: str = "on", forget: bool = False) -> list[int]:
    """What the guest reports that maps the page and runs ``code``; ``forget``: the cache is emptied all the time."""
    words = [NO_EXECUTE, MAPPED, FOR_DATA, RELOAD, FUNCTION]
    for piece in code:
        words += [piece, RELOAD] if forget else [piece]
    spec = ObjectSpec("sev-emulated", "sev0", {"cbitpos": "47", "reduced-phys-bits": "1", "encrypt-memory": encrypted})
    image = long_guest("; ".join(words))
    with machine_with(image, SevPlugin(), objects=(spec,), machine_options={}) as (machine, board):
        assert machine.run(timeout=20).result == result.SHUTDOWN
        return [value for _port, _size, value in board.board.written]


@pytest.mark.parametrize("encrypted", ["on", "off"])
@pytest.mark.parametrize("forget", [False, True], ids=["cached", "flushed"])
def test_each_store_through_one_address_shows_at_the_other(encrypted: str, forget: bool) -> None:
    code = [piece for number in range(1, 6) for piece in (put(number), call())]
    assert reports(*code, encrypted=encrypted, forget=forget) == [1, 2, 3, 4, 5]


def test_stores_through_two_addresses_show() -> None:
    code = [piece for number in range(1, 7) for piece in (put(number, (DATA, DATA_TOO)[number & 1]), call())]
    assert reports(*code) == [1, 2, 3, 4, 5, 6]
    assert reports(put(1), put(2, DATA_TOO), call(), put(3), call(), put(4, DATA_TOO), call()) == [2, 3, 4]


def test_stores_show_at_both_addresses_of_code() -> None:
    code = [piece for number in range(1, 5) for piece in (put(number), call(), call(CODE_TOO), call())]
    assert reports(*code) == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]


def test_a_load_in_between_makes_no_store_unseen() -> None:
    load = f"mov edx, [{DATA + 1:#x}]"
    assert reports(put(1), call(), load, put(2), load, call(), load, put(3), call()) == [1, 2, 3]
    data_load = f"mov edx, [{CODE + 1:#x}]"
    assert reports(put(1), call(), put(2), data_load, put(3), call(), data_load, put(4), call()) == [1, 3, 4]


def test_many_stores_between_two_calls_are_one_walk() -> None:
    stores = f"mov ecx, 1000; 1: mov [{DATA + 1:#x}], ecx; loop 1b"
    assert reports(put(9), call(), stores, call(), stores, put(5), call()) == [9, 1, 5]


def test_a_page_can_store_to_itself() -> None:
    # In the page: mov [DATA + 0x41], edi; jmp to 0x40, where the function is that it stores to.
    at = DATA + 0x10
    patcher = (
        f"mov byte ptr [{DATA + 0x40:#x}], 0xb8; mov byte ptr [{DATA + 0x45:#x}], 0xc3",
        f"mov byte ptr [{at:#x}], 0x89; mov byte ptr [{at + 1:#x}], 0x3c; mov byte ptr [{at + 2:#x}], 0x25",
        f"mov dword ptr [{at + 3:#x}], {DATA + 0x41:#x}; mov word ptr [{at + 7:#x}], 0x27eb",
    )
    go = [f"mov edi, {number}; {call(CODE + 0x10)}" for number in range(11, 16)]
    assert reports(*patcher, *go) == [11, 12, 13, 14, 15]


def test_what_may_not_be_executed_is_not() -> None:
    # The table of interrupts is empty: a fault of any kind ends the guest.
    words = [NO_EXECUTE, MAPPED, FOR_DATA, RELOAD, FUNCTION, put(1), call(), put(2), call(), call(DATA)]
    spec = ObjectSpec("sev-emulated", "sev0", {"cbitpos": "47", "reduced-phys-bits": "1"})
    image = long_guest("lidt [0x1a000]; " + "; ".join(words))
    with machine_with(image, SevPlugin(), objects=(spec,), machine_options={}) as (machine, board):
        end = machine.run(timeout=20)
        assert (end.result, end.detail[:12]) == (result.FAULT, "triple fault")
        assert [value for _port, _size, value in board.board.written] == [1, 2]
