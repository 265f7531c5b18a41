"""Input from the host: a thread that waits for what is typed, and gives the guest no more than it has room for.

The device says when its guest waits for input, and for how many bytes; as much is handed over at most.  So what a guest
does not want is left where it is: in the pipe, for the next program that reads it, or in the terminal.
"""

from __future__ import annotations

import abc
import contextlib
import os
import select
import threading
from collections.abc import Callable, Mapping

import attrs


@attrs.frozen
class Link:
    """What a source may ask of its machine, from any thread.

    ``receive``: here is input.  ``end``: end the run, for a reason of one line.
    """

    receive: Callable[[bytes], object]
    end: Callable[[str], object]


class Source(abc.ABC):
    """Input of a character device.  `start`, `want` and `close` belong to the machine's thread.

    ``ahead``: how many bytes may be read before the guest wants them.  ``waits``: the machine is to call
    `wait_for_client` before it starts.  ``interactive``: somebody is at the other end, who may answer a guest that
    waits.
    """

    waits = False
    interactive = False

    @property
    def address(self) -> str | None:
        """Where clients connect; None where nobody can."""
        return None

    def wait_for_client(self) -> None:
        """Return when the first client has come, at once where clients do not come."""
        return

    def __init__(self, ahead: int) -> None:
        self._ahead = ahead
        self._pending = bytearray()
        self._room = 0
        self._link: Link | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def start(self, link: Link) -> None:
        """Input may come from now on, once it is wanted."""
        self._link = link

    def want(self, room: int) -> None:
        """The guest waits for input and has room for ``room`` bytes; one piece of input follows for each call."""
        if self._stopping:
            return
        self._room = room
        self._begin()
        self._rouse()

    def close(self) -> None:
        """End the thread; harmless when called again."""
        if self._stopping:
            return
        self._stopping = True
        self._rouse()
        if self._thread is not None:
            # Another program may have taken the bytes that were announced to the thread, which then waits for more.
            self._thread.join(1)
        if self._thread is None or not self._thread.is_alive():
            os.close(self._wake)

    def _begin(self) -> None:
        if self._thread is None and not self._stopping:
            self._thread = threading.Thread(target=self._run, name="sevplug-input", daemon=True)
            self._thread.start()

    def _rouse(self) -> None:
        os.eventfd_write(self._wake, 1)

    # -- on the thread ---------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def _run(self) -> None:
        """Read until `_stopping`, a piece for each `want`."""

    def _capacity(self) -> int:
        """How many bytes may be read now."""
        return max(self._room, self._ahead) - len(self._pending)

    def _hand_on(self) -> None:
        """Give the guest what it has room for."""
        room = self._room
        if not room or not self._pending or self._link is None:
            return
        data = bytes(self._pending[:room])
        del self._pending[:room]
        # The answer to this may be the next `want`, so the room is used up before.
        self._room = 0
        self._link.receive(data)

    def _wait(self, descriptors: Mapping[int, int], seconds: float | None = None) -> dict[int, int]:
        """Wait for one of ``descriptors`` (to poll's events), for `_rouse`, or for ``seconds``; what came."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        for descriptor, events in descriptors.items():
            poll.register(descriptor, events)
        came = dict(poll.poll(None if seconds is None else seconds * 1000))
        if came.pop(self._wake, None):
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
        return came
