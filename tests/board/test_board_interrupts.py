"""The 8259 pair, the local APIC and the I/O APIC: who interrupts the CPU, and when."""

from __future__ import annotations

import pytest

from sevplug.board.irq import SharedInput
from sevplug.core.clock import NEVER
from sevplug.core.errors import GuestFault

APIC = 0xFEE00000
IO_APIC = 0xFEC00000
LEVEL, MASKED = 1 << 15, 1 << 16


def raise_irq(board, irq):
    """Pulse an ISA interrupt at both controllers, as an edge source does."""
    pic, io_apic = board.devices[0], board.devices[2]
    pic.set_irq(irq, True)
    pic.set_irq(irq, False)
    io_apic.set_pin(irq, True)
    io_apic.set_pin(irq, False)


def redirect(board, pin, low, high=0):
    board.writel(IO_APIC, 0x10 + 2 * pin + 1)
    board.writel(IO_APIC + 0x10, high)
    board.writel(IO_APIC, 0x10 + 2 * pin)
    board.writel(IO_APIC + 0x10, low)


def redirection(board, pin):
    board.writel(IO_APIC, 0x10 + 2 * pin)
    return board.readl(IO_APIC + 0x10)


@pytest.fixture
def virtual_wire(board):
    board.init_pics()
    board.accept_pic()
    return board


@pytest.fixture
def apic(board):
    """The local APIC enabled, LINT0 masked."""
    board.writel(APIC + 0xF0, 0x1FF)
    return board


def test_an_isa_interrupt_arrives_with_the_vector_base_of_its_chip(virtual_wire):
    raise_irq(virtual_wire, 4)
    assert virtual_wire.cpu.line
    assert virtual_wire.interrupt_source.acknowledge() == 0x24
    assert not virtual_wire.cpu.line
    raise_irq(virtual_wire, 8)
    virtual_wire.outb(0x20, 0x20)
    assert virtual_wire.interrupt_source.acknowledge() == 0x28


def test_a_lower_priority_waits_for_eoi_and_a_higher_one_does_not(virtual_wire):
    raise_irq(virtual_wire, 4)
    assert virtual_wire.interrupt_source.acknowledge() == 0x24
    raise_irq(virtual_wire, 5)
    assert not virtual_wire.cpu.line
    raise_irq(virtual_wire, 1)
    assert virtual_wire.interrupt_source.acknowledge() == 0x21
    virtual_wire.outb(0x20, 0x20)  # ends IRQ 1
    assert not virtual_wire.cpu.line
    virtual_wire.outb(0x20, 0x20)  # ends IRQ 4
    assert virtual_wire.interrupt_source.acknowledge() == 0x25


def test_a_specific_eoi_ends_just_that_interrupt(virtual_wire):
    for irq in (5, 3):
        raise_irq(virtual_wire, irq)
        virtual_wire.interrupt_source.acknowledge()
    virtual_wire.outb(0x20, 0x65)
    virtual_wire.outb(0x20, 0x0B)
    assert virtual_wire.inb(0x20) == 1 << 3


def test_a_masked_interrupt_is_remembered_until_it_is_unmasked(virtual_wire):
    virtual_wire.outb(0x21, 0xFF)
    raise_irq(virtual_wire, 6)
    assert not virtual_wire.cpu.line
    virtual_wire.outb(0x21, 0x00)
    assert virtual_wire.interrupt_source.acknowledge() == 0x26


def test_a_second_slave_interrupt_of_higher_priority_is_not_lost_at_the_cascade(virtual_wire):
    raise_irq(virtual_wire, 12)
    assert virtual_wire.interrupt_source.acknowledge() == 0x2C
    raise_irq(virtual_wire, 9)
    assert not virtual_wire.cpu.line  # the master still serves input 2
    virtual_wire.outb(0xA0, 0x20)
    virtual_wire.outb(0x20, 0x20)
    assert virtual_wire.interrupt_source.acknowledge() == 0x29


def test_a_level_triggered_input_interrupts_as_long_as_it_is_high(virtual_wire):
    virtual_wire.outb(0x4D1, 0x02)  # IRQ 9
    pic = virtual_wire.devices[0]
    pic.set_irq(9, True)
    for _ in range(2):
        assert virtual_wire.interrupt_source.acknowledge() == 0x29
        virtual_wire.outb(0xA0, 0x20)
        virtual_wire.outb(0x20, 0x20)
    pic.set_irq(9, False)
    assert not virtual_wire.cpu.line


def test_the_8259_does_not_reach_the_cpu_while_lint0_is_masked(board):
    board.init_pics()
    raise_irq(board, 4)
    assert not board.cpu.line
    board.accept_pic()
    assert board.cpu.line


def test_with_the_apic_switched_off_by_its_msr_the_8259_is_wired_to_the_cpu(board):
    board.init_pics()
    apic = board.private["local_apic"]
    apic.write_base(apic.read_base() & ~(1 << 11))
    raise_irq(board, 4)
    assert board.interrupt_source.acknowledge() == 0x24


def test_x2apic_mode_and_reserved_bits_of_the_base_msr_fault(board):
    apic = board.private["local_apic"]
    assert apic.read_base() == 0xFEE00900
    for value in (0xFEE00D00, 0xFEE00801, 1 << 52):
        with pytest.raises(GuestFault):
            apic.write_base(value)


def test_an_ipi_to_itself_is_delivered_by_priority(apic):
    apic.writel(APIC + 0x300, 0x40041)
    apic.writel(APIC + 0x300, 0x40081)
    assert apic.readl(APIC + 0x220) == 1 << 1
    assert apic.readl(APIC + 0x240) == 1 << 1
    assert apic.interrupt_source.acknowledge() == 0x81
    assert apic.readl(APIC + 0xA0) == 0x80
    assert not apic.cpu.line
    apic.writel(APIC + 0xB0, 0)
    assert apic.interrupt_source.acknowledge() == 0x41


def test_a_physical_ipi_reaches_only_the_apic_it_names(apic):
    apic.writel(APIC + 0x310, 1 << 24)
    apic.writel(APIC + 0x300, 0x51)
    assert not apic.cpu.line
    apic.writel(APIC + 0x310, 0)
    apic.writel(APIC + 0x300, 0x51)
    assert apic.interrupt_source.acknowledge() == 0x51


def test_a_logical_ipi_reaches_the_apic_by_its_ldr(apic):
    apic.writel(APIC + 0xD0, 2 << 24)
    apic.writel(APIC + 0x310, 1 << 24)
    apic.writel(APIC + 0x300, 0x851)
    assert not apic.cpu.line
    apic.writel(APIC + 0x310, 3 << 24)
    apic.writel(APIC + 0x300, 0x851)
    assert apic.cpu.line


def test_the_task_priority_holds_interrupts_back(apic):
    apic.writel(APIC + 0x80, 0x50)
    apic.writel(APIC + 0x300, 0x4005F)
    assert not apic.cpu.line
    apic.writel(APIC + 0x80, 0x40)
    assert apic.cpu.line


def test_a_software_disabled_apic_delivers_nothing(board):
    board.writel(APIC + 0x300, 0x40061)
    assert not board.cpu.line
    board.writel(APIC + 0xF0, 0x1FF)
    assert board.cpu.line


def test_an_illegal_vector_is_an_error_in_esr(apic):
    apic.writel(APIC + 0x300, 0x40005)
    assert apic.readl(APIC + 0x280) == 0
    apic.writel(APIC + 0x280, 0)
    assert apic.readl(APIC + 0x280) == 0x20


def test_the_one_shot_timer_fires_once_after_its_count_of_bus_clocks(apic):
    apic.writel(APIC + 0x3E0, 0xB)  # divide by 1: 1 ns
    apic.writel(APIC + 0x320, 0xEC)
    apic.writel(APIC + 0x380, 1000)
    apic.pass_time(400)
    assert apic.readl(APIC + 0x390) == 600
    apic.pass_time(599)
    assert not apic.cpu.line
    apic.pass_time(1)
    assert apic.interrupt_source.acknowledge() == 0xEC
    assert apic.readl(APIC + 0x390) == 0
    apic.writel(APIC + 0xB0, 0)
    apic.pass_time(10_000)
    assert not apic.cpu.line


def test_the_periodic_timer_keeps_its_rate_whatever_the_guest_is_doing(apic):
    apic.writel(APIC + 0x3E0, 0x3)  # divide by 16
    apic.writel(APIC + 0x320, 0x200EC)
    apic.writel(APIC + 0x380, 1000)
    fired_at = []
    while len(fired_at) < 5:
        apic.pass_time(1000)
        if apic.cpu.line:
            fired_at.append(apic.clock.now)
            assert apic.interrupt_source.acknowledge() == 0xEC
            apic.writel(APIC + 0xB0, 0)
    assert fired_at == [16_000, 32_000, 48_000, 64_000, 80_000]


def test_a_masked_timer_counts_but_does_not_interrupt(apic):
    apic.writel(APIC + 0x320, MASKED | 0xEC)
    apic.writel(APIC + 0x380, 10)
    apic.pass_time(100)
    assert apic.readl(APIC + 0x390) == 0
    assert not apic.cpu.line


def test_a_count_of_zero_stops_the_timer(apic):
    apic.writel(APIC + 0x320, 0x200EC)
    apic.writel(APIC + 0x380, 1000)
    apic.writel(APIC + 0x380, 0)
    apic.pass_time(100_000)
    assert not apic.cpu.line
    assert apic.clock.next_deadline == NEVER


def test_an_edge_at_the_io_apic_is_one_interrupt(apic):
    redirect(apic, 4, 0x34)
    raise_irq(apic, 4)
    assert apic.interrupt_source.acknowledge() == 0x34
    apic.writel(APIC + 0xB0, 0)
    assert not apic.cpu.line


def test_an_edge_at_a_masked_pin_is_lost(apic):
    redirect(apic, 4, MASKED | 0x34)
    raise_irq(apic, 4)
    redirect(apic, 4, 0x34)
    assert not apic.cpu.line


def test_a_level_is_sent_again_after_eoi_until_it_drops(apic):
    redirect(apic, 10, LEVEL | 0x3A)
    io_apic = apic.devices[2]
    io_apic.set_pin(10, True)
    assert apic.interrupt_source.acknowledge() == 0x3A
    assert redirection(apic, 10) & 1 << 14  # remote IRR: not again before EOI
    assert not apic.cpu.line
    apic.writel(APIC + 0xB0, 0)
    assert apic.interrupt_source.acknowledge() == 0x3A
    io_apic.set_pin(10, False)
    apic.writel(APIC + 0xB0, 0)
    assert not apic.cpu.line
    assert not redirection(apic, 10) & 1 << 14


def test_an_io_apic_message_for_another_apic_goes_nowhere(apic):
    redirect(apic, 4, 0x34, high=5 << 24)
    raise_irq(apic, 4)
    assert not apic.cpu.line


def test_the_pit_arrives_at_pin_2_of_the_io_apic(apic):
    redirect(apic, 2, 0x30)
    apic.outb(0x43, 0x34)
    apic.outb(0x40, 0xA9, 0x04)
    apic.pass_time(1_100_000)
    assert apic.interrupt_source.acknowledge() == 0x30


def test_a_shared_input_is_high_while_any_source_is():
    seen = []
    wire = SharedInput(seen.append)
    first, second = wire.line(), wire.line()
    first(True)
    second(True)
    first(False)
    assert seen == [True]
    second(False)
    second(False)
    assert seen == [True, False]


def test_a_reset_lowers_the_interrupt_line(virtual_wire):
    raise_irq(virtual_wire, 4)
    assert virtual_wire.cpu.line
    virtual_wire.reset()
    assert not virtual_wire.cpu.line
    assert virtual_wire.readl(APIC + 0xF0) == 0xFF
