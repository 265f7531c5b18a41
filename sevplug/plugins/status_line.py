"""One line at the bottom of a terminal that makes room for everybody else's output."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import TextIO

_WIPE = "\r\x1b[K"


class StatusLine:
    """The line on ``stream``, a terminal.  Any thread may call.

    While somebody holds it, it is not there: whoever writes to the terminal holds it before and lets it go afterwards.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._shown = False
        self._holders = 0
        self._closed = False

    def hold(self) -> None:
        """Take the line away, until `release`; may be called again within."""
        with self._lock:
            self._holders += 1
            self._wipe()

    def release(self) -> None:
        """The terminal is free again."""
        with self._lock:
            self._holders -= 1

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the line within the block."""
        self.hold()
        try:
            yield
        finally:
            self.release()

    def show(self, text: str) -> None:
        """Show ``text``, as much as fits, unless somebody holds the line or another job has the terminal."""
        with self._lock:
            if self._holders or self._closed or not self._foreground():
                return
            self._write(_WIPE + text[: self._columns() - 1])
            self._shown = True

    def hide(self) -> None:
        """Take the line away."""
        with self._lock:
            self._wipe()

    def close(self) -> None:
        """Take the line away for good."""
        with self._lock:
            self._wipe()
            self._closed = True

    def _wipe(self) -> None:
        if self._shown:
            self._shown = False
            self._write(_WIPE)

    def _write(self, text: str) -> None:
        # A terminal that has gone away is no reason to end a guest.
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except (OSError, ValueError):
            return 80

    def _foreground(self) -> bool:
        try:
            return os.tcgetpgrp(self._stream.fileno()) == os.getpgrp()
        except (OSError, ValueError):
            # Not the controlling terminal of this process: there is no background then.
            return True
