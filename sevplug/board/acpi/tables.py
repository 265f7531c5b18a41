"""The board's ACPI tables, as blobs whose addresses and checksums are not yet filled in.

Whoever places them fills those in: guest firmware, told how by `sevplug.board.acpi.linker`, or
`sevplug.board.acpi.place`.  The tables are those of ACPI 6.4 in their ACPI 2.0 to 3.0 sizes: RSDP (5.2.5), XSDT
(5.2.8), FADT (5.2.9), FACS (5.2.10), DSDT (5.2.11) and MADT (5.2.12).
"""

from __future__ import annotations

import struct

import attrs

from sevplug.board.acpi.dsdt import build_namespace

PM_BASE = 0x600
"""Where SeaBIOS puts the PIIX4's power management registers, and where they are when no firmware chooses."""

_HEADER = 36
_LOCAL_APIC, _IO_APIC = 0xFEE0_0000, 0xFEC0_0000
_GPE = 0xAFE0
_SCI = 9
_RESET_PORT, _RESET_VALUE = 0xCF9, 6
# FADT flags: WBINVD works, C1 works, no sleep button, the RTC is no fixed event, a reset register.  The power button
# is the fixed one (bit 4 clear) and the PM timer has 24 bits (bit 8 clear).
_FADT_FLAGS = 1 << 0 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 10
# Legacy ISA devices, an 8042, no VGA.
_BOOT_ARCHITECTURE = 1 << 0 | 1 << 1 | 1 << 2
_CENTURY = 0x32
# Interrupts that are level-triggered and active high: those the PCI links may choose, and the SCI.
_LEVEL_INTERRUPTS = (5, 9, 10, 11)
_LEVEL_HIGH = 0x000D


@attrs.frozen
class Pointer:
    """At offset ``at`` of its blob, ``size`` bytes hold an offset into the tables blob, to become an address."""

    at: int
    size: int


@attrs.frozen
class Checksum:
    """At offset ``at`` of its blob: the byte, now 0, that makes the sum of ``[start, start + length)`` 0."""

    at: int
    start: int
    length: int


@attrs.frozen
class Blob:
    """Bytes with what is left to fill in; pointers before checksums."""

    data: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")
    pointers: tuple[Pointer, ...]
    checksums: tuple[Checksum, ...]


@attrs.frozen
class Tables:
    """The RSDP, and all other tables one behind the other; ``tables`` is aligned to 64 bytes, ``rsdp`` to 16."""

    rsdp: Blob
    tables: Blob


def describe_board(low_ram: int, pm_base: int = PM_BASE) -> Tables:
    """The tables of the board.

    ``low_ram``: bytes of RAM from address 0 on.  ``pm_base``: the port from which on the PIIX4's power management
    registers are decoded.
    """
    data = bytearray(_facs())
    pointers: list[Pointer] = []
    checksums: list[Checksum] = []

    def add(signature: bytes, revision: int, body: bytes, *pointers_in_body: Pointer) -> int:
        start = len(data)
        length = _HEADER + len(body)
        header = struct.pack(
            "<4sIBB6s8sI4sI", signature, length, revision, 0, b"SEVPLG", b"SEVPLUG ", 1, b"SVPL", 1
        )  # fmt: skip
        data.extend(header + body)
        data.extend(bytes(-len(data) % 8))
        pointers.extend(Pointer(start + _HEADER + pointer.at, pointer.size) for pointer in pointers_in_body)
        checksums.append(Checksum(start + 9, start, length))
        return start

    dsdt = add(b"DSDT", 2, build_namespace(low_ram))
    fadt = add(b"FACP", 3, _fadt(dsdt, pm_base), Pointer(0, 4), Pointer(4, 4), Pointer(140 - _HEADER, 8))
    madt = add(b"APIC", 1, _madt())
    xsdt = add(b"XSDT", 1, struct.pack("<2Q", fadt, madt), Pointer(0, 8), Pointer(8, 8))
    return Tables(_rsdp(xsdt), Blob(bytes(data), tuple(pointers), tuple(checksums)))


def _rsdp(xsdt: int) -> Blob:
    """Revision 2, with an XSDT and no RSDT; the first checksum is that of ACPI 1.0's 20 bytes."""
    data = struct.pack("<8sB6sBIIQB3x", b"RSD PTR ", 0, b"SEVPLG", 2, 0, 36, xsdt, 0)
    return Blob(data, (Pointer(24, 8),), (Checksum(8, 0, 20), Checksum(32, 0, 36)))


def _facs() -> bytes:
    """The firmware control structure: no wake-up vector, no checksum."""
    return struct.pack("<4sI", b"FACS", 64).ljust(64, b"\0")


def _fadt(dsdt: int, pm_base: int) -> bytes:
    """Everything behind the header.  The FACS is at offset 0 of the tables."""
    event, control, timer = pm_base, pm_base + 4, pm_base + 8
    return b"".join(
        (
            struct.pack("<IIBBHIBBBB", 0, dsdt, 0, 0, _SCI, 0xB2, 0xF1, 0xF0, 0, 0),
            struct.pack("<8I", event, 0, control, 0, 0, timer, _GPE, 0),
            # Lengths of the register blocks, GPE1's base, no C-state but C1 (latencies over the limits), no throttling.
            struct.pack("<8B4H5B", 4, 2, 0, 4, 4, 0, 0, 0, 0xFFFF, 0xFFFF, 0, 0, 0, 0, 0, 0, _CENTURY),
            struct.pack("<HBI", _BOOT_ARCHITECTURE, 0, _FADT_FLAGS),
            _port(_RESET_PORT, 1),
            struct.pack("<BHB", _RESET_VALUE, 0, 0),
            struct.pack("<QQ", 0, dsdt),
            _port(event, 4),
            _NO_REGISTER,
            _port(control, 2),
            _NO_REGISTER,
            _NO_REGISTER,
            _port(timer, 4),
            _port(_GPE, 4),
            _NO_REGISTER,
        )
    )


_NO_REGISTER = bytes(12)


def _port(port: int, size: int) -> bytes:
    """A generic address structure: ``size`` bytes of I/O space, accessed in the widths ACPI leaves to the reader."""
    return struct.pack("<BBBBQ", 1, 8 * size, 0, 0, port)


def _madt() -> bytes:
    """One local APIC, the I/O APIC, IRQ 0 at its pin 2, level-triggered interrupts, NMI at LINT1; 8259s are there."""
    return b"".join(
        (
            struct.pack("<II", _LOCAL_APIC, 1),
            struct.pack("<BBBBI", 0, 8, 0, 0, 1),
            struct.pack("<BBBBII", 1, 12, 0, 0, _IO_APIC, 0),
            _override(0, 2, 0),
            *(_override(irq, irq, _LEVEL_HIGH) for irq in _LEVEL_INTERRUPTS),
            struct.pack("<BBBHB", 4, 6, 0xFF, 0, 1),
        )
    )


def _override(irq: int, pin: int, flags: int) -> bytes:
    return struct.pack("<BBBBIH", 2, 10, 0, irq, pin, flags)
