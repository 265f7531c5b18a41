"""Wider accesses to byte-wide registers, as the ISA bus splits them: low byte at the lower port."""

from __future__ import annotations

from collections.abc import Callable

ByteRead = Callable[[int], int]
ByteWrite = Callable[[int, int], None]


def read_bytes(read: ByteRead, port: int, size: int, end: int) -> int:
    """``size`` bytes from ``port`` on, little-endian; ports from ``end`` on read as 0xFF."""
    value = 0
    for index in range(size):
        byte = read(port + index) if port + index < end else 0xFF
        value |= byte << (8 * index)
    return value


def write_bytes(write: ByteWrite, port: int, size: int, value: int, end: int) -> None:
    """Store ``size`` bytes from ``port`` on, little-endian; what falls on ``end`` or later is dropped."""
    for index in range(size):
        if port + index < end:
            write(port + index, value >> (8 * index) & 0xFF)
