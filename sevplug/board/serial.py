"""The first serial port: a 16550A at 0x3F8, IRQ 4 (National PC16550D; behaviour as QEMU's hw/char/serial.c).

A byte is on its way the moment it is written, so the transmitter is never busy and THRE interrupts follow at once.
Input waits in a backlog and enters the FIFO as the guest makes room: nothing that was typed is overrun.

What the host's end of the line has is fetched only while the guest waits for input: its receive interrupt has been on
for a while, or it reads the line status over and over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sevplug.board.chardev.ends import open_ends
from sevplug.board.chardev.source import Link, Source
from sevplug.board.irq import IrqLine
from sevplug.board.output import GuestOutput
from sevplug.board.ports import read_bytes, write_bytes
from sevplug.core.bus import Device
from sevplug.core.clock import Clock, Timer
from sevplug.core.result import QUIT
from sevplug.core.snapshot.fields import load_fields, save_fields

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

BASE = 0x3F8
_FIFO_SIZE = 16
_BAUD_CLOCK = 1_843_200

IER_RX, IER_THR, IER_LINE, IER_MODEM = 1, 2, 4, 8
IIR_NONE, IIR_MODEM, IIR_THR, IIR_RX, IIR_LINE, IIR_TIMEOUT = 0x01, 0x00, 0x02, 0x04, 0x06, 0x0C
FCR_ENABLE, FCR_CLEAR_RX, FCR_CLEAR_TX = 1, 2, 4
MCR_LOOP = 0x10
LSR_DATA, LSR_OVERRUN, LSR_BREAK, LSR_IDLE = 0x01, 0x02, 0x10, 0x60  # idle: THRE and TEMT
LSR_ERRORS = 0x1E
LCR_DLAB = 0x80
# A connected terminal: DCD, DSR and CTS.
_MSR_CONNECTED = 0xB0
# The transmitter is always ready, so whoever reads the line status this many times in a row waits for input.
_POLLS = 16
# Drivers switch interrupts on for a moment to probe the port, and then clear it: input would be lost.
_SETTLED_NS = 1_000_000

_SAVED = (
    "_backlog", "_held", "_divisor", "_ier", "_fcr", "_lcr", "_mcr", "_lsr", "_msr", "_scratch", "_received", "_buffer",
    "_trigger", "_thr_pending", "_timeout_pending", "_settled", "_polls",
)  # fmt: skip

LISTENING = "serial.listening"  # address
WAITING = "serial.waiting"  # address: the machine is built on when a client has come


class Serial(Device):
    """The port; ``machine.private["serial"]``.

    ``output``: all bytes the guest sent (the newest 16 MiB at most); ``on_output``: functions called with each piece
    of output; `feed`: input.  All on the machine's thread.
    """

    name = "serial"

    def __init__(self, irq: IrqLine) -> None:
        self._irq = irq
        self._sent = GuestOutput()
        self.on_typing: list[Callable[[], None]] = []
        self._backlog: deque[int] = deque()
        self._timer = Timer(self._timed_out)
        self._clock = Clock()
        self._source: Source | None = None
        self._asked = False  # the source owes an answer
        self._held = b""  # an answer that came when the guest had turned away
        self._settling = Timer(self._settle)
        self._registers()

    def attach(self, machine: Machine) -> None:
        self._clock = machine.clock
        # A guest that waits for input asks for it again.
        machine.on_restore.append(self._ask)
        sink, self._source = open_ends(machine.config.serial, "serial")
        self._sent.connect(machine.clock, sink)
        machine.bus.claim_ports(BASE, 8, self._read, self._write, self.name)
        machine.private["serial"] = self
        if self._source is not None:
            self._connect(machine, self._source)

    def _connect(self, machine: Machine, source: Source) -> None:
        self._control = machine.control
        submit = machine.control.submit
        source.start(
            Link(
                receive=lambda data: submit(lambda: self._answered(data)),
                end=lambda reason: submit(lambda: machine.end(QUIT, reason)),
            )
        )
        if source.address is not None:
            machine.notify(LISTENING, address=source.address)
            if source.waits:
                machine.notify(WAITING, address=source.address)
                source.wait_for_client()

    def reset(self) -> None:
        self._sent.flush()
        self._clock.cancel(self._timer)
        self._clock.cancel(self._settling)
        self._registers()
        self._update()

    def save(self) -> dict[str, Any]:
        # Whether the source owes an answer is the host's: who goes on from here asks anew.
        return {
            **save_fields(self, _SAVED),
            "sent": self._sent.save(),
            "timer": self._clock.save_timer(self._timer),
            "settling": self._clock.save_timer(self._settling),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        load_fields(self, _SAVED, state)
        self._sent.load(state["sent"])
        self._clock.load_timer(self._timer, state["timer"])
        self._clock.load_timer(self._settling, state["settling"])

    def close(self) -> None:
        self._sent.close()
        if self._source is not None:
            self._source.close()

    @property
    def output(self) -> bytearray:
        """What the guest sent so far."""
        return self._sent.kept

    @property
    def sent(self) -> GuestOutput:
        """The output on its way: for those who want to hear of each piece before it is passed on."""
        return self._sent

    @property
    def on_output(self) -> list[Callable[[bytes], None]]:
        """Listeners for pieces of output: whole lines, or what has gathered after 10 ms of virtual time."""
        return self._sent.listeners

    def flush(self) -> None:
        """Pass an unfinished line on to the sink and the listeners."""
        self._sent.flush()

    def feed(self, data: bytes) -> None:
        """Input to the guest; what does not fit into the FIFO follows as the guest reads."""
        self._backlog.extend(data)
        self._accept()

    @property
    def address(self) -> str | None:
        """Where clients connect, with the port that the system chose; None where nobody can."""
        return None if self._source is None else self._source.address

    def _listening(self) -> bool:
        return self._settled or self._polls >= _POLLS

    def _answered(self, data: bytes) -> None:
        self._asked = False
        if self._listening():
            self.feed(data)
        else:
            self._held = data

    def _ask(self) -> None:
        """Have the source send something, if the guest waits for input and has nothing else to read."""
        if self._source is None or self._received or self._backlog or not self._listening():
            return
        if self._held:
            data, self._held = self._held, b""
            self.feed(data)
        elif not self._asked:
            self._asked = True
            self._control.attended |= self._source.interactive
            if self._source.interactive:
                for listener in self.on_typing:
                    listener()
            self._source.want(_FIFO_SIZE if self._fcr & FCR_ENABLE else 1)

    def _settle(self) -> None:
        self._settled = True
        self._ask()

    # -- registers -------------------------------------------------------------------------------------------------

    def _registers(self) -> None:
        self._divisor = 12
        self._ier = 0
        self._fcr = 0
        self._lcr = 0
        self._mcr = 0x08
        self._lsr = LSR_IDLE
        self._msr = _MSR_CONNECTED
        self._scratch = 0
        self._received: deque[int] = deque()
        self._buffer = 0  # the newest byte that came without the FIFO
        self._trigger = 1
        self._thr_pending = False
        self._timeout_pending = False
        self._settled = False  # the receive interrupt is on, and meant
        self._polls = 0  # reads of the line status in a row, and of data between them

    def _read(self, port: int, size: int) -> int:
        return self._READS[port & 7](self) if size == 1 else read_bytes(self._read_byte, port, size, BASE + 8)

    def _read_byte(self, port: int) -> int:
        return self._READS[port & 7](self)

    def _write(self, port: int, size: int, value: int) -> None:
        if size == 1:
            self._WRITES[port & 7](self, value)
        else:
            write_bytes(self._write_byte, port, size, value, BASE + 8)

    def _write_byte(self, port: int, value: int) -> None:
        self._WRITES[port & 7](self, value)

    def _read_data(self) -> int:
        if self._lcr & LCR_DLAB:
            return self._divisor & 0xFF
        if self._received:
            value = self._received.popleft()
            if not self._received:
                self._lsr &= ~(LSR_DATA | LSR_BREAK)
            self._timeout_pending = False
            self._watch_fifo()
            self._accept()
            self._ask()
            self._update()
            return value
        return 0 if self._fcr & FCR_ENABLE else self._buffer

    def _read_ier(self) -> int:
        return self._divisor >> 8 if self._lcr & LCR_DLAB else self._ier

    def _read_iir(self) -> int:
        cause = self._cause()
        if cause == IIR_THR:
            self._thr_pending = False
            self._update()
        return cause | (0xC0 if self._fcr & FCR_ENABLE else 0)

    def _read_lcr(self) -> int:
        return self._lcr

    def _read_mcr(self) -> int:
        return self._mcr

    def _read_lsr(self) -> int:
        value = self._lsr
        self._polls += 1
        if self._polls == _POLLS:
            self._ask()
        if value & (LSR_BREAK | LSR_OVERRUN):
            self._lsr = value & ~(LSR_BREAK | LSR_OVERRUN)
            self._update()
        return value

    def _read_msr(self) -> int:
        mcr = self._mcr
        if mcr & MCR_LOOP:
            return (mcr & 0x0C) << 4 | (mcr & 2) << 3 | (mcr & 1) << 5
        return self._msr

    def _read_scratch(self) -> int:
        return self._scratch

    def _write_data(self, value: int) -> None:
        if self._lcr & LCR_DLAB:
            self._divisor = self._divisor & 0xFF00 | value
            return
        self._polls = 0
        if self._mcr & MCR_LOOP:
            self._receive(value)
        else:
            self._sent.send(value)
        if not self._thr_pending or self._mcr & MCR_LOOP:
            self._thr_pending = True
            self._update()

    def _write_ier(self, value: int) -> None:
        if self._lcr & LCR_DLAB:
            self._divisor = value << 8 | self._divisor & 0xFF
            return
        changed = (self._ier ^ value) & 0x0F
        self._ier = value & 0x0F
        if changed & IER_THR:
            # The transmitter is empty: enabling its interrupt raises it at once.
            self._thr_pending = bool(value & IER_THR)
        if changed & IER_RX and self._source is not None:
            self._settled = False
            if value & IER_RX:
                self._clock.start(self._settling, self._clock.now + _SETTLED_NS)
            else:
                self._clock.cancel(self._settling)
        if changed:
            self._update()

    def _write_fcr(self, value: int) -> None:
        if (value ^ self._fcr) & FCR_ENABLE:
            value |= FCR_CLEAR_RX | FCR_CLEAR_TX
        if value & FCR_CLEAR_RX:
            self._received.clear()
            self._lsr &= ~(LSR_DATA | LSR_BREAK)
            self._timeout_pending = False
            self._clock.cancel(self._timer)
        if value & FCR_CLEAR_TX:
            self._thr_pending = True
        self._fcr = value & 0xC9
        self._trigger = (1, 4, 8, 14)[value >> 6] if value & FCR_ENABLE else 1
        self._polls = 0
        self._accept()
        self._ask()
        self._update()

    def _write_lcr(self, value: int) -> None:
        self._lcr = value
        self._polls = 0

    def _write_mcr(self, value: int) -> None:
        self._mcr = value & 0x1F
        self._accept()

    def _write_nothing(self, value: int) -> None:
        """LSR and MSR are read-only."""

    def _write_scratch(self, value: int) -> None:
        self._scratch = value

    _READS = (_read_data, _read_ier, _read_iir, _read_lcr, _read_mcr, _read_lsr, _read_msr, _read_scratch)
    _WRITES = (
        _write_data, _write_ier, _write_fcr, _write_lcr, _write_mcr, _write_nothing, _write_nothing, _write_scratch,
    )  # fmt: skip

    # -- receiving -------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        """Let the backlog in as far as there is room."""
        if not self._backlog or self._mcr & MCR_LOOP:
            return
        room = (_FIFO_SIZE if self._fcr & FCR_ENABLE else 1) - len(self._received)
        for _ in range(min(room, len(self._backlog))):
            self._receive(self._backlog.popleft())
        self._update()

    def _receive(self, value: int) -> None:
        if not self._fcr & FCR_ENABLE:
            self._buffer = value
        if len(self._received) >= (_FIFO_SIZE if self._fcr & FCR_ENABLE else 1):
            self._lsr |= LSR_OVERRUN
            if not self._fcr & FCR_ENABLE:
                self._received[0] = value
        else:
            self._received.append(value)
        self._lsr |= LSR_DATA
        self._watch_fifo()

    def _watch_fifo(self) -> None:
        """Bytes below the trigger level raise their interrupt after four character times."""
        if self._received and self._fcr & FCR_ENABLE:
            characters = 4 * 10 * 16 * max(self._divisor, 1) * 10**9 // _BAUD_CLOCK
            self._clock.start(self._timer, self._clock.now + characters)

    def _timed_out(self) -> None:
        if self._received:
            self._timeout_pending = True
            self._update()

    # -- interrupts ------------------------------------------------------------------------------------------------

    def _cause(self) -> int:
        ier = self._ier
        if ier & IER_LINE and self._lsr & LSR_ERRORS:
            return IIR_LINE
        if ier & IER_RX and self._timeout_pending:
            return IIR_TIMEOUT
        if ier & IER_RX and len(self._received) >= self._trigger:
            return IIR_RX
        if ier & IER_THR and self._thr_pending:
            return IIR_THR
        if ier & IER_MODEM and self._msr & 0x0F:
            return IIR_MODEM
        return IIR_NONE

    def _update(self) -> None:
        self._irq(self._cause() != IIR_NONE)
