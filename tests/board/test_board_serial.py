"""The 16550A: output and its sinks, FIFO and interrupts, loopback, when input is fetched; the debug console."""

from __future__ import annotations

import os

import pytest

from sevplug.board.chardev.sinks import NullSink, open_sink
from sevplug.board.chardev.source import Link, Source
from sevplug.board.pc import add_pc
from sevplug.core.config import MachineConfig
from sevplug.core.control import Control
from sevplug.core.errors import ConfigError

DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR = range(0x3F8, 0x400)
MS = 1_000_000


@pytest.fixture
def port(board):
    board.init_pics()
    board.accept_pic()
    return board.private["serial"]


def test_what_the_guest_writes_comes_out_in_lines(board, port):
    pieces = []
    port.on_output.append(pieces.append)
    board.outb(DATA, *b"one\ntw")
    assert port.output == b"one\ntw"
    assert pieces == [b"one\n"]


def test_half_a_line_comes_out_when_time_has_passed(board, port):
    pieces = []
    port.on_output.append(pieces.append)
    board.outb(DATA, *b"login: ")
    board.pass_time(9 * MS)
    assert pieces == []
    board.pass_time(2 * MS)
    assert pieces == [b"login: "]


def test_the_transmitter_is_always_ready(board, port):
    board.outb(DATA, 0x41)
    assert board.inb(LSR) == 0x60


def test_enabling_the_thre_interrupt_raises_it_and_reading_iir_clears_it(board, port):
    assert board.inb(IIR) == 0x01
    board.outb(IER, 0x02)
    assert board.cpu.line
    assert board.inb(IIR) == 0x02
    assert board.inb(IIR) == 0x01
    board.outb(IER, 0x00)
    board.outb(IER, 0x02)
    assert board.inb(IIR) == 0x02


def test_thre_follows_each_byte_sent(board, port):
    board.outb(IER, 0x02)
    board.inb(IIR)
    assert board.interrupt_source.acknowledge() == 0x24
    board.outb(0x20, 0x20)
    assert not board.cpu.line
    board.outb(DATA, 0x41)
    assert board.cpu.line
    assert board.inb(IIR) == 0x02


def test_input_waits_in_order_and_none_is_lost(board, port):
    board.outb(IIR, 0x01)
    text = bytes(range(100))
    port.feed(text)
    received = bytearray()
    while board.inb(LSR) & 1:
        received.append(board.inb(DATA))
    assert received == text


def test_without_the_fifo_one_byte_is_ready_at_a_time(board, port):
    port.feed(b"ab")
    assert board.inb(DATA) == ord("a")
    assert board.inb(LSR) & 3 == 1
    assert board.inb(DATA) == ord("b")
    assert board.inb(LSR) & 3 == 0


def test_input_below_the_trigger_level_interrupts_after_four_character_times(board, port):
    board.outb(IIR, 0x81)  # trigger at 8
    board.outb(IER, 0x01)
    port.feed(b"abc")
    assert not board.cpu.line
    board.pass_time(5 * MS)
    assert board.cpu.line
    assert board.inb(IIR) == 0xCC
    board.inb(DATA)
    assert board.inb(IIR) == 0xC1


def test_input_at_the_trigger_level_interrupts_at_once(board, port):
    board.outb(IIR, 0x81)
    board.outb(IER, 0x01)
    port.feed(b"12345678")
    assert board.inb(IIR) == 0xC4


def test_loopback_brings_output_back_and_sends_nothing(board, port):
    board.outb(IIR, 0x01)
    board.outb(MCR, 0x1A)
    board.outb(DATA, 0x55)
    assert board.inb(LSR) & 1
    assert board.inb(DATA) == 0x55
    assert port.output == b""
    assert board.inb(MSR) & 0xF0 == 0x90  # OUT2 -> DCD, RTS -> CTS


def test_an_overrun_in_loopback_is_told_once(board, port):
    board.outb(IIR, 0x01)
    board.outb(MCR, 0x10)
    board.outb(DATA, *range(17))
    assert board.inb(LSR) & 2
    assert not board.inb(LSR) & 2


def test_the_divisor_is_behind_dlab(board, port):
    board.outb(LCR, 0x83)
    board.outb(DATA, 0x34)
    board.outb(IER, 0x12)
    assert [board.inb(DATA), board.inb(IER)] == [0x34, 0x12]
    board.outb(LCR, 0x03)
    assert board.inb(IER) == 0
    assert port.output == b""


def test_the_scratch_register_keeps_what_is_written(board, port):
    board.outb(SCR, 0xA5)
    assert board.inb(SCR) == 0xA5


def test_a_file_gets_the_output_including_an_unfinished_line(make_board, tmp_path):
    path = tmp_path / "log"
    machine = make_board(MachineConfig(memory=1 << 24, serial=f"file:{path}"))
    add_pc(machine)
    machine.outb(DATA, *b"a\nb")
    assert path.read_bytes() == b"a\n"
    machine.close()
    assert path.read_bytes() == b"a\nb"


@pytest.mark.parametrize("spelling", ["file:/nonexistent/x", "file:", "tcp:1", "pty"])
def test_a_place_that_cannot_be_had_is_named(spelling):
    with pytest.raises(ConfigError) as failure:
        open_sink(spelling, "serial")
    assert str(failure.value).startswith("serial ")
    assert "\n" not in str(failure.value)


def test_a_reader_that_vanishes_does_not_stop_the_machine(make_board):
    reader, writer = os.pipe()
    machine = make_board(MachineConfig(memory=1 << 24, serial=f"file:/dev/fd/{writer}"))
    add_pc(machine)
    os.close(writer)
    os.close(reader)
    machine.outb(DATA, *b"lost\nlost\n")
    assert machine.private["serial"].output == b"lost\nlost\n"
    machine.close()


def test_the_debug_console_tells_it_is_there_and_keeps_lines(make_board, tmp_path):
    machine = make_board()
    add_pc(machine, debugcon=f"file:{tmp_path / 'debug'}")
    assert machine.inb(0x402) == 0xE9
    machine.outb(0x402, *b"SecCoreStartup\nPEI")
    assert machine.private["debugcon"].lines == ["SecCoreStartup", "PEI"]
    machine.close()
    assert (tmp_path / "debug").read_bytes() == b"SecCoreStartup\nPEI"


class Typist(Source):
    """A source that notes for how many bytes it was asked; the test answers by `link`."""

    def __init__(self) -> None:
        super().__init__(0)
        self.wanted: list[int] = []
        self.link: Link | None = None

    def start(self, link: Link) -> None:
        self.link = link

    def want(self, room: int) -> None:
        self.wanted.append(room)

    def _run(self) -> None:
        """The test is the thread."""


@pytest.fixture
def typist(make_board, monkeypatch):
    """What the serial port of a board, ``typist.board``, is connected to."""
    source = Typist()
    monkeypatch.setattr("sevplug.board.serial.open_ends", lambda _spelling, _what: (NullSink(), source))
    machine = make_board()
    machine.control = Control()
    machine.control.submit = lambda function: function()
    add_pc(machine)
    source.board = machine
    yield source
    machine.close()


def test_input_is_fetched_when_the_receive_interrupt_has_been_on_for_a_while(typist):
    board = typist.board
    board.outb(IIR, 0x01)
    board.outb(IER, 0x01)
    board.pass_time(MS // 2)
    assert typist.wanted == []
    board.pass_time(MS)
    assert typist.wanted == [16]


def test_a_driver_that_probes_the_port_is_sent_nothing(typist):
    board = typist.board
    for _ in range(3):
        board.outb(IER, 0x0F)
        board.inb(LSR)
        board.inb(DATA)
        board.outb(IER, 0x00)
        board.pass_time(2 * MS)
    assert typist.wanted == []


def test_input_is_fetched_for_a_guest_that_polls_and_not_for_one_that_sends(typist):
    board = typist.board
    for _ in range(100):
        board.inb(LSR)
        board.inb(LSR)
        board.outb(DATA, 0x41)
    assert typist.wanted == []
    for _ in range(20):
        board.inb(LSR)
    assert typist.wanted == [1]


def test_the_next_piece_is_fetched_when_the_guest_has_read_the_last(typist):
    board = typist.board
    board.outb(IIR, 0x01)
    board.outb(IER, 0x01)
    board.pass_time(2 * MS)
    typist.link.receive(b"ab")
    assert board.inb(DATA) == ord("a")
    assert typist.wanted == [16]
    assert board.inb(DATA) == ord("b")
    assert typist.wanted == [16, 16]


def test_an_answer_that_comes_while_the_guest_does_not_listen_is_kept_for_it(typist):
    board = typist.board
    board.outb(IER, 0x01)
    board.pass_time(2 * MS)
    board.outb(IER, 0x00)
    typist.link.receive(b"a")
    board.outb(IIR, 0x07)  # would throw away what is in the FIFO
    assert board.inb(LSR) & 1 == 0
    board.outb(IER, 0x01)
    board.pass_time(2 * MS)
    assert typist.wanted == [1]
    assert board.inb(DATA) == ord("a")


def test_a_reset_keeps_what_was_asked_for(typist):
    board = typist.board
    board.outb(IER, 0x01)
    board.pass_time(2 * MS)
    board.reset()
    typist.link.receive(b"a")
    assert board.inb(LSR) & 1 == 0
    for _ in range(20):
        board.inb(LSR)
    assert board.inb(DATA) == ord("a")
