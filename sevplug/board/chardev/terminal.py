"""A terminal that gives up its lines and echo for a while, and is put back whatever happens."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import termios
from collections.abc import Iterator
from typing import Any

_IFLAG, _LFLAG, _CFLAG, _CC = 0, 3, 2, 6
_JOB_CONTROL = frozenset({signal.SIGTTIN, signal.SIGTTOU})


@contextlib.contextmanager
def never_stopped() -> Iterator[None]:
    """Within the block, this thread's use of a terminal from the background fails in place of stopping the process.

    A thread that blocks the two signals gets EIO for a read, and may change the settings (Linux,
    ``drivers/tty/tty_jobctrl.c``).
    """
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, _JOB_CONTROL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


class Terminal:
    """The terminal at ``descriptor``; ``signals``: Ctrl-C, Ctrl-Z and Ctrl-\\ stay signals in place of keys."""

    def __init__(self, descriptor: int, signals: bool) -> None:
        self._descriptor = descriptor
        self._signals = signals
        self._saved: list[Any] | None = None

    @property
    def foreground(self) -> bool:
        """Whether what is typed is meant for this process, and not for another one of its terminal."""
        try:
            return os.tcgetpgrp(self._descriptor) == os.getpgrp()
        except OSError:
            # Not the controlling terminal of this process: there is no background then.
            return True

    def make_raw(self) -> None:
        """Each key comes at once, as it was typed, and is not shown.

        Output keeps being processed, as in QEMU's ``chardev/char-stdio.c``: messages of this program are on the same
        terminal.  Keys that were typed before are kept.
        """
        with contextlib.suppress(termios.error), never_stopped():
            wanted = termios.tcgetattr(self._descriptor)
            if self._saved is None:
                self._saved = termios.tcgetattr(self._descriptor)
                atexit.register(self.restore)
            wanted[_IFLAG] &= ~(
                termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
                | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
            )  # fmt: skip
            wanted[_CFLAG] = wanted[_CFLAG] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
            wanted[_LFLAG] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN)
            if not self._signals:
                wanted[_LFLAG] &= ~termios.ISIG
            wanted[_CC][termios.VMIN] = 1
            wanted[_CC][termios.VTIME] = 0
            termios.tcsetattr(self._descriptor, termios.TCSANOW, wanted)

    def restore(self) -> None:
        """The settings from before; harmless when there are none.

        A process in the background leaves them alone: its shell has put them back, and another one may use them.
        """
        saved, self._saved = self._saved, None
        if saved is None:
            return
        atexit.unregister(self.restore)
        if self.foreground:
            with contextlib.suppress(termios.error), never_stopped():
                termios.tcsetattr(self._descriptor, termios.TCSANOW, saved)
