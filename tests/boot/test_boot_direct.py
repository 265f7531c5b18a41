"""A kernel entered directly: what the 64-bit boot protocol promises, as a small kernel sees it; what is launched."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from assembler import assemble
from kernels import PREFERRED_ADDRESS, bzimage

from sevplug.boot import direct
from sevplug.boot.bzimage import parse_bzimage
from sevplug.core.config import BootImages, Image, MachineConfig, ObjectSpec
from sevplug.core.errors import ConfigError
from sevplug.core.machine import Machine
from sevplug.core.plugins import Selection, load_plugins
from sevplug.core.result import RunResult

MIB = 1 << 20
COMMAND_LINE = "console=ttyS0 answer=42"
INITRD = bytes(range(256)) * 33
PROBE = 0x50000  # where the small kernel puts what it found
# What every kernel here ends with: an ACPI power-off at the place where the tables say.
POWER_OFF = "mov dx, 0x604; mov ax, 0x2000; out dx, ax; hlt"


def kernel(code: str, size: int = 4096) -> bytes:
    """A bzImage whose 64-bit entry runs ``code``, which must not care where it is."""
    body = assemble(f".code64\n.globl _start\n_start: .org 0x200\n{code}\n.org 0x10000\n", frame=False)[:size]
    return bzimage(body=body)


def images(code: str = POWER_OFF, initrd: bytes | None = INITRD) -> BootImages:
    ramdisk = None if initrd is None else Image(initrd, "initrd")
    return BootImages(kernel=Image(kernel(code), "bzImage"), initrd=ramdisk, cmdline=COMMAND_LINE)


@contextmanager
def started(code: str, c_bit: int | None = 47, **config: Any) -> Iterator[tuple[Machine, RunResult]]:
    words = ["no:qmp", "no:logging", *(["no:sev"] if c_bit is None else [])]
    spec = ObjectSpec("sev-emulated", "sev0", {"cbitpos": str(c_bit), "reduced-phys-bits": "1"})
    objects = () if c_bit is None else (spec,)
    settings = {"boot": images(code), "memory": 64 * MIB, "objects": objects, **config}
    with Machine(MachineConfig(**settings), load_plugins(Selection.parse(words))) as machine:
        yield machine, machine.run(timeout=10)


REPORT = f"""
    mov rdi, {PROBE:#x}
    mov [rdi], rsi
    mov rax, cr3; mov [rdi+8], rax
    mov rax, cr0; mov [rdi+16], rax
    mov rax, cr4; mov [rdi+24], rax
    mov ecx, 0xc0000080; rdmsr; mov [rdi+32], eax
    mov ax, cs; mov [rdi+40], ax; mov ax, ds; mov [rdi+42], ax
    mov ax, es; mov [rdi+44], ax; mov ax, ss; mov [rdi+46], ax
    lea rax, [rip+_start]; mov [rdi+48], rax
    lea rsp, [rdi+0x1000]; pushfq; pop rax; mov [rdi+56], rax
    {POWER_OFF}
"""


@pytest.mark.parametrize("c_bit", [None, 47, 51])
def test_the_kernel_is_entered_as_the_protocol_says(c_bit: int | None) -> None:
    with started(REPORT, c_bit) as (machine, run):
        assert (run.result, run.detail) == ("shutdown", "the guest switched itself off (ACPI S5)")
        found = struct.unpack("<4QI4xHHHHQQ", machine.memory.read(PROBE, 64, private=True))
        parameters, cr3, cr0, cr4, efer, cs, ds, es, ss, start, rflags = found
        mask = 0 if c_bit is None else 1 << c_bit
        assert parameters == direct.BOOT_PARAMS
        assert cr3 == direct.PAGE_TABLES | mask
        assert cr0 & 0x80000001 == 0x80000001
        assert cr4 & 0x20
        assert efer & 0x500 == 0x500
        assert (cs, ds, es, ss) == (0x10, 0x18, 0x18, 0x18)
        assert start == PREFERRED_ADDRESS
        assert not rflags & 0x200


@pytest.mark.parametrize("c_bit", [None, 51])
def test_boot_params_say_where_everything_is(c_bit: int | None) -> None:
    with started(POWER_OFF, c_bit) as (machine, _run):
        page = machine.memory.read(direct.BOOT_PARAMS, 4096, private=True)
        header = parse_bzimage(images().kernel).header  # type: ignore[arg-type]
        assert page[0x1F1:0x210] == header[: 0x210 - 0x1F1]
        assert page[0x210] == 0xFF  # a loader without a number of its own
        where, size, command_line = struct.unpack_from("<II8xI", page, 0x218)
        assert machine.memory.read(where, size, private=True) == INITRD
        assert machine.memory.read(command_line, len(COMMAND_LINE) + 1, private=True) == COMMAND_LINE.encode() + b"\0"
        (rsdp,) = struct.unpack_from("<Q", page, 0x70)
        assert machine.memory.read(rsdp, 8, private=True) == b"RSD PTR "


@pytest.mark.parametrize(("low", "high"), [(64 * MIB, 0), (3 << 30, 1 << 30)])
def test_the_memory_map_covers_all_ram_once(low: int, high: int) -> None:
    regions = {region.name: region for region in direct.direct_regions(images(), low, high, 0, lambda _base: b"T" * 16)}
    page = regions["boot parameters"].data
    entries = [struct.unpack_from("<QQI", page, 0x2D0 + 20 * number) for number in range(page[0x1E8])]
    assert entries == sorted(entries)
    assert all(start + size <= later[0] for (start, size, _), later in pairwise(entries))
    usable = sum(size for _, size, kind in entries if kind == 1)
    assert usable == low + high - 0x60000 - 0x10000  # without the hole below 1 MiB and the ACPI tables
    assert [start for start, _, kind in entries if kind == 3] == [regions["ACPI tables"].gpa]


def test_every_page_table_entry_is_private() -> None:
    mask = 1 << 51
    (tables,) = [r for r in direct.direct_regions(images(), 64 * MIB, 0, mask) if r.name == "page tables"]
    present = [entry for (entry,) in struct.iter_unpack("<Q", tables.data) if entry & 1]
    assert len(present) == 1 + 512
    assert all(entry & mask for entry in present)
    assert [entry & ~mask for entry in present[1:]] == [number << 30 | 0x83 for number in range(512)]


def test_the_launch_measures_what_was_placed_and_nothing_else() -> None:
    with started(POWER_OFF) as (machine, run):
        regions = machine.launch.regions
        names = ["loader", "boot parameters", "page tables", "command line", "kernel", "initrd", "ACPI tables"]
        assert [region.name for region in regions] == names
        assert all(region.gpa % 16 == len(region.data) % 16 == 0 for region in regions)
        digest = hashlib.sha256(b"".join(region.data for region in regions)).hexdigest()
        assert machine.summary(run)["sev"]["launch_digest"] == digest


def test_another_command_line_is_another_launch() -> None:
    def digest(text: str) -> bytes:
        boot = BootImages(kernel=images().kernel, cmdline=text)
        return hashlib.sha256(b"".join(r.data for r in direct.direct_regions(boot, 64 * MIB))).digest()

    assert digest("a") != digest("b")
    assert digest("a") == digest("a")


def test_a_reset_places_it_all_again() -> None:
    # The first time, the kernel spoils its own code and resets; CMOS byte 0x40 remembers that.
    again = f"""
    mov al, 0x40; out 0x70, al; in al, 0x71; cmp al, 0x5a; je 1f
    mov al, 0x40; out 0x70, al; mov al, 0x5a; out 0x71, al
    lea rax, [rip+1f]; mov dword ptr [rax], 0x0b0f0b0f
    mov dx, 0xcf9; mov al, 6; out dx, al
 2: jmp 2b
 1: {POWER_OFF}
"""
    with started(again, None, reboot=True) as (_machine, run):
        assert run.detail == "the guest switched itself off (ACPI S5)"


def test_without_a_board_there_are_no_tables_and_all_memory_is_usable() -> None:
    regions = direct.direct_regions(images(initrd=None), 64 * MIB)
    page = next(region.data for region in regions if region.name == "boot parameters")
    assert "ACPI tables" not in [region.name for region in regions]
    assert struct.unpack_from("<Q", page, 0x70) == (0,)


def test_the_highest_place_below_the_limit_is_the_initrds() -> None:
    for xloadflags, limit in ((1, 0x80000000), (3, (3 << 30) - 0x10000)):
        boot = BootImages(kernel=Image(bzimage(xloadflags=xloadflags), "k"), initrd=Image(INITRD, "i"))
        (initrd,) = [r for r in direct.direct_regions(boot, 3 << 30) if r.name == "initrd"]
        assert initrd.gpa == (limit - len(INITRD)) & ~0xFFF


def test_a_command_line_with_a_zero_byte_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"command line \(append\): expected text without zero bytes"):
        direct.direct_regions(BootImages(kernel=images().kernel, cmdline="a\0b"), 64 * MIB)
