"""Requests to a machine from other threads.

The engine belongs to the thread that runs the machine.  A server posts a function here; the machine is kicked, runs it
between two instructions (or while it waits), and the result goes back.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")


class Control:
    """A mailbox with one reader, the machine's thread."""

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._closed = False
        # Closing waits for a request on its way in, so none is left unanswered and no freed engine is kicked.
        self._lock = threading.Lock()
        # Somebody (a server, a terminal) may still act on a guest that waits; a plug-in sets it.
        self.attended = False
        # Makes the engine leave its loop at the next block of guest code; the machine sets it.
        self.kick: Callable[[], None] = lambda: None

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Have the machine's thread call ``function``; the future is cancelled when the machine has ended."""
        from concurrent.futures import Future  # brings the standard library's logging, for those who ask for something

        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                future.cancel()
                return future
            self._requests.put((function, future))
            self.kick()
        return future

    @property
    def waiting(self) -> bool:
        """True when a request is in the mailbox."""
        return not self._requests.empty()

    def serve(self, timeout: float = 0.0) -> None:
        """Run every waiting request; with none there, wait up to ``timeout`` seconds for the first."""
        block = timeout > 0
        while True:
            try:
                function, future = self._requests.get(block, timeout if block else None)
            except queue.Empty:
                return
            block = False
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(function())
            except Exception as error:  # it belongs to the one who asked
                future.set_exception(error)
            except BaseException as interrupt:  # it belongs to the machine, and ends the wait of the one who asked
                future.set_exception(interrupt)
                raise

    def close(self) -> None:
        """Refuse further requests and cancel the waiting ones."""
        with self._lock:
            self._closed = True
            while not self._requests.empty():
                self._requests.get()[1].cancel()
