"""What a guest sends over a character device: kept, told to listeners, and passed on to a sink, in readable pieces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sevplug.board.chardev.sinks import NullSink, SerialSink
from sevplug.core.clock import Clock, Timer

# A piece is passed on at a newline, when it is this long, or after a while of virtual time.
_PIECE = 1024
_WHILE_NS = 10_000_000
# What is kept of a guest that never stops talking; the oldest goes first.
_KEPT = 16 << 20


class GuestOutput:
    """Bytes on their way out.

    ``kept`` holds all of them up to 16 MiB; the sink gets them in pieces.  ``heralds`` are called before a
    piece goes to the sink, ``listeners`` with it afterwards.
    """

    def __init__(self) -> None:
        self.kept = bytearray()
        self.heralds: list[Callable[[], None]] = []
        self.listeners: list[Callable[[bytes], None]] = []
        self.sink: SerialSink = NullSink()
        self._piece = bytearray()
        self._timer = Timer(self.flush)
        self._clock: Clock | None = None

    def connect(self, clock: Clock, sink: SerialSink) -> None:
        """Take the sink, and the clock that tells when to pass on half a line."""
        self._clock = clock
        self.sink = sink

    def send(self, byte: int) -> None:
        """The guest sends one byte."""
        self.kept.append(byte)
        piece = self._piece
        piece.append(byte)
        if byte == 0x0A or len(piece) >= _PIECE:
            self.flush()
        elif self._timer.deadline is None and self._clock is not None:
            self._clock.start(self._timer, self._clock.now + _WHILE_NS)

    def flush(self) -> None:
        """Pass on what has gathered."""
        if not self._piece:
            return
        data = bytes(self._piece)
        self._piece.clear()
        if len(self.kept) > _KEPT:
            del self.kept[: len(self.kept) - _KEPT // 2]
        for herald in self.heralds:
            herald()
        self.sink.write(data)
        for listener in self.listeners:
            listener(data)

    def save(self) -> dict[str, Any]:
        """What was sent, and what of it was not passed on yet, as plain data."""
        timer = None if self._clock is None else self._clock.save_timer(self._timer)
        return {"kept": bytes(self.kept), "piece": bytes(self._piece), "timer": timer}

    def load(self, state: Mapping[str, Any]) -> None:
        """Put back what `save` gave; what the sink has got stays there."""
        self.kept[:] = state["kept"]
        self._piece[:] = state["piece"]
        if self._clock is not None:
            self._clock.load_timer(self._timer, state["timer"])

    def close(self) -> None:
        """Pass on the rest and let the sink go."""
        self.flush()
        self.sink.close()
