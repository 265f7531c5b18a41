"""The server: a thread of its own with an event loop, one client at a time, as a QEMU monitor has it.

What touches the machine goes through ``machine.control``; results and events come back to the loop in the order in
which the machine made them, so an event precedes the reply to the command that caused it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from sevplug.board.chardev.sockets import Listener
from sevplug.plugins.qmp.event_map import QmpEvent
from sevplug.plugins.qmp.json_stream import JsonStream, Limits
from sevplug.plugins.qmp.registry import Registry
from sevplug.plugins.qmp.session import Session

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

_READ_SIZE = 1 << 16
_LIMITS = Limits()
# Wall seconds that a client gets to take the last replies when the machine has ended.
_GRACE = 2.0
# Wall seconds until a client is accepted again after that failed.
_RETRY = 0.1
# A client that lets this many bytes wait does not read its events; it is dropped.
_UNREAD_LIMIT = 16 << 20


class MachineEnded(Exception):
    """The machine will not answer any more."""


class QmpServer:
    """Serves ``listener``'s clients until `close`.  The public methods belong to the machine's thread."""

    def __init__(self, machine: Machine, listener: Listener, registry: Registry, limits: Limits = _LIMITS) -> None:
        self._machine = machine
        self._listener = listener
        self._registry = registry
        self._limits = limits
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._client_came = threading.Event()
        # The loop's own: nobody else touches them.
        self._stop = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._request: Future[Any] | None = None
        self._session: Session | None = None
        self._writer: asyncio.StreamWriter | None = None

    @property
    def address(self) -> str:
        """Where it listens, as ``--qmp`` takes it, with the port that the system chose."""
        return str(self._listener.address)

    def start(self) -> None:
        """Begin to serve; clients that came before have been waiting in the socket's queue."""
        self._thread = threading.Thread(target=self._run, name="qmp", daemon=True)
        self._thread.start()

    def wait_for_client(self) -> None:
        """Return when the first client has come."""
        self._client_came.wait()

    def send(self, event: QmpEvent) -> None:
        """Send ``event`` to the client, if one has negotiated; it carries the time of this call."""
        line = event.encode(time.time_ns())
        if not self._closed:
            self._loop.call_soon_threadsafe(self._write_event, line)

    def close(self) -> None:
        """Send what is to be sent, hang up and remove the socket; harmless when called again."""
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
        self._loop.close()
        self._listener.close()

    # -- on the loop's thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._loop.run_until_complete(self._main())

    async def _main(self) -> None:
        serving = self._loop.create_task(self._serve())
        await self._stop.wait()
        if self._request is not None:
            self._request.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                await self._idle.wait()
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving

    async def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                connection, _peer = await self._loop.sock_accept(self._listener.socket)
            except OSError:
                # The client left already, or there are too many open files; the latter may pass.
                await asyncio.sleep(_RETRY)
                continue
            self._client_came.set()
            try:
                await self._converse(connection)
            except (OSError, MachineEnded):
                pass
            except Exception as error:
                # A fault of the server's own costs this client its connection and nobody else theirs.
                self._loop.call_exception_handler({"message": "the QMP server failed", "exception": error})

    async def _converse(self, connection: socket.socket) -> None:
        """Serve one client until it or the machine leaves."""
        reader = asyncio.StreamReader(loop=self._loop)
        transport, protocol = await self._loop.connect_accepted_socket(
            lambda: asyncio.StreamReaderProtocol(reader, loop=self._loop), connection
        )
        writer = asyncio.StreamWriter(transport, protocol, reader, self._loop)
        session = Session(self._machine, self._registry, self._on_machine)
        stream = JsonStream(self._limits)
        self._session, self._writer = session, writer
        try:
            writer.write(session.greeting())
            while data := await reader.read(_READ_SIZE):
                for message in stream.feed(data):
                    await self._answer(session, writer, message)
        finally:
            self._session = self._writer = None
            await _hang_up(writer)

    async def _answer(self, session: Session, writer: asyncio.StreamWriter, message: Any) -> None:
        if self._stop.is_set():
            raise MachineEnded
        self._idle.clear()
        try:
            writer.write(await session.answer(message))
            await writer.drain()
        finally:
            self._idle.set()

    async def _on_machine(self, function: Callable[[], Any]) -> Any:
        """Have the machine's thread call ``function``; `MachineEnded` when it never will."""
        done = asyncio.Event()
        request = self._request = self._machine.control.submit(function)
        # Not asyncio.wrap_future: a request that the machine cancels must not look like this task being cancelled.
        request.add_done_callback(functools.partial(self._wake, done))
        try:
            await done.wait()
        finally:
            self._request = None
        if request.cancelled():
            raise MachineEnded
        error = request.exception()
        if error is not None and not isinstance(error, Exception):
            # An interrupt met the machine's thread in the middle of the request: not the server's to pass on.
            raise MachineEnded
        return request.result()

    def _wake(self, done: asyncio.Event, _request: Future[Any]) -> None:
        # The loop may be gone when the machine comes to a request of a client that did not wait for the answer.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(done.set)

    def _write_event(self, line: bytes) -> None:
        if self._session is None or self._writer is None or not self._session.negotiated:
            return
        self._writer.write(line)
        if self._writer.transport.get_write_buffer_size() > _UNREAD_LIMIT:
            self._writer.transport.abort()


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    """Close the connection when everything is sent, or after a while."""
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_GRACE):
            await writer.wait_closed()
        return
    writer.transport.abort()
