"""The CPU's registers as GDB numbers, names and sees them.

Up to ``gs_base`` number and order are those of GDB's own amd64 description.  In 16- and 32-bit code the registers are
what QEMU makes of them (``target/i386/gdbstub.c``): 32 bits wide, R8 to R15 zero.  A segment's base, which QEMU has for
FS and GS only, is there for all: in real mode nothing is found without it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import attrs

from sevplug.core.errors import GuestFault

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

_LOW = 0xFFFF_FFFF
_KERNEL_GS_BASE = 0xC000_0102
_PE, _VM, _LMA = 1 << 0, 1 << 17, 1 << 10
# The core's numbers of segments.
_ES, _CS, _SS, _DS, _FS, _GS, _LDTR, _TR, _GDTR, _IDTR = range(10)

Read = Callable[["Machine"], int]
Write = Callable[["Machine", int], None]


class RegisterRefused(Exception):
    """The register does not take this value."""


@attrs.frozen
class Register:
    """``size`` in bytes; ``type`` as in target descriptions; ``write`` None: what is written is forgotten."""

    name: str
    size: int
    type: str
    read: Read
    write: Write | None = None
    group: str | None = None


def _get(name: str, machine: Machine) -> int:
    return machine.cpu.get(name)


def _set(name: str, machine: Machine, value: int) -> None:
    machine.cpu.set(name, value)


def _get_general(name: str, extended: bool, machine: Machine) -> int:
    if machine.engine.cpu.in_64bit_code:
        return machine.cpu.get(name)
    return 0 if extended else machine.cpu.get(name) & _LOW


def _set_general(name: str, extended: bool, machine: Machine, value: int) -> None:
    if machine.engine.cpu.in_64bit_code:
        machine.cpu.set(name, value)
    elif not extended:
        machine.cpu.set(name, machine.cpu.get(name) & ~_LOW | value & _LOW)


def _set_rip(machine: Machine, value: int) -> None:
    if value != machine.cpu.rip:
        machine.engine.go_to(value if machine.engine.cpu.in_64bit_code else value & _LOW)


def _get_selector(number: int, machine: Machine) -> int:
    return machine.engine.cpu.segment(number)[0]


def _set_selector(number: int, machine: Machine, value: int) -> None:
    cpu = machine.engine.cpu
    selector, _base, limit, flags = cpu.segment(number)
    if value == selector:
        return
    if cpu.get("cr0") & _PE and not cpu.get("rflags") & _VM:
        raise RegisterRefused
    cpu.set_segment(number, value & 0xFFFF, (value & 0xFFFF) << 4, limit, flags)
    cpu.sync_mode(cpu.cpl)


def _get_base(number: int, machine: Machine) -> int:
    return machine.engine.cpu.segment(number)[1]


def _set_base(number: int, machine: Machine, value: int) -> None:
    selector, _base, limit, flags = machine.engine.cpu.segment(number)
    machine.engine.cpu.set_segment(number, selector, value, limit, flags)


def _get_limit(number: int, machine: Machine) -> int:
    return machine.engine.cpu.segment(number)[2]


def _get_kernel_gs_base(machine: Machine) -> int:
    try:
        return machine.cpu.msr_read(_KERNEL_GS_BASE)
    except GuestFault:  # a plug-in's
        return 0


def _set_efer(machine: Machine, value: int) -> None:
    if (value ^ machine.cpu.get("efer")) & _LMA:
        raise RegisterRefused
    machine.cpu.set("efer", value)


def _zero(_machine: Machine) -> int:
    return 0


def _general(name: str, kind: str = "int64", *, extended: bool = False) -> Register:
    return Register(
        name, 8, kind, partial(_get_general, name, extended), partial(_set_general, name, extended), "general"
    )


def _plain(name: str, size: int, kind: str, of_cpu: str | None = None, group: str | None = None) -> Register:
    return Register(name, size, kind, partial(_get, of_cpu or name), partial(_set, of_cpu or name), group)


_GENERAL = (
    *(_general(name) for name in ("rax", "rbx", "rcx", "rdx", "rsi", "rdi")),
    *(_general(name, "data_ptr") for name in ("rbp", "rsp")),
    *(_general(f"r{number}", extended=True) for number in range(8, 16)),
)
_SELECTORS = tuple(
    Register(name, 4, "int32", partial(_get_selector, number), partial(_set_selector, number), "general")
    for name, number in (("cs", _CS), ("ss", _SS), ("ds", _DS), ("es", _ES), ("fs", _FS), ("gs", _GS))
)
_X87 = (
    *(_plain(f"st{number}", 10, "i387_ext") for number in range(8)),
    _plain("fctrl", 4, "int", "fcw", "float"),
    _plain("fstat", 4, "int", "fsw", "float"),
    _plain("ftag", 4, "int", "ftw", "float"),
    # The engine keeps no pointers to the last x87 instruction.
    *(Register(name, 4, "int", _zero, None, "float") for name in ("fiseg", "fioff", "foseg", "fooff", "fop")),
)

# The features of the target description and their registers, in the order of their numbers.
FEATURES = {
    "org.gnu.gdb.i386.core": (
        *_GENERAL,
        Register("rip", 8, "code_ptr", partial(_get_general, "rip", False), _set_rip, "general"),
        _plain("eflags", 4, "eflags", "rflags", "general"),
        *_SELECTORS,
        *_X87,
    ),
    "org.gnu.gdb.i386.sse": (
        *(_plain(f"xmm{number}", 16, "vec128") for number in range(16)),
        _plain("mxcsr", 4, "mxcsr", group="vector"),
    ),
    "org.gnu.gdb.i386.segments": (
        Register("fs_base", 8, "int64", partial(_get_base, _FS), partial(_set_base, _FS), "general"),
        Register("gs_base", 8, "int64", partial(_get_base, _GS), partial(_set_base, _GS), "general"),
    ),
    "sevplug.system": (
        Register("k_gs_base", 8, "int64", _get_kernel_gs_base),
        _plain("cr0", 8, "cr0"),
        _plain("cr2", 8, "int64"),
        _plain("cr3", 8, "int64"),
        _plain("cr4", 8, "cr4"),
        # It always reads as zero for the guest, too.
        Register("cr8", 8, "int64", _zero),
        Register("efer", 8, "efer", partial(_get, "efer"), _set_efer),
        *(
            Register(f"{name}_base", 8, "int64", partial(_get_base, number), None, "system")
            for name, number in (
                ("es", _ES), ("cs", _CS), ("ss", _SS), ("ds", _DS),
                ("ldtr", _LDTR), ("tr", _TR), ("gdtr", _GDTR), ("idtr", _IDTR),
            )
        ),
        *(
            Register(f"{name}_limit", 4, "int32", partial(_get_limit, number), None, "system")
            for name, number in (("gdtr", _GDTR), ("idtr", _IDTR))
        ),
    ),
}  # fmt: skip
REGISTERS = tuple(register for registers in FEATURES.values() for register in registers)


def read_register(machine: Machine, number: int) -> bytes:
    """The register with GDB's ``number``, little-endian; IndexError for another number."""
    register = REGISTERS[number]
    value = register.read(machine) & ((1 << 8 * register.size) - 1)
    return value.to_bytes(register.size, "little")


def write_register(machine: Machine, number: int, data: bytes) -> None:
    """Set a register from ``data`` of its size; `RegisterRefused` where it takes no such value."""
    register = REGISTERS[number]
    if len(data) != register.size:
        raise RegisterRefused
    if register.write is not None:
        register.write(machine, int.from_bytes(data, "little"))


def read_all(machine: Machine) -> bytes:
    """All registers, one behind the other."""
    return b"".join(read_register(machine, number) for number in range(len(REGISTERS)))


def write_all(machine: Machine, data: bytes) -> None:
    """Set those registers that have another value in ``data``, which is as `read_all` gives it.

    `RegisterRefused` where it has another length, or one of them takes no such value.
    """
    if len(data) != sum(register.size for register in REGISTERS):
        raise RegisterRefused
    at = 0
    for number, register in enumerate(REGISTERS):
        piece = data[at : at + register.size]
        at += register.size
        if piece != read_register(machine, number):
            write_register(machine, number, piece)
