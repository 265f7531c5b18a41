"""QMP's server: one client at a time, as a QEMU monitor has it.

An event precedes the reply to the command that caused it, since both come to the loop in the order in which the
machine made them.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from sevplug.board.chardev.sockets import Listener
from sevplug.plugins.client_server import ClientServer
from sevplug.plugins.qmp.event_map import QmpEvent
from sevplug.plugins.qmp.json_stream import JsonStream, Limits
from sevplug.plugins.qmp.registry import Registry
from sevplug.plugins.qmp.session import Session

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

_READ_SIZE = 1 << 16
_LIMITS = Limits()
# A client that lets this many bytes wait does not read its events; it is dropped.
_UNREAD_LIMIT = 16 << 20


class QmpServer(ClientServer):
    """Serves ``listener``'s clients until `close`.  `send` and the rest of its face belong to the machine's thread."""

    def __init__(self, machine: Machine, listener: Listener, registry: Registry, limits: Limits = _LIMITS) -> None:
        super().__init__(machine, listener, "qmp")
        self._registry = registry
        self._limits = limits
        # The loop's own.
        self._session: Session | None = None
        self._writer: asyncio.StreamWriter | None = None

    def send(self, event: QmpEvent) -> None:
        """Send ``event`` to the client, if one has negotiated; it carries the time of this call."""
        self.post(self._write_event, event.encode(time.time_ns()))

    # -- on the loop's thread --------------------------------------------------------------------------------------

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session(self._machine, self._registry, self.on_machine)
        stream = JsonStream(self._limits)
        self._session, self._writer = session, writer
        try:
            writer.write(session.greeting())
            while data := await reader.read(_READ_SIZE):
                for message in stream.feed(data):
                    await self._answer(session, writer, message)
        finally:
            self._session = self._writer = None

    async def _answer(self, session: Session, writer: asyncio.StreamWriter, message: Any) -> None:
        with self.answering():
            writer.write(await session.answer(message))
            await writer.drain()

    def _write_event(self, line: bytes) -> None:
        if self._session is None or self._writer is None or not self._session.negotiated:
            return
        self._writer.write(line)
        if self._writer.transport.get_write_buffer_size() > _UNREAD_LIMIT:
            self._writer.transport.abort()
