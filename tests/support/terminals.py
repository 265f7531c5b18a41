"""A process on a terminal of its own, and who sits there."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from typing import Any

import attrs

COMMAND = [sys.executable, "-c", "from sevplug.cli import main; main()"]
HINT = b"sevplug: what you type goes to the guest; Ctrl-A x ends the run, Ctrl-A h is the help\r\n"
LFLAG = 3


@attrs.define
class Terminal:
    """A process on a terminal of its own, and who sits there."""

    process: subprocess.Popen[bytes]
    keyboard: int
    settings: list[Any]
    seen: bytes = b""

    def type(self, keys: bytes) -> None:
        os.write(self.keyboard, keys)

    def wait_for(self, pattern: bytes, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.seen):
            left = deadline - time.monotonic()
            assert left > 0, self.seen
            if select.select([self.keyboard], [], [], left)[0]:
                try:
                    self.seen += os.read(self.keyboard, 4096)
                except OSError:
                    assert re.search(pattern, self.seen), self.seen

    @property
    def now(self) -> list[Any]:
        return termios.tcgetattr(self.keyboard)

    @property
    def raw(self) -> bool:
        return not self.now[LFLAG] & (termios.ICANON | termios.ECHO)


@contextlib.contextmanager
def at_a_terminal(*command: str) -> Iterator[Terminal]:
    """Start ``command`` as the leader of a session with a new terminal; it is killed at the end."""
    keyboard, terminal = pty.openpty()
    settings = termios.tcgetattr(terminal)
    process = subprocess.Popen(
        ["setsid", "-c", *command], stdin=terminal, stdout=terminal, stderr=terminal, close_fds=True
    )
    try:
        # The terminal stays open here, so that its settings outlive the process.
        yield Terminal(process, keyboard, settings)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        os.close(terminal)
        os.close(keyboard)
