"""PCI configuration, BARs and interrupt steering; the keyboard controller and the ways to reset."""

from __future__ import annotations

import pytest

from sevplug.board.pci_function import BarKind, PciFunction
from sevplug.core.errors import ConfigError


class Device:
    """A function with an I/O and a memory BAR that logs what reaches it."""

    def __init__(self):
        self.log = []
        self.function = PciFunction("test device", 0x1AF4, 0x1042, 0x010000, interrupt_pin=1)
        for index, size, kind in ((0, 64, BarKind.IO), (1, 4096, BarKind.MEMORY)):
            self.function.add_bar(index, size, kind, self.reader(index), self.writer(index))

    def reader(self, index):
        return lambda offset, size: index << 28 | offset

    def writer(self, index):
        return lambda offset, size, value: self.log.append((index, offset, size, value))


@pytest.fixture
def device(board):
    device = Device()
    board.private["pci"].add_function(3, 0, device.function)
    return device


def test_the_chip_set_is_a_440fx_with_piix(board):
    assert [board.config_read(*place, 0) for place in ((0, 0), (1, 0), (1, 3))] == [0x12378086, 0x70008086, 0x71138086]
    assert board.config_read(2, 0, 0) == 0xFFFF_FFFF
    assert board.config_read(1, 0, 0x0E, 1) == 0x80


def test_configuration_is_read_and_written_in_parts(board):
    assert board.config_read(0, 0, 2, 2) == 0x1237
    assert board.config_read(0, 0, 3, 1) == 0x12
    board.config_write(0, 0, 0x5A, 0x33, 1)
    assert board.config_read(0, 0, 0x58) == 0x0033_0000
    board.config_write(0, 0, 0, 0)
    assert board.config_read(0, 0, 0) == 0x12378086


def test_without_the_enable_bit_nothing_answers(board):
    board.outl(0xCF8, 0)
    assert board.inl(0xCFC) == 0xFFFF_FFFF


def test_a_bar_tells_its_size_and_takes_an_address(board, device):
    for offset, probe, address in ((0x10, 0xFFFF_FFC1, 0xC041), (0x14, 0xFFFF_F000, 0xC000_0000)):
        board.config_write(3, 0, offset, 0xFFFF_FFFF)
        assert board.config_read(3, 0, offset) == probe
        board.config_write(3, 0, offset, address)
        assert board.config_read(3, 0, offset) == address


def test_a_bar_is_decoded_only_while_the_command_register_says_so(board, device):
    board.config_write(3, 0, 0x10, 0xC040)
    board.config_write(3, 0, 0x14, 0xC000_0000)
    assert board.inl(0xC044) == 0xFFFF_FFFF
    assert board.readl(0xC000_0008) == 0xFFFF_FFFF
    board.config_write(3, 0, 4, 3, 2)
    assert board.inl(0xC044) == 4
    assert board.readl(0xC000_0008) == 1 << 28 | 8
    board.outb(0xC041, 7)
    board.writel(0xC000_0010, 9)
    assert device.log == [(0, 1, 1, 7), (1, 0x10, 4, 9)]
    board.config_write(3, 0, 4, 0, 2)
    assert board.inl(0xC044) == 0xFFFF_FFFF
    assert board.readl(0xC000_0008) == 0xFFFF_FFFF


def test_a_moved_bar_answers_at_its_new_place_only(board, device):
    board.config_write(3, 0, 4, 3, 2)
    for base in (0xC000, 0xD000):
        board.config_write(3, 0, 0x10, base)
    assert board.inl(0xC004) == 0xFFFF_FFFF
    assert board.inl(0xD004) == 4


def test_a_bar_over_another_devices_ports_leaves_them_alone(board, device):
    board.config_write(3, 0, 0x10, 0x3C0)
    board.config_write(3, 0, 4, 1, 2)
    assert board.inb(0x3FD) == 0x60


def test_a_reset_takes_bars_out_of_the_address_space(board, device):
    board.config_write(3, 0, 0x10, 0xC000)
    board.config_write(3, 0, 4, 1, 2)
    board.reset()
    assert board.inl(0xC004) == 0xFFFF_FFFF
    assert board.config_read(3, 0, 0x10) == 1


def test_a_place_on_the_bus_is_taken_once(board, device):
    with pytest.raises(ConfigError, match=r"00:03\.0 .* test device and other"):
        board.private["pci"].add_function(3, 0, PciFunction("other", 1, 2, 3))
    assert board.private["pci"].free_slot() == 2


def test_a_bar_must_be_a_power_of_two():
    with pytest.raises(ValueError, match="power of two"):
        PciFunction("odd", 1, 2, 3).add_bar(0, 100, BarKind.IO, lambda *_: 0, lambda *_: None)


def test_intx_is_steered_to_the_interrupt_the_guest_chose(board, device):
    board.init_pics()
    board.accept_pic()
    board.outb(0x4D1, 0x0C)  # IRQ 10 and 11 are level-triggered
    device.function.set_interrupt(True)
    assert not board.cpu.line
    assert board.config_read(3, 0, 6, 1) & 8
    board.config_write(1, 0, 0x62, 10, 1)  # slot 3, INTA
    assert board.interrupt_source.acknowledge() == 0x2A
    board.outb(0xA0, 0x20)
    board.outb(0x20, 0x20)
    board.config_write(1, 0, 0x62, 11, 1)
    assert board.interrupt_source.acknowledge() == 0x2B
    device.function.set_interrupt(False)
    board.outb(0xA0, 0x20)
    board.outb(0x20, 0x20)
    assert not board.cpu.line


def test_intx_can_be_switched_off_in_the_command_register(board, device):
    board.init_pics()
    board.accept_pic()
    board.config_write(1, 0, 0x62, 10, 1)
    board.config_write(3, 0, 4, 0x400, 2)
    device.function.set_interrupt(True)
    assert not board.cpu.line
    board.config_write(3, 0, 4, 0, 2)
    assert board.cpu.line


def test_the_controller_passes_its_self_test(board):
    board.outb(0x64, 0xAA)
    assert board.inb(0x64) & 1
    assert board.inb(0x60) == 0x55
    assert board.inb(0x64) & 0x07 == 0x04


def test_the_controller_is_never_busy_and_resets_the_machine(board):
    assert not board.inb(0x64) & 2
    board.outb(0x64, 0xFE)
    assert len(board.resets) == 1
    assert "0x64" in board.resets[0]


def test_the_keyboard_answers_and_interrupts_for_each_byte(board):
    board.init_pics()
    board.accept_pic()
    board.outb(0x60, 0xF2)
    received = []
    while board.cpu.line:
        assert board.interrupt_source.acknowledge() == 0x21
        received.append(board.inb(0x60))
        board.outb(0x20, 0x20)
    assert received == [0xFA, 0xAB, 0x83]


def test_there_is_no_mouse_and_the_controller_says_so(board):
    board.outb(0x64, 0xD4)
    board.outb(0x60, 0xF2)
    assert board.inb(0x64) & 0x61 == 0x61  # data, from the auxiliary port, timed out
    assert board.inb(0x60) == 0xFE


def test_the_loop_test_of_the_auxiliary_port_works(board):
    board.outb(0x64, 0xD3)
    board.outb(0x60, 0x5A)
    assert board.inb(0x64) & 0x21 == 0x21
    assert board.inb(0x60) == 0x5A


def test_port_92_resets_on_a_rising_bit_only(board):
    board.outb(0x92, 2)
    assert board.inb(0x92) == 2
    assert board.resets == []
    board.outb(0x92, 3, 3)
    assert len(board.resets) == 1


def test_port_cf9_resets_with_bit_2(board):
    board.outb(0xCF9, 0x02)
    assert board.inb(0xCF9) == 2
    assert board.resets == []
    board.outb(0xCF9, 0x06)
    assert len(board.resets) == 1


def test_the_post_port_swallows_codes(board):
    board.outb(0x80, 0x42)
    assert board.inb(0x80) == 0xFF
