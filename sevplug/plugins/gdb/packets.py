"""Packets of GDB's remote protocol: what a client sends taken apart, what it is sent put together.  Pure.

Source: GDB's manual, appendix "GDB Remote Serial Protocol", sections Overview, Binary Data, Packet Acknowledgment.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator

import attrs

_BEGIN, _END, _ESCAPE = b"$#}"
_FLIP = 0x20
# What must not stand for itself in data; the asterisk would begin a run.
_SPECIAL = re.compile(rb"[$#}*]")
_CHECKSUM = re.compile(rb"[0-9a-fA-F]{2}")


class Mark(enum.Enum):
    """What comes between packets, or in place of one."""

    ACK = enum.auto()
    NACK = enum.auto()
    INTERRUPT = enum.auto()
    """Ctrl-C: the byte 0x03."""
    BAD_CHECKSUM = enum.auto()
    TOO_LONG = enum.auto()


@attrs.frozen
class Packet:
    """The data of a packet with the right checksum, escapes and all."""

    data: bytes


_MARKS = {ord("+"): Mark.ACK, ord("-"): Mark.NACK, 3: Mark.INTERRUPT}


class PacketStream:
    """Takes bytes in any pieces and gives what they hold; bytes that are nothing are left out.

    ``limit``: the longest data of a packet, in bytes as they are sent.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # What came of a packet behind its $; None between packets.
        self._data: bytearray | None = None
        # What came behind its #.
        self._tail = b""
        self._ended = self._too_long = False

    def feed(self, piece: bytes) -> Iterator[Packet | Mark]:
        """Everything that ends within ``piece``, in order."""
        for byte in piece:
            if self._data is None:
                if byte == _BEGIN:
                    self._begin()
                elif byte in _MARKS:
                    yield _MARKS[byte]
            elif self._ended:
                self._tail += bytes([byte])
                if len(self._tail) == 2:
                    yield self._finish(bytes(self._data))
            elif byte == _BEGIN:
                self._begin()  # the one before was cut off: nothing within a packet looks so
            elif byte == _END:
                self._ended = True
            elif len(self._data) < self._limit:
                self._data.append(byte)
            else:
                self._too_long = True

    def _begin(self) -> None:
        self._data, self._tail = bytearray(), b""
        self._ended = self._too_long = False

    def _finish(self, data: bytes) -> Packet | Mark:
        self._data = None
        if self._too_long:
            return Mark.TOO_LONG
        if not _CHECKSUM.fullmatch(self._tail) or int(self._tail, 16) != sum(data) & 0xFF:
            return Mark.BAD_CHECKSUM
        return Packet(data)


def frame(data: bytes) -> bytes:
    """The packet that holds ``data``, which has no $ and no # (see `escape`)."""
    return b"$%s#%02x" % (data, sum(data) & 0xFF)


def escape(data: bytes) -> bytes:
    """Any bytes as binary data of a packet."""
    return _SPECIAL.sub(lambda found: bytes([_ESCAPE, found[0][0] ^ _FLIP]), data)


def unescape(data: bytes) -> bytes:
    """What `escape` was given; an escape with nothing behind it stands for nothing."""
    plain = bytearray()
    escaped = False
    for byte in data:
        if escaped:
            plain.append(byte ^ _FLIP)
            escaped = False
        elif byte == _ESCAPE:
            escaped = True
        else:
            plain.append(byte)
    return bytes(plain)
