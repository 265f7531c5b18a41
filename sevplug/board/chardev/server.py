"""A socket as the other end of a character device: clients come and go, one at a time, as with QEMU's ``server=on``.

Source: QEMU's ``chardev/char-socket.c``.  A client that ends its sending is gone.  What the guest says while nobody is
there is dropped.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from typing import Final

from sevplug.board.chardev.address import ServerOption
from sevplug.board.chardev.sockets import Listener
from sevplug.board.chardev.source import Link, Source

_READ_SIZE = 1 << 16
# What is read before the guest wants it: enough to see that a client has gone.
_AHEAD = 1 << 16
# A client that does not read loses what is above this.
_UNSENT: Final = 1 << 20
# Seconds that a client gets to take the last output, and until a failed accept is tried again.
_GRACE = 1.0
_RETRY = 0.1


class SocketServer(Source):
    """Both directions of a port: a source of input that takes output too."""

    interactive = True

    def __init__(self, option: str, wanted: ServerOption) -> None:
        """Listen at ``wanted``; `ConfigError` of one line, with the name of the ``option``, when that cannot be."""
        self._listener = Listener(option, wanted.address)
        super().__init__(_AHEAD)
        self.waits = wanted.wait
        self._client: socket.socket | None = None
        self._unsent = bytearray()
        # Guards the client and what is to be sent to it; the rest of the state is the thread's.
        self._lock = threading.Lock()
        self._came = threading.Event()

    @property
    def address(self) -> str:
        return str(self._listener.address)

    def start(self, link: Link) -> None:
        super().start(link)
        self._begin()

    def wait_for_client(self) -> None:
        self._came.wait()

    def write(self, data: bytes) -> None:
        """Send ``data`` to the client, if there is one."""
        with self._lock:
            if self._client is None:
                return
            self._unsent += data[: max(0, _UNSENT - len(self._unsent))]
            self._send()
            left = bool(self._unsent)
        if left:
            self._rouse()

    def close(self) -> None:
        if self._stopping:
            return
        deadline = time.monotonic() + _GRACE
        while self._unsent and self._client is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        super().close()
        self._hang_up()
        self._listener.close()

    def _send(self) -> None:
        """Send as much as the socket takes; with the lock held."""
        if self._client is None:
            return
        try:
            while self._unsent:
                del self._unsent[: self._client.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError:
            # The client has gone, which the thread sees for itself.
            self._unsent.clear()

    def _hang_up(self) -> None:
        with self._lock:
            client, self._client = self._client, None
            self._unsent.clear()
        if client is None:
            return
        with contextlib.suppress(OSError):
            # With input unread, closing would throw away output that the client has not read yet.
            while client.recv(_READ_SIZE):
                pass
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
        client.close()

    # -- on the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            self._hand_on()
            if self._client is None:
                self._accept()
            else:
                self._serve(self._client)

    def _accept(self) -> None:
        if self._listener.socket.fileno() not in self._wait({self._listener.socket.fileno(): select.POLLIN}):
            return
        try:
            client, _peer = self._listener.socket.accept()
        except OSError:
            # The client left already, or there are too many open files; the latter may pass.
            self._wait({}, _RETRY)
            return
        client.setblocking(False)
        with self._lock:
            self._client = client
        self._came.set()

    def _serve(self, client: socket.socket) -> None:
        """One event of the client."""
        wanted = self._capacity()
        events = (select.POLLIN if wanted > 0 else 0) | (select.POLLOUT if self._unsent else 0)
        came = self._wait({client.fileno(): events}).get(client.fileno(), 0)
        if came & select.POLLOUT:
            with self._lock:
                self._send()
        if came & ~select.POLLOUT and not self._receive(client, wanted, bool(came & (select.POLLHUP | select.POLLERR))):
            self._hang_up()

    def _receive(self, client: socket.socket, wanted: int, gone: bool) -> bool:
        """Read once, or all that is left of a client that is ``gone``; False: it has said all."""
        try:
            while data := client.recv(_READ_SIZE if gone else min(wanted, _READ_SIZE)):
                self._pending += data
                if not gone:
                    return True
        except BlockingIOError:
            return not gone
        except OSError:
            return False
        return False
