"""Where the bytes of a character device go on the host; one spelling for every option that names such a place."""

from __future__ import annotations

import os
import sys
from typing import BinaryIO, Protocol

from sevplug.core.errors import ConfigError


class SerialSink(Protocol):
    """Takes what the guest sends."""

    def write(self, data: bytes) -> None:
        """Take ``data`` and make it visible to whoever reads the other end."""

    def close(self) -> None:
        """Nothing more will come."""


class NullSink:
    """Drops everything."""

    def write(self, data: bytes) -> None:
        del data

    def close(self) -> None:
        return


class FileSink:
    """A file, pipe or terminal; once its reader has vanished the rest is dropped, the machine goes on."""

    def __init__(self, stream: BinaryIO, *, owned: bool) -> None:
        self._stream: BinaryIO | None = stream
        self._owned = owned

    def write(self, data: bytes) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(data)
            self._stream.flush()
        except (OSError, ValueError) as error:  # ValueError: the stream was closed under us
            self._give_up(broken_pipe=isinstance(error, BrokenPipeError))

    def _give_up(self, *, broken_pipe: bool) -> None:
        stream, self._stream = self._stream, None
        if broken_pipe and stream is not None and not self._owned:
            # What is left in the buffer would fail again when Python flushes it at exit (Python's signal docs).
            try:
                devnull = os.open(os.devnull, os.O_WRONLY)
                os.dup2(devnull, stream.fileno())
                os.close(devnull)
            except (OSError, ValueError):
                return

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None and self._owned:
            stream.close()


def open_sink(spelling: str, what: str) -> SerialSink:
    """The sink that ``spelling`` names: ``stdio``, ``file:PATH`` or ``null``.

    ``what`` names the option in messages.  `ConfigError` when the spelling is another, or the file cannot be written.
    """
    if spelling == "null":
        return NullSink()
    if spelling == "stdio":
        return FileSink(sys.stdout.buffer, owned=False)
    if spelling.startswith("file:") and len(spelling) > len("file:"):
        path = spelling.removeprefix("file:")
        try:
            return FileSink(open(path, "wb", buffering=0), owned=True)
        except OSError as error:
            raise ConfigError(f"{what} {path}: {error.strerror or error}") from None
    raise ConfigError(f"{what} {spelling!r}: expected stdio, file:PATH or null")
