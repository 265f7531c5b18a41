"""Port and MMIO dispatch: who answers, what silence reads as, and what two owners of one place are told."""

from __future__ import annotations

import pytest

from sevplug.core.bus import Bus, Device
from sevplug.core.errors import ConfigError


class Recorder:
    """A handler pair that answers with ``value`` and keeps what it was asked."""

    def __init__(self, value: int = 0) -> None:
        self.value = value
        self.seen: list[tuple[int, ...]] = []

    def read(self, address: int, size: int) -> int:
        self.seen.append((address, size))
        return self.value

    def write(self, address: int, size: int, value: int) -> None:
        self.seen.append((address, size, value))


@pytest.mark.parametrize(("size", "ones"), [(1, 0xFF), (2, 0xFFFF), (4, 0xFFFF_FFFF)])
def test_a_port_that_nobody_claims_reads_as_ones(size: int, ones: int) -> None:
    assert Bus().io_read(0x1234, size) == ones


def test_a_store_to_nobody_is_swallowed() -> None:
    bus = Bus()
    bus.io_write(0x1234, 1, 7)
    bus.mmio_write(0xFEC0_0000, 4, 7)
    assert bus.mmio_read(0xFEC0_0000, 8) == 0xFFFF_FFFF_FFFF_FFFF


def test_a_handler_gets_the_absolute_port_and_the_width() -> None:
    bus, device = Bus(), Recorder(0x12)
    bus.claim_ports(0x3F8, 8, device.read, device.write, "uart")
    assert bus.io_read(0x3FD, 1) == 0x12
    bus.io_write(0x3F8, 2, 0xBEEF)
    assert device.seen == [(0x3FD, 1), (0x3F8, 2, 0xBEEF)]


@pytest.mark.parametrize(("size", "expected"), [(1, 0x88), (2, 0x7788), (4, 0x5566_7788)])
def test_an_answer_is_cut_to_the_width_of_the_access(size: int, expected: int) -> None:
    bus, device = Bus(), Recorder(0x1122_3344_5566_7788)
    bus.claim_ports(0x10, 1, device.read, None, "wide")
    bus.claim_mmio(0x1000, 0x1000, device.read, device.write, "wide")
    assert bus.io_read(0x10, size) == expected
    assert bus.mmio_read(0x1000, size) == expected


def test_a_write_only_port_reads_as_ones_and_a_read_only_port_swallows() -> None:
    bus, device = Bus(), Recorder(1)
    bus.claim_ports(0x80, 1, None, device.write, "post")
    bus.claim_ports(0x81, 1, device.read, None, "status")
    bus.io_write(0x81, 1, 9)
    assert bus.io_read(0x80, 1) == 0xFF
    assert device.seen == []


def test_a_port_conflict_names_both_and_claims_nothing() -> None:
    bus, first, second = Bus(), Recorder(1), Recorder(2)
    bus.claim_ports(0x64, 1, first.read, None, "keyboard")
    with pytest.raises(ConfigError, match=r"^port 0x0064 is claimed by both keyboard and mouse$"):
        bus.claim_ports(0x60, 5, second.read, None, "mouse")
    assert bus.io_read(0x60, 1) == 0xFF
    assert bus.io_read(0x64, 1) == 1


def test_released_ports_can_be_claimed_again() -> None:
    bus, first, second = Bus(), Recorder(1), Recorder(2)
    bus.claim_ports(0x600, 4, first.read, None, "acpi")
    bus.release_ports(0x600, 4)
    bus.release_ports(0x600, 4)
    assert bus.io_read(0x600, 1) == 0xFF
    bus.claim_ports(0x602, 4, second.read, None, "other")
    assert bus.io_read(0x602, 1) == 2


def test_mmio_goes_to_the_range_that_holds_the_address() -> None:
    bus, low, high = Bus(), Recorder(1), Recorder(2)
    bus.claim_mmio(0xFEC0_0000, 0x1000, low.read, low.write, "ioapic")
    bus.claim_mmio(0xFEC0_1000, 0x2000, high.read, high.write, "other")
    assert bus.mmio_read(0xFEC0_0FFC, 4) == 1
    bus.mmio_write(0xFEC0_2FF8, 8, 3)
    assert high.seen == [(0xFEC0_2FF8, 8, 3)]
    assert bus.find_mmio(0xFEC0_3000) is None
    assert bus.find_mmio(0xFEBF_FFFF) is None


@pytest.mark.parametrize(("base", "size"), [(0x800, 0x1000), (0x1000, 0x800), (0x1000, 0), (0x1000, -0x1000)])
def test_mmio_is_claimed_in_whole_pages(base: int, size: int) -> None:
    device = Recorder()
    with pytest.raises(ConfigError, match=r"^MMIO range of odd at .*: expected whole pages$"):
        Bus().claim_mmio(base, size, device.read, device.write, "odd")


@pytest.mark.parametrize(("base", "size"), [(0x2000, 0x1000), (0x1000, 0x1001000), (0x0, 0x3000), (0x3000, 0x2000)])
def test_an_mmio_conflict_names_both(base: int, size: int) -> None:
    bus, device = Bus(), Recorder()
    bus.claim_mmio(0x2000, 0x2000, device.read, device.write, "first")
    with pytest.raises(ConfigError, match=rf"^MMIO at {base:#x} is claimed by both first and second$"):
        bus.claim_mmio(base, size, device.read, device.write, "second")
    assert len(bus.mmio_ranges) == 1


def test_mmio_neighbours_are_no_conflict() -> None:
    bus, device = Bus(), Recorder()
    bus.claim_mmio(0x2000, 0x1000, device.read, device.write, "first")
    bus.claim_mmio(0x1000, 0x1000, device.read, device.write, "below")
    bus.claim_mmio(0x3000, 0x1000, device.read, device.write, "above")
    assert [entry.owner for entry in bus.mmio_ranges] == ["first", "below", "above"]


def test_a_device_may_leave_every_method_as_it_is() -> None:
    device = Device()
    device.reset()
    device.close()
    assert device.name == "device"
