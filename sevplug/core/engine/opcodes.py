"""What an instruction is, as far as the engine's reports leave that open; pure functions of its bytes.

AMD's APM, volume 3, appendix A (opcode maps).
"""

from __future__ import annotations

PREFIXES = frozenset([0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3])
REX = frozenset(range(0x40, 0x50))
OPERAND_SIZE = 0x66

# Instructions that make the CPU read a descriptor: MOV and POP to a segment register, loads of far pointers, far
# jumps, calls and returns; behind 0F: LAR, LSL, LSS, POP FS, LFS, LGS, POP GS.
_LOADS = frozenset([0x07, 0x17, 0x1F, 0x8E, 0x9A, 0xC4, 0xC5, 0xCA, 0xCB, 0xCF, 0xEA])
_LOADS_0F = frozenset([0x02, 0x03, 0xA1, 0xA9, 0xB2, 0xB4, 0xB5])
# The groups FF (/3 and /5: far call and jump) and 0F 00 (/2 to /5: LLDT, LTR, VERR, VERW).
_FAR_GROUP, _FAR_MEMBERS = 0xFF, (3, 5)
_SYSTEM_GROUP, _SYSTEM_MEMBERS = 0x00, (2, 3, 4, 5)

# VEX-encoded integer instructions (BMI1, BMI2): map 0F 38, F2 to F7; map 0F 3A, F0.
_VEX3 = 0xC4
_VEX_INTEGER = {2: range(0xF2, 0xF8), 3: range(0xF0, 0xF1)}


def prefix_length(code: bytes, *, rex: bool = True) -> int:
    """The number of prefix bytes that ``code`` begins with, REX among them in 64-bit code."""
    length = 0
    while length < len(code) and (code[length] in PREFIXES or (rex and code[length] in REX)):
        length += 1
    return length


def is_vex_integer(code: bytes) -> bool:
    """Whether ``code`` starts with a VEX-encoded instruction on general registers, such as SHLX."""
    return code[0] == _VEX3 and code[3] in _VEX_INTEGER.get(code[1] & 0x1F, ())


def loads_descriptor(code: bytes, *, rex: bool) -> bool:
    """Whether the instruction at the start of ``code`` has the CPU read its descriptor tables."""
    code = code[prefix_length(code, rex=rex) :].ljust(3, b"\0")
    if code[0] == 0x0F:
        return code[1] in _LOADS_0F or (code[1] == _SYSTEM_GROUP and code[2] >> 3 & 7 in _SYSTEM_MEMBERS)
    return code[0] in _LOADS or (code[0] == _FAR_GROUP and code[1] >> 3 & 7 in _FAR_MEMBERS)
