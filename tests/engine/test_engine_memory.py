"""What guest code finds at an address: RAM, ROM, devices, nothing, code that changes, and translated addresses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from assembler import assemble
from guests import long64, protected32
from machines import machine_with, run_guest
from reference_cpu import DebugConsolePlugin, run_here

from sevplug.core.bus import Device
from sevplug.core.errors import GuestFault
from sevplug.core.hookspecs import hookimpl
from sevplug.core.machine import Machine
from sevplug.core.vcpu import PRIVATE, Access

GIB = 1 << 30


def words(source: str, *plugins: object) -> list[str]:
    return run_here(source, *plugins).reports[0].split()


class Register(Device):
    """A page of MMIO that records each access and reads as a pattern."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int, int]] = []

    def attach(self, machine: Machine) -> None:
        machine.bus.claim_mmio(0xD0000000, 0x2000, self._read, self._write, "register")

    def _read(self, gpa: int, size: int) -> int:
        self.seen.append(("read", gpa, size, 0))
        return 0x8877665544332211 & (1 << 8 * size) - 1

    def _write(self, gpa: int, size: int, value: int) -> None:
        self.seen.append(("write", gpa, size, value))


class Board:
    """A ROM, the MMIO page and a port through which the host writes to guest memory."""

    name = "board"

    def __init__(self) -> None:
        self.register = Register()

    @hookimpl
    def add_devices(self, machine: Machine) -> None:
        machine.memory.add_rom(0xD1000000, b"\x11\x22\x33\x44" * 1024, "a ROM")
        machine.add_device(self.register)
        # mov eax, 2 in place of mov eax, 1
        machine.bus.claim_ports(0x70, 1, None, lambda *_access: machine.memory.write(0x41001, b"\x02"), "patcher")


def test_mmio_of_every_width_reaches_the_device_with_its_address_and_value() -> None:
    board = Board()
    code = """mov rbx, 0xd0000000; mov al, [rbx+1]; mov ax, [rbx+2]; mov eax, [rbx+4]; mov rcx, [rbx+8]
        mov byte ptr [rbx+0x11], 0x12; mov word ptr [rbx+0x12], 0x1234; mov dword ptr [rbx+0x1ffc], 0x12345678
        mov rdx, 0x123456789abcdef0; mov [rbx+0x20], rdx; mov rax, rcx; call emit64"""
    assert words(long64(code), board)[:2] == ["44332211", "44332211"]
    assert board.register.seen == [
        ("read", 0xD0000001, 1, 0),
        ("read", 0xD0000002, 2, 0),
        ("read", 0xD0000004, 4, 0),
        # The engine makes two of eight bytes.
        ("read", 0xD0000008, 4, 0),
        ("read", 0xD000000C, 4, 0),
        ("write", 0xD0000011, 1, 0x12),
        ("write", 0xD0000012, 2, 0x1234),
        ("write", 0xD0001FFC, 4, 0x12345678),
        ("write", 0xD0000020, 4, 0x9ABCDEF0),
        ("write", 0xD0000024, 4, 0x12345678),
    ]


def test_a_locked_access_to_mmio_reads_and_writes_once() -> None:
    board = Board()
    code = "lock inc dword ptr [0xd0000000]; mov eax, 5; xchg [0xd0000004], eax; call emit32"
    report = words(protected32(code), board)
    assert report[0] == "44332211"
    assert board.register.seen == [
        ("read", 0xD0000000, 4, 0),
        ("write", 0xD0000000, 4, 0x44332212),
        ("read", 0xD0000004, 4, 0),
        ("write", 0xD0000004, 4, 5),
    ]


def test_a_store_to_rom_changes_nothing() -> None:
    code = """mov dword ptr [0xd1000000], 5; mov eax, [0xd1000000]; call emit32; inc dword ptr [0xd1000004]
        lock inc dword ptr [0xd1000008]; mov eax, [0xd1000004]; call emit32; mov eax, [0xd1000008]; call emit32
        mov eax, [0xd1000ffc]; call emit32"""
    assert words(protected32(code), Board())[:4] == ["44332211"] * 4


def test_an_address_where_nothing_is_reads_as_ones_and_swallows_stores() -> None:
    code = """mov dword ptr [0xc0000000], 5; mov eax, [0xc0000000]; call emit32; movzx eax, byte ptr [0xc0000001]
        call emit32; lock inc dword ptr [0xc0000010]; mov eax, [0xc0000010]; call emit32; mov eax, [0x2000000]
        call emit32"""
    assert words(protected32(code))[:4] == ["ffffffff", "000000ff", "ffffffff", "ffffffff"]


def test_the_end_of_ram_is_where_it_was_configured() -> None:
    code = "mov dword ptr [0xfffffc], 7; mov eax, [0xfffffc]; call emit32; mov eax, [0x1000000]; call emit32"
    assert words(protected32(code))[:2] == ["00000007", "ffffffff"]


CALL = "mov esi, 0x41000; mov byte ptr [esi], 0xb8; mov dword ptr [esi+1], 1; mov byte ptr [esi+5], 0xc3; call esi;"


@pytest.mark.parametrize("mode", [protected32, long64])
def test_code_that_a_program_overwrites_runs_as_it_is_now(mode: Callable[..., str]) -> None:
    register, emit = ("rsi", "emit") if mode is long64 else ("esi", "emit32")
    first = CALL.replace("call esi", f"call {register}")
    code = f"""{first} call {emit}; mov byte ptr [{register}+1], 9; call {register}
        call {emit}; xor ebx, ebx; mov ecx, 100; 1: mov [{register}+1], ecx; call {register}; add ebx, eax; loop 1b
        mov eax, ebx; call {emit}"""
    assert words(mode(code))[:3] == ["00000001", "00000009", f"{5050:08x}"]


def test_an_instruction_may_overwrite_the_one_right_behind_it() -> None:
    # At 0x41000: mov byte ptr [0x41008], 7; mov eax, 1; ret.  The store makes the constant 7.
    code = """mov dword ptr [0x41000], 0x100805c6; mov dword ptr [0x41004], 0xb8070004; mov dword ptr [0x41008], 1
        mov byte ptr [0x4100c], 0xc3; mov esi, 0x41000; call esi; call emit32"""
    assert words(protected32(code))[0] == "00000007"


def test_code_that_a_device_overwrites_runs_as_it_is_now() -> None:
    code = f"""{CALL} call emit32; call esi; out 0x70, al; jmp 1f; 1: call esi; call emit32"""
    assert words(protected32(code), Board())[:2] == ["00000001", "00000002"]


@pytest.mark.parametrize("flush", ["", "mov rax, cr3; mov cr3, rax;"])
@pytest.mark.parametrize(("written", "run"), [("0x300000", "0x201000"), ("0x201000", "0x300000")])
def test_code_that_was_written_and_changes_at_another_address_runs_as_it_is_now(
    written: str, run: str, flush: str
) -> None:
    """Whether the other address is still cached when the page is fetched from first, or was forgotten by then."""
    code = f"""mov qword ptr [0x16000+8*0x100], 0x201007; invlpg [0x300000]; mov rdi, {written}; mov rsi, {run}
        mov rax, 0xc300000001b8; mov [rdi], rax; {flush}
        call rsi; call emit; mov byte ptr [rdi+1], 2; call rsi; call emit"""
    assert words(long64(code))[:2] == ["00000001", "00000002"]


def test_ram_above_the_device_hole_starts_at_4_gib() -> None:
    code = """mov rax, 0x100000087; mov [0x14020], rax; mov eax, 0x12345678; mov rbx, 0x100000000
        mov [rbx+0x1ffffffc], eax
        mov eax, [rbx+0x1ffffffc]; call emit; mov eax, [rbx+0x20000000]; call emit
        mov rcx, 0xbffffffc; mov eax, 0x80000087; mov [0x14010], rax; mov dword ptr [rcx], 0x77
        mov eax, [rcx]; call emit"""
    console = DebugConsolePlugin()
    with machine_with(assemble(long64(code)), console, ram=3 * GIB + GIB // 2) as (machine, _board):
        machine.run(timeout=5)
        assert machine.memory.high_ram_size == GIB // 2
        assert machine.memory.read(0x1_1FFF_FFFC, 4) == b"\x78\x56\x34\x12"
        assert machine.memory.read(0xBFFF_FFFC, 4) == b"\x77\0\0\0"
    data = bytes(console.console.data)
    assert [data[at : at + 4].hex() for at in (4, 8, 12)] == ["78563412", "ffffffff", "77000000"]


class StripsByCall:
    """Addresses that carry ``bit`` are private; each is asked for."""

    def __init__(self, bit: int) -> None:
        self.mask = 1 << bit
        self.calls: list[tuple[int, int]] = []

    @hookimpl
    def translate(self, address: int, access: int) -> int | None:
        self.calls.append((address, access))
        return address & ~self.mask | PRIVATE if address & self.mask else None


class StripsByRule(StripsByCall):
    """The same, said as data."""

    @hookimpl
    def address_rule(self) -> int | None:
        return self.mask


def with_private_bit(bit: int) -> str:
    """Tables whose every address carries ``bit``, CR3 included; a store through one private and one shared mapping."""
    return f"""mov rdx, {1 << bit:#x}; or [0x13000], rdx; or [0x14000], rdx; or [0x14018], rdx; xor ecx, ecx
    1: or [0x15000+rcx*8], rdx; inc ecx; cmp ecx, 8; jb 1b; xor ecx, ecx
    1: or [0x16000+rcx*8], rdx; inc ecx; cmp ecx, 512; jb 1b
        mov rax, cr3; or rax, rdx; mov cr3, rax
        mov dword ptr [0x310000], 0x1234; mov qword ptr [0x16000+8*0x111], 0x310007; invlpg [0x311000]
        mov eax, [0x311000]; call emit; mov rax, cr3; shr rax, 40; call emit; mov eax, [0x16880]; call emit; int 0x80"""


@pytest.mark.parametrize("bit", [47, 51])
def test_an_address_bit_that_a_plugin_strips_may_be_in_every_table(bit: int) -> None:
    by_call, by_rule = StripsByCall(bit), StripsByRule(bit)
    report = words(long64(with_private_bit(bit)), by_call)
    assert report[:3] == ["00001234", f"{1 << bit - 40:08x}", "00310067"]
    assert report[3] == "00000080"
    assert words(long64(with_private_bit(bit)), by_rule) == report
    assert by_rule.calls == []
    assert (0x13000 | 1 << bit, Access.TABLE | Access.READ) in by_call.calls
    assert (0x310000 | 1 << bit, Access.WRITE) in by_call.calls


def test_without_a_plugin_the_bit_is_reserved() -> None:
    report = words(long64("bts qword ptr [0x16000+8*0x110], 47; mov eax, [0x310000]"))
    assert report[:2] == ["0000000e", "00000009"]


def test_a_fault_from_translate_is_delivered_to_the_guest() -> None:
    class Refuses:
        @hookimpl
        def translate(self, address: int, access: int) -> int | None:
            if address == 0x310000:
                raise GuestFault(29, 0x404)
            return None

    report = words(long64("mov eax, [0x310010]"), Refuses())
    assert report[:2] == ["0000001d", "00000404"]


def test_memory_of_a_guest_is_zero_at_power_on() -> None:
    assert run_guest("mov al, 1; out 0xf4, al").memory[0x8000:0x10000] == bytes(0x8000)
