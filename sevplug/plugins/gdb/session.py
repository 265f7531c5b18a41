"""One debugger's conversation: its packets, and when it is told that the guest has stopped; no sockets here.

Everything is called on the machine's thread.  Source: GDB's manual, appendix "GDB Remote Serial Protocol", sections
Packets, Stop Reply Packets, General Query Packets; QEMU's ``gdbstub``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from sevplug.core.errors import SevplugError
from sevplug.core.result import ORDERLY
from sevplug.plugins.gdb import registers
from sevplug.plugins.gdb.description import target_description
from sevplug.plugins.gdb.monitor import monitor
from sevplug.plugins.gdb.packets import escape, unescape

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

# The longest packet that a client may send or gets, as `qSupported` tells it.
PACKET_SIZE = 0x4000
SIGINT, SIGTRAP = 2, 5
# Errno's, as GDB shows them.
_INVALID, _FAULT = b"E16", b"E0e"
_OK, _UNKNOWN = b"OK", b""
# The kinds of breakpoint there are: software's and hardware's are one thing here.
_KINDS = {b"0": b"swbreak:;", b"1": b"hwbreak:;"}
_FEATURES = b"qXfer:features:read+;QStartNoAckMode+;vContSupported+;swbreak+;hwbreak+"
_THREAD = re.compile(rb"(?:p(?:1|0|-1)\.?)?(?:1|0|-1)?")

_Handler = Callable[["Session", bytes], "bytes | None"]


class Session:
    """What one client has set, and the answer to each of its packets.

    ``send`` sends the data of a packet that is no answer.
    """

    def __init__(self, machine: Machine, send: Callable[[bytes], None]) -> None:
        self._machine = machine
        self._send = send
        # Whether it has stopped the guest and looks at it: from its first packet on, until it detaches.
        self.attached = False
        # Whether the client wants no acknowledgments.
        self.no_ack = False
        # The guest goes on, and the client waits for its stop.
        self._running = False
        self._breakpoints: set[tuple[bytes, int]] = set()
        self._may_run = False

    def answer(self, packet: bytes) -> bytes | None:
        """The answer to ``packet``; None where there is none, or it comes when the guest stops."""
        if not self.attached:
            self._attach()
        for length in (packet.find(b":"), packet.find(b";"), packet.find(b","), len(packet), 1):
            handler = _HANDLERS.get(packet[:length]) if length > 0 else None
            if handler is not None:
                try:
                    return handler(self, packet[length:])
                except ValueError:
                    return _INVALID
                except SevplugError as error:
                    self._running = False
                    return b"E." + escape(str(error).encode())
        return _UNKNOWN

    def too_long(self) -> bytes:
        """The answer to a packet that is longer than `PACKET_SIZE`."""
        return _INVALID

    def interrupt(self) -> None:
        """Ctrl-C."""
        if not self._running:
            return
        if self._machine.debug.cancel_step():
            self._tell_stop(SIGINT)
        else:
            self._machine.pause()

    def stopped(self) -> None:
        """The guest has stopped, whoever had it stopped."""
        if self._running:
            self._tell_stop(*((SIGTRAP, self._breakpoint_here()) if self._machine.status == "debug" else (SIGINT,)))

    def ended(self, result: str, detail: str) -> None:
        """The guest has ended."""
        if self._running:
            self._running = False
            self._send(b"O" + f"sevplug: the guest has ended: {result}, {detail}\n".encode().hex().encode())
            self._send(b"W00" if result in ORDERLY else b"W01")
        self.attached = False

    def leave(self) -> None:
        """The client has gone: the guest goes on, unless nobody ever let it run."""
        if self.attached:
            self._let_go()
            if self._may_run:
                self._machine.resume()

    # -- states ----------------------------------------------------------------------------------------------------

    def _attach(self) -> None:
        self.attached = True
        self._may_run = self._machine.status == "running"
        self._machine.pause()

    def _let_go(self) -> None:
        self.attached = self._running = False
        self._machine.debug.cancel_step()
        for _kind, address in self._breakpoints:
            self._machine.debug.breakpoints.remove(address)
        self._breakpoints.clear()

    def _continue(self) -> None:
        self._running = self._may_run = True
        self._machine.resume()

    def _step(self) -> None:
        # Somebody else may have let it run.
        self._machine.pause()
        self._running = self._may_run = True
        self._machine.debug.step(lambda: self._tell_stop(SIGTRAP))

    def _tell_stop(self, signal: int, why: bytes = b"") -> None:
        self._running = False
        self._send(_stop_reply(signal) + why)

    def _breakpoint_here(self) -> bytes:
        """What says that it is one of the client's breakpoints at which the guest has stopped.

        Where RIP is an offset, GDB would not find its breakpoint there, and take it for one that it has removed.
        """
        here = self._machine.debug.linear_rip
        if here != self._machine.cpu.rip:
            return b""
        return next((text for kind, text in _KINDS.items() if (kind, here) in self._breakpoints), b"")

    # -- packets ---------------------------------------------------------------------------------------------------

    def _why(self, _rest: bytes) -> bytes:
        return _stop_reply(SIGTRAP)

    def _read_registers(self, _rest: bytes) -> bytes:
        return registers.read_all(self._machine).hex().encode()

    def _write_registers(self, rest: bytes) -> bytes:
        return self._set(lambda: registers.write_all(self._machine, _bytes(rest)))

    def _read_register(self, rest: bytes) -> bytes:
        return registers.read_register(self._machine, _register(rest)).hex().encode()

    def _write_register(self, rest: bytes) -> bytes:
        number, _equals, value = rest.partition(b"=")
        return self._set(lambda: registers.write_register(self._machine, _register(number), _bytes(value)))

    def _set(self, action: Callable[[], None]) -> bytes:
        try:
            action()
        except registers.RegisterRefused:
            return _INVALID
        return _OK

    def _read_memory(self, rest: bytes) -> bytes:
        address, size = _place(rest)
        found = self._machine.engine.peek(address, min(size, PACKET_SIZE // 2))
        return found.hex().encode() if found or not size else _FAULT

    def _write_hex(self, rest: bytes) -> bytes:
        where, _colon, data = rest.partition(b":")
        return self._write(where, _bytes(data))

    def _write_binary(self, rest: bytes) -> bytes:
        where, _colon, data = rest.partition(b":")
        return self._write(where, unescape(data))

    def _write(self, where: bytes, data: bytes) -> bytes:
        address, size = _place(where)
        if size != len(data):
            return _INVALID
        return _OK if self._machine.engine.poke(address, data) else _FAULT

    def _insert(self, rest: bytes) -> bytes:
        kind, _comma, where = rest.partition(b",")
        if kind not in _KINDS:
            return _UNKNOWN
        place = kind, _place(where)[0]
        if place not in self._breakpoints:
            self._breakpoints.add(place)
            self._machine.debug.breakpoints.insert(place[1])
        return _OK

    def _remove(self, rest: bytes) -> bytes:
        kind, _comma, where = rest.partition(b",")
        if kind not in _KINDS:
            return _UNKNOWN
        place = kind, _place(where)[0]
        if place in self._breakpoints:
            self._breakpoints.remove(place)
            self._machine.debug.breakpoints.remove(place[1])
        return _OK

    def _resume(self, rest: bytes) -> None:
        """``c`` and ``C``: go on, at an address if there is one; a signal means nothing to a machine."""
        self._go_to(rest)
        self._continue()

    def _resume_step(self, rest: bytes) -> None:
        self._go_to(rest)
        self._step()

    def _resume_with_signal(self, rest: bytes) -> None:
        self._resume(rest.partition(b";")[2])

    def _step_with_signal(self, rest: bytes) -> None:
        self._resume_step(rest.partition(b";")[2])

    def _go_to(self, rest: bytes) -> None:
        if rest:
            self._machine.engine.go_to(_number(rest))

    def _continue_threads(self, rest: bytes) -> bytes | None:
        """``vCont``: the first action that names our one thread, or all, counts."""
        for word in rest[1:].split(b";"):
            action, _colon, thread = word.partition(b":")
            if not _THREAD.fullmatch(thread):
                continue
            if action[:1] in (b"c", b"C"):
                self._continue()
                return None
            if action[:1] in (b"s", b"S"):
                self._step()
                return None
            break
        return _INVALID

    def _detach(self, _rest: bytes) -> bytes:
        self._let_go()
        self._machine.resume()
        return _OK

    def _kill(self, _rest: bytes) -> None:
        self._running = False
        self._machine.quit()

    def _select_thread(self, rest: bytes) -> bytes:
        return _OK if _THREAD.fullmatch(rest[1:]) else _INVALID

    def _thread_lives(self, rest: bytes) -> bytes:
        return _OK if _THREAD.fullmatch(rest) else _INVALID

    def _supported(self, _rest: bytes) -> bytes:
        return b"PacketSize=%x;%s" % (PACKET_SIZE, _FEATURES)

    def _start_no_ack(self, _rest: bytes) -> bytes:
        self.no_ack = True
        return _OK

    def _transfer(self, rest: bytes) -> bytes:
        """``qXfer:features:read:target.xml:OFFSET,SIZE``."""
        words = rest.split(b":")
        if words[1:3] != [b"features", b"read"]:
            return _UNKNOWN
        if len(words) != 5 or words[3] != b"target.xml":
            return b"E00"
        start, size = _place(words[4])
        document = target_description()
        # Escapes make it longer.
        piece = document[start : start + min(size, PACKET_SIZE // 2)]
        return (b"l" if start + len(piece) >= len(document) else b"m") + escape(piece)

    def _command(self, rest: bytes) -> bytes:
        """``qRcmd,HEX``: GDB's ``monitor``."""
        text = monitor(self._machine, _bytes(rest[1:]).decode(errors="replace"))
        return text.encode()[: PACKET_SIZE // 2].hex().encode() or _OK


def _stop_reply(signal: int) -> bytes:
    return b"T%02xthread:01;" % signal


def _place(text: bytes) -> tuple[int, int]:
    """``ADDRESS,SIZE``, both in hex; ValueError for anything else."""
    address, size = text.split(b",")
    return _number(address), _number(size)


def _number(text: bytes) -> int:
    if not re.fullmatch(rb"[0-9a-fA-F]{1,16}", text):
        raise ValueError("no number")
    return int(text, 16)


def _register(text: bytes) -> int:
    number = _number(text)
    if number >= len(registers.REGISTERS):
        raise ValueError("no such register")
    return number


def _bytes(text: bytes) -> bytes:
    return bytes.fromhex(text.decode("ascii"))


def _fixed(answer: bytes) -> _Handler:
    return lambda _session, _rest: answer


_HANDLERS: dict[bytes, _Handler] = {
    b"?": Session._why,
    b"g": Session._read_registers,
    b"G": Session._write_registers,
    b"p": Session._read_register,
    b"P": Session._write_register,
    b"m": Session._read_memory,
    b"M": Session._write_hex,
    b"X": Session._write_binary,
    b"Z": Session._insert,
    b"z": Session._remove,
    b"c": Session._resume,
    b"C": Session._resume_with_signal,
    b"s": Session._resume_step,
    b"S": Session._step_with_signal,
    b"vCont": Session._continue_threads,
    b"vCont?": _fixed(b"vCont;c;C;s;S"),
    b"D": Session._detach,
    b"k": Session._kill,
    b"H": Session._select_thread,
    b"T": Session._thread_lives,
    b"qSupported": Session._supported,
    b"QStartNoAckMode": Session._start_no_ack,
    b"qXfer": Session._transfer,
    b"qRcmd": Session._command,
    b"qC": _fixed(b"QC1"),
    b"qfThreadInfo": _fixed(b"m1"),
    b"qsThreadInfo": _fixed(b"l"),
    b"qThreadExtraInfo": _fixed(b"CPU#0".hex().encode()),
    # GDB leaves a process that it was attached to, and kills one that it started.
    b"qAttached": _fixed(b"1"),
    b"qSymbol": _fixed(_OK),
}
