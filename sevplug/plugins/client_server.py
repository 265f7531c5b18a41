"""A server on a thread of its own with an event loop, one client at a time; what it speaks is its subclass's.

What touches the machine goes through ``machine.control``; what the machine says comes back to the loop in the order in
which it said it.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import functools
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from sevplug.board.chardev.sockets import Listener

if TYPE_CHECKING:
    from sevplug.core.machine import Machine

# Wall seconds that a client gets to take the last answers when the machine has ended.
_GRACE = 2.0
# Wall seconds until a client is accepted again after that failed.
_RETRY = 0.1


class MachineEnded(Exception):
    """The machine will not answer any more."""


class ClientServer(abc.ABC):
    """Serves ``listener``'s clients until `close`.  The public methods belong to the machine's thread.

    ``name`` names the thread.  ``refuses``: a client that comes while another is there is sent away, and does not wait.
    """

    def __init__(self, machine: Machine, listener: Listener, name: str, *, refuses: bool = False) -> None:
        self._machine = machine
        self._listener = listener
        self._name = name
        self._refuses = refuses
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._client_came = threading.Event()
        # The loop's own: nobody else touches them.
        self._stop = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._request: Future[Any] | None = None

    @property
    def address(self) -> str:
        """Where it listens, as the option takes it, with the port that the system chose."""
        return str(self._listener.address)

    def start(self) -> None:
        """Begin to serve; clients that came before have been waiting in the socket's queue."""
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def wait_for_client(self) -> None:
        """Return when the first client has come."""
        self._client_came.wait()

    def post(self, function: Callable[..., object], *arguments: object) -> None:
        """Have the loop call ``function``, unless it is over."""
        if not self._closed:
            self._loop.call_soon_threadsafe(function, *arguments)

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

    @abc.abstractmethod
    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until it leaves; `MachineEnded` and OSError end it too."""

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """The end waits for this block, for a while; `MachineEnded` once it has come."""
        if self._stop.is_set():
            raise MachineEnded
        self._idle.clear()
        try:
            yield
        finally:
            self._idle.set()

    async def on_machine(self, function: Callable[[], Any]) -> Any:
        """Have the machine's thread call ``function``; `MachineEnded` when it never will."""
        if self._stop.is_set():
            raise MachineEnded
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
        """Accept clients, and serve or refuse each."""
        serving: asyncio.Task[None] | None = None
        try:
            while not self._stop.is_set():
                try:
                    connection, _peer = await self._loop.sock_accept(self._listener.socket)
                except OSError:
                    # The client left already, or there are too many open files; the latter may pass.
                    await asyncio.sleep(_RETRY)
                    continue
                self._client_came.set()
                if serving is not None and not serving.done():
                    connection.close()
                    continue
                serving = self._loop.create_task(self._client(connection))
                if not self._refuses:
                    await serving
        finally:
            if serving is not None and not serving.done():
                serving.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await serving

    async def _client(self, connection: socket.socket) -> None:
        try:
            reader = asyncio.StreamReader(loop=self._loop)
            transport, protocol = await self._loop.connect_accepted_socket(
                lambda: asyncio.StreamReaderProtocol(reader, loop=self._loop), connection
            )
            writer = asyncio.StreamWriter(transport, protocol, reader, self._loop)
            try:
                await self.converse(reader, writer)
            finally:
                await _hang_up(writer)
        except (OSError, MachineEnded):
            pass
        except Exception as error:
            # A fault of the server's own costs this client its connection and nobody else theirs.
            self._loop.call_exception_handler({"message": f"the {self._name} server failed", "exception": error})


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    """Close the connection when everything is sent, or after a while."""
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_GRACE):
            await writer.wait_closed()
        return
    writer.transport.abort()
