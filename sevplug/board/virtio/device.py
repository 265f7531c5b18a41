"""What every virtio device has, whatever it does and whatever bus it sits on (VIRTIO 1.2, chapter 2).

Features, status, queues, and what happens when the driver breaks the rules.  What the device does with a request is
its `Backend`'s business; requests are served at once, inside the driver's notification.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from sevplug.board.virtio.queue import Chain, QueueError, VirtQueue
from sevplug.core.memory import GuestMemory
from sevplug.core.snapshot.fields import load_fields, save_fields

ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET, FAILED = 1, 2, 4, 8, 64, 128
F_INDIRECT, F_EVENT_INDEX, F_VERSION_1, F_ACCESS_PLATFORM = 1 << 28, 1 << 29, 1 << 32, 1 << 33
# Without the first the driver is a legacy one.  Without the second it would hand us addresses of private memory, so the
# device refuses to work (section 6.2 allows that, and QEMU does it).
_REQUIRED = F_VERSION_1 | F_ACCESS_PLATFORM
_COMMON = _REQUIRED | F_INDIRECT | F_EVENT_INDEX
# What the driver can set; the bits in between are reserved.
_STATUS_BITS = ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | FAILED


_SAVED = ("status", "accepted", "_told")


class Backend(Protocol):
    """One type of device: what it offers beyond the common, and how it serves a request."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def device_type(self) -> int:
        """The number of section 5."""

    @property
    def features(self) -> int:
        """The bits of its own that it offers, 0..23 and 50..127."""

    @property
    def queue_sizes(self) -> tuple[int, ...]:
        """The largest size of each queue, a power of two."""

    @property
    def config(self) -> bytes:
        """The device configuration space; it cannot be written."""

    def serve(self, memory: GuestMemory, chain: Chain) -> int:
        """Carry out a request; how many bytes of ``chain.writable``, from its start on, hold an answer.

        `QueueError` for a chain that is no request.
        """


class VirtioDevice:
    """The device behind a transport, which sets ``on_queue`` (an index), ``on_config`` and ``on_broken`` (a line)."""

    def __init__(self, backend: Backend, memory: GuestMemory) -> None:
        self.backend = backend
        self.offered = backend.features | _COMMON
        self.queues = [VirtQueue(memory, size) for size in backend.queue_sizes]
        self.on_queue: Callable[[int], None] = lambda _index: None
        self.on_config: Callable[[], None] = lambda: None
        self.on_broken: Callable[[str], None] = lambda _text: None
        self._memory = memory
        self._told = False
        self.reset()

    def reset(self) -> None:
        """The state after power-on, or after the driver wrote 0 to the status."""
        self.status = 0
        self.accepted = 0
        for queue in self.queues:
            queue.reset()

    def save(self) -> dict[str, Any]:
        """The device and its queues, as plain data."""
        return {**save_fields(self, _SAVED), "queues": [queue.save() for queue in self.queues]}

    def load(self, state: Mapping[str, Any]) -> None:
        """Put back what `save` gave."""
        load_fields(self, _SAVED, state)
        for queue, held in zip(self.queues, state["queues"], strict=True):
            queue.load(held)

    def accept(self, mask: int, bits: int) -> None:
        """The driver writes those feature bits that are in ``mask``; too late once they are agreed on."""
        if not self.status & FEATURES_OK:
            self.accepted = self.accepted & ~mask | bits & mask

    def write_status(self, value: int) -> None:
        """The driver's progress; 0 resets.  FEATURES_OK stays off when its choice of features cannot be honoured."""
        if value == 0:
            self.reset()
            return
        value = value & _STATUS_BITS | self.status & NEEDS_RESET
        if value & FEATURES_OK and not self._agreeable():
            value &= ~FEATURES_OK
        started = value & ~self.status & DRIVER_OK
        self.status = value
        for queue in self.queues:
            queue.indirect = bool(self.accepted & F_INDIRECT)
            queue.event_index = bool(self.accepted & F_EVENT_INDEX)
        if started:
            for index in range(len(self.queues)):
                self.notify(index)

    def enable_queue(self, index: int) -> None:
        """The driver has set queue ``index`` up."""
        queue = self.queues[index]
        if queue.enabled:
            return
        try:
            queue.enable()
        except QueueError as error:
            self._break(f"queue {index}: {error}")

    def notify(self, index: int) -> None:
        """The driver says that queue ``index`` has requests; serve them all.  Ignored before DRIVER_OK."""
        if index >= len(self.queues) or not self._live():
            return
        queue = self.queues[index]
        if not queue.enabled:
            return
        wanted = False
        try:
            for chain in queue.available():
                wanted |= queue.put(chain, self.backend.serve(self._memory, chain))
        except QueueError as error:
            self._break(f"queue {index}: {error}")
        if wanted:
            self.on_queue(index)

    def _live(self) -> bool:
        return self.status & (DRIVER_OK | FEATURES_OK | NEEDS_RESET) == DRIVER_OK | FEATURES_OK

    def _agreeable(self) -> bool:
        return not self.accepted & ~self.offered and self.accepted & _REQUIRED == _REQUIRED

    def _break(self, text: str) -> None:
        """Ask for a reset, as section 2.1.2 says: nothing is served until it comes."""
        self.status |= NEEDS_RESET
        if not self._told:
            # Once: a guest can do this in a loop.
            self._told = True
            self.on_broken(f"{self.backend.name}: {text}; the driver has to reset the device")
        if self.status & DRIVER_OK:
            self.on_config()
