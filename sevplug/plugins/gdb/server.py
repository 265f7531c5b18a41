"""The server: bytes of a socket to packets of a session, acknowledgments, and what the session sends by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from sevplug.board.chardev.sockets import Listener
from sevplug.plugins.client_server import ClientServer
from sevplug.plugins.gdb.packets import Mark, Packet, PacketStream, frame
from sevplug.plugins.gdb.session import PACKET_SIZE, Session

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

_READ_SIZE = 1 << 16


class GdbServer(ClientServer):
    """Serves one debugger at a time, and sends others away.

    ``came`` and ``left`` are called on the machine's thread, with a session that stops the guest and one that is over.
    """

    def __init__(
        self, machine: Machine, listener: Listener, came: Callable[[Session], None], left: Callable[[Session], None]
    ) -> None:
        super().__init__(machine, listener, "gdb", refuses=True)
        self._came, self._left = came, left

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = _Line(writer)
        session = Session(self._machine, partial(self.post, line.send))
        stream = PacketStream(PACKET_SIZE)
        try:
            while data := await reader.read(_READ_SIZE):
                for item in stream.feed(data):
                    await self._take(session, line, item)
                await writer.drain()
        finally:
            await self.on_machine(partial(self._left, session))

    async def _take(self, session: Session, line: _Line, item: Packet | Mark) -> None:
        match item:
            case Packet(data):
                line.acknowledge()
                with self.answering():
                    answer = await self.on_machine(partial(self._answer, session, data))
                    if answer is not None:
                        line.send(answer)
                # From the next packet on.
                line.acks = not session.no_ack
            case Mark.TOO_LONG:
                line.acknowledge()
                line.send(session.too_long())
            case Mark.BAD_CHECKSUM:
                line.refuse()
            case Mark.NACK:
                line.again()
            case Mark.INTERRUPT:
                await self.on_machine(session.interrupt)

    def _answer(self, session: Session, data: bytes) -> bytes | None:
        """On the machine's thread."""
        if not session.attached:
            self._came(session)
        return session.answer(data)


class _Line:
    """What is sent, and sent again when the client has not understood it; the loop's own."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._last = b""
        self.acks = True

    def send(self, data: bytes) -> None:
        self._last = frame(data)
        self._writer.write(self._last)

    def again(self) -> None:
        if self.acks:
            self._writer.write(self._last)

    def acknowledge(self) -> None:
        if self.acks:
            self._writer.write(b"+")

    def refuse(self) -> None:
        self._writer.write(b"-")
