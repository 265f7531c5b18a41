"""Standard input typed to the guest: a terminal's keys, or the bytes of a pipe or a file.

Nothing is read, and a terminal keeps its settings, until the guest waits for input.  So a guest that never does takes
nothing from a script's input, and Ctrl-C is Ctrl-C until there is someone else to get it.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time

from sevplug.board.chardev.escape import HELP, EscapeFilter
from sevplug.board.chardev.source import Source
from sevplug.board.chardev.terminal import Terminal, never_stopped

_READ_SIZE = 4096
# Keys of a terminal are read ahead, because one of them may be meant for us.
_AHEAD = 1 << 16
# Seconds after which the thread looks whether it was put into the background, or stopped, and is back.
_LOOK = 0.25
_STOPPED = 0.5
_HINT = "sevplug: what you type goes to the guest; Ctrl-A x ends the run, Ctrl-A h is the help"


class StdinSource(Source):
    """Standard input.

    ``signals``: a terminal's Ctrl-C stays a signal and no key is kept back; otherwise Ctrl-A is the escape.
    """

    def __init__(self, descriptor: int, signals: bool) -> None:
        self._descriptor = descriptor
        self._terminal = Terminal(descriptor, signals) if os.isatty(descriptor) else None
        self._escape = EscapeFilter() if self._terminal is not None and not signals else None
        self.interactive = self._terminal is not None
        super().__init__(0 if self._terminal is None else _AHEAD)

    def close(self) -> None:
        super().close()
        if self._terminal is not None:
            self._terminal.restore()

    # -- on the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        with never_stopped():
            if self._terminal is None:
                self._read_bytes()
            else:
                self._read_keys(self._terminal)

    def _read_bytes(self) -> None:
        while not self._stopping:
            self._hand_on()
            wanted = self._capacity()
            if self._descriptor not in self._wait({self._descriptor: select.POLLIN} if wanted > 0 else {}):
                continue
            try:
                data = os.read(self._descriptor, min(wanted, _READ_SIZE))
            except OSError:
                return
            if not data:
                return
            self._pending += data

    def _read_keys(self, terminal: Terminal) -> None:
        raw = hinted = False
        last = time.monotonic()
        while not self._stopping:
            before, last = last, time.monotonic()
            if last - before > _STOPPED:
                # The process was stopped, and a shell may have used the terminal since.
                raw = False
            self._hand_on()
            if not terminal.foreground:
                raw = False
                self._wait({}, _LOOK)
                continue
            if not raw:
                raw = True
                terminal.make_raw()
                hinted = hinted or self._hint()
            wanted = self._capacity()
            came = self._wait({self._descriptor: select.POLLIN} if wanted > 0 else {}, _LOOK)
            if self._descriptor in came and not self._take(wanted):
                return

    def _take(self, wanted: int) -> bool:
        """Read keys; False when no more will ever come."""
        try:
            keys = os.read(self._descriptor, min(wanted, _READ_SIZE))
        except OSError:
            # From the background the read is refused, which will be seen again; else the terminal has gone.
            return self._terminal is not None and not self._terminal.foreground
        if not keys:
            return False
        self._pending += keys if self._escape is None else self._escape.feed(keys)
        self._act()
        return True

    def _act(self) -> None:
        while self._escape is not None and self._escape.actions:
            if self._escape.actions.pop(0) == "h":
                self._tell(HELP)
            elif self._link is not None:
                self._link.end("ended at the terminal (Ctrl-A x)")

    def _hint(self) -> bool:
        if self._escape is not None:
            self._tell(_HINT + "\n")
        return True

    def _tell(self, text: str) -> None:
        """To the user at the terminal, if messages go to one; not by stderr, where programs may read JSON."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if sys.stderr.isatty():
                with open(os.ttyname(self._descriptor), "w", opener=_without_control) as terminal:
                    terminal.write(text)


def open_stdin(signals: bool) -> StdinSource | None:
    """Standard input as a source; None where the process has none."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        # Python knows it to be closed where the descriptor 0 is another file by now.
        descriptor = sys.stdin.fileno()
        os.fstat(descriptor)
        return StdinSource(descriptor, signals)
    return None


def _without_control(path: str, flags: int) -> int:
    """Open a terminal that does not become the one that controls this process."""
    return os.open(path, os.O_WRONLY | os.O_NOCTTY)
