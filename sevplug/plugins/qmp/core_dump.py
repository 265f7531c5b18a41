"""Guest memory as an ELF core file, the form that crash, gdb and readelf know.

Guest-physical addresses only (QEMU's ``paging=false``): an ELF header, a PT_NOTE with an NT_PRSTATUS of the CPU, and a
PT_LOAD for each range.  Sources: QEMU's ``dump/dump.c`` and ``target/i386/arch_dump.c``; Linux ``elfcore.h``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from sevplug.core.vcpu import VCpu

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_NOTE = struct.Struct("<III")
_IDENT = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian, version 1
_ET_CORE, _EM_X86_64, _PT_LOAD, _PT_NOTE, _NT_PRSTATUS = 4, 62, 1, 4, 1
_OWNER = b"CORE"
# prstatus: the process id at 32, the registers at 112, 8 more bytes behind them.
_PRSTATUS_SIZE, _PID_OFFSET, _REGISTERS_OFFSET = 336, 32, 112
# The order of user_regs_struct.  None: a register that a VCpu does not show (orig_rax, segments and their bases).
_REGISTERS = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi"),
    *(None, "rip", None, "rflags", "rsp"),
    *(None, None, None, None, None, None, None),
)


def core_header(cpu: VCpu, ranges: Iterable[tuple[int, int]]) -> bytes:
    """What comes before the memory itself, which follows range by range without gaps.

    ``ranges``: (guest-physical address, size in bytes) of each, in the order of the file.
    """
    loads = list(ranges)
    count = len(loads) + 1
    note = _note(cpu)
    note_offset = _HEADER.size + count * _SEGMENT.size
    offset = note_offset + len(note)
    header = _HEADER.pack(
        _IDENT, _ET_CORE, _EM_X86_64, 1, 0, _HEADER.size, 0, 0, _HEADER.size, _SEGMENT.size, count, 0, 0, 0
    )
    segments = [_SEGMENT.pack(_PT_NOTE, 0, note_offset, 0, 0, len(note), len(note), 0)]
    for gpa, size in loads:
        segments.append(_SEGMENT.pack(_PT_LOAD, 0, offset, 0, gpa, size, size, 0))
        offset += size
    return header + b"".join(segments) + note


def _note(cpu: VCpu) -> bytes:
    status = bytearray(_PRSTATUS_SIZE)
    struct.pack_into("<I", status, _PID_OFFSET, cpu.index + 1)
    values = [0 if name is None else cpu.get(name) for name in _REGISTERS]
    struct.pack_into(f"<{len(values)}Q", status, _REGISTERS_OFFSET, *values)
    name = _OWNER + b"\0"
    return _NOTE.pack(len(name), len(status), _NT_PRSTATUS) + name.ljust(8, b"\0") + status
