"""Resource descriptors, the contents of _CRS and _PRS (ACPI Specification 6.4, section 6.4)."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from sevplug.board.acpi import aml

_CONSUMER, _FIXED_RANGE = 1, 0x0C  # general flags: used by the device itself; minimum and maximum are fixed
_MEMORY, _IO, _BUS = 0, 1, 2
_READ_WRITE_CACHEABLE, _READ_WRITE, _ENTIRE_RANGE = 0x03, 0x01, 0x03
# Where the interrupt's number is in a template that starts with `interrupts` of one number.
INTERRUPT_NUMBER_AT = 5


def template(*descriptors: bytes) -> bytes:
    """``ResourceTemplate () {…}``: a buffer of the descriptors and an end tag (its checksum 0: not computed)."""
    return aml.buffer(b"".join(descriptors) + b"\x79\0")


def ports(first: int, count: int) -> bytes:
    """``IO (Decode16, first, first, 1, count)``."""
    return struct.pack("<BBHHBB", 0x47, 1, first, first, 1, count)


def isa_interrupt(irq: int) -> bytes:
    """``IRQNoFlags () {irq}``: edge-triggered, active high, not shared."""
    return struct.pack("<BH", 0x22, 1 << irq)


def interrupts(numbers: Sequence[int]) -> bytes:
    """``Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) {numbers}``."""
    body = struct.pack("<BB", 0x08 | _CONSUMER, len(numbers)) + struct.pack(f"<{len(numbers)}I", *numbers)
    return struct.pack("<BH", 0x89, len(body)) + body


def bus_numbers(first: int, last: int) -> bytes:
    """Bus numbers that a bridge produces."""
    return _words(_BUS, 0, first, last)


def produced_ports(first: int, last: int) -> bytes:
    """I/O ports that a bridge passes on."""
    return _words(_IO, _ENTIRE_RANGE, first, last)


def produced_memory(first: int, last: int, *, cacheable: bool = False) -> bytes:
    """Memory below 4 GiB that a bridge passes on."""
    kind = _READ_WRITE_CACHEABLE if cacheable else _READ_WRITE
    body = struct.pack("<BBB5I", _MEMORY, _FIXED_RANGE, kind, 0, first, last, 0, last - first + 1)
    return struct.pack("<BH", 0x87, len(body)) + body


def _words(kind: int, flags: int, first: int, last: int) -> bytes:
    body = struct.pack("<BBB5H", kind, _FIXED_RANGE, flags, 0, first, last, 0, last - first + 1)
    return struct.pack("<BH", 0x88, len(body)) + body
