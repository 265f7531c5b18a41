"""The board's namespace: the PCI root bridge, its interrupt links, the ISA devices, and how to switch off.

After the tables that QEMU makes for pc-i440fx (hw/i386/acpi-build.c), with what this board has.
"""

from __future__ import annotations

from functools import lru_cache

from sevplug.board.acpi import aml
from sevplug.board.acpi import resources as res
from sevplug.board.pci import WINDOW_END

_LINKS = ("LNKA", "LNKB", "LNKC", "LNKD")
_PIRQ_ROUTE = 0x60  # the PIIX3's four routing registers
_LINK_CHOICES = (5, 10, 11)
_SCI = 9
_SLOTS = 32
_BRIDGE = r"\_SB.PCI0.ISA"


# Asked for again whenever firmware moves the power management registers, which are not in it.
@lru_cache(maxsize=4)
def build_namespace(low_ram: int) -> bytes:
    """The body of the DSDT in AML.  ``low_ram``: bytes of RAM from address 0 on."""
    return b"".join(
        (
            aml.scope(r"\_SB", _root_bridge(low_ram), *_link_methods(), *map(_link, range(len(_LINKS))), _processor()),
            # PM1 control's SLP_TYP is 0 for "soft off" on a PIIX4; the last two are reserved.
            aml.name(r"\_S5", aml.package([aml.ZERO] * 4)),
        )
    )


def _root_bridge(low_ram: int) -> bytes:
    return aml.device(
        "PCI0",
        aml.name("_HID", aml.eisa_id("PNP0A03")),
        aml.name("_UID", aml.ZERO),
        aml.name(
            "_CRS",
            res.template(
                res.bus_numbers(0, 0xFF),
                res.ports(0xCF8, 8),
                res.produced_ports(0, 0xCF7),
                res.produced_ports(0xD00, 0xFFFF),
                res.produced_memory(0xA_0000, 0xB_FFFF, cacheable=True),
                res.produced_memory(low_ram, WINDOW_END - 1),
            ),
        ),
        aml.name("_PRT", aml.package([_route(slot, pin) for slot in range(_SLOTS) for pin in range(4)])),
        _isa_bridge(),
    )


def _route(slot: int, pin: int) -> bytes:
    """An entry of _PRT: (every function of ``slot``, ``pin`` 0 = A, link, index), swizzled as `IsaBridge.line`."""
    address = aml.integer(slot << 16 | 0xFFFF)
    if (slot, pin) == (1, 0):
        # Power management's own interrupt is the SCI, which no link steers.
        return aml.package([address, aml.integer(pin), aml.ZERO, aml.integer(_SCI)])
    return aml.package([address, aml.integer(pin), aml.path(_LINKS[(slot + pin - 1) & 3]), aml.ZERO])


def _isa_bridge() -> bytes:
    return aml.device(
        "ISA",
        aml.name("_ADR", aml.integer(0x0001_0000)),
        aml.pci_config_region("P40C", _PIRQ_ROUTE, len(_LINKS)),
        aml.byte_fields("P40C", [f"PRQ{number}" for number in range(len(_LINKS))]),
        _isa_device("RTC", "PNP0B00", res.ports(0x70, 8), res.isa_interrupt(8)),
        _isa_device("KBD", "PNP0303", res.ports(0x60, 1), res.ports(0x64, 1), res.isa_interrupt(1)),
        _isa_device("MOU", "PNP0F13", res.isa_interrupt(12)),
        _isa_device("COM1", "PNP0501", res.ports(0x3F8, 8), res.isa_interrupt(4), unit=1),
    )


def _isa_device(name: str, hardware: str, *descriptors: bytes, unit: int | None = None) -> bytes:
    return aml.device(
        name,
        aml.name("_HID", aml.eisa_id(hardware)),
        b"" if unit is None else aml.name("_UID", aml.integer(unit)),
        aml.name("_STA", aml.integer(0x0F)),
        aml.name("_CRS", res.template(*descriptors)),
    )


def _link_methods() -> tuple[bytes, bytes]:
    """IQST: a link's _STA from its routing register (bit 7 is off); IQCR: its _CRS."""
    register = aml.argument(0)
    return (
        aml.method(
            "IQST",
            1,
            aml.if_(aml.bit_and(aml.integer(0x80), register), aml.return_(aml.integer(0x09))),
            aml.return_(aml.integer(0x0B)),
        ),
        aml.method(
            "IQCR",
            1,
            aml.name("PRR0", res.template(res.interrupts([0]))),
            aml.create_dword_field(aml.path("PRR0"), res.INTERRUPT_NUMBER_AT, "PRRI"),
            aml.bit_and(register, aml.integer(0x0F), aml.path("PRRI")),
            aml.return_(aml.path("PRR0")),
        ),
    )


def _link(number: int) -> bytes:
    """One of the four PCI interrupt links; its setting is kept in the PIIX3."""
    register = aml.path(f"{_BRIDGE}.PRQ{number}")
    return aml.device(
        _LINKS[number],
        aml.name("_HID", aml.eisa_id("PNP0C0F")),
        aml.name("_UID", aml.integer(number)),
        aml.name("_PRS", res.template(res.interrupts(_LINK_CHOICES))),
        aml.method("_STA", 0, aml.return_(aml.path("IQST") + register)),
        aml.method("_DIS", 0, aml.bit_or(register, aml.integer(0x80), register)),
        aml.method("_CRS", 0, aml.return_(aml.path("IQCR") + register)),
        aml.method(
            "_SRS",
            1,
            aml.create_dword_field(aml.argument(0), res.INTERRUPT_NUMBER_AT, "PRRI"),
            aml.store(aml.path("PRRI"), register),
        ),
    )


def _processor() -> bytes:
    """The one processor; its unit number is the one the MADT gives for the local APIC."""
    return aml.device("C000", aml.name("_HID", aml.string("ACPI0007")), aml.name("_UID", aml.ZERO))
