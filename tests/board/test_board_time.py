"""The PIT, the real-time clock and the PM timer against the virtual clock; ACPI power-off."""

from __future__ import annotations

import pytest

from sevplug.board.pc import add_pc
from sevplug.core.config import MachineConfig

MS = 1_000_000
SECOND = 1000 * MS
PM = 0xB000


def cmos(board, index):
    board.outb(0x70, index)
    return board.inb(0x71)


def set_cmos(board, index, value):
    board.outb(0x70, index)
    board.outb(0x71, value)


def count_irqs(board, nanoseconds, step):
    """Let time pass and count the interrupts that the 8259 pair delivers."""
    taken = 0
    for _ in range(nanoseconds // step):
        board.pass_time(step)
        while board.cpu.line:
            board.interrupt_source.acknowledge()
            board.outb(0xA0, 0x20)
            board.outb(0x20, 0x20)
            taken += 1
    return taken


@pytest.fixture
def wired(board):
    board.init_pics()
    board.accept_pic()
    return board


@pytest.fixture
def acpi(board):
    """PMBASE programmed the way OVMF does."""
    board.config_write(1, 3, 0x40, PM)
    board.config_write(1, 3, 0x80, board.config_read(1, 3, 0x80, 1) | 1, 1)
    return board


def test_the_rate_generator_interrupts_at_its_rate(wired):
    wired.outb(0x43, 0x34)
    wired.outb(0x40, 11932 & 0xFF, 11932 >> 8)  # 100 Hz
    assert count_irqs(wired, SECOND, MS // 4) == 99  # 100.0 Hz: the hundredth period ends just after the second


def test_a_count_of_zero_means_65536(wired):
    wired.outb(0x43, 0x34)
    wired.outb(0x40, 0, 0)
    assert count_irqs(wired, SECOND, MS) == 18  # the famous 18.2 Hz


def test_mode_0_interrupts_once(wired):
    wired.outb(0x43, 0x30)
    wired.outb(0x40, 0xA9, 0x04)  # 1193 clocks: 1 ms
    assert count_irqs(wired, 999_000, 1000) == 0
    assert count_irqs(wired, 10 * MS, 1000) == 1


def test_a_control_word_stops_the_counter_until_a_count_is_written(wired):
    wired.outb(0x43, 0x34)
    wired.outb(0x40, 0xA9, 0x04)
    wired.outb(0x43, 0x34)
    assert count_irqs(wired, 10 * MS, MS) == 0


def test_a_latched_count_stays_while_the_counter_runs(board):
    board.outb(0x43, 0xB0)
    board.outb(0x42, 0xFF, 0xFF)
    board.pass_time(MS)
    board.outb(0x43, 0x80)
    board.pass_time(MS)
    assert board.inb(0x42) | board.inb(0x42) << 8 == 0xFFFF - 1193
    assert board.inb(0x42) | board.inb(0x42) << 8 == 0xFFFF - 2386


def test_port_61_shows_the_output_of_counter_2_and_toggles_refresh(board):
    board.outb(0x61, 1)
    board.outb(0x43, 0xB0)
    board.outb(0x42, 0xA9, 0x04)
    assert [board.inb(0x61) & 0x20 for _ in range(2)] == [0, 0]
    board.pass_time(MS)
    assert board.inb(0x61) & 0x20
    assert board.inb(0x61) & 0x10 != board.inb(0x61) & 0x10


def test_read_back_gives_status_then_count(board):
    board.outb(0x43, 0xB6)
    board.outb(0x42, 0x34, 0x12)
    board.outb(0x43, 0xC8)
    assert board.inb(0x42) == 0xB6
    assert [board.inb(0x42), board.inb(0x42)] == [0x34, 0x12]


def test_the_date_at_power_on_is_fixed_and_advances_with_virtual_time(board):
    assert [cmos(board, index) for index in (0, 2, 4, 6, 7, 8, 9, 0x32)] == [0, 0, 0, 5, 1, 1, 0x26, 0x20]
    board.pass_time((13 * 3600 + 45 * 60 + 59) * SECOND)
    assert [cmos(board, index) for index in (4, 2, 0)] == [0x13, 0x45, 0x59]


def test_binary_and_12_hour_modes(board):
    board.pass_time((13 * 3600 + 45 * 60 + 59) * SECOND)
    set_cmos(board, 0x0B, 0x06)
    assert [cmos(board, index) for index in (4, 2, 0, 9)] == [13, 45, 59, 26]
    set_cmos(board, 0x0B, 0x00)
    assert cmos(board, 4) == 0x81


def test_the_guest_sets_the_time_with_set(board):
    set_cmos(board, 0x0B, 0x82)
    for index, value in ((0, 0x58), (2, 0x59), (4, 0x23), (7, 0x28), (8, 0x02), (9, 0x28)):
        set_cmos(board, index, value)
    board.pass_time(5 * SECOND)
    assert cmos(board, 0) == 0x58
    set_cmos(board, 0x0B, 0x02)
    board.pass_time(2 * SECOND)
    assert [cmos(board, index) for index in (9, 8, 7, 4, 2, 0)] == [0x28, 0x02, 0x29, 0, 0, 0]


def test_the_battery_is_good_whatever_is_written(board):
    set_cmos(board, 0x0D, 0)
    assert cmos(board, 0x0D) == 0x80


def test_an_update_in_progress_shows_before_each_second(board):
    assert not cmos(board, 0x0A) & 0x80
    board.pass_time(SECOND - 100_000)
    assert cmos(board, 0x0A) & 0x80
    board.pass_time(100_000)
    assert not cmos(board, 0x0A) & 0x80


def test_the_periodic_interrupt_comes_at_its_rate_and_c_is_cleared_by_reading(wired):
    set_cmos(wired, 0x0A, 0x2A)  # 64 Hz
    set_cmos(wired, 0x0B, 0x42)
    taken = 0
    for _ in range(1000):
        wired.pass_time(MS)
        if wired.cpu.line:
            assert wired.interrupt_source.acknowledge() == 0x28
            assert cmos(wired, 0x0C) & 0xC0 == 0xC0
            assert cmos(wired, 0x0C) == 0
            wired.outb(0xA0, 0x20)
            wired.outb(0x20, 0x20)
            taken += 1
    assert taken == 64


def test_the_alarm_interrupts_at_its_time(wired):
    for index, value in ((5, 0x02), (3, 0x30), (1, 0x00)):
        set_cmos(wired, index, value)
    cmos(wired, 0x0C)
    set_cmos(wired, 0x0B, 0x22)
    wired.pass_time(9000 * SECOND - 1)
    assert not wired.cpu.line
    wired.pass_time(1)
    assert wired.cpu.line
    assert cmos(wired, 0x0C) & 0xA0 == 0xA0


@pytest.mark.parametrize(
    ("mib", "expected"),
    [
        (16, {0x15: 640, 0x17: 15 * 1024, 0x34: 0}),
        (256, {0x15: 640, 0x17: 65535, 0x30: 65535, 0x34: 3840}),
    ],
)
def test_cmos_tells_the_size_of_memory(make_board, mib, expected):
    machine = make_board(MachineConfig(memory=mib << 20))
    add_pc(machine)
    for index, value in expected.items():
        assert cmos(machine, index) | cmos(machine, index + 1) << 8 == value
    machine.close()


def test_the_pm_timer_counts_at_3_58_mhz_and_each_read_takes_20_us(acpi):
    acpi.clock.advance(SECOND)
    first = acpi.inl(PM + 8)
    second = acpi.inl(PM + 8)
    assert first == (SECOND + 20_000) * 3_579_545 // SECOND
    assert second - first in (71, 72)
    assert acpi.clock.now == SECOND + 40_000


def test_the_pm_timer_wraps_at_24_bits(acpi):
    acpi.clock.advance((1 << 24) * SECOND // 3_579_545 - acpi.clock.now)
    assert acpi.inl(PM + 8) < 100


def test_the_pm_registers_answer_only_where_and_when_the_guest_placed_them(board):
    assert board.inl(PM + 8) == 0xFFFF_FFFF
    board.config_write(1, 3, 0x40, 0x600)
    board.config_write(1, 3, 0x80, 1, 1)
    assert board.inl(0x608) != 0xFFFF_FFFF
    board.config_write(1, 3, 0x40, PM)
    assert board.inl(0x608) == 0xFFFF_FFFF
    assert board.inl(PM + 8) != 0xFFFF_FFFF
    board.reset()
    assert board.inl(PM + 8) == 0xFFFF_FFFF


def test_the_timer_overflow_raises_the_sci(acpi):
    acpi.init_pics()
    acpi.accept_pic()
    acpi.bus.io_write(PM + 2, 2, 1)
    acpi.pass_time((1 << 23) * SECOND // 3_579_545 - 1000)
    assert not acpi.cpu.line
    acpi.pass_time(2000)
    assert acpi.interrupt_source.acknowledge() == 0x29
    assert acpi.bus.io_read(PM, 2) == 1
    acpi.bus.io_write(PM, 2, 1)
    assert acpi.bus.io_read(PM, 2) == 0


def test_the_power_button_tells_a_guest_that_listens(acpi):
    acpi.init_pics()
    acpi.accept_pic()
    acpi.bus.io_write(PM + 2, 2, 1 << 8)
    acpi.private["power"].power_button()
    assert acpi.cpu.line
    assert acpi.bus.io_read(PM, 2) == 1 << 8


def test_s5_switches_the_machine_off(acpi):
    acpi.bus.io_write(PM + 4, 2, 1 << 13)
    assert len(acpi.shutdowns) == 1
    assert "S5" in acpi.shutdowns[0]


def test_a_sleep_type_without_the_enable_bit_does_nothing(acpi):
    acpi.bus.io_write(PM + 4, 2, 0)
    acpi.bus.io_write(PM + 4, 2, 1 << 10 | 1 << 13)  # S3, which is not offered
    assert acpi.shutdowns == []


def test_the_smi_command_switches_acpi_mode_on_and_off(acpi):
    acpi.outb(0xB2, 0xF1)
    assert acpi.bus.io_read(PM + 4, 2) & 1
    acpi.outb(0xB2, 0xF0)
    assert not acpi.bus.io_read(PM + 4, 2) & 1
