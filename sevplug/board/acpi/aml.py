"""An encoder for the little AML that the board's own tables need (ACPI Specification 6.4, chapter 20).

Each function returns the bytes of one object, statement or expression.  Multi-byte numbers are little-endian.  Names
are written as in ASL: ``PRQ0``, ``PCI0.ISA``, ``\\_SB.PCI0``.
"""

from __future__ import annotations

from collections.abc import Sequence

_MAX_ARGUMENTS = 7


def integer(value: int) -> bytes:
    """A constant of up to 64 bits in its shortest form (20.2.3, 20.2.5.1).  ValueError when it does not fit."""
    if value in (0, 1):
        return bytes([value])
    for prefix, size in ((0x0A, 1), (0x0B, 2), (0x0C, 4), (0x0E, 8)):
        if 0 <= value < 1 << 8 * size:
            return bytes([prefix]) + value.to_bytes(size, "little")
    raise ValueError(f"AML integer {value}: expected 0 to 2**64 - 1")


ZERO = integer(0)


def path(name: str) -> bytes:
    """A NameString (20.2.2).  ValueError for a segment that is not one to four of A-Z, 0-9 and _."""
    root = b"\\" if name.startswith("\\") else b""
    segments = name.removeprefix("\\").split(".")
    encoded = b"".join(map(_segment, segments))
    if len(segments) == 1:
        return root + encoded
    if len(segments) == 2:
        return root + b"\x2e" + encoded
    return root + b"\x2f" + bytes([len(segments)]) + encoded


def _segment(text: str) -> bytes:
    good = 1 <= len(text) <= 4 and all(char in "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789" for char in text)
    if not good or text[0].isdigit():
        raise ValueError(f"AML name {text!r}: expected one to four of A-Z, 0-9 and _")
    return text.ljust(4, "_").encode()


def _sized(opcode: bytes, body: bytes) -> bytes:
    """``opcode``, a PkgLength that counts itself and ``body``, and ``body`` (20.2.4)."""
    for extra in range(4):
        length = len(body) + 1 + extra
        if length < (1 << 6 if extra == 0 else 1 << 4 + 8 * extra):
            break
    else:
        raise ValueError(f"AML package of {len(body)} bytes: expected less than 2**28")
    if extra == 0:
        return opcode + bytes([length]) + body
    return opcode + bytes([extra << 6 | length & 0xF]) + (length >> 4).to_bytes(extra, "little") + body


# -- objects -----------------------------------------------------------------------------------------------------------


def string(text: str) -> bytes:
    """A string of ASCII characters."""
    return b"\x0d" + text.encode("ascii") + b"\0"


def buffer(data: bytes) -> bytes:
    """A buffer that holds ``data``."""
    return _sized(b"\x11", integer(len(data)) + data)


def package(elements: Sequence[bytes]) -> bytes:
    """A package of up to 255 elements."""
    return _sized(b"\x12", bytes([len(elements)]) + b"".join(elements))


def name(where: str, value: bytes) -> bytes:
    """``Name (where, value)``."""
    return b"\x08" + path(where) + value


def scope(where: str, *body: bytes) -> bytes:
    """``Scope (where) {…}``."""
    return _sized(b"\x10", path(where) + b"".join(body))


def device(where: str, *body: bytes) -> bytes:
    """``Device (where) {…}``."""
    return _sized(b"\x5b\x82", path(where) + b"".join(body))


def method(where: str, arguments: int, *body: bytes) -> bytes:
    """``Method (where, arguments, Serialized) {…}``; serialized, so that it may create names."""
    if not 0 <= arguments <= _MAX_ARGUMENTS:
        raise ValueError(f"AML method {where}: {arguments} arguments, expected 0 to {_MAX_ARGUMENTS}")
    return _sized(b"\x14", path(where) + bytes([arguments | 8]) + b"".join(body))


def pci_config_region(where: str, offset: int, size: int) -> bytes:
    """``OperationRegion (where, PCI_Config, offset, size)``: configuration space of the device around it."""
    return b"\x5b\x80" + path(where) + b"\x02" + integer(offset) + integer(size)


def byte_fields(region: str, fields: Sequence[str]) -> bytes:
    """``Field (region, ByteAcc, NoLock, Preserve)`` with one byte for each name of ``fields``."""
    return _sized(b"\x5b\x81", path(region) + b"\x01" + b"".join(_segment(field) + b"\x08" for field in fields))


def eisa_id(text: str) -> bytes:
    """``EisaId (text)``: three letters and four hexadecimal digits as a 32-bit number (19.3.4)."""
    letters = 0
    for char in text[:3]:
        letters = letters << 5 | ord(char) - 0x40
    number = letters << 16 | int(text[3:], 16)
    # In one fixed form, as ASL compilers write it: the number is big-endian inside a little-endian constant.
    return b"\x0c" + number.to_bytes(4, "big")


# -- statements --------------------------------------------------------------------------------------------------------


def local(number: int) -> bytes:
    """``Local<number>``, 0..7."""
    return bytes([0x60 + number])


def argument(number: int) -> bytes:
    """``Arg<number>``, 0..6."""
    return bytes([0x68 + number])


def store(value: bytes, target: bytes) -> bytes:
    """``Store (value, target)``."""
    return b"\x70" + value + target


def bit_and(left: bytes, right: bytes, target: bytes = b"\0") -> bytes:
    """``And (left, right, target)``; without ``target`` as an expression."""
    return b"\x7b" + left + right + target


def bit_or(left: bytes, right: bytes, target: bytes) -> bytes:
    """``Or (left, right, target)``."""
    return b"\x7d" + left + right + target


def if_(condition: bytes, *body: bytes) -> bytes:
    """``If (condition) {…}``."""
    return _sized(b"\xa0", condition + b"".join(body))


def return_(value: bytes) -> bytes:
    """``Return (value)``."""
    return b"\xa4" + value


def create_dword_field(source: bytes, offset: int, field: str) -> bytes:
    """``CreateDWordField (source, offset, field)``."""
    return b"\x8a" + source + integer(offset) + path(field)
