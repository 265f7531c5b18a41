"""The disk as a PCI function: capabilities, the way to a running queue, interrupts, and what a reset forgets."""

from __future__ import annotations

import random
import struct

import pytest
from virtio_driver import AVAILABLE, TABLE, USED, WRITE, Driver

from sevplug.board.disk import Disk, DiskSpec
from sevplug.board.virtio.block import IN, OUT, BlockDevice

SLOT = 2
REGISTERS, MSIX = 0xC000_0000, 0xC001_0000
COMMON, ISR, DEVICE, NOTIFY = REGISTERS, REGISTERS + 0x1000, REGISTERS + 0x2000, REGISTERS + 0x3000
STATUS = COMMON + 0x14
FEATURES = 1 << 32 | 1 << 33  # VERSION_1 and ACCESS_PLATFORM, without which nothing goes
NEEDS_RESET, READY = 0x40, 0x0F
HEADER, DATA, ANSWER = 0x9000, 0xA000, 0xB000


@pytest.fixture
def disk(board, tmp_path):
    (tmp_path / "disk.img").write_bytes(b"\x11" * 512 + b"\x22" * 512)
    device = BlockDevice(Disk(DiskSpec(str(tmp_path / "disk.img"))))
    board.add_device(device)
    # What firmware does: addresses for the BARs, then memory decoding and bus mastering.
    board.config_write(SLOT, 0, 0x20, REGISTERS)
    board.config_write(SLOT, 0, 0x14, MSIX)
    board.config_write(SLOT, 0, 4, 6, 2)
    return device


def write(board, gpa, size, value):
    board.bus.mmio_write(gpa, size, value)


def read(board, gpa, size):
    return board.bus.mmio_read(gpa, size)


def negotiate(board, features=FEATURES):
    """Up to FEATURES_OK; the status then."""
    write(board, STATUS, 1, 0)
    write(board, STATUS, 1, 1)
    write(board, STATUS, 1, 3)
    for half in (0, 1):
        write(board, COMMON + 0x08, 4, half)
        write(board, COMMON + 0x0C, 4, features >> 32 * half & 0xFFFF_FFFF)
    write(board, STATUS, 1, 0x0B)
    return read(board, STATUS, 1)


def start(board, features=FEATURES):
    """What a driver does, up to DRIVER_OK; its side of the queue."""
    assert negotiate(board, features) == 0x0B
    driver = Driver(board.memory)
    write(board, COMMON + 0x16, 2, 0)
    write(board, COMMON + 0x18, 2, driver.size)
    write(board, COMMON + 0x1A, 2, 1)
    for offset, gpa in ((0x20, TABLE), (0x28, AVAILABLE), (0x30, USED)):
        write(board, COMMON + offset, 8, gpa)
    write(board, COMMON + 0x1C, 2, 1)
    write(board, STATUS, 1, READY)
    return driver


def ask(board, driver, kind, sector=0, data=None):
    """Offer one request of a sector, and notify."""
    board.memory.write(HEADER, struct.pack("<IIQ", kind, 0, sector))
    board.memory.write(ANSWER, b"\xee")
    if data is not None:
        board.memory.write(DATA, data)
    driver.chain((HEADER, 16, 0), (DATA, 512, 0 if data is not None else WRITE), (ANSWER, 1, WRITE))
    driver.offer(0)
    write(board, NOTIFY, 2, 0)


def capabilities(board):
    """(identity, place, bytes) of each."""
    found, at = [], board.config_read(SLOT, 0, 0x34, 1)
    while at:
        identity = board.config_read(SLOT, 0, at, 1)
        size = 12 if identity == 0x11 else board.config_read(SLOT, 0, at + 2, 1)
        found.append((identity, at, bytes(board.config_read(SLOT, 0, at + index, 1) for index in range(size))))
        at = board.config_read(SLOT, 0, at + 1, 1)
    return found


def test_it_is_a_modern_virtio_disk(board, disk):
    assert board.config_read(SLOT, 0, 0) == 0x1042_1AF4
    assert board.config_read(SLOT, 0, 8) == 0x0100_0001
    assert board.config_read(SLOT, 0, 6, 2) & 0x10


def test_the_capabilities_say_where_each_structure_is(board, disk):
    found = capabilities(board)
    assert [identity for identity, _at, _data in found] == [0x11, 9, 9, 9, 9, 9]
    structures = {data[3]: struct.unpack_from("<BxxxII", data, 4) for identity, _at, data in found if identity == 9}
    assert structures == {
        1: (4, 0x0000, 56), 2: (4, 0x3000, 0x1000), 3: (4, 0x1000, 1), 4: (4, 0x2000, 24), 5: (0, 0, 0),
    }  # fmt: skip
    ends = [at + len(data) for _identity, at, data in found]
    assert all(end <= following for end, (_i, following, _d) in zip(ends, found[1:], strict=False))


def test_msix_has_a_vector_for_the_queue_and_one_for_changes(board, disk):
    ((_identity, _at, data),) = [found for found in capabilities(board) if found[0] == 0x11]
    control, table, pending = struct.unpack_from("<HII", data, 2)
    assert (control & 0x7FF, table, pending) == (1, 1, 0x801)
    assert read(board, MSIX + 12, 4) == read(board, MSIX + 28, 4) == 1  # masked at power-on


def test_the_device_configuration_can_be_read_in_any_width(board, disk):
    assert read(board, DEVICE, 4) == 2
    assert read(board, DEVICE + 20, 4) == 512
    assert [read(board, DEVICE + 20 + byte, 1) for byte in range(4)] == [0, 2, 0, 0]
    assert read(board, DEVICE + 0x800, 4) == 0


def test_the_window_in_configuration_space_reaches_the_same_registers(board, disk):
    ((_identity, at, _data),) = [found for found in capabilities(board) if found[0] == 9 and found[2][3] == 5]
    for offset, value, size in ((4, 4, 1), (8, 0x2000, 4), (12, 4, 4)):
        board.config_write(SLOT, 0, at + offset, value, size)
    assert board.config_read(SLOT, 0, at + 16) == 2
    board.config_write(SLOT, 0, at + 8, 0x14)
    board.config_write(SLOT, 0, at + 12, 1)
    board.config_write(SLOT, 0, at + 16, 1, 1)
    assert read(board, STATUS, 1) == 1
    for bar, offset, length in ((4, 0x4000, 4), (4, 2, 4), (3, 0, 4), (4, 0, 3)):
        for where, value, size in ((4, bar, 1), (8, offset, 4), (12, length, 4)):
            board.config_write(SLOT, 0, at + where, value, size)
        board.config_write(SLOT, 0, at + 16, 0xFFFF_FFFF)
        assert board.config_read(SLOT, 0, at + 16) == 0xFFFF_FFFF  # nothing is there: what was written stays


@pytest.mark.parametrize("features", [1 << 32, 1 << 33, FEATURES | 1, FEATURES | 1 << 40])
def test_a_driver_that_cannot_share_its_buffers_or_wants_what_is_not_offered_is_not_accepted(board, disk, features):
    assert negotiate(board, features) == 0x03


def test_features_and_addresses_are_fixed_once_they_are_agreed_on(board, disk):
    start(board)
    write(board, COMMON + 0x08, 4, 0)
    write(board, COMMON + 0x0C, 4, 1 << 28)
    write(board, COMMON + 0x20, 8, 0)
    write(board, COMMON + 0x18, 2, 4)
    assert [read(board, COMMON + offset, 4) for offset in (0x0C, 0x20)] == [0, TABLE]
    assert read(board, COMMON + 0x18, 2) == 8


def test_a_request_is_served_when_the_driver_notifies(board, disk):
    driver = start(board)
    ask(board, driver, OUT, 1, b"\x33" * 512)
    ask(board, driver, IN, 1)
    assert board.memory.read(DATA, 512) == b"\x33" * 512
    assert board.memory.read(ANSWER, 1) == b"\0"
    assert driver.used == [(0, 1), (0, 513)]


def test_what_was_offered_before_the_driver_was_ready_is_served_then(board, disk):
    driver = start(board)
    write(board, STATUS, 1, 0x0B)
    ask(board, driver, IN)
    assert driver.used == []
    write(board, STATUS, 1, READY)
    assert driver.used == [(0, 513)]


def test_without_bus_mastering_nothing_is_served(board, disk):
    driver = start(board)
    board.config_write(SLOT, 0, 4, 2, 2)
    ask(board, driver, IN)
    assert driver.used == []


def test_intx_rises_with_the_isr_and_falls_when_it_is_read(board, disk):
    driver = start(board)
    board.init_pics()
    board.accept_pic()
    board.outb(0x4D1, 0x04)
    board.config_write(1, 0, 0x61, 10, 1)
    ask(board, driver, IN)
    assert board.config_read(SLOT, 0, 6, 2) & 8
    assert board.interrupt_source.acknowledge() == 0x2A
    assert [read(board, ISR, 1) for _ in range(2)] == [1, 0]
    assert not board.config_read(SLOT, 0, 6, 2) & 8
    board.outb(0xA0, 0x20)
    board.outb(0x20, 0x20)
    assert not board.cpu.line


def msix(board, vector, *, control=0x8000, masked=0):
    """Enable the APIC and MSI-X, with table entry 1 as fixed interrupt ``vector``."""
    board.writel(0xFEE000F0, 0x1FF)
    board.config_write(SLOT, 0, 0x42, control, 2)
    for offset, value in ((0, 0xFEE0_0000), (4, 0), (8, vector), (12, masked)):
        write(board, MSIX + 16 + offset, 4, value)


def test_msix_sends_the_queues_message_and_leaves_intx_alone(board, disk):
    driver = start(board)
    msix(board, 0x51)
    ask(board, driver, IN)
    assert board.interrupt_source.acknowledge() == 0x51
    assert read(board, ISR, 1) == 0
    assert not board.config_read(SLOT, 0, 6, 2) & 8


@pytest.mark.parametrize("masked_by", ["entry", "function"])
def test_a_masked_message_is_pending_until_it_is_unmasked(board, disk, masked_by):
    driver = start(board)
    msix(board, 0x51, control=0xC000 if masked_by == "function" else 0x8000, masked=masked_by == "entry")
    ask(board, driver, IN)
    assert not board.cpu.line
    assert read(board, MSIX + 0x800, 4) == 2
    msix(board, 0x51)
    assert board.interrupt_source.acknowledge() == 0x51
    assert read(board, MSIX + 0x800, 4) == 0


def test_a_vector_that_is_not_there_is_refused_and_no_vector_means_no_interrupt(board, disk):
    driver = start(board)
    msix(board, 0x51)
    write(board, COMMON + 0x1A, 2, 2)
    assert read(board, COMMON + 0x1A, 2) == 0xFFFF
    ask(board, driver, IN)
    assert not board.cpu.line


def test_a_driver_that_breaks_the_rules_is_told_to_reset_and_served_again_after_it(board, disk):
    driver = start(board)
    msix(board, 0x51)
    write(board, COMMON + 0x10, 2, 1)
    driver.describe(0, 0x9000, 0)
    for _ in range(3):
        driver.offer(0)
        write(board, NOTIFY, 2, 0)
    assert read(board, STATUS, 1) == READY | NEEDS_RESET
    assert board.interrupt_source.acknowledge() == 0x51  # a change of the configuration
    assert len(board.warnings) == 1
    assert board.warnings[0].endswith(
        "queue 0: descriptor of 0x9000: a buffer of no bytes; the driver has to reset the device"
    )
    write(board, STATUS, 1, READY)
    assert read(board, STATUS, 1) & NEEDS_RESET
    driver = start(board)
    ask(board, driver, IN)
    assert driver.used == [(0, 513)]


def test_a_queue_that_cannot_be_breaks_the_device(board, disk):
    negotiate(board)
    write(board, COMMON + 0x18, 2, 3)
    write(board, COMMON + 0x1C, 2, 1)
    assert read(board, COMMON + 0x1C, 2) == 0
    assert read(board, STATUS, 1) & NEEDS_RESET


def test_a_reset_of_the_machine_forgets_the_driver_and_keeps_what_was_written(board, disk):
    driver = start(board)
    msix(board, 0x51)
    ask(board, driver, OUT, 0, b"\x44" * 512)
    board.reset()
    assert board.config_read(SLOT, 0, 4, 2) == board.config_read(SLOT, 0, 0x42, 2) & 0xC000 == 0
    assert board.config_read(SLOT, 0, 0x20) == 0
    assert read(board, STATUS, 1) == 0xFF  # no longer decoded
    for offset, value in ((0x20, REGISTERS), (0x14, MSIX)):
        board.config_write(SLOT, 0, offset, value)
    board.config_write(SLOT, 0, 4, 6, 2)
    assert read(board, STATUS, 1) == 0
    assert read(board, COMMON + 0x1A, 2) == 0xFFFF
    driver = start(board)
    ask(board, driver, IN, 0)
    assert board.memory.read(DATA, 512) == b"\x44" * 512


def test_nothing_written_anywhere_in_its_registers_does_harm(board, disk):
    rng = random.Random(1)
    start(board)
    values = (0, 1, 2, 7, 0x0F, 0xFF, 0x1000, 0xFFFF, 0xFFFF_FFFF)
    for _ in range(3000):
        base = rng.choice((COMMON, COMMON, ISR, DEVICE, NOTIFY, MSIX, MSIX + 0x800))
        gpa, size = base + rng.randrange(0x48), rng.choice((1, 2, 4, 8))
        write(board, gpa, size, rng.choice(values) & (1 << 8 * size) - 1)
        assert 0 <= read(board, gpa, size) < 1 << 8 * size
    driver = start(board)
    ask(board, driver, IN)
    assert driver.used == [(0, 513)]
